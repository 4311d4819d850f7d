//! From a policy as written ([`document`]) to what the filter runs on ([`Policy`]): whole or not at all, and in
//! time that grows as the text does. What one field alone may be, the document's reader has checked; here
//! is what fields and limits are to each other.

pub(super) mod keyed;

use std::collections::{HashMap, HashSet};

use super::assigned_tiers::AssignedTiers;
use super::compiled::{
    Answers, ByRule, Limit, NetworkLimits, OperatorHeader, Policy, Rule, RuleLimits, Status,
    TierLimits, Uses,
};
use super::document::{self, Family, Items, Object, Window};
use super::experiment::Experiments;
use super::ids::{LimitId, Scope};
use super::pattern::{Captures, Exceptions, IndexBuilder};
use super::{Matching, Pattern, doubts, titles};
use crate::codec::json::{At, ConfigError, Mistakes, Path};
use crate::codec::secret::Fingerprint;
use crate::policy::condition::Condition;
use crate::policy::cost_rule::CostRule;
use crate::policy::key;
use crate::policy::key_part::Part;
use crate::policy::lease_terms::{LeaseTerms, Size};
use crate::policy::lists::Exemptions;
use crate::policy::response::Response;
use crate::policy::rollout::Mode;
use crate::policy::soft_limit::{Pace, SoftLimit};
use crate::quota::limit::{Algorithm, Quota, QuotaError};
use crate::quota::packed::Terms;
use crate::quota::period::{Calendar, Period};
use crate::request::address::Cidr;

/// Reads and compiles a policy, and keeps the first `most` of its mistakes.
pub(super) fn policy(source: &At<'_>, most: usize) -> Result<Policy, Mistakes> {
    let mut mistakes = Mistakes::at_most(most);
    let document = document::Policy::read(source, &mut mistakes);
    let policy = document.and_then(|document| compile(document, &source.path, &mut mistakes));
    match policy {
        Some(policy) if mistakes.is_empty() => Ok(policy),
        _ => Err(mistakes),
    }
}

fn compile(document: document::Policy, at: &Path<'_>, mistakes: &mut Mistakes) -> Option<Policy> {
    let answers = answers(&document);
    let status = status(document.status, &at.member("status"), mistakes);
    let exemptions = Exemptions::compile(document.allow, document.deny, at, mistakes);
    let assigned_tiers = AssignedTiers::compile(document.tiers, &at.member("tiers"), mistakes);
    let usually = Usually {
        matching: document.matching,
        enforcement: document.mode,
    };
    let mut limits = Limits::default();
    let are_all_read = document.rules.is_whole();
    let mut responses = HashMap::new();
    let mut rules = rules(
        document.rules,
        usually,
        &at.member("rules"),
        (&mut limits, &mut responses),
        mistakes,
    );
    let experiments = Experiments {
        rules: &mut rules,
        limits: &mut limits,
        are_all_read,
        mistakes,
    }
    .compile(document.experiments, &at.member("experiments"));
    if mistakes.is_empty()
        && let Err(error) = prove_that_no_request_counts_twice(at, &rules, &limits.list)
    {
        mistakes.add(error);
    }
    if mistakes.is_empty() {
        for rule in &rules {
            keyed::check_that_keys_are_captured(rule, &limits, mistakes);
            keyed::check_that_counters_are_bounded(rule, &limits, mistakes);
        }
    }
    let status = status?;
    if !mistakes.is_empty() {
        return None;
    }

    rules.sort_by_key(|rule| rule.priority);
    let (off, rules): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| rule.mode == Mode::Off);
    let mut patterns = IndexBuilder::default();
    for rule in &rules {
        patterns.add(&rule.patterns, rule.matching);
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
        assigned_tiers: &assigned_tiers,
        enforcement: usually.enforcement,
        status: &status,
    });
    Some(Policy {
        patterns,
        cost_headers: cost_headers(&rules),
        key_headers: key_headers(&rules, &limits.list),
        tiers: tiers(&limits.list, &exemptions, &assigned_tiers, &status),
        uses: uses(&limits.list),
        titles: titles::of(&limits.list),
        rules,
        off,
        limits: limits.list,
        by_rule,
        experiments,
        responses,
        exemptions,
        assigned_tiers,
        answers,
        status,
        warnings,
    })
}

/// What somebody pays for at each request, if anybody asked for it.
fn uses(limits: &[Limit]) -> Uses {
    Uses {
        leases: limits.iter().any(|limit| limit.lease.is_some()),
        soft_limits: limits.iter().any(|limit| !limit.soft_limit.is_plain()),
        one_slot: is_of_one_slot(limits),
    }
}

/// The request headers that say what something costs.
fn cost_headers(rules: &[Rule]) -> Vec<String> {
    let metered = rules.iter().filter_map(|rule| match &rule.cost_rule {
        CostRule::Request(meter) => Some(meter.header.clone()),
        CostRule::Fixed(_) | CostRule::Later(_) => None,
    });
    let mut headers: Vec<String> = metered.collect();
    headers.sort_unstable();
    headers.dedup();
    headers
}

/// The request headers that keys are made of, and that conditions ask for.
fn key_headers(rules: &[Rule], limits: &[Limit]) -> Vec<String> {
    let conditions = rules.iter().flat_map(|rule| &rule.when);
    let asked = conditions.map(|condition| &condition.part);
    let keyed = limits.iter().filter_map(|limit| limit.keyed.as_ref());
    let parts = asked.chain(keyed.flat_map(|keyed| &keyed.parts));
    let headers = parts.filter_map(Part::header);
    let mut headers: Vec<String> = headers.map(str::to_string).collect();
    headers.sort_unstable();
    headers.dedup();
    headers
}

/// All tiers that are named anywhere, if a rule has limits by tier.
fn tiers(
    limits: &[Limit],
    exemptions: &Exemptions,
    assigned_tiers: &AssignedTiers,
    status: &Status,
) -> Vec<String> {
    let named = limits.iter().filter(|limit| limit.scope == Scope::User);
    let mut tiers: Vec<String> = named.map(|limit| limit.label.clone()).collect();
    tiers.retain(|tier| tier != "default");
    if tiers.is_empty() {
        return tiers;
    }
    tiers.extend(exemptions.tiers().map(str::to_string));
    tiers.extend(assigned_tiers.tiers().map(str::to_string));
    tiers.extend(status.operator_tier.clone());
    tiers.sort_unstable();
    tiers.dedup();
    tiers
}

/// The script refuses an operation that names a key twice, since it could not decide it: so whoever calls,
/// no two limits that one request meets may have one counter. Rules count apart, as they have names of
/// their own; within a rule a request meets one list of each scope.
fn prove_that_no_request_counts_twice(
    policy: &Path<'_>,
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
                        return Err(policy.error(format!(
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
            one.scope == other.scope
                && one.scope != Scope::Key
                && (one.scope != Scope::Global || one.rule == other.rule)
        })
}

/// What the policy says of rules that do not say it themselves, or whatever they say.
#[derive(Clone, Copy)]
struct Usually {
    matching: Matching,
    enforcement: document::Enforcement,
}

fn rules(
    written: Items<document::Rule>,
    usually: Usually,
    at: &Path<'_>,
    (limits, responses): (&mut Limits, &mut HashMap<String, Response>),
    mistakes: &mut Mistakes,
) -> Vec<Rule> {
    let mut rules = Vec::with_capacity(written.len());
    let mut names = HashSet::with_capacity(written.len());
    for (place, mut rule) in written {
        let at = place.of(at);
        if let Some(respond) = rule.respond.take() {
            let response = Response::compile(respond, &at.member("respond"), mistakes);
            responses.insert(rule.name.clone(), response);
        }
        if !names.insert(rule.name.clone()) {
            mistakes.add(at.member("name").error(format!(
                "{:?} is already the name of another rule; each rule counts under its own name",
                rule.name
            )));
        }
        rules.push(compile_rule(rule, usually, &at, limits, mistakes));
    }
    rules
}

fn compile_rule(
    written: document::Rule,
    usually: Usually,
    at: &Path<'_>,
    limits: &mut Limits,
    mistakes: &mut Mistakes,
) -> Rule {
    let mode = Mode::compile(written.mode, written.enforce_percent, at);
    let cost_at = at.member("cost");
    let cost_rule = match mistakes.touch(&cost_at) {
        true => None,
        false => CostRule::compile(written.cost, &cost_at, mistakes),
    };
    let cost_rule = cost_rule.unwrap_or_default();
    let hosts = written.hosts;
    let when_at = at.member("when");
    let when = written.when.into_iter();
    let when = when
        .filter_map(|(place, condition)| {
            Condition::compile(condition, &place.of(&when_at), mistakes)
        })
        .collect();
    let patterns = patterns(written.pattern, written.patterns, at, mistakes);
    let except = written.except.into_iter();
    let matching = written.matching.unwrap_or(usually.matching);
    let except_at = at.member("except");
    let except: Vec<Pattern> = except
        .map(|(place, pattern)| {
            if let [name, ..] = pattern.captures() {
                mistakes.add(place.of(&except_at).error(format!(
                    "{:?} captures {{{name}}}, and nothing counts there; take \"*\"",
                    pattern.as_str()
                )));
            }
            pattern
        })
        .collect();
    let whose = Whose {
        rule: &written.name,
        variant: "",
        cost_rule: &cost_rule,
        matching,
    };
    let limits = limits.compile(written.limits, at, whose, mistakes);
    Rule {
        name: written.name,
        captures: Captures::of(&patterns, matching),
        patterns,
        except: Exceptions::of(except),
        when,
        matching,
        priority: written.priority,
        mode: mistakes
            .note(mode)
            .unwrap_or(Mode::Enforce)
            .under(usually.enforcement),
        cost_rule,
        methods: written.methods.map(methods),
        hosts: hosts.map(|hosts| hosts.into_iter().map(|(_, host)| host).collect()),
        limits,
        takes_part: None,
    }
}

/// Whether a field of the rule was taken for a misspelt `pattern` or `patterns`.
fn is_misspelt(rule: &Path<'_>, mistakes: &Mistakes) -> bool {
    let rule = format!("{rule}.");
    let offers = |message: &str| message.contains("did you mean \"pattern");
    mistakes
        .iter()
        .any(|one| one.path.starts_with(&rule) && offers(&one.message))
}

/// The one pattern of a rule, or all of several.
fn patterns(
    one: Option<Pattern>,
    several: Option<Items<Pattern>>,
    at: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Pattern> {
    let (one_at, several_at) = (at.member("pattern"), at.member("patterns"));
    // What could not be read is told of already, and was meant to be there.
    let is_told =
        mistakes.touch(&one_at) || mistakes.touch(&several_at) || is_misspelt(at, mistakes);
    match (one, several) {
        (Some(_), Some(_)) => {
            mistakes.add(several_at.error(
                "stands beside \"pattern\"; put all of them into \"patterns\" and take \"pattern\" out",
            ));
            Vec::new()
        }
        (None, None) if !is_told => {
            mistakes.add(at.error(
                "lacks the field \"pattern\"; say which paths the rule is for, such as \"/api/*\", or several in \
                 \"patterns\"",
            ));
            Vec::new()
        }
        (one, several) => {
            let several = several.into_iter().flatten().map(|(_, pattern)| pattern);
            one.into_iter().chain(several).collect()
        }
    }
}

fn methods(written: Items<String>) -> Vec<String> {
    let mut methods: Vec<String> = written.into_iter().map(|(_, method)| method).collect();
    let has = |name: &str| methods.iter().any(|method| method == name);
    if has("GET") && !has("HEAD") {
        methods.push("HEAD".to_string());
    }
    methods
}

// === Limits ===

/// What a limit is compiled for.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub rule: &'a str,
    /// Empty where it is the rule's own.
    pub variant: &'a str,
    pub cost_rule: &'a CostRule,
    /// How the rule reads paths.
    pub matching: Matching,
}

/// The limits of all rules as they are compiled, each with its id.
#[derive(Default)]
pub(super) struct Limits {
    list: Vec<Limit>,
    /// By what its keys end in: the limit that had a counter first, and where it is written.
    counters: HashMap<Vec<u8>, (LimitId, String)>,
}

impl Limits {
    /// Those of a rule, or of a variant of one.
    pub(super) fn compile(
        &mut self,
        written: document::Limits,
        at: &Path<'_>,
        whose: Whose<'_>,
        mistakes: &mut Mistakes,
    ) -> RuleLimits {
        let global_at = at.member("global_limit");
        let mut list = |written, at: &Path<'_>, scope, label: &str| {
            self.list(written, at, whose, (scope, label), mistakes)
        };
        let global = list(
            written.global_limit.unwrap_or_default(),
            &global_at,
            Scope::Global,
            "",
        );
        let mut user = TierLimits::default();
        let user_at = at.member("user_limits");
        for (tier, limits) in written.user_limits {
            let ids = list(limits, &user_at.member(&tier), Scope::User, &tier);
            match tier.as_str() {
                "default" => user.default = Some(ids),
                _ => user.by_tier.push((tier, ids)),
            }
        }
        let mut ip = NetworkLimits::default();
        let ip_at = at.member("ip_limits");
        let mut networks: Vec<(String, Cidr, Vec<LimitId>)> = Vec::new();
        for (name, limits) in written.ip_limits {
            let ids = list(limits, &ip_at.member(&name), Scope::Ip, &name);
            // Its reader knows it for a network.
            match name.parse() {
                Ok(network) => networks.push((name, network, ids)),
                Err(_) => ip.default = ids,
            }
        }
        let mut seen = HashSet::with_capacity(networks.len());
        for (name, network, ids) in networks {
            if !seen.insert(network) {
                mistakes.add(
                    ip_at
                        .member(&name)
                        .error(format!("{network} stands here twice; keep one of them")),
                );
            }
            ip.by_network.push((network, ids));
        }
        ip.sort();
        let keyed = self.keyed(written.limits, &at.member("limits"), whose, mistakes);
        RuleLimits {
            global,
            user,
            ip,
            keyed,
        }
    }

    /// One limit or a list of them, for one scope of one rule, or of a variant of it.
    fn list(
        &mut self,
        written: Items<document::Limit>,
        at: &Path<'_>,
        whose: Whose<'_>,
        (scope, label): (Scope, &str),
        mistakes: &mut Mistakes,
    ) -> Vec<LimitId> {
        let mut ids = Vec::with_capacity(written.len());
        let mut names: HashSet<String> = HashSet::new();
        let mut unnamed: HashMap<(Algorithm, Period), usize> = HashMap::new();
        for (place, limit) in written {
            let at = place.of(at);
            // What is left out of it would look like another mistake.
            if mistakes.touch(&at) {
                continue;
            }
            let Some((quota, soft_limit, lease)) = numbers(&limit, whose.cost_rule, &at, mistakes)
            else {
                continue;
            };
            if let Some(name) = &limit.name
                && !names.insert(name.clone())
            {
                mistakes.add(at.error(format!(
                    "is the second limit with the name {name:?} in this list; each limit counts under \
                     its own name"
                )));
                continue;
            }
            let nth = match limit.name {
                Some(_) => 1,
                None => {
                    let equals = unnamed
                        .entry((quota.algorithm(), quota.period()))
                        .or_default();
                    *equals += 1;
                    *equals
                }
            };
            let Ok(id) = u32::try_from(self.list.len()).map(LimitId) else {
                mistakes.add(at.error("is one limit more than a policy can hold"));
                break;
            };
            ids.push(id);
            let variant = (!whose.variant.is_empty()).then_some(whose.variant);
            let counter = key::counter(&quota, limit.name.as_deref(), nth);
            let key_end = key::end(whose.rule, scope, &counter, variant);
            mistakes.note(self.share(&key_end, (id, &quota), &at));
            self.list.push(Limit {
                rule: whose.rule.to_string(),
                label: label.to_string(),
                scope,
                name: limit.name,
                counter,
                variant: variant.map(str::to_string),
                key_end,
                terms: Terms::new(quota),
                cost: whose.cost_rule.usual(),
                soft_limit,
                lease,
                on_store_failure: limit.on_store_failure,
                keyed: None,
            });
        }
        ids
    }

    /// Limits of several tiers share a counter where they have one name. Had they several windows, the
    /// shorter one would forget what the longer one counted.
    fn share(
        &mut self,
        key_end: &[u8],
        (id, quota): (LimitId, &Quota),
        at: &Path<'_>,
    ) -> Result<(), ConfigError> {
        let Some((first, place)) = self.counters.get(key_end) else {
            self.counters.insert(key_end.to_vec(), (id, at.to_string()));
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

/// What the numbers of a limit are to each other, and to what a request costs.
fn numbers(
    limit: &document::Limit,
    cost_rule: &CostRule,
    at: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<(Quota, SoftLimit, Option<LeaseTerms>)> {
    let soft_limit = mistakes.note(SoftLimit::compile(limit, at));
    let quota = match (limit.window, limit.utc_offset) {
        (Window::Seconds(_), Some(_)) => {
            mistakes.add(at.member("utc_offset").error(
                "is set, but a window of so many seconds follows no calendar; remove it, or make \
                 \"window\" one of \"hour\", \"day\", \"week\", \"month\"",
            ));
            return None;
        }
        (Window::Calendar(unit), _) if limit.algorithm != Algorithm::FixedWindow => {
            mistakes.add(at.member("window").error(format!(
                "is {:?}, but only a fixed_window follows the calendar; use one, or write seconds",
                unit.name()
            )));
            return None;
        }
        (Window::Seconds(seconds), None) => {
            Quota::try_new(limit.algorithm, limit.limit, seconds, limit.burst_limit)
        }
        (Window::Calendar(_), _) if limit.burst_limit.is_some() => {
            Err(QuotaError::BurstOutsideTokenBucket)
        }
        (Window::Calendar(unit), offset) => {
            let calendar = Calendar::new(unit, offset.unwrap_or_default());
            Quota::try_calendar(limit.limit, calendar)
        }
    };
    let quota = match soft_limit {
        Some(soft_limit) => quota.and_then(|quota| soft_limit.quota(quota)),
        None => quota,
    };
    let quota = mistakes.note(quota.map_err(|error| match error {
        QuotaError::BurstOutsideTokenBucket => at.member("burst_limit").error(format!(
            "is set, but {} has no burst; remove it or use \"token_bucket\"",
            limit.algorithm.name()
        )),
        error => at.error(error.to_string()),
    }));
    let (soft_limit, quota) = (soft_limit?, quota?);
    let lease_at = at.member("lease");
    let lease = match &limit.lease {
        Some(_) if matches!(soft_limit.pace, Pace::Shaped { .. }) => {
            mistakes.add(lease_at.error(
                "is set together with \"shape\", whose requests each ask for their turn; remove one \
                 of them",
            ));
            None
        }
        Some(lease) => mistakes.note(LeaseTerms::compile(lease, &quota, &lease_at)),
        None => None,
    };
    let cost = cost_rule.usual();
    if quota.never_fits(cost) {
        mistakes.add(at.error(format!(
            "holds {} at most, and a request costs {}: none would ever pass; raise the limit \
             or lower the rule's cost",
            quota.capacity(),
            cost.get()
        )));
    }
    if lease.is_some() && matches!(cost_rule, CostRule::Later(_)) {
        mistakes.add(at.error(
            "is leased, but what a request costs is known after it only; remove the \"lease\", or give \
             the rule a cost that is known before",
        ));
    }
    if let Some(LeaseTerms {
        size: Size::Fixed(size),
        ..
    }) = lease
        && size < cost.get()
    {
        mistakes.add(at.error(format!(
            "is leased by {size}, and a request costs {}: no lease would cover one; raise the \
             size or remove the \"lease\"",
            cost.get()
        )));
    }
    Some((quota, soft_limit, lease))
}

// === What stands beside the rules ===

fn answers(document: &document::Policy) -> Answers {
    let has = |family| document.headers.iter().any(|own| *own == family);
    Answers {
        x_ratelimit: has(Family::XRateLimit),
        ietf: has(Family::Ietf),
        body: document.body,
        degraded: document.degraded_header.clone(),
        shadow: document.shadow_header.clone(),
        warning: document.warning_header.clone(),
        delay: document.delay_header.clone(),
        variant: document.variant_header.clone(),
    }
}

fn status(written: document::Status, at: &Path<'_>, mistakes: &mut Mistakes) -> Option<Status> {
    let quota = Quota::try_new(Algorithm::FixedWindow, written.limit, written.window, None);
    let quota = mistakes.note(quota.map_err(|error| at.error(error.to_string())));
    let header_at = at.member("operator_header");
    let operator_header = match (written.operator_header, mistakes.touch(&header_at)) {
        (Some(header), false) => mistakes.note(operator_header(header, &header_at)),
        _ => None,
    };
    Some(Status {
        terms: Terms::new(quota?),
        operator_tier: written.operator_tier,
        operator_header,
    })
}

fn operator_header(
    written: document::OperatorHeader,
    at: &Path<'_>,
) -> Result<OperatorHeader, ConfigError> {
    let (secret, is_written_out) = match (written.value, written.sha256) {
        (Some(value), None) => (Fingerprint::of(value.expose().as_bytes()), true),
        (None, Some(digest)) => (digest, false),
        (Some(_), Some(_)) => {
            let value = at.member("value");
            return Err(value.error("stands beside \"sha256\", which says the same; remove it"));
        }
        (None, None) => {
            return Err(at.error(
                "lacks the operators' secret; give its \"sha256\": what `printf %s SECRET | \
                 sha256sum` prints",
            ));
        }
    };
    Ok(OperatorHeader {
        name: written.name,
        secret,
        is_written_out,
    })
}
