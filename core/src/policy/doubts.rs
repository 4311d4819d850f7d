//! What is legal in a policy and probably not meant. Each doubt is one sentence that names the rule and says
//! how to mend it. It changes nothing: who reads the warnings decides.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::Matching;
use super::assigned_tiers::AssignedTiers;
use super::compile::keyed::holds_everybody;
use super::compiled::{ByRule, Limit, Rule, RuleLimits, Status};
use super::document::Enforcement;
use super::ids::Scope;
use super::pattern::{Exceptions, Index, LONGEST_PATH};
use crate::policy::condition::Condition;
use crate::policy::cost_rule::CostRule;
use crate::policy::key_part::Part;
use crate::policy::lists::Exemptions;
use crate::policy::rollout::Mode;
use crate::quota::limit::Algorithm;
use crate::request::identity;

/// An exact log costs about 30 bytes of Redis a permit: above this, 300 KB for each caller.
const LARGE_LOG: u64 = 10_000;
/// Each costs up to 12 µs of the longest path there is, so together most of a millisecond.
const MANY_GONE_THROUGH: usize = 64;
/// So many limits of a rule are compared, each with each: workers read a policy while requests wait.
const MOST_COMPARED: usize = 128;

/// What doubts are about: a policy as it is read.
pub(super) struct Whole<'a> {
    pub rules: &'a [Rule],
    pub off: &'a [Rule],
    pub limits: &'a [Limit],
    pub by_rule: &'a ByRule,
    pub patterns: &'a Index,
    pub exemptions: &'a Exemptions,
    pub assigned_tiers: &'a AssignedTiers,
    pub enforcement: Enforcement,
    pub status: &'a Status,
}

pub(super) fn of(whole: &Whole<'_>) -> Vec<String> {
    let Whole { rules, limits, .. } = *whole;
    let mut doubts: Vec<String> = no_rules(whole).into_iter().collect();
    doubts.extend(all_on_trial(whole.enforcement));
    let tiers = Tiers::of(rules, limits);
    for rule in rules {
        let ids = whole.by_rule.get(&rule.name).into_iter().flatten();
        let own: Vec<&Limit> = ids.filter_map(|id| limits.get(id.index())).collect();
        let compared = own.get(..MOST_COMPARED).unwrap_or(&own);
        doubts.extend(no_limits(rule, &own));
        doubts.extend(no_default(rule));
        doubts.extend(few_callers(rule));
        doubts.extend(partial_count(rule));
        doubts.extend(letters_left_out(rule));
        doubts.extend(exceptions(rule));
        doubts.extend(left_at_will(rule, rules));
        doubts.extend(skipped(rule, limits));
        doubts.extend(paths_that_share(rule, &own));
        doubts.extend(out_of_reach(rule, &own));
        doubts.extend(free_to_leave(rule));
        doubts.extend(dear_to_leave(rule, &own));
        doubts.extend(below_a_tier(rule, compared));
        doubts.extend(never_bind(rule, compared));
    }
    doubts.extend(unnamed_equals(limits));
    doubts.extend(limits.iter().filter_map(large_log));
    doubts.extend(tiers.doubts(whole));
    doubts.extend(whole.exemptions.doubts());
    doubts.extend(whole.assigned_tiers.doubts());
    doubts.extend(tiers.unnamed(whole));
    doubts.extend(operators(whole.status));
    doubts.extend(costly_patterns(whole.patterns));
    doubts
}

fn no_rules(whole: &Whole<'_>) -> Option<String> {
    match (whole.rules, whole.off) {
        ([], []) => Some("the policy has no rules, so no request meets a limit; add one".into()),
        ([], _) => Some("every rule is off, so no request meets a limit; switch one on".into()),
        _ => None,
    }
}

fn all_on_trial(enforcement: Enforcement) -> Option<String> {
    (enforcement == Enforcement::Shadow).then(|| {
        "mode: it is \"shadow\", so every rule is on trial and refuses nobody; take it out once that is over"
            .into()
    })
}

fn no_limits(rule: &Rule, own: &[&Limit]) -> Option<String> {
    own.is_empty().then(|| {
        format!(
            "rule {}: it has no limits, so it does nothing; add \"global_limit\", \"user_limits\", \
             \"ip_limits\" or \"limits\", or take it out",
            rule.name
        )
    })
}

/// A tier that is spelt otherwise, or is new, has no limit then.
fn no_default(rule: &Rule) -> Option<String> {
    let user = &rule.limits.user;
    let listed: Vec<&str> = user.by_tier.iter().map(|(tier, _)| tier.as_str()).collect();
    (user.default.is_none() && !listed.is_empty()).then(|| {
        format!(
            "rule {}: callers of other tiers than {} have no limit of their own; add \"default\" to \
             \"user_limits\"",
            rule.name,
            listed.join(", ")
        )
    })
}

fn few_callers(rule: &Rule) -> Option<String> {
    let Mode::Partly(percent) = rule.mode else {
        return None;
    };
    let percent = percent.get();
    (percent > 0.0 && percent < 1.0).then(|| {
        format!(
            "rule {}: enforce_percent {percent} is {percent} in a hundred callers; write {} if that share \
             of all is meant",
            rule.name,
            percent * 100.0
        )
    })
}

/// A key has the loose reading of a path.
fn paths_that_share(rule: &Rule, own: &[&Limit]) -> Option<String> {
    let counts_by_path = |limit: &&Limit| {
        let keyed = limit.keyed.as_ref();
        keyed.is_some_and(|keyed| {
            let mut parts = keyed.parts.iter();
            parts.any(|part| matches!(part, Part::Path | Part::Capture(_)))
        })
    };
    (rule.matching == Matching::Loose && own.iter().any(counts_by_path)).then(|| {
        format!(
            "rule {}: its paths /aBc, /abc and /abc;1 share a count; where case tells ids apart, add \
             \"match\": \"exact\"",
            rule.name
        )
    })
}

/// Paths are compared in lower case, and what is not a small letter need not have been one.
fn letters_left_out(rule: &Rule) -> impl Iterator<Item = String> {
    let patterns = rule
        .patterns
        .iter()
        .filter(|pattern| rule.matching == Matching::Loose && pattern.excludes_letters());
    patterns.map(|pattern| {
        format!(
            "rule {}: {:?} leaves letters out, and a loose rule takes capitals for small letters, so it may \
             hold for more than is meant; add \"match\": \"exact\"",
            rule.name,
            pattern.as_str()
        )
    })
}

/// Exceptions that leave out nothing, or everything.
fn exceptions(rule: &Rule) -> impl Iterator<Item = String> {
    let except = rule.except.iter().flat_map(Exceptions::patterns);
    except.filter_map(|exception| {
        let mut patterns = rule.patterns.iter();
        let text = exception.as_str();
        if text == "*" || rule.patterns().all(|pattern| pattern == text) {
            return Some(format!(
                "rule {}: {text:?} in \"except\" leaves out all that the rule is for, so it does nothing; take \
                 one of them out",
                rule.name
            ));
        }
        let is_apart = patterns.all(|pattern| pattern.begins_apart_from(exception));
        is_apart.then(|| {
            format!(
                "rule {}: {text:?} in \"except\" leaves out nothing, since the rule is for other paths; take it \
                 out",
                rule.name
            )
        })
    })
}

/// A rule that holds for what a client sends does not hold for a client that sends something else. It may
/// have a rule for the others beside it.
fn left_at_will(rule: &Rule, rules: &[Rule]) -> Option<String> {
    let at_will = |rule: &Rule| rule.when.iter().any(Condition::is_clients_choice);
    let condition = rule.when.iter().find(|own| own.is_clients_choice())?;
    let is_caught = rules.iter().any(|other| {
        !at_will(other)
            && rule
                .patterns()
                .all(|own| other.patterns().any(|it| it == own))
    });
    (!is_caught && rule.mode == Mode::Enforce).then(|| {
        format!(
            "rule {}: a client can leave it by what it sends, since it holds only when {condition}; add a rule for \
             the same patterns without such a condition",
            rule.name
        )
    })
}

/// Limits by what a request may lack hold for none that lacks it.
fn skipped(rule: &Rule, limits: &[Limit]) -> Option<String> {
    let RuleLimits {
        global,
        user,
        ip,
        keyed,
    } = &rule.limits;
    let has_others = !global.is_empty()
        || user.default.is_some()
        || !user.by_tier.is_empty()
        || !ip.default.is_empty()
        || !ip.by_network.is_empty();
    let mut own = keyed.iter().filter_map(|id| limits.get(id.index()));
    if has_others || own.clone().any(holds_everybody) {
        return None;
    }
    let first = own.next()?;
    Some(format!(
        "rule {}: a request that lacks a part of the key ({}) meets no limit of it; add \"missing\": \"share\" or \
         \"refuse\", or a limit that holds for everybody",
        rule.name, first.label
    ))
}

/// An address is shared: an office's callers use its limit up together, and none reaches their own.
fn below_a_tier(rule: &Rule, own: &[&Limit]) -> Vec<String> {
    let of = |scope| {
        let limits = own.iter().filter(move |limit| limit.scope == scope);
        limits.filter(|limit| limit.variant.is_none())
    };
    let below = of(Scope::Ip).filter_map(|address| {
        let (lower, upper) = (address.terms.quota, of(Scope::User));
        let tiers = upper.filter(|user| lower.comes_before(user.terms.quota));
        let tiers: Vec<String> = tiers.map(|user| format!("{} ({})", user.label, Size(user))).collect();
        (!tiers.is_empty()).then(|| {
            format!(
                "rule {}: callers of {} never reach their limit, since that of their address ({}, for {}) \
                 comes first, and all behind one address share it; raise it, or limit strangers by \
                 \"anonymous\" in \"user_limits\" instead",
                rule.name,
                tiers.join(", "),
                Size(address),
                address.label
            )
        })
    });
    below.collect()
}

/// Limits that another one of the same requests always reaches first.
fn never_bind(rule: &Rule, own: &[&Limit]) -> Vec<String> {
    let mut doubts = Vec::new();
    for (place, limit) in own.iter().enumerate() {
        let first = own.iter().enumerate().find(|(other_place, other)| {
            let is_everybodys = other.scope == Scope::Global && limit.scope != Scope::Global;
            let is_beside = other.scope == limit.scope
                && other.label == limit.label
                && holds_wherever(other, limit);
            let is_other = *other_place != place && other.variant == limit.variant;
            // Of equals the second is too much.
            let is_equal = limit.terms.quota.comes_before(other.terms.quota);
            is_other
                && (is_everybodys || is_beside && (!is_equal || *other_place < place))
                && other.terms.quota.comes_before(limit.terms.quota)
        });
        if let Some((_, first)) = first {
            doubts.push(format!(
                "rule {}: the limit {} of {} never holds anybody back, since {} of {} is always reached \
                 first; take one of them out",
                rule.name,
                Size(limit),
                whose(limit),
                Size(first),
                whose(first)
            ));
        }
    }
    doubts
}

/// Whether one limit is for all that another of the same key is for, by its own numbers.
fn holds_wherever(one: &Limit, other: &Limit) -> bool {
    match (&one.keyed, &other.keyed) {
        (Some(one), Some(other)) => {
            !one.has_overrides()
                && (one.missing, one.unbelieved) == (other.missing, other.unbelieved)
        }
        (None, None) => true,
        _ => false,
    }
}

fn whose(limit: &Limit) -> String {
    match limit.scope {
        Scope::Global => "everybody".into(),
        Scope::User => format!("tier {}", limit.label),
        Scope::Ip => format!("addresses in {}", limit.label),
        Scope::Key => format!("key {}", limit.label),
    }
}

/// A limit in short: `100/60s`.
struct Size<'a>(&'a Limit);

impl fmt::Display for Size<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quota = self.0.terms.quota;
        write!(f, "{}/{}", quota.limit(), quota.period())
    }
}

/// The tiers that rules name, each with the first rule that does.
struct Tiers<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Tiers<'a> {
    fn of(rules: &'a [Rule], limits: &'a [Limit]) -> Tiers<'a> {
        let in_force: HashSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        let mut seen = HashSet::new();
        let named = limits.iter().filter(|limit| {
            limit.scope == Scope::User
                && limit.label != "default"
                && in_force.contains(limit.rule.as_str())
                && seen.insert(limit.label.as_str())
        });
        let tiers = named.map(|limit| (limit.label.as_str(), limit.rule.as_str()));
        let tiers = tiers.collect();
        Tiers(tiers)
    }

    fn doubts(&self, whole: &Whole<'_>) -> Vec<String> {
        let mut doubts = Vec::new();
        let mut before: HashMap<String, &str> = HashMap::new();
        for (tier, rule) in &self.0 {
            if is_like_an_id(tier) || whole.exemptions.names_user(tier) {
                doubts.push(format!(
                    "rule {rule}: {tier:?} in \"user_limits\" is the name of a tier, and looks like a user's \
                     id; a user cannot be named there: give them a tier of their own"
                ));
            }
            let other = *before.entry(tier.to_ascii_lowercase()).or_insert(tier);
            if other != *tier {
                doubts.push(format!(
                    "rule {rule}: tier {tier:?} is {other:?} elsewhere, and tiers are compared with case; \
                     spell it as it is sent"
                ));
            }
            if let Some(list) = whole.exemptions.lists_tier(tier) {
                doubts.push(format!(
                    "rule {rule}: its limits for tier {tier:?} never hold, since the tier is on \"{list}\"; \
                     take it off one of them"
                ));
            }
        }
        doubts
    }
}

impl Tiers<'_> {
    /// Tiers that the operator puts callers into, and that nothing else names.
    fn unnamed(&self, whole: &Whole<'_>) -> Vec<String> {
        let mut doubts = Vec::new();
        let mut seen = HashSet::new();
        for (place, tier) in whole.assigned_tiers.tiers().enumerate() {
            if !seen.insert(tier) {
                continue;
            }
            if whole.status.operator_tier.as_deref() == Some(tier) {
                doubts.push(format!(
                    "tiers[{place}]: {tier:?} is the operators' tier, and \"tiers\" makes nobody an operator; let \
                     identity tell it"
                ));
            }
            let is_named = self.0.iter().any(|(named, _)| *named == tier);
            if !is_named && whole.exemptions.lists_tier(tier).is_none() {
                doubts.push(format!(
                    "tiers[{place}]: no rule names tier {tier:?}, so its callers have the limits of \"default\"; name \
                     it in \"user_limits\""
                ));
            }
        }
        doubts
    }
}

/// `u7`, `user-42`, `1234`, and anything as long as a digest; not `tier1` or `gold2`.
fn is_like_an_id(tier: &str) -> bool {
    const STEMS: [&str; 12] = [
        "", "u", "uid", "id", "user", "usr", "customer", "cust", "client", "account", "acct",
        "member",
    ];
    let stem = tier.trim_end_matches(|char: char| char.is_ascii_digit());
    let has_number = stem.len() < tier.len();
    let stem = stem.trim_end_matches(['-', '_', '.']).to_ascii_lowercase();
    let digits = tier.bytes().filter(u8::is_ascii_hexdigit).count();
    let is_digest = digits >= 16
        && tier
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_digest || has_number && STEMS.contains(&stem.as_str())
}

/// Tiers that callers have whom nobody gave one.
fn operators(status: &Status) -> Option<String> {
    let tier = status.operator_tier.as_deref()?;
    identity::is_assumed(tier).then(|| {
        format!(
            "status.operator_tier: {tier:?} is the tier of whoever comes without one, so everybody is an \
             operator; name a tier that only operators have"
        )
    })
}

/// Patterns that begin alike, and have to be tried one by one.
fn costly_patterns(patterns: &Index) -> Option<String> {
    let count = patterns.most_gone_through();
    (count > MANY_GONE_THROUGH).then(|| {
        format!(
            "{count} patterns begin alike and have a \"*\" with more behind it, so each is tried on each \
             path that begins so: a path of {LONGEST_PATH} bytes may cost {} µs; let them begin differently",
            count * 12
        )
    })
}

fn large_log(limit: &Limit) -> Option<String> {
    let quota = limit.terms.quota;
    let large = quota.algorithm() == Algorithm::SlidingWindow && quota.limit() > LARGE_LOG;
    let whose = match limit.scope {
        Scope::Global => "",
        Scope::User => " for each user",
        Scope::Ip => " for each address",
        Scope::Key => " for each key",
    };
    large.then(|| {
        format!(
            "rule {rule}: a sliding window of {limit} keeps up to {limit} entries (about 30 bytes \
             each) in Redis{whose}; a token bucket keeps one",
            rule = limit.rule,
            limit = quota.limit(),
        )
    })
}

/// Limits that only their order tells apart, once for each rule and counter.
fn unnamed_equals(limits: &[Limit]) -> impl Iterator<Item = String> {
    let mut told = HashSet::new();
    let seconds = limits
        .iter()
        .filter(|limit| limit.name.is_none() && limit.counter.ends_with(".2"));
    seconds.filter_map(move |limit| {
        let Limit { rule, scope, .. } = limit;
        told.insert((rule, *scope, &limit.counter)).then(|| {
            let quota = limit.terms.quota;
            format!(
                "rule {rule}: two limits of one list are a {} of {:#}, and only their order tells \
                 their counts apart: give each a \"name\", and they can be moved",
                quota.algorithm().name(),
                quota.period(),
            )
        })
    })
}

/// A count that everybody shares is a part of itself while some are in shadow mode.
fn partial_count(rule: &Rule) -> Option<String> {
    match rule.mode {
        Mode::Partly(percent) if !rule.limits.global.is_empty() => Some(format!(
            "rule {}: while enforce_percent is {}, its global limit counts the requests of that share \
             of its callers only, and is reached later than it will be at 100",
            rule.name,
            percent.get()
        )),
        _ => None,
    }
}

/// A cost that may be asked for, and that a limit could not hold even where nothing of it is used.
fn out_of_reach(rule: &Rule, own: &[&Limit]) -> Option<String> {
    let (header, most) = rule.cost_rule.asks_up_to()?;
    let quotas = own.iter().map(|limit| limit.terms.quota);
    let too_small = quotas.filter(|quota| quota.never_fits(most));
    let holds = too_small.map(|quota| quota.capacity()).min()?;
    Some(format!(
        "rule {}: {header} may ask for up to {}, and a limit of it holds {holds} at most: what costs more \
         than that never passes; lower \"max\" or raise the limit",
        rule.name,
        most.get()
    ))
}

/// Whoever leaves before it is known what a request costs pays nothing for it.
fn free_to_leave(rule: &Rule) -> Option<String> {
    let CostRule::Later(tariff) = &rule.cost_rule else {
        return None;
    };
    (tariff.unfinished() == 0).then(|| {
        format!(
            "rule {}: \"unfinished\" is 0, so whoever leaves before it is known what a request costs pays \
             nothing; give it a cost",
            rule.name
        )
    })
}

/// One stream that its client leaves uses up more than a limit holds.
fn dear_to_leave(rule: &Rule, own: &[&Limit]) -> Option<String> {
    let CostRule::Later(tariff) = &rule.cost_rule else {
        return None;
    };
    let cost = tariff.unfinished();
    let quotas = own.iter().map(|limit| limit.terms.quota.capacity());
    let holds = quotas.filter(|capacity| *capacity < cost).min()?;
    Some(format!(
        "rule {}: whoever leaves before it is known what a request costs pays {cost}, and a limit of it \
         holds {holds} at most: leaving once uses it up; lower \"unfinished\" or raise the limit",
        rule.name
    ))
}

#[cfg(test)]
mod tests;
