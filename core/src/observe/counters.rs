//! Counts of what became of requests, by rule, scope and outcome. A request adds to a few numbers in
//! a worker's memory; whoever tells operators drains them now and then, and pays only for what has
//! changed. It also knows what each count is called.
//!
//! How many counts there can be depends on the policy alone, never on who calls.

use std::collections::HashMap;
use std::rc::Rc;

use postcard_schema::Schema;

use crate::decide::decision::{Outcome, Record, Source};
use crate::decide::verdict::Degraded;
use crate::policy::ids::{LimitId, Scope, VariantId};
use crate::policy::{OnStoreFailure, Policy};

/// The counts under one policy.
#[derive(Debug)]
pub struct Counters {
    policy: Rc<Policy>,
    layout: Layout,
    /// The rules' names, in the policy's order.
    names: Vec<Rc<str>>,
    places: Vec<Place>,
    /// By [`Series`]; what has come since they were last drained.
    counts: Vec<u32>,
    /// Those that are not zero.
    touched: Vec<usize>,
}

/// Where a limit belongs.
#[derive(Clone, Copy, Debug)]
struct Place {
    rule: usize,
    scope: Scope,
    on_store_failure: OnStoreFailure,
}

/// What is counted under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// Every request, once.
    Decision(Outcome),
    /// Every request once for each rule that it passed, or for the one that refused it; and marks on
    /// these. The scope is that of the limit that decided within the rule: the one that refused, or
    /// the one with the fewest left.
    Rule {
        rule: usize,
        scope: Scope,
        count: Count,
    },
    /// Requests that a variant of an experiment decided.
    Variant {
        variant: VariantId,
        outcome: Outcome,
    },
    /// Requests that the store did not decide.
    Degraded(Degraded),
    /// For how long requests were delayed, altogether.
    DelayedMillis,
    /// Requests that were to be delayed and found no place.
    Crowded,
    /// Requests of callers whose tier the policy does not name, though it names others.
    TierUnknown,
}

/// What is counted of a rule. The first four tell requests apart, the others are said of some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Schema)]
pub enum Count {
    Allowed,
    Delayed,
    Denied,
    Unavailable,
    /// Denied from what the worker remembered.
    Cached,
    /// Allowed from permits that the worker held.
    Leased,
    /// Decided without the store.
    Degraded,
    /// What a rule in shadow mode would have done.
    ShadowAllowed,
    ShadowDenied,
    /// So much was used that the caller was warned.
    Warned,
}

const SCOPES: [Scope; 4] = [Scope::Global, Scope::User, Scope::Ip, Scope::Key];

/// Where each count is: decisions, degraded, the delay, the crowded, unknown tiers, a block for each rule,
/// then one for each variant of an experiment.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    rules: usize,
    variants: usize,
}

const DEGRADED_AT: usize = Outcome::ALL.len();
const DELAY_AT: usize = DEGRADED_AT + Degraded::ALL.len();
const CROWDED_AT: usize = DELAY_AT + 1;
const TIER_AT: usize = CROWDED_AT + 1;
const RULES_AT: usize = TIER_AT + 1;
const SCOPE_SIZE: usize = Count::ALL.len();
const RULE_SIZE: usize = SCOPES.len() * SCOPE_SIZE;
const VARIANT_SIZE: usize = Outcome::ALL.len();

impl Counters {
    pub fn new(policy: Rc<Policy>) -> Counters {
        let rules = policy.rules().iter().enumerate();
        let rules: HashMap<&str, usize> = rules.map(|(at, rule)| (rule.name(), at)).collect();
        let places = policy.limits().map(|(_, limit)| Place {
            // Every limit is some rule's.
            rule: rules.get(limit.rule.as_str()).copied().unwrap_or(0),
            scope: limit.scope,
            on_store_failure: limit.on_store_failure,
        });
        let experiments = policy.experiments().iter();
        let layout = Layout {
            rules: rules.len(),
            variants: experiments.map(|one| one.variants.len()).sum(),
        };
        Counters {
            places: places.collect(),
            names: policy
                .rules()
                .iter()
                .map(|rule| rule.name().into())
                .collect(),
            counts: vec![0; layout.size()],
            layout,
            touched: Vec::new(),
            policy,
        }
    }

    pub fn policy(&self) -> &Rc<Policy> {
        &self.policy
    }

    /// The rules' names, by the number that a series has for its rule.
    pub fn rules(&self) -> &[Rc<str>] {
        &self.names
    }

    /// The name of the rule that a limit is of.
    pub fn rule_of(&self, limit: LimitId) -> Option<&Rc<str>> {
        self.names.get(self.place(limit)?.rule)
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// A request of a caller whose tier the policy does not name.
    pub fn tier_unknown(&mut self) {
        self.add(Series::TierUnknown, 1);
    }

    /// A request that met no limit.
    pub fn decided(&mut self, outcome: Outcome) {
        self.add(Series::Decision(outcome), 1);
    }

    /// A request that met these limits, with what was left of each where that is known.
    pub fn count(&mut self, record: &Record, met: impl Iterator<Item = (LimitId, Option<i64>)>) {
        self.add(Series::Decision(record.outcome), 1);
        let mark = match record.source {
            Source::Denials => Some(Count::Cached),
            Source::Leases => Some(Count::Leased),
            Source::Failure(how) => {
                self.add(Series::Degraded(how), 1);
                Some(Count::Degraded)
            }
            Source::Store | Source::Policy => None,
        };
        match record.outcome {
            Outcome::Allowed => self.passed(Count::Allowed, mark, met),
            Outcome::Delayed => self.passed(Count::Delayed, mark, met),
            Outcome::Denied => {
                let shown = record.shown.and_then(|shown| self.place(shown.limit));
                self.at(shown, Count::Denied, mark);
            }
            Outcome::Unavailable => {
                let blind = met
                    .filter(|(_, left)| left.is_none())
                    .filter_map(|(limit, _)| self.place(limit))
                    .find(|place| place.on_store_failure == OnStoreFailure::Deny);
                self.at(blind, Count::Unavailable, mark);
            }
            Outcome::Exempt | Outcome::Blocked | Outcome::Unmatched => {}
        }
        for (limits, count) in [
            (&record.shadow_passed, Count::ShadowAllowed),
            (&record.shadow_denied, Count::ShadowDenied),
            (&record.warned, Count::Warned),
        ] {
            for &limit in limits {
                self.at(self.place(limit), count, None);
            }
        }
        for &variant in &record.variants {
            let outcome = record.outcome;
            self.add(Series::Variant { variant, outcome }, 1);
        }
        if record.delay.as_millis() > 0 {
            let millis = u32::try_from(record.delay.as_millis()).unwrap_or(u32::MAX);
            self.add(Series::DelayedMillis, millis);
        }
        if record.is_crowded {
            self.add(Series::Crowded, 1);
        }
    }

    /// Limits come rule by rule.
    fn passed(
        &mut self,
        count: Count,
        mark: Option<Count>,
        met: impl Iterator<Item = (LimitId, Option<i64>)>,
    ) {
        let mut tightest: Option<(Place, i64)> = None;
        for (limit, left) in met {
            let Some(place) = self.place(limit) else {
                continue;
            };
            let left = left.unwrap_or(i64::MAX);
            match &mut tightest {
                Some((known, least)) if known.rule == place.rule => {
                    if left < *least {
                        (*known, *least) = (place, left);
                    }
                }
                _ => {
                    let before = tightest.replace((place, left));
                    self.at(before.map(|(place, _)| place), count, mark);
                }
            }
        }
        self.at(tightest.map(|(place, _)| place), count, mark);
    }

    fn at(&mut self, place: Option<Place>, count: Count, mark: Option<Count>) {
        if let Some(Place { rule, scope, .. }) = place {
            for count in [Some(count), mark].into_iter().flatten() {
                self.add(Series::Rule { rule, scope, count }, 1);
            }
        }
    }

    fn place(&self, limit: LimitId) -> Option<Place> {
        self.places.get(limit.index()).copied()
    }

    fn add(&mut self, series: Series, more: u32) {
        let number = self.layout.number(series);
        if let Some(count) = self.counts.get_mut(number) {
            if *count == 0 {
                self.touched.push(number);
            }
            *count = count.saturating_add(more);
        }
    }

    pub fn has_news(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Hands over what has come since the last time, with each series' number.
    pub fn drain(&mut self, mut told: impl FnMut(usize, Series, u32)) {
        for number in self.touched.drain(..) {
            if let (Some(count), Some(series)) =
                (self.counts.get_mut(number), self.layout.series(number))
            {
                told(number, series, std::mem::take(count));
            }
        }
    }
}

impl Layout {
    /// How many series there are; each has a number below it.
    pub fn size(self) -> usize {
        self.variants_at() + self.variants * VARIANT_SIZE
    }

    fn variants_at(self) -> usize {
        RULES_AT + self.rules * RULE_SIZE
    }

    pub fn number(self, series: Series) -> usize {
        match series {
            Series::Decision(outcome) => outcome as usize,
            Series::Degraded(how) => DEGRADED_AT + how as usize,
            Series::DelayedMillis => DELAY_AT,
            Series::Crowded => CROWDED_AT,
            Series::TierUnknown => TIER_AT,
            Series::Rule { rule, scope, count } => {
                RULES_AT + rule * RULE_SIZE + scope as usize * SCOPE_SIZE + count as usize
            }
            Series::Variant { variant, outcome } => {
                self.variants_at() + variant.0 as usize * VARIANT_SIZE + outcome as usize
            }
        }
    }

    fn series(self, number: usize) -> Option<Series> {
        if let Some(outcome) = Outcome::ALL.get(number) {
            return Some(Series::Decision(*outcome));
        }
        if let Some(how) = Degraded::ALL.get(number - DEGRADED_AT) {
            return Some(Series::Degraded(*how));
        }
        let Some(of_rules) = number.checked_sub(RULES_AT) else {
            return Some(match number {
                DELAY_AT => Series::DelayedMillis,
                CROWDED_AT => Series::Crowded,
                _ => Series::TierUnknown,
            });
        };
        if let Some(of_variants) = number.checked_sub(self.variants_at()) {
            let variant = VariantId(u32::try_from(of_variants / VARIANT_SIZE).ok()?);
            let outcome = *Outcome::ALL.get(of_variants % VARIANT_SIZE)?;
            return Some(Series::Variant { variant, outcome });
        }
        let (rule, of_rule) = (of_rules / RULE_SIZE, of_rules % RULE_SIZE);
        let scope = *SCOPES.get(of_rule / SCOPE_SIZE)?;
        let count = *Count::ALL.get(of_rule % SCOPE_SIZE)?;
        Some(Series::Rule { rule, scope, count })
    }
}

impl Series {
    /// What is to be there, at zero, as soon as this one is: a statistic that appears with its first
    /// refusals shows no growth to whoever watches for it.
    pub fn sibling(self) -> Option<Series> {
        match self {
            Series::Rule {
                rule,
                scope,
                count: Count::Allowed,
            } => {
                let count = Count::Denied;
                Some(Series::Rule { rule, scope, count })
            }
            Series::DelayedMillis => Some(Series::Crowded),
            _ => None,
        }
    }

    /// The rule that it is of, if it is one's.
    pub fn rule(self) -> Option<usize> {
        match self {
            Series::Rule { rule, .. } => Some(rule),
            Series::Decision(_)
            | Series::Degraded(_)
            | Series::DelayedMillis
            | Series::Crowded
            | Series::TierUnknown
            | Series::Variant { .. } => None,
        }
    }

    /// The statistic's name. `stats_tags` of the shipped Envoy configuration take the tags out of it:
    /// what follows a rule's name has a fixed shape up to the end, so that no name of a rule can be
    /// read in two ways.
    pub fn name(self, policy: &Policy) -> Option<String> {
        Some(match self {
            Series::Decision(outcome) => {
                format!("weir.decisions_total.outcome.{}", outcome.name())
            }
            Series::Degraded(how) => format!("weir.degraded_total.how.{}", how.name()),
            Series::DelayedMillis => "weir.delayed_millis_total".to_string(),
            Series::Crowded => "weir.no_place_to_wait_total".to_string(),
            Series::TierUnknown => "weir.tier_unknown_total".to_string(),
            Series::Variant { variant, outcome } => {
                let (experiment, variant) = policy.variant(variant)?;
                // A slash is in no name: two names that are free need something between.
                format!(
                    "weir.experiments_total.experiment.{}/variant.{}.outcome.{}",
                    experiment.name,
                    variant.name,
                    outcome.name()
                )
            }
            Series::Rule { rule, scope, count } => {
                let rule = policy.rules().get(rule)?.name();
                let (family, tag) = match count {
                    Count::Allowed | Count::Delayed | Count::Denied | Count::Unavailable => {
                        ("requests_total", "outcome")
                    }
                    Count::Cached
                    | Count::Leased
                    | Count::Degraded
                    | Count::ShadowAllowed
                    | Count::ShadowDenied
                    | Count::Warned => ("marks_total", "mark"),
                };
                let (scope, count) = (scope.name(), count.name());
                format!("weir.{family}.rule.{rule}.scope.{scope}.{tag}.{count}")
            }
        })
    }
}

impl Count {
    pub const ALL: [Count; 10] = [
        Count::Allowed,
        Count::Delayed,
        Count::Denied,
        Count::Unavailable,
        Count::Cached,
        Count::Leased,
        Count::Degraded,
        Count::ShadowAllowed,
        Count::ShadowDenied,
        Count::Warned,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Count::Allowed => Outcome::Allowed.name(),
            Count::Delayed => Outcome::Delayed.name(),
            Count::Denied => Outcome::Denied.name(),
            Count::Unavailable => Outcome::Unavailable.name(),
            Count::Cached => "cached",
            Count::Leased => "leased",
            Count::Degraded => "degraded",
            Count::ShadowAllowed => "shadow_allowed",
            Count::ShadowDenied => "shadow_denied",
            Count::Warned => "warned",
        }
    }
}

#[cfg(test)]
mod tests;
