//! Experiments: variants of some rules' limits, each for a share of the callers, so that two policies
//! can be compared on live traffic. Who is in which variant is drawn, as `rollout` draws.
//!
//! A variant overrides limits by tier and by network; whatever it does not name stays the rule's. One
//! that overrides nothing is the control.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::compiled::{Rule, RuleLimits};
use super::parse::{Limits, Whose, name, rule_limits};
use crate::codec::json::{At, ConfigError};
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

// === Reading them ===

/// Reads the field `experiments`, and lets the rules that it names take part.
pub(super) fn read(
    at: &At<'_>,
    rules: &mut [Rule],
    limits: &mut Limits,
) -> Result<Vec<Experiment>, ConfigError> {
    let mut experiments: Vec<Experiment> = Vec::new();
    let mut names = HashSet::new();
    let places = rules.iter().map(|rule| rule.name.clone()).zip(0..);
    let places: HashMap<String, usize> = places.collect();
    let mut first = 0;
    for at in at.list()? {
        let mut fields = at.fields()?;
        let name_at = fields.required("name")?;
        let name = name(&name_at)?;
        if !names.insert(name.clone()) {
            return Err(name_at.error(format!(
                "{name:?} is already the name of another experiment; callers are drawn by it"
            )));
        }
        let variants_at = fields.required("variants")?;
        fields.finish()?;
        let variants = variants_at.list()?;
        if variants.len() < 2 {
            return Err(variants_at.error(
                "has to hold two variants at least; one that overrides nothing is the control",
            ));
        }
        let mut experiment = Experiment {
            name,
            variants: Vec::new(),
            first,
        };
        let count = variants.len();
        let (mut names, mut overrides) = (HashSet::new(), false);
        for (place, at) in variants.iter().enumerate() {
            let variant = Reading {
                experiments: &experiments,
                experiment: &experiment,
                arm: (place, count),
                names: &mut names,
                places: &places,
                rules,
                limits,
                overrides: &mut overrides,
            }
            .variant(at)?;
            experiment.variants.push(variant);
        }
        if experiment
            .variants
            .iter()
            .all(|variant| variant.weight == 0)
        {
            return Err(variants_at.error("have no weight but 0; somebody has to be in one"));
        }
        if !overrides {
            return Err(
                at.error("overrides no limit of any rule, so that there is nothing to compare")
            );
        }
        // There are no more variants than limits, which are counted in 32 bits.
        first += u32::try_from(count).unwrap_or(u32::MAX);
        experiments.push(experiment);
    }
    Ok(experiments)
}

/// What one variant is read with.
struct Reading<'a> {
    experiments: &'a [Experiment],
    /// The one it belongs to, with the variants before it.
    experiment: &'a Experiment,
    /// Its place among so many.
    arm: (usize, usize),
    /// Of the variants before it.
    names: &'a mut HashSet<String>,
    /// By name, where each rule is.
    places: &'a HashMap<String, usize>,
    rules: &'a mut [Rule],
    limits: &'a mut Limits,
    /// Whether any rule takes part in the experiment.
    overrides: &'a mut bool,
}

impl Reading<'_> {
    fn variant(mut self, at: &At<'_>) -> Result<Variant, ConfigError> {
        let mut fields = at.fields()?;
        let name_at = fields.required("name")?;
        let name = name(&name_at)?;
        if !self.names.insert(name.clone()) {
            return Err(name_at.error(format!(
                "{name:?} is already the name of another variant; results are told by it"
            )));
        }
        let weight = fields.required("weight")?;
        let weight = u32::try_from(weight.whole()?)
            .map_err(|_| weight.error("is beyond 2^32; shares of 100 will do"))?;
        if let Some(at) = fields.optional("rules") {
            for (rule, at) in at.entries()? {
                self.overrides(&name, rule, &at)?;
            }
        }
        fields.finish()?;
        Ok(Variant { name, weight })
    }

    /// What this variant makes of one rule.
    fn overrides(&mut self, variant: &str, rule: &str, at: &At<'_>) -> Result<(), ConfigError> {
        let here = self.experiments.len();
        let place = self.places.get(rule).copied();
        let Some(rule) = place.and_then(|place| self.rules.get_mut(place)) else {
            let names: Vec<&str> = self.rules.iter().map(|rule| rule.name.as_str()).collect();
            return Err(at.error(format!("is no rule; the rules are {}", names.join(", "))));
        };
        if let Some(other) = &rule.takes_part
            && other.experiment != here
        {
            let other = self.experiments.get(other.experiment);
            return Err(at.error(format!(
                "takes part in the experiment {:?} already, and what would differ then would have two \
                 causes; let the one end before the other begins",
                other.map_or("", |other| other.name.as_str())
            )));
        }
        let mut fields = at.fields()?;
        let in_variant = format!("{}:{variant}", self.experiment.name);
        let whose = Whose {
            rule: &rule.name,
            variant: &in_variant,
            cost_rule: &rule.cost_rule,
        };
        let own = rule_limits(&mut fields, whose, self.limits)?;
        fields.finish()?;
        let Some(limits) = rule.limits.overridden_by(own) else {
            return Err(at.error("overrides no limit; name one, or leave the rule out"));
        };
        let (place, count) = self.arm;
        let takes_part = rule.takes_part.get_or_insert_with(|| Participation {
            experiment: here,
            arms: (0..count).map(|_| None).collect(),
        });
        if let Some(arm) = takes_part.arms.get_mut(place) {
            *arm = Some(limits);
        }
        *self.overrides = true;
        Ok(())
    }
}

impl RuleLimits {
    /// These with others in the place of those that they name; nothing if they name none.
    fn overridden_by(&self, other: RuleLimits) -> Option<RuleLimits> {
        let RuleLimits { global, user, ip } = other;
        let names_none = global.is_empty()
            && user.by_tier.is_empty()
            && user.default.is_none()
            && ip.by_network.is_empty()
            && ip.default.is_empty();
        if names_none {
            return None;
        }
        let mut limits = self.clone();
        if !global.is_empty() {
            limits.global = global;
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
