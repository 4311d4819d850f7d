//! Why a request meets the limits that it meets. It asks what [`super::admit`] asks and hands on its step;
//! no request's way leads through here, so the filter does not contain it.

use std::iter;
use std::rc::Rc;

use super::head::{Head, KnownFacts};
use super::{Admission, Facts, Pending, Recognised, Step, Wants, admit, condition, recognise};
use crate::live::snapshot::PolicySnapshot;
use crate::policy::ids::LimitId;
use crate::policy::rollout::Counting;
use crate::policy::{Mismatch, Rule, Target};
use crate::quota::cost::Cost;
use crate::request::identity::{Belief, Caller, Credentials, Sources};
use crate::request::path;

/// What is believed of a request, and what of the policy is for it.
#[derive(Debug)]
pub struct Explanation<'a> {
    /// As rules see it.
    pub path: Vec<u8>,
    /// Who calls, by what is believed.
    pub caller: Caller,
    /// Whether identity headers count; none where nobody sent any.
    pub belief: Option<Belief>,
    /// Whether the operator's word decides the tier, and not what was sent.
    pub is_tier_assigned: bool,
    /// Every rule in order, with why it is not for the request where it is not.
    pub rules: Vec<(&'a Rule, Standing)>,
    pub admission: Admission,
}

/// Whether a rule is for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is, whatever limits it then has for the caller.
    For,
    Mismatch(Mismatch),
    /// By its place in the rule's `when`: the first condition that does not hold.
    Condition(usize),
    Off,
}

/// A limit that a request is held against.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub limit: LimitId,
    pub counting: Counting,
    /// The counter's name in Redis.
    pub key: &'a [u8],
    pub cost: Cost,
}

/// As [`admit`], with the reasons.
pub fn explain<'a, 'h>(
    snapshot: &'a Rc<PolicySnapshot>,
    sources: &Sources,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    facts: &impl Facts,
) -> Explanation<'a> {
    let policy = &snapshot.policy;
    let admission = admit(snapshot, sources, headers.clone(), facts);
    let head = Head::read(sources, policy, headers);
    let known = &KnownFacts::new(facts, sources, head.peer);
    let is_sent = head.credentials.any() || !head.costs.is_empty();
    let belief = is_sent.then(|| sources.trust.belief(|| known.direct_peer()));
    let credentials = match belief {
        Some(Belief::Ignored) => Credentials::default(),
        Some(Belief::Believed) | None => head.credentials,
    };
    let Recognised { caller, .. } = recognise(snapshot, sources, credentials, known);
    let assigned = policy
        .assigned_tiers
        .tier(&caller, credentials.api_key, || known.time_of_day());
    let path = path::normalise(head.target).into_owned();
    let target = Target {
        path: &path,
        method: head.method,
        authority: head.authority,
    };
    let standing = |rule: &Rule, mismatch| match mismatch {
        Some(mismatch) => Standing::Mismatch(mismatch),
        None => {
            let mut conditions = rule.when().iter();
            let failed = conditions.position(|one| !condition::holds(one, &head, known, &caller));
            failed.map_or(Standing::For, Standing::Condition)
        }
    };
    let rules = policy
        .compare(target)
        .map(|(rule, mismatch)| (rule, standing(rule, mismatch)));
    let off = policy.off().iter().zip(iter::repeat(Standing::Off));
    let rules = rules.chain(off).collect();
    Explanation {
        rules,
        caller,
        belief,
        is_tier_assigned: assigned.is_some(),
        admission,
        path,
    }
}

impl Explanation<'_> {
    /// Each limit that the request is held against, in the order in which they are asked about.
    pub fn asked(&self) -> Vec<Asked<'_>> {
        match &self.admission.step {
            Step::Ask(pending) => pending.asked(),
            Step::Pass
            | Step::Exempt(_)
            | Step::Block(..)
            | Step::Respond(..)
            | Step::Report(_)
            | Step::Page(_) => Vec::new(),
        }
    }
}

impl Pending {
    fn asked(&self) -> Vec<Asked<'_>> {
        let Wants::Passage(passage) = &self.wants else {
            return Vec::new();
        };
        let enforced = passage.limits.iter().zip(iter::repeat(Counting::Enforced));
        let shadows = passage.shadows.iter().flat_map(|shadow| &shadow.limits);
        let limits = enforced.chain(shadows.zip(iter::repeat(Counting::Shadow)));
        let checks = self.fan_in.check_request().checks();
        let asked = limits.zip(checks).map(|((limit, counting), check)| Asked {
            limit: *limit,
            counting,
            key: &check.key,
            cost: check.cost,
        });
        asked.collect()
    }
}
