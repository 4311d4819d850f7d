//! From the JSON that a user wrote to a [`Policy`]: strict, whole or not at all, and in time that
//! grows as the text does.

use std::collections::{HashMap, HashSet};

use super::compiled::{
    Answers, Body, ByRule, Host, Limit, NetworkLimits, OnStoreFailure, OperatorHeader, Policy,
    Rule, RuleLimits, Status, TierLimits,
};
use super::ids::{LimitId, Scope};
use super::pattern::IndexBuilder;
use super::{Matching, Pattern, doubts, experiment, titles};
use crate::codec::json::{At, ConfigError, Fields};
use crate::codec::secret::{Fingerprint, Secret};
use crate::policy::cost_rule::CostRule;
use crate::policy::key;
use crate::policy::lease_terms::{LeaseTerms, Size};
use crate::policy::lists::Exemptions;
use crate::policy::name::check_name;
use crate::policy::rollout::Mode;
use crate::policy::soft_limit::{Pace, SoftLimit};
use crate::quota::limit::{Algorithm, Quota, QuotaError};
use crate::quota::packed::Terms;
use crate::quota::period::Period;
use crate::request::address::{Cidr, CidrError};
use crate::request::identity::header_name;

/// A rule without a priority comes after those that have a small one.
const DEFAULT_PRIORITY: u64 = 100;
/// Polling once a second is in bounds; a caller that wants more should read the headers instead.
const DEFAULT_STATUS_LIMIT: u64 = 60;
const DEFAULT_STATUS_WINDOW_SECONDS: u64 = 60;

/// Headers that answers have already: a mark under such a name would break the answer, or tell what is
/// not so.
const ANSWERS_HEADERS: [&str; 17] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-envoy-ratelimited",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// Request headers that the upstream, the proxy or Weir itself has a use for.
const USED_HEADERS: [&str; 18] = [
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "origin",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-api-key",
    "x-forwarded-for",
    "x-request-id",
    "x-user-id",
    "x-user-tier",
];

/// What an operator looks for at night; a client may ignore it.
const DEFAULT_DEGRADED_HEADER: &str = "x-weir-degraded";
/// Beside the headers that clients look at anyway.
const DEFAULT_WARNING_HEADER: &str = "x-ratelimit-warning";

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("fixed_window", Algorithm::FixedWindow),
    ("sliding_window", Algorithm::SlidingWindow),
    ("token_bucket", Algorithm::TokenBucket),
    ("leaky_bucket", Algorithm::LeakyBucket),
];

pub(super) fn policy(source: &At<'_>) -> Result<Policy, ConfigError> {
    let mut fields = source.fields()?;
    let mut limits = Limits::default();
    let mut rules: Vec<Rule> = Vec::new();
    let mut names = HashSet::new();
    let matching = matching(&mut fields)?.unwrap_or(Matching::Loose);
    for at in fields.required("rules")?.list()? {
        let rule = rule(&at, matching, &mut limits)?;
        if !names.insert(rule.name.clone()) {
            return Err(ConfigError {
                path: format!("{}.name", at.path),
                message: format!(
                    "{:?} is already the name of another rule; each rule counts under its own name",
                    rule.name
                ),
            });
        }
        rules.push(rule);
    }
    let experiments = match fields.optional("experiments") {
        Some(at) => experiment::read(&at, &mut rules, &mut limits)?,
        None => Vec::new(),
    };
    let exemptions = Exemptions::read(&mut fields)?;
    let answers = answers(&mut fields)?;
    let status = fields
        .optional("status")
        .map_or_else(|| status(None), |at| status(Some(&at)))?;
    fields.finish()?;
    prove_that_no_request_counts_twice(source, &rules, &limits.list)?;

    rules.sort_by_key(|rule| rule.priority);
    let (off, rules): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| rule.mode == Mode::Off);
    let mut patterns = IndexBuilder::default();
    for rule in &rules {
        patterns.add(&rule.pattern, rule.matching);
    }
    let patterns = patterns.build();
    let by_rule = by_rule(&limits.list);
    let warnings = doubts::of(&doubts::Whole {
        rules: &rules,
        off: &off,
        limits: &limits.list,
        by_rule: &by_rule,
        patterns: &patterns,
        exemptions: &exemptions,
        status: &status,
    });
    let mut cost_headers: Vec<String> = rules
        .iter()
        .filter_map(|rule| match &rule.cost_rule {
            CostRule::Request(meter) => Some(meter.header.clone()),
            CostRule::Fixed(_) | CostRule::Response(_) => None,
        })
        .collect();
    cost_headers.sort_unstable();
    cost_headers.dedup();
    let leased = limits.list.iter().any(|limit| limit.lease.is_some());
    let has_soft_limit = limits.list.iter().any(|limit| !limit.soft_limit.is_plain());
    Ok(Policy {
        rules,
        off,
        patterns,
        tiers: tiers(&limits.list, &exemptions, &status),
        has_soft_limit,
        leased,
        of_one_slot: is_of_one_slot(&limits.list),
        titles: titles::of(&limits.list),
        limits: limits.list,
        by_rule,
        experiments,
        cost_headers,
        exemptions,
        answers,
        status,
        warnings,
    })
}

/// All tiers that are named anywhere, if a rule has limits by tier.
fn tiers(limits: &[Limit], exemptions: &Exemptions, status: &Status) -> Vec<String> {
    let named = limits.iter().filter(|limit| limit.scope == Scope::User);
    let mut tiers: Vec<String> = named.map(|limit| limit.label.clone()).collect();
    tiers.retain(|tier| tier != "default");
    if tiers.is_empty() {
        return tiers;
    }
    tiers.extend(exemptions.tiers().map(str::to_string));
    tiers.extend(status.operator_tier.clone());
    tiers.sort_unstable();
    tiers.dedup();
    tiers
}

/// The script refuses an operation that names a key twice, since it could not decide it: so whoever calls,
/// no two limits that one request meets may have one counter. Rules count apart, as they have names of
/// their own; within a rule a request meets one list of each scope.
fn prove_that_no_request_counts_twice(
    source: &At<'_>,
    rules: &[Rule],
    limits: &[Limit],
) -> Result<(), ConfigError> {
    for rule in rules {
        for own in rule.all_limits() {
            let mut scope_of: HashMap<&[u8], Scope> = HashMap::new();
            for list in own.lists() {
                let mut met: HashSet<&[u8]> = HashSet::new();
                for limit in list.iter().filter_map(|id| limits.get(id.index())) {
                    let end = limit.key_end.as_slice();
                    let is_of_scope = *scope_of.entry(end).or_insert(limit.scope) == limit.scope;
                    if !(met.insert(end) && is_of_scope) {
                        return Err(source.error(format!(
                            "has two limits in rule {} that one request would count under {}; give one of \
                             them another name",
                            rule.name, limit.counter
                        )));
                    }
                }
            }
        }
    }
    Ok(())
}

fn by_rule(limits: &[Limit]) -> ByRule {
    let mut by_rule = ByRule::new();
    for (limit, id) in limits.iter().zip((0..).map(LimitId)) {
        by_rule.entry(limit.rule.clone()).or_default().push(id);
    }
    by_rule
}

/// Of one scope; and of one rule where that is everybody's, since each rule counts them for itself.
fn is_of_one_slot(limits: &[Limit]) -> bool {
    limits
        .iter()
        .zip(limits.iter().skip(1))
        .all(|(one, other)| {
            one.scope == other.scope && (one.scope != Scope::Global || one.rule == other.rule)
        })
}

/// What a limit is read for.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub rule: &'a str,
    /// Empty where it is the rule's own.
    pub variant: &'a str,
    pub cost_rule: &'a CostRule,
}

/// The limits of all rules as they are read, each with its id.
#[derive(Default)]
pub(super) struct Limits {
    list: Vec<Limit>,
    /// By what its keys end in: the limit that had a counter first, and where it is written.
    counters: HashMap<Vec<u8>, (LimitId, String)>,
}

impl Limits {
    /// One limit or a list of them, for one scope of one rule, or of a variant of it.
    fn read(
        &mut self,
        at: &At<'_>,
        Whose {
            rule,
            variant,
            cost_rule,
        }: Whose<'_>,
        scope: Scope,
        label: &str,
    ) -> Result<Vec<LimitId>, ConfigError> {
        let mut ids = Vec::new();
        let mut names: HashSet<String> = HashSet::new();
        let mut unnamed: HashMap<(Algorithm, Period), usize> = HashMap::new();
        for at in &at.one_or_list()? {
            let Drafted {
                name,
                quota,
                soft_limit,
                lease,
                on_store_failure,
            } = limit(at)?;
            let cost = cost_rule.usual();
            if quota.never_fits(cost) {
                return Err(at.error(format!(
                    "holds {} at most, and a request costs {}: none would ever pass; raise the limit \
                     or lower the rule's cost",
                    quota.capacity(),
                    cost.get()
                )));
            }
            if lease.is_some() && matches!(cost_rule, CostRule::Response(_)) {
                return Err(at.error(
                    "is leased, but what a request costs is known from its response only; remove the \
                     \"lease\", or give the rule a cost that is known before",
                ));
            }
            if let Some(LeaseTerms {
                size: Size::Fixed(size),
                ..
            }) = lease
                && size < cost.get()
            {
                return Err(at.error(format!(
                    "is leased by {size}, and a request costs {}: no lease would cover one; raise the \
                     size or remove the \"lease\"",
                    cost.get()
                )));
            }
            if let Some(name) = &name
                && !names.insert(name.clone())
            {
                return Err(at.error(format!(
                    "is the second limit with the name {name:?} in this list; each limit counts under \
                     its own name"
                )));
            }
            let nth = match name {
                Some(_) => 1,
                None => {
                    let equals = unnamed
                        .entry((quota.algorithm(), quota.period()))
                        .or_default();
                    *equals += 1;
                    *equals
                }
            };
            let id = u32::try_from(self.list.len())
                .map(LimitId)
                .map_err(|_| at.error("is one limit more than a policy can hold"))?;
            ids.push(id);
            let variant = (!variant.is_empty()).then_some(variant);
            let counter = key::counter(&quota, name.as_deref(), nth);
            let key_end = key::end(rule, scope, &counter, variant);
            self.share(&key_end, (id, &quota), at)?;
            self.list.push(Limit {
                rule: rule.to_string(),
                label: label.to_string(),
                scope,
                name,
                counter,
                variant: variant.map(str::to_string),
                key_end,
                terms: Terms::new(quota),
                cost,
                soft_limit,
                lease,
                on_store_failure,
            });
        }
        if ids.is_empty() {
            return Err(at.error("is an empty list; name a limit or leave the field out"));
        }
        Ok(ids)
    }

    /// Limits of several tiers share a counter where they have one name. Had they several windows, the
    /// shorter one would forget what the longer one counted.
    fn share(
        &mut self,
        key_end: &[u8],
        (id, quota): (LimitId, &Quota),
        at: &At<'_>,
    ) -> Result<(), ConfigError> {
        let Some((first, place)) = self.counters.get(key_end) else {
            self.counters
                .insert(key_end.to_vec(), (id, at.path.clone()));
            return Ok(());
        };
        let first = self.list.get(first.index());
        match first.map(|first| first.terms.quota.period()) {
            Some(window) if window != quota.period() => Err(at.error(format!(
                "has a window of {:#}, and {place} has the same name and one of {window:#}: limits of \
                 one name share a count, and so a window; give one of them another name",
                quota.period()
            ))),
            _ => Ok(()),
        }
    }
}

/// `usually` is how closely the policy's rules match where they do not say.
fn rule(at: &At<'_>, usually: Matching, limits: &mut Limits) -> Result<Rule, ConfigError> {
    let mut fields = at.fields()?;
    let name = name(&fields.required("name")?)?;
    let pattern = pattern(&fields.required("pattern")?)?;
    let matching = matching(&mut fields)?.unwrap_or(usually);
    let priority = fields
        .optional("priority")
        .map_or(Ok(DEFAULT_PRIORITY), |at| at.whole())?;
    let mode = Mode::read(&mut fields)?;
    let cost_rule = fields
        .optional("cost")
        .map_or_else(|| Ok(CostRule::default()), |at| CostRule::read(&at))?;
    let methods = fields
        .optional("methods")
        .map(|at| methods(&at))
        .transpose()?;
    let hosts = fields.optional("hosts").map(|at| hosts(&at)).transpose()?;
    let whose = Whose {
        rule: &name,
        variant: "",
        cost_rule: &cost_rule,
    };
    let limits = rule_limits(&mut fields, whose, limits)?;
    fields.finish()?;
    Ok(Rule {
        name,
        pattern,
        matching,
        priority,
        mode,
        cost_rule,
        methods,
        hosts,
        limits,
        takes_part: None,
    })
}

/// The fields that hold limits, of a rule or of a variant of one.
pub(super) fn rule_limits(
    fields: &mut Fields<'_>,
    whose: Whose<'_>,
    limits: &mut Limits,
) -> Result<RuleLimits, ConfigError> {
    let global = match fields.optional("global_limit") {
        Some(at) => limits.read(&at, whose, Scope::Global, "")?,
        None => Vec::new(),
    };
    let mut user = TierLimits::default();
    if let Some(at) = fields.optional("user_limits") {
        for (tier, at) in at.entries()? {
            check_name(tier, &at)?;
            let ids = limits.read(&at, whose, Scope::User, tier)?;
            match tier {
                "default" => user.default = Some(ids),
                _ => user.by_tier.push((tier.to_string(), ids)),
            }
        }
    }
    let mut ip = NetworkLimits::default();
    let mut networks = HashSet::new();
    if let Some(at) = fields.optional("ip_limits") {
        for (network, at) in at.entries()? {
            let ids = limits.read(&at, whose, Scope::Ip, network)?;
            if network == "default" {
                ip.default = ids;
                continue;
            }
            let network: Cidr = network.parse().map_err(|error| match error {
                CidrError::NotAnAddress => at.error(format!(
                    "{network:?} {error}, or \"default\" for all others"
                )),
                _ => at.error(format!("{network:?} {error}")),
            })?;
            if !networks.insert(network) {
                return Err(at.error(format!("{network} stands here twice; keep one of them")));
            }
            ip.by_network.push((network, ids));
        }
        ip.sort();
    }
    Ok(RuleLimits { global, user, ip })
}

/// A limit as it is written, without whose it is.
struct Drafted {
    name: Option<String>,
    quota: Quota,
    soft_limit: SoftLimit,
    lease: Option<LeaseTerms>,
    on_store_failure: OnStoreFailure,
}

fn limit(at: &At<'_>) -> Result<Drafted, ConfigError> {
    let mut fields = at.fields()?;
    let name = fields
        .optional("name")
        .map(|at| limit_name(&at))
        .transpose()?;
    let algorithm = fields.required("type")?.choice(&ALGORITHMS)?;
    let limit = fields.required("limit")?;
    let window = fields.required("window")?;
    let burst = fields.optional("burst_limit");
    let on_store_failure = match fields.optional("on_store_failure") {
        None => OnStoreFailure::Local,
        Some(at) => at.choice(&[
            ("local", OnStoreFailure::Local),
            ("allow", OnStoreFailure::Allow),
            ("deny", OnStoreFailure::Deny),
        ])?,
    };
    let soft_limit = SoftLimit::read(&mut fields, algorithm)?;
    let lease = fields.optional("lease");
    fields.finish()?;
    let burst_limit = burst.as_ref().map(At::whole).transpose()?;
    let quota = Quota::try_new(algorithm, limit.whole()?, window.whole()?, burst_limit)
        .and_then(|quota| soft_limit.quota(quota));
    let quota = quota.map_err(|error| match (error, &burst) {
        (QuotaError::ZeroLimit, _) => {
            limit.error("is 0; a limit is at least 1 (to refuse a path, use a route)")
        }
        (QuotaError::ZeroWindow, _) => window.error("is 0; a window is at least 1 second"),
        (QuotaError::WindowTooLong, _) => {
            window.error("is beyond ten years (315360000 seconds); shorten it")
        }
        (QuotaError::ZeroBurst, Some(burst)) => {
            burst.error("is 0; a bucket that holds nothing refuses everything, so at least 1")
        }
        (QuotaError::BurstOutsideTokenBucket, Some(burst)) => burst.error(format!(
            "is set, but {} has no burst; remove it or use \"token_bucket\"",
            algorithm.name()
        )),
        (error, _) => at.error(error.to_string()),
    })?;
    let lease = match lease {
        Some(at) if matches!(soft_limit.pace, Pace::Shaped { .. }) => {
            return Err(at.error(
                "is set together with \"shape\", whose requests each ask for their turn; remove one \
                 of them",
            ));
        }
        lease => lease.map(|at| LeaseTerms::read(&at, &quota)).transpose()?,
    };
    Ok(Drafted {
        name,
        quota,
        soft_limit,
        lease,
        on_store_failure,
    })
}

fn limit_name(at: &At<'_>) -> Result<String, ConfigError> {
    let name = name(at)?;
    if key::is_like_unnamed(&name) {
        return Err(at.error(format!(
            "{name:?} is what a limit without a name is called; say what the limit is for instead, \
             such as \"daily\""
        )));
    }
    Ok(name)
}

pub(super) fn name(at: &At<'_>) -> Result<String, ConfigError> {
    let name = at.text()?;
    check_name(name, at)?;
    Ok(name.to_string())
}

fn pattern(at: &At<'_>) -> Result<Pattern, ConfigError> {
    let text = at.text()?;
    if text.is_empty() {
        return Err(at.error("is empty and would match no path; write one such as \"/api/*\""));
    }
    Pattern::try_new(text).map_err(|defect| at.error(defect))
}

fn matching(fields: &mut Fields<'_>) -> Result<Option<Matching>, ConfigError> {
    let matching = fields.optional("match");
    matching
        .map(|at| at.choice(&[("loose", Matching::Loose), ("exact", Matching::Exact)]))
        .transpose()
}

fn methods(at: &At<'_>) -> Result<Vec<String>, ConfigError> {
    let mut methods = Vec::new();
    for at in at.list()? {
        let method = at.text()?;
        let allowed = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
        if method.is_empty() || !method.bytes().all(allowed) {
            return Err(at.error(format!(
                "{method:?} is no method; write one such as \"POST\""
            )));
        }
        methods.push(method.to_ascii_uppercase());
    }
    if methods.is_empty() {
        return Err(at.error("is an empty list and would match nothing; leave the field out"));
    }
    let has = |name: &str| methods.iter().any(|method| method == name);
    if has("GET") && !has("HEAD") {
        methods.push("HEAD".to_string());
    }
    Ok(methods)
}

fn hosts(at: &At<'_>) -> Result<Vec<Host>, ConfigError> {
    let mut hosts = Vec::new();
    for at in at.list()? {
        let text = at.text()?;
        let (name, host) = match text.strip_prefix('*') {
            Some(suffix) => (suffix.strip_prefix('.'), Host::Below(suffix.to_string())),
            None => (Some(text), Host::Exact(text.to_string())),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if !name.is_some_and(|name| !name.is_empty() && name.bytes().all(allowed)) {
            return Err(at.error(format!(
                "{text:?} is no host; write one as \"api.example.com\" or \"*.example.com\""
            )));
        }
        if super::compiled::host_name(text.as_bytes()) != text.as_bytes() {
            return Err(at.error(format!(
                "{text:?} is more than a name; hosts are compared without port and last dot"
            )));
        }
        hosts.push(host);
    }
    if hosts.is_empty() {
        return Err(at.error("is an empty list and would match nothing; leave the field out"));
    }
    Ok(hosts)
}

fn answers(fields: &mut Fields<'_>) -> Result<Answers, ConfigError> {
    #[derive(Clone, Copy)]
    enum Family {
        XRateLimit,
        Ietf,
    }
    let mut answers = Answers {
        x_ratelimit: true,
        ietf: false,
        body: Body::Json,
        degraded: Some(DEFAULT_DEGRADED_HEADER.to_string()),
        shadow: None,
        warning: Some(DEFAULT_WARNING_HEADER.to_string()),
        delay: None,
        variant: None,
    };
    if let Some(at) = fields.optional("headers") {
        answers.x_ratelimit = false;
        for at in at.list()? {
            match at.choice(&[("x-ratelimit", Family::XRateLimit), ("ietf", Family::Ietf)])? {
                Family::XRateLimit => answers.x_ratelimit = true,
                Family::Ietf => answers.ietf = true,
            }
        }
    }
    if let Some(at) = fields.optional("body") {
        answers.body = at.choice(&[("json", Body::Json), ("problem", Body::Problem)])?;
    }
    for (field, place) in [
        ("degraded_header", &mut answers.degraded),
        ("shadow_header", &mut answers.shadow),
        ("variant_header", &mut answers.variant),
        ("warning_header", &mut answers.warning),
        ("delay_header", &mut answers.delay),
    ] {
        if let Some(at) = fields.optional(field) {
            *place = match at.text()? {
                "" => None,
                name => Some(mark(&at, name)?),
            };
        }
    }
    Ok(answers)
}

/// The name of a header that marks answers.
fn mark(at: &At<'_>, name: &str) -> Result<String, ConfigError> {
    let name = header_name(at, name)?;
    if ANSWERS_HEADERS.contains(&name.as_str()) {
        return Err(at.error(format!(
            "is {name:?}, which answers have already; choose a name of its own, such as \
             \"x-weir-mark\""
        )));
    }
    Ok(name)
}

fn status(at: Option<&At<'_>>) -> Result<Status, ConfigError> {
    let default_quota = |at: Option<&At<'_>>, limit, window| {
        Quota::try_new(Algorithm::FixedWindow, limit, window, None).map_err(|error| ConfigError {
            path: at.map_or_else(|| "status".to_string(), |at| at.path.clone()),
            message: error.to_string(),
        })
    };
    let Some(at) = at else {
        let quota = default_quota(None, DEFAULT_STATUS_LIMIT, DEFAULT_STATUS_WINDOW_SECONDS)?;
        return Ok(Status {
            terms: Terms::new(quota),
            operator_tier: None,
            operator_header: None,
        });
    };
    let mut fields = at.fields()?;
    let limit = fields
        .optional("limit")
        .map_or(Ok(DEFAULT_STATUS_LIMIT), |at| at.whole())?;
    let window = fields
        .optional("window")
        .map_or(Ok(DEFAULT_STATUS_WINDOW_SECONDS), |at| at.whole())?;
    let operator_tier = fields
        .optional("operator_tier")
        .map(|at| name(&at))
        .transpose()?;
    let operator_header = fields
        .optional("operator_header")
        .map(|at| operator_header(&at))
        .transpose()?;
    fields.finish()?;
    let quota = default_quota(Some(at), limit, window)?;
    Ok(Status {
        terms: Terms::new(quota),
        operator_tier,
        operator_header,
    })
}

fn operator_header(at: &At<'_>) -> Result<OperatorHeader, ConfigError> {
    let mut fields = at.fields()?;
    let name_at = fields.required("name")?;
    let name = header_name(&name_at, name_at.text()?)?;
    let is_envoys = name.starts_with("x-envoy-") || name.starts_with("x-forwarded-");
    if is_envoys || USED_HEADERS.contains(&name.as_str()) {
        return Err(name_at.error(format!(
            "is {name:?}, which others read too: the operators' header is removed from every request; \
             name one of its own, such as \"X-Weir-Operator\""
        )));
    }
    let value = fields.optional("value");
    let digest = fields.optional("sha256");
    let (secret, is_written_out) = match (value, digest) {
        (Some(value), None) => (
            Fingerprint::of(Secret::read(&value)?.expose().as_bytes()),
            true,
        ),
        (None, Some(digest)) => (Fingerprint::read(&digest)?, false),
        (Some(value), Some(_)) => {
            return Err(value.error("stands beside \"sha256\", which says the same; remove it"));
        }
        (None, None) => {
            return Err(at.error(
                "lacks the operators' secret; give its \"sha256\": what `printf %s SECRET | \
                 sha256sum` prints",
            ));
        }
    };
    fields.finish()?;
    Ok(OperatorHeader {
        name,
        secret,
        is_written_out,
    })
}
