//! A policy in words, for a person: one line for each rule, in the order that rules apply. The log has
//! [`Described`](super::compiled::Described) instead, which is made to be searched.

use std::fmt;

use super::Matching;
use super::compiled::{Host, Limit, Policy, Rule, listed};
use super::condition::Condition;
use super::ids::Scope;
use crate::policy::rollout::Mode;
use crate::quota::limit::Algorithm;
use crate::quota::period::Period;

/// From the longest; a window is told in the first that divides it.
const UNITS: [(u64, &str, &str); 4] = [
    (86_400, "day", "days"),
    (3600, "h", "h"),
    (60, "min", "min"),
    (1, "s", "s"),
];

/// Whoever is not listed.
const DEFAULT: &str = "default";

/// What [`Policy::table`] gives.
#[derive(Debug)]
pub struct Table<'a>(pub(super) &'a Policy);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.0;
        let rules = policy.rules.iter().chain(&policy.off);
        let rows: Vec<[String; 3]> = rules
            .map(|rule| [rule.name.clone(), requests(rule), limits(rule, policy)])
            .collect();
        let width = |column: fn(&[String; 3]) -> &String| {
            let widths = rows.iter().map(|row| column(row).chars().count());
            widths.max().unwrap_or(0)
        };
        let (names, patterns) = (width(|[name, ..]| name), width(|[_, pattern, _]| pattern));
        for [name, pattern, limits] in &rows {
            writeln!(f, "  {name:names$}  {pattern:patterns$}  {limits}")?;
        }
        for experiment in &policy.experiments {
            writeln!(f, "  {experiment}")?;
        }
        Ok(())
    }
}

/// Which requests a rule is for.
fn requests(rule: &Rule) -> String {
    let methods = rule.methods.iter().map(|methods| methods.join(","));
    let hosts = rule.hosts.iter().map(|hosts| {
        let names: Vec<String> = hosts.iter().map(Host::to_string).collect();
        names.join(",")
    });
    let patterns = listed(rule.patterns());
    let patterns = match rule.matching {
        Matching::Loose => patterns,
        Matching::Exact => format!("{patterns} (exact)"),
    };
    let except = rule.except.is_some();
    let except = except.then(|| format!("except {}", listed(rule.except())));
    let conditions: Vec<String> = rule.when.iter().map(Condition::to_string).collect();
    let when = (!conditions.is_empty()).then(|| format!("when {}", conditions.join(" and ")));
    let parts = methods.chain(hosts).chain([patterns]);
    let parts = parts.chain(except).chain(when);
    let parts: Vec<String> = parts.collect();
    parts.join(" ")
}

fn limits(rule: &Rule, policy: &Policy) -> String {
    let own = || policy.limits_of(rule);
    let is_of_tiers = |limit: &Limit| limit.scope == Scope::User && limit.label != DEFAULT;
    let other = match own().any(is_of_tiers) {
        true => "any other tier",
        false => "any tier",
    };
    let told: Vec<String> = own().map(|limit| one(limit, other)).collect();
    let told = match told.is_empty() {
        true => "no limits".to_string(),
        false => told.join(" · "),
    };
    let cost = rule.cost_rule.to_string();
    let cost = match cost.is_empty() {
        true => cost,
        false => format!(";{cost}"),
    };
    let mode = match rule.mode {
        Mode::Enforce => String::new(),
        Mode::Partly(percent) => format!("enforced for {} %: ", percent.get()),
        Mode::Shadow => "shadow: ".to_string(),
        Mode::Off => "off: ".to_string(),
    };
    let answers = policy.response(rule.name());
    let answers = answers.map_or_else(String::new, |own| format!("; answers {}", own.status));
    format!("{mode}{told}{cost}{answers}")
}

/// `free 10/h token bucket, burst 5`; `other` is whoever has no tier that is listed.
fn one(limit: &Limit, other: &str) -> String {
    let variant = limit
        .variant
        .as_ref()
        .map_or_else(String::new, |variant| format!("variant {variant} "));
    let label = match (limit.scope, limit.label.as_str()) {
        (Scope::Global, _) => "everyone",
        (Scope::User, DEFAULT) => other,
        (Scope::Ip, DEFAULT) => "an address",
        (Scope::User | Scope::Ip | Scope::Key, label) => label,
    };
    let quota = limit.terms.quota;
    let algorithm = quota.algorithm();
    let burst = match algorithm {
        Algorithm::TokenBucket => format!(", burst {}", quota.capacity()),
        _ => String::new(),
    };
    format!(
        "{variant}{label} {}/{} {}{burst}{}",
        quota.limit(),
        window(quota.period()),
        algorithm.name().replace('_', " "),
        limit.soft_limit,
    )
}

fn window(period: Period) -> String {
    let Period::Fixed(window) = period else {
        return period.to_string();
    };
    let seconds = window.as_seconds();
    let unit = UNITS
        .into_iter()
        .find(|(unit, ..)| seconds.is_multiple_of(*unit));
    let Some((unit, one, many)) = unit else {
        return format!("{seconds}s");
    };
    match seconds / unit {
        1 => one.to_string(),
        count => format!("{count}{many}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::codec::json::{At, Json};
    use crate::policy::Policy;

    fn table(policy: &str) -> String {
        let json = Json::parse(policy, "policy").unwrap();
        let policy = Policy::try_new(&At::new(&json, "policy")).unwrap();
        policy.table().to_string()
    }

    #[test]
    fn the_shipped_policy_reads_in_order_of_priority() {
        let told = table(include_str!("../../../envoy/policy.json"));
        let names: Vec<&str> = told
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(
            names,
            ["auth_api", "upload_api", "search_api", "general_api"]
        );
        let auth = "any tier 5/5min fixed window · an address 20/h sliding window";
        assert!(told.lines().next().unwrap().ends_with(auth), "{told}");
    }

    #[test]
    fn conditions_are_told_in_words() {
        let told = table(
            r#"{"rules": [{"name": "a", "pattern": "/f", "respond": {"status": 503}, "when": [
                {"header": "X-Plan", "in": ["free", "trial"]}, {"part": "tier", "not": "vip"},
                {"claim": ["jwt", "org"], "present": false}, {"header": "user-agent", "prefix": "curl/"}]}]}"#,
        );
        let expected = "  a  /f when header x-plan is free|trial and tier is not vip and claim jwt.org is not there \
                        and header user-agent is curl/*  no limits; answers 503\n";
        assert_eq!(told, expected);
    }

    /// A rule that is in shadow mode, or for some requests only, must not look like any other.
    #[test]
    fn whatever_narrows_a_rule_is_told() {
        let told = table(
            r#"{"rules": [
                {"name": "a", "pattern": "/a", "methods": ["GET", "PUT"], "hosts": ["*.example.com"],
                 "mode": "shadow", "cost": 2, "global_limit":
                    {"type": "token_bucket", "limit": 10, "window": 86400, "burst_limit": 5}},
                {"name": "bc", "pattern": "/b/*", "match": "exact", "enforce_percent": 10, "user_limits": {"default":
                    [{"type": "fixed_window", "limit": 1, "window": 1},
                     {"type": "leaky_bucket", "limit": 9, "window": 7200, "warn_at": 0.5}]}},
                {"name": "off", "pattern": "/c", "mode": "off", "ip_limits": {"10.0.0.0/8":
                    {"type": "fixed_window", "limit": 7, "window": 604800}}, "user_limits": {
                    "free": {"type": "fixed_window", "limit": 1, "window": 90},
                    "default": {"type": "fixed_window", "limit": 2, "window": 3600}}},
                {"name": "none", "patterns": ["/d", "/e/*"], "except": ["/e/f"]}
            ]}"#,
        );
        let expected = "  \
  a     GET,PUT,HEAD *.example.com /a  shadow: everyone 10/day token bucket, burst 5; cost 2
  bc    /b/* (exact)                   enforced for 10 %: any tier 1/s fixed window · any tier \
9/2h leaky bucket warn at 0.5
  none  /d,/e/* except /e/f            no limits
  off   /c                             off: free 1/90s fixed window · any other tier 2/h fixed window · \
10.0.0.0/8 7/7days fixed window
";
        assert_eq!(told, expected);
    }
}
