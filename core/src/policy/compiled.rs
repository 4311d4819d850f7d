//! What the filter runs on: rules with the requests that they are for and the limits that they set,
//! compiled once and matched in one pass. It knows a caller only as a tier and an address.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use super::assigned_tiers::AssignedTiers;
use super::experiment::{Arm, Experiment, Variant};
use super::pattern::{Captures, Exceptions, Matching, Pattern};
use super::table::Table;
use crate::codec::json::{At, Mistakes};
use crate::codec::secret::Fingerprint;
use crate::policy::condition::Condition;
use crate::policy::cost_rule::CostRule;
use crate::policy::experiment::Participation;
use crate::policy::ids::{LimitId, Scope, VariantId};
use crate::policy::keyed::Keyed;
use crate::policy::lease_terms::LeaseTerms;
use crate::policy::lists::Exemptions;
use crate::policy::pattern::Index;
use crate::policy::response::Response;
use crate::policy::rollout::{Counting, Mode};
use crate::policy::soft_limit::SoftLimit;
use crate::quota::cost::Cost;
use crate::quota::limit::Algorithm;
use crate::quota::packed::Terms;
use crate::request::address::Cidr;
use crate::request::identity;
use crate::request::subject::Subject;

/// A whole policy, ready to match.
#[derive(Debug)]
pub struct Policy {
    /// In order of priority; a rule's place here is its place in `patterns`.
    pub(super) rules: Vec<Rule>,
    /// Those that are for nobody, kept to be told of.
    pub(super) off: Vec<Rule>,
    pub(super) patterns: Index,
    pub(super) limits: Vec<Limit>,
    pub(super) by_rule: ByRule,
    /// One for each of them: see [`titles`].
    pub(super) titles: Vec<String>,
    pub(super) experiments: Vec<Experiment>,
    /// The request headers that say what something costs.
    pub(super) cost_headers: Vec<String>,
    /// Those that keys are made of, and that conditions ask for. Ascending.
    pub(super) key_headers: Vec<String>,
    /// By rule: what its refusals look like.
    pub(super) responses: HashMap<String, Response>,
    pub exemptions: Exemptions,
    pub assigned_tiers: AssignedTiers,
    /// The tiers that rules and lists name, in order; none where no rule tells tiers apart.
    pub(super) tiers: Vec<String>,
    pub(super) uses: Uses,
    pub answers: Answers,
    pub status: Status,
    pub warnings: Vec<String>,
}

/// What of the language a policy uses, so that nobody pays for the rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uses {
    /// Some limit is leased.
    pub leases: bool,
    /// Some limit does something before it refuses.
    pub soft_limits: bool,
    /// All limits that one request can meet share a slot of a cluster.
    pub one_slot: bool,
}

/// The limits of each rule, and of its variants: whoever tells of every rule would else go through
/// all limits for each.
pub(super) type ByRule = HashMap<String, Vec<LimitId>>;

/// The requests a rule is for, and its limits as ids into the policy.
#[derive(Debug)]
pub struct Rule {
    pub(super) name: String,
    /// One at least.
    pub(super) patterns: Vec<Pattern>,
    pub(super) captures: Option<Captures>,
    pub(super) except: Option<Exceptions>,
    /// All of them have to hold.
    pub(super) when: Vec<Condition>,
    pub(super) matching: Matching,
    pub(super) priority: u64,
    pub(super) mode: Mode,
    pub(super) cost_rule: CostRule,
    /// In capitals, and `HEAD` wherever there is `GET`: servers answer it by the same handler.
    pub(super) methods: Option<Vec<String>>,
    pub(super) hosts: Option<Vec<Host>>,
    pub(super) limits: RuleLimits,
    pub(super) takes_part: Option<Participation>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RuleLimits {
    pub(super) global: Vec<LimitId>,
    pub(super) user: TierLimits,
    pub(super) ip: NetworkLimits,
    pub(super) keyed: Vec<LimitId>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct TierLimits {
    pub(super) by_tier: Vec<(String, Vec<LimitId>)>,
    pub(super) default: Option<Vec<LimitId>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct NetworkLimits {
    /// Longest prefix first, so that the first that holds an address is the closest.
    pub(super) by_network: Vec<(Cidr, Vec<LimitId>)>,
    pub(super) default: Vec<LimitId>,
}

/// Why a rule is not for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    Pattern,
    Method,
    Host,
    /// Its path is one that the rule leaves out.
    Except,
}

/// A host a rule names: exactly, or with every name below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Exact(String),
    /// `*.example.com`, kept as `.example.com`.
    Below(String),
}

/// What happens to a request whose limit cannot be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// The limit is kept in the worker's memory, at its share.
    Local,
    Allow,
    Deny,
}

/// One limit of one rule.
#[derive(Debug)]
pub struct Limit {
    pub rule: String,
    /// The tier or network that it is written for; nothing for a global limit.
    pub label: String,
    pub scope: Scope,
    /// As the operator called it.
    pub name: Option<String>,
    /// What its counter is called within the rule and scope: see [`crate::policy::key::counter`].
    pub counter: String,
    /// `experiment:variant` where it is a variant's.
    pub variant: Option<String>,
    /// What its counters' keys end in: see [`crate::policy::key::end`].
    pub key_end: Vec<u8>,
    pub terms: Rc<Terms>,
    /// What a request takes of it, unless it says otherwise.
    pub cost: Cost,
    pub soft_limit: SoftLimit,
    pub lease: Option<LeaseTerms>,
    pub on_store_failure: OnStoreFailure,
    /// What it counts by, where that is its `key`.
    pub keyed: Option<Rc<Keyed>>,
}

/// Which header families an answer carries, and in which shape a refusal's body comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    pub x_ratelimit: bool,
    pub ietf: bool,
    pub body: Body,
    /// The header that marks an answer given without the store.
    pub degraded: Option<String>,
    /// The header that says what rules in shadow mode would have done.
    pub shadow: Option<String>,
    /// The header that warns a caller who nears a limit.
    pub warning: Option<String>,
    /// The header that tells for how many ms a request was delayed.
    pub delay: Option<String>,
    /// The header that says which variants of experiments are for the caller.
    pub variant: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Json,
    /// `application/problem+json`, RFC 9457.
    Problem,
}

/// The status call: its own limit, and who may ask about others.
#[derive(Debug)]
pub struct Status {
    pub terms: Rc<Terms>,
    pub operator_tier: Option<String>,
    pub operator_header: Option<OperatorHeader>,
}

/// The header that operators send what only they know in. It is for Weir alone, and goes no further.
#[derive(Clone, Debug)]
pub struct OperatorHeader {
    /// In lower case, as Envoy has it.
    pub name: String,
    pub secret: Fingerprint,
    /// Whether the policy holds the secret itself, for whoever reads the policy.
    pub is_written_out: bool,
}

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Normalised: see [`crate::request::path::normalise`].
    pub path: &'a [u8],
    pub method: &'a [u8],
    pub authority: &'a [u8],
}

impl Answers {
    /// Whether answers name all limits that a request met, and not only the one that is tightest.
    pub fn name_all(&self) -> bool {
        self.ietf || self.body == Body::Problem
    }
}

impl Policy {
    /// Compiles a policy, or says what in it is wrong, where, and how to mend it.
    pub fn try_new(source: &At<'_>) -> Result<Policy, Mistakes> {
        super::compile::policy(source, Mistakes::FEW)
    }

    /// As [`Policy::try_new`], for a person who wants to know of every mistake.
    pub fn judge(source: &At<'_>) -> Result<Policy, Mistakes> {
        super::compile::policy(source, Mistakes::MANY)
    }

    /// The rules in words, for a person.
    pub fn table(&self) -> Table<'_> {
        Table(self)
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub fn cost_headers(&self) -> &[String] {
        &self.cost_headers
    }

    /// What a refusal of this rule looks like, if the rule says it.
    pub fn response(&self, rule: &str) -> Option<&Response> {
        self.responses.get(rule)
    }

    pub fn key_headers(&self) -> &[String] {
        &self.key_headers
    }

    pub fn experiments(&self) -> &[Experiment] {
        &self.experiments
    }

    /// Experiment and variant of this id.
    pub fn variant(&self, id: VariantId) -> Option<(&Experiment, &Variant)> {
        self.experiments.iter().find_map(|experiment| {
            let (_, variant) = experiment.ids().find(|(own, _)| *own == id)?;
            Some((experiment, variant))
        })
    }

    /// The variant of a rule that is for this caller, if the rule takes part in an experiment.
    pub fn arm<'a>(&'a self, rule: &'a Rule, subject: &Subject) -> Option<Arm<'a>> {
        rule.takes_part.as_ref()?.arm(&self.experiments, subject)
    }

    /// The limits by a key that a request of this rule may have counted in, overrides among them.
    pub fn keyed<'a>(
        &'a self,
        rule: &'a Rule,
        arm: Option<Arm<'a>>,
    ) -> impl Iterator<Item = LimitId> + use<'a> {
        rule.keyed(arm).iter().flat_map(|id| {
            let keyed = self.limit(*id).and_then(|limit| limit.keyed.as_ref());
            let instead = keyed.into_iter().flat_map(|keyed| keyed.instead_limits());
            [*id].into_iter().chain(instead)
        })
    }

    /// Whether a tier is named here, or is one that callers have whom nobody gave any. All are where no
    /// rule tells tiers apart.
    pub fn knows_tier(&self, tier: &str) -> bool {
        self.tiers.is_empty()
            || identity::is_assumed(tier)
            || self
                .tiers
                .binary_search_by(|own| own.as_str().cmp(tier))
                .is_ok()
    }

    /// The rules that are switched off.
    pub fn off(&self) -> &[Rule] {
        &self.off
    }

    pub fn limit(&self, id: LimitId) -> Option<&Limit> {
        self.limits.get(id.0 as usize)
    }

    /// What clients are told that a limit is called, and no other limit of the policy.
    pub fn title(&self, id: LimitId) -> Option<&str> {
        self.titles.get(id.0 as usize).map(String::as_str)
    }

    /// Whether workers take permits of any limit in advance.
    pub fn is_leased(&self) -> bool {
        self.uses.leases
    }

    /// Whether all limits that one request can meet have one subject, and so share a slot of a cluster:
    /// then no take ever waits for what another shard says.
    pub fn is_of_one_slot(&self) -> bool {
        self.uses.one_slot
    }

    /// Whether any limit warns or delays: where none does, no request pays for asking.
    pub fn has_soft_limits(&self) -> bool {
        self.uses.soft_limits
    }

    pub fn limits(&self) -> impl Iterator<Item = (LimitId, &Limit)> {
        (0..).map(LimitId).zip(&self.limits)
    }

    /// Those of one rule and of its variants.
    pub(super) fn limits_of(&self, rule: &Rule) -> impl Iterator<Item = &Limit> {
        let ids = self.by_rule.get(&rule.name).into_iter().flatten();
        ids.filter_map(|id| self.limit(*id))
    }

    /// Every rule for this request, in order of priority.
    pub fn matching(&self, target: Target<'_>) -> impl Iterator<Item = &Rule> {
        let places = self.patterns.rules(target.path);
        places
            .into_iter()
            .filter_map(|place| self.rules.get(place))
            .filter(move |rule| rule.is_for(target))
    }

    /// Every rule in order of priority, with why it is not for this request where it is not.
    pub fn compare(&self, target: Target<'_>) -> impl Iterator<Item = (&Rule, Option<Mismatch>)> {
        let places: HashSet<usize> = self.patterns.rules(target.path).into_iter().collect();
        let rules = self.rules.iter().enumerate();
        rules.map(move |(place, rule)| match places.contains(&place) {
            true => (rule, rule.mismatch(target)),
            false => (rule, Some(Mismatch::Pattern)),
        })
    }
}

impl Rule {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(Pattern::as_str)
    }

    /// The patterns of what is left out.
    pub fn except(&self) -> impl Iterator<Item = &str> {
        let except = self.except.iter().flat_map(Exceptions::patterns);
        except.map(Pattern::as_str)
    }

    /// The segment that its patterns capture under a name.
    pub fn captured<'p>(&self, name: &str, path: &'p [u8]) -> Option<Cow<'p, [u8]>> {
        self.captures.as_ref()?.value(name, path)
    }

    pub fn when(&self) -> &[Condition] {
        &self.when
    }

    pub fn matching(&self) -> Matching {
        self.matching
    }

    /// In capitals; nothing where it is for all.
    pub fn methods(&self) -> &[String] {
        self.methods.as_deref().unwrap_or_default()
    }

    /// Nothing where it is for all.
    pub fn hosts(&self) -> &[Host] {
        self.hosts.as_deref().unwrap_or_default()
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn cost_rule(&self) -> &CostRule {
        &self.cost_rule
    }

    /// Whether it is enforced for this caller, or in shadow mode.
    pub fn counting(&self, subject: &Subject) -> Counting {
        self.mode.counting(&self.name, subject)
    }

    /// All limits by tier, whosever: each tier's, and `default`'s.
    pub fn by_tier<'a>(&'a self, arm: Option<Arm<'a>>) -> impl Iterator<Item = LimitId> + use<'a> {
        let limits = arm.and_then(|arm| arm.limits).unwrap_or(&self.limits);
        let TierLimits { by_tier, default } = &limits.user;
        let listed = by_tier.iter().flat_map(|(_, limits)| limits);
        listed.chain(default.iter().flatten()).copied()
    }

    /// The limits that apply to this tier and address, in the order they are reported. `arm` is the
    /// variant of the rule that is for the caller.
    pub fn limits_for<'a>(
        &'a self,
        arm: Option<Arm<'a>>,
        tier: &str,
        address: Option<IpAddr>,
    ) -> impl Iterator<Item = LimitId> + use<'a> {
        let RuleLimits {
            global, user, ip, ..
        } = arm.and_then(|arm| arm.limits).unwrap_or(&self.limits);
        let ip = address.map_or(&[][..], |address| ip.limits_for(address));
        global
            .iter()
            .chain(user.limits_for(tier))
            .chain(ip)
            .copied()
    }

    /// The limits that count by a key, for whomever. They are reported after the others.
    pub fn keyed<'a>(&'a self, arm: Option<Arm<'a>>) -> &'a [LimitId] {
        let limits = arm.and_then(|arm| arm.limits).unwrap_or(&self.limits);
        &limits.keyed
    }

    /// Its own limits, and what variants of its experiment make of them.
    pub(super) fn all_limits(&self) -> impl Iterator<Item = &RuleLimits> {
        let varied = self.takes_part.iter().flat_map(Participation::limits);
        [&self.limits].into_iter().chain(varied)
    }

    /// Whether captures, methods, hosts and exceptions let it be for this request, whose path the index of
    /// patterns has found.
    pub fn is_for(&self, target: Target<'_>) -> bool {
        self.mismatch(target).is_none()
    }

    /// Why it is not for this request, whose path the index of patterns has found.
    fn mismatch(&self, target: Target<'_>) -> Option<Mismatch> {
        let method = |methods: &Vec<String>| {
            methods
                .iter()
                .any(|method| target.method.eq_ignore_ascii_case(method.as_bytes()))
        };
        let host = |hosts: &Vec<Host>| {
            let name = host_name(target.authority);
            hosts.iter().any(|host| host.holds(name))
        };
        let captures = |captures: &Captures| captures.hold(target.path);
        let except = |except: &Exceptions| !except.hold(target.path);
        if !self.captures.as_ref().is_none_or(captures) {
            return Some(Mismatch::Pattern);
        }
        if !self.methods.as_ref().is_none_or(method) {
            return Some(Mismatch::Method);
        }
        if !self.hosts.as_ref().is_none_or(host) {
            return Some(Mismatch::Host);
        }
        let is_met = self.except.as_ref().is_none_or(except);
        (!is_met).then_some(Mismatch::Except)
    }
}

impl RuleLimits {
    /// Each list of limits, of which a request meets one of each scope at most.
    pub(super) fn lists(&self) -> impl Iterator<Item = &[LimitId]> {
        let RuleLimits {
            global,
            user,
            ip,
            keyed,
        } = self;
        let tiers = user.by_tier.iter().map(|(_, limits)| limits);
        let networks = ip.by_network.iter().map(|(_, limits)| limits);
        [global, &ip.default, keyed]
            .into_iter()
            .chain(&user.default)
            .chain(tiers)
            .chain(networks)
            .map(Vec::as_slice)
    }
}

impl TierLimits {
    pub(super) fn limits_for(&self, tier: &str) -> &[LimitId] {
        let listed = self
            .by_tier
            .iter()
            .find(|(name, _)| name == tier)
            .map(|(_, limits)| limits);
        listed.or(self.default.as_ref()).map_or(&[], Vec::as_slice)
    }
}

impl NetworkLimits {
    pub(super) fn sort(&mut self) {
        self.by_network
            .sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix()));
    }

    pub(super) fn limits_for(&self, address: IpAddr) -> &[LimitId] {
        let closest = self
            .by_network
            .iter()
            .find(|(network, _)| network.contains(address));
        closest.map_or(&self.default, |(_, limits)| limits)
    }
}

impl Host {
    pub(super) fn holds(&self, name: &[u8]) -> bool {
        match self {
            Host::Exact(host) => name.eq_ignore_ascii_case(host.as_bytes()),
            Host::Below(suffix) => {
                name.len() > suffix.len()
                    && name
                        .get(name.len() - suffix.len()..)
                        .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

/// The name in an authority, as the lenient among upstreams read it: without what stands before an
/// `@`, without a port of whatever kind, and without the dot that ends a fully qualified name. Envoy
/// passes all of them on, and a rule for a host must not be walked around by writing it differently.
pub(crate) fn host_name(authority: &[u8]) -> &[u8] {
    let host = authority
        .rsplit(|byte| *byte == b'@')
        .next()
        .unwrap_or(authority);
    let end = match host.first() {
        // The colons in brackets are an IPv6 address's own.
        Some(b'[') => host
            .iter()
            .position(|byte| *byte == b']')
            .map(|bracket| bracket + 1),
        _ => host.iter().position(|byte| *byte == b':'),
    };
    let name = end.and_then(|end| host.get(..end)).unwrap_or(host);
    name.strip_suffix(b".").unwrap_or(name)
}

impl Status {
    /// A status call costs one permit of its own limit, whatever it tells.
    pub const COST: Cost = Cost::ONE;

    /// A published policy that names no operators leaves them to the configuration: who pushed one
    /// without the secret shut the operators out, and who pushed one with it told it to Redis.
    pub fn keep_operators(&mut self, configured: &Status) {
        if self.operator_tier.is_none() && self.operator_header.is_none() {
            self.operator_tier.clone_from(&configured.operator_tier);
            self.operator_header.clone_from(&configured.operator_header);
        }
    }
}

/// One line for the log: the rule with all its limits, as they are enforced.
#[derive(Debug)]
pub struct Described<'a> {
    pub(super) policy: &'a Policy,
    pub(super) rule: &'a Rule,
}

impl Rule {
    pub fn describe<'a>(&'a self, policy: &'a Policy) -> Described<'a> {
        Described { policy, rule: self }
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule;
        write!(
            f,
            "rule {} pattern {} priority {}",
            rule.name,
            listed(rule.patterns()),
            rule.priority
        )?;
        if rule.except.is_some() {
            write!(f, " except {}", listed(rule.except()))?;
        }
        if rule.matching == Matching::Exact {
            f.write_str(" match exact")?;
        }
        if let Some(methods) = &rule.methods {
            write!(f, " methods {}", methods.join(","))?;
        }
        if let Some(hosts) = &rule.hosts {
            let names: Vec<String> = hosts.iter().map(Host::to_string).collect();
            write!(f, " hosts {}", names.join(","))?;
        }
        for condition in &rule.when {
            write!(f, " when {condition}")?;
        }
        match rule.mode {
            Mode::Enforce => {}
            Mode::Partly(percent) => write!(f, " enforce_percent {}", percent.get())?,
            Mode::Shadow => f.write_str(" mode shadow")?,
            Mode::Off => f.write_str(" mode off")?,
        }
        if let Some(response) = self.policy.response(&rule.name) {
            write!(f, " answers {}", response.status)?;
        }
        write!(f, "{}", rule.cost_rule)?;
        let mut separator = ": ";
        for limit in self.policy.limits_of(rule) {
            f.write_str(separator)?;
            separator = ", ";
            if let Some(variant) = &limit.variant {
                write!(f, "{variant} ")?;
            }
            f.write_str(limit.scope.name())?;
            if !limit.label.is_empty() {
                write!(f, " {}", limit.label)?;
            }
            let quota = limit.terms.quota;
            write!(
                f,
                " {} {}/{}",
                quota.algorithm().name(),
                quota.limit(),
                quota.period()
            )?;
            if quota.algorithm() == Algorithm::TokenBucket {
                write!(f, " burst {}", quota.capacity())?;
            }
            if let Some(name) = &limit.name {
                write!(f, " name {name}")?;
            }
            write!(f, "{}", limit.soft_limit)?;
        }
        Ok(())
    }
}

pub(super) fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Exact(name) => f.write_str(name),
            Host::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests;
