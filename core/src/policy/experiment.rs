//! Experiments: variants of some rules' limits, each for a share of the callers, so that two policies
//! can be compared on live traffic. Who is in which variant is drawn, as `rollout` draws.
//!
//! A variant overrides limits by tier and by network; whatever it does not name stays the rule's. One
//! that overrides nothing is the control.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::compile::{Limits, Whose};
use super::compiled::{Rule, RuleLimits};
use super::document::{self, Items};
use crate::codec::json::{Mistakes, Path, closest};
use crate::policy::ids::VariantId;
use crate::policy::rollout;
use crate::request::address::Cidr;
use crate::request::subject::Subject;

#[derive(Debug)]
pub struct Experiment {
    pub name: String,
    pub variants: Vec<Variant>,
    /// The place of its first variant among all of the policy.
    first: u32,
}

#[derive(Debug)]
pub struct Variant {
    pub name: String,
    /// Its share of the callers is this part of the sum of all weights.
    pub weight: u32,
}

/// The experiment that a rule is in, by its place, and what each variant makes of the rule's limits;
/// nothing where it leaves them as they are.
#[derive(Debug)]
pub(super) struct Participation {
    experiment: usize,
    arms: Vec<Option<RuleLimits>>,
}

/// One variant as a subject of one rule met it.
#[derive(Clone, Copy, Debug)]
pub struct Arm<'a> {
    pub id: VariantId,
    pub(super) limits: Option<&'a RuleLimits>,
}

impl Experiment {
    /// The variant that is for this caller.
    fn of(&self, subject: &Subject) -> Option<(usize, &Variant)> {
        let sum: u64 = self.variants.iter().map(|v| u64::from(v.weight)).sum();
        let drawn = rollout::bucketing_hash("experiment", &self.name, subject);
        // Of `sum` equal parts of all draws, the one that this lies in.
        let part = (u128::from(drawn) * u128::from(sum)) >> 64;
        let mut before = 0;
        self.variants.iter().enumerate().find(|(_, variant)| {
            before += u128::from(variant.weight);
            part < before
        })
    }

    fn id(&self, place: usize) -> VariantId {
        VariantId(u32::try_from(place).map_or(u32::MAX, |place| self.first + place))
    }

    /// The variant that is for this caller, by its name.
    pub fn variant(&self, subject: &Subject) -> Option<&str> {
        self.of(subject).map(|(_, variant)| variant.name.as_str())
    }

    /// Its variants with their ids.
    pub fn ids(&self) -> impl Iterator<Item = (VariantId, &Variant)> {
        let ids = (0..).map(|place| self.id(place));
        ids.zip(&self.variants)
    }
}

impl Participation {
    /// What variants make of the rule's limits, of those that change any.
    pub(super) fn limits(&self) -> impl Iterator<Item = &RuleLimits> {
        self.arms.iter().flatten()
    }

    /// How the rule is for this caller.
    pub fn arm(&self, experiments: &[Experiment], subject: &Subject) -> Option<Arm<'_>> {
        let experiment = experiments.get(self.experiment)?;
        let (place, _) = experiment.of(subject)?;
        Some(Arm {
            id: experiment.id(place),
            limits: self.arms.get(place).and_then(Option::as_ref),
        })
    }
}

impl fmt::Display for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "experiment {}:", self.name)?;
        let mut separator = " ";
        for variant in &self.variants {
            write!(f, "{separator}{} {}", variant.name, variant.weight)?;
            separator = ", ";
        }
        Ok(())
    }
}

// === Compiling them ===

/// What experiments are compiled with.
pub(super) struct Experiments<'a> {
    pub rules: &'a mut [Rule],
    pub limits: &'a mut Limits,
    /// Whether no rule was left out for what is wrong with it.
    pub are_all_read: bool,
    pub mistakes: &'a mut Mistakes,
}

/// Where a variant stands, among what came before it.
struct Here<'a> {
    before: &'a [Experiment],
    experiment: &'a str,
    /// Its place among so many.
    arm: (usize, usize),
    /// By name, where each rule is.
    places: &'a HashMap<String, usize>,
}

impl Experiments<'_> {
    /// Compiles the field `experiments`, and lets the rules that it names take part.
    pub(super) fn compile(
        mut self,
        written: Items<document::Experiment>,
        at: &Path<'_>,
    ) -> Vec<Experiment> {
        let mut experiments: Vec<Experiment> = Vec::new();
        let mut names = HashSet::new();
        let places = self.rules.iter().map(|rule| rule.name.clone()).zip(0..);
        let places: HashMap<String, usize> = places.collect();
        let mut first = 0;
        for (place, experiment) in written {
            let at = place.of(at);
            let document::Experiment { name, variants } = experiment;
            if !names.insert(name.clone()) {
                self.mistakes.add(at.member("name").error(format!(
                    "{name:?} is already the name of another experiment; callers are drawn by it"
                )));
            }
            let count = variants.len();
            let variants = self.variants(variants, &at, (&experiments, &name, &places));
            experiments.push(Experiment {
                name,
                variants,
                first,
            });
            // There are no more variants than limits, which are counted in 32 bits.
            first += u32::try_from(count).unwrap_or(u32::MAX);
        }
        experiments
    }

    /// Those of one experiment.
    fn variants(
        &mut self,
        written: Items<document::Variant>,
        experiment_at: &Path<'_>,
        (before, experiment, places): (&[Experiment], &str, &HashMap<String, usize>),
    ) -> Vec<Variant> {
        let at = experiment_at.member("variants");
        let (count, is_whole) = (written.len(), written.is_whole());
        if count < 2 && is_whole {
            self.mistakes.add(at.error(
                "has to hold two variants at least; one that overrides nothing is the control",
            ));
            return Vec::new();
        }
        let mut variants: Vec<Variant> = Vec::with_capacity(count);
        let mut names = HashSet::new();
        let mut overrides = false;
        for (nth, (place, variant)) in written.into_iter().enumerate() {
            let at = place.of(&at);
            let document::Variant {
                name,
                weight,
                rules,
            } = variant;
            if !names.insert(name.clone()) {
                self.mistakes.add(at.member("name").error(format!(
                    "{name:?} is already the name of another variant; results are told by it"
                )));
            }
            let here = Here {
                before,
                experiment,
                arm: (nth, count),
                places,
            };
            let rules_at = at.member("rules");
            for (rule, limits) in rules {
                overrides = true;
                self.overrides(&here, &name, (&rule, limits), &rules_at.member(&rule));
            }
            variants.push(Variant {
                name,
                // Its reader knows that it fits.
                weight: u32::try_from(weight).unwrap_or(u32::MAX),
            });
        }
        let has_weight = variants.iter().any(|variant| variant.weight > 0);
        if !has_weight && is_whole {
            self.mistakes
                .add(at.error("have no weight but 0; somebody has to be in one"));
        }
        if !overrides && is_whole && !self.mistakes.touch(&at) {
            self.mistakes.add(
                experiment_at
                    .error("overrides no limit of any rule, so that there is nothing to compare"),
            );
        }
        variants
    }

    /// What a variant makes of one rule.
    fn overrides(
        &mut self,
        here: &Here<'_>,
        variant: &str,
        (rule, limits): (&str, document::Limits),
        at: &Path<'_>,
    ) {
        let Some(rule) = here
            .places
            .get(rule)
            .and_then(|place| self.rules.get_mut(*place))
        else {
            if self.are_all_read {
                let message = no_rule(rule, here.places, self.rules);
                self.mistakes.add(at.error(message));
            }
            return;
        };
        if let Some(other) = &rule.takes_part
            && other.experiment != here.before.len()
        {
            let other = here.before.get(other.experiment);
            self.mistakes.add(at.error(format!(
                "takes part in the experiment {:?} already, and what would differ then would have two \
                 causes; let the one end before the other begins",
                other.map_or("", |other| other.name.as_str())
            )));
            return;
        }
        let in_variant = format!("{}:{variant}", here.experiment);
        let whose = Whose {
            rule: &rule.name,
            variant: &in_variant,
            cost_rule: &rule.cost_rule,
            matching: rule.matching,
        };
        let own = self.limits.compile(limits, at, whose, self.mistakes);
        let Some(limits) = rule.limits.overridden_by(own) else {
            if !self.mistakes.touch(at) {
                self.mistakes
                    .add(at.error("overrides no limit; name one, or leave the rule out"));
            }
            return;
        };
        let (place, count) = here.arm;
        let takes_part = rule.takes_part.get_or_insert_with(|| Participation {
            experiment: here.before.len(),
            arms: (0..count).map(|_| None).collect(),
        });
        if let Some(arm) = takes_part.arms.get_mut(place) {
            *arm = Some(limits);
        }
    }
}

fn no_rule(name: &str, places: &HashMap<String, usize>, rules: &[Rule]) -> String {
    match closest(name, places.keys().map(String::as_str)) {
        Some(meant) => format!("is no rule; did you mean {meant:?}?"),
        None => {
            let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
            format!("is no rule; the rules are {}", names.join(", "))
        }
    }
}

impl RuleLimits {
    /// These with others in the place of those that they name; nothing if they name none.
    fn overridden_by(&self, other: RuleLimits) -> Option<RuleLimits> {
        let RuleLimits {
            global,
            user,
            ip,
            keyed,
        } = other;
        let names_none = global.is_empty()
            && user.by_tier.is_empty()
            && user.default.is_none()
            && ip.by_network.is_empty()
            && ip.default.is_empty()
            && keyed.is_empty();
        if names_none {
            return None;
        }
        let mut limits = self.clone();
        if !global.is_empty() {
            limits.global = global;
        }
        if !keyed.is_empty() {
            limits.keyed = keyed;
        }
        let tiers: HashSet<&String> = user.by_tier.iter().map(|(tier, _)| tier).collect();
        let listed = &mut limits.user.by_tier;
        listed.retain(|(tier, _)| !tiers.contains(tier));
        listed.extend(user.by_tier);
        limits.user.default = user.default.or(limits.user.default);
        let networks: HashSet<Cidr> = ip.by_network.iter().map(|(own, _)| *own).collect();
        let listed = &mut limits.ip.by_network;
        listed.retain(|(network, _)| !networks.contains(network));
        listed.extend(ip.by_network);
        limits.ip.sort();
        if !ip.default.is_empty() {
            limits.ip.default = ip.default;
        }
        Some(limits)
    }
}
