//! The result of a simulation, whatever shows it. Its shape is `weirctl.simulation/1`; a field that is
//! added leaves that name, one that goes or means something else does not.

use anyhow::Result;
use serde::Serialize;
use weir_core::decide::decision::Outcome as Decided;
use weir_core::policy::rollout::Mode;
use weir_core::policy::{Limit, Policy};
use weir_core::request::subject::{Subject, id_text};
use weir_core::time::StoreInstant;

use super::curve::Point;
use super::gate::{Caller, Gate, was_refused};
use super::series::Series;
use super::tally::{Callers, Curves, OfKey, Tally};
use crate::log::{Merged, Slot, Summary};

/// How many callers are named.
const NAMED: usize = 20;

/// What is refused at most by a number that is suggested.
const SUGGESTED: f64 = 0.001;

/// What a simulation goes by.
#[derive(Clone, Debug)]
pub struct Assumptions {
    pub caller: Caller,
    pub curves: Curves,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub policy: String,
    /// The policy beside it: what is in force now.
    pub against: Option<String>,
    pub log: Summary,
    pub from_ms: u64,
    pub to_ms: u64,
    pub requests: u64,
    pub callers: usize,
    pub outcomes: Vec<Count>,
    pub outcomes_against: Option<Vec<Count>>,
    pub calibration: Option<Calibration>,
    pub limits: Vec<OfLimit>,
    pub series: Series,
    /// Those who are refused most.
    pub hit: Vec<Hit>,
    /// How many callers are refused at all.
    pub callers_hit: usize,
    pub not_looked_at: Vec<Count>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Count {
    pub what: String,
    pub count: u64,
}

/// How far the simulation of what was in force agrees with what the log says happened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Calibration {
    pub policy: String,
    pub requests: u64,
    pub refused_by_log: u64,
    pub refused_by_simulation: u64,
    pub refused_by_both: u64,
    /// The share of the requests on which the two agree.
    pub agreement: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct OfLimit {
    pub rule: String,
    pub scope: &'static str,
    /// The tier or network that it is for; empty for everybody together.
    pub whom: String,
    pub algorithm: &'static str,
    pub limit: u64,
    pub window_seconds: u64,
    pub capacity: u64,
    pub is_on_trial: bool,
    pub requests: u64,
    pub refused: u64,
    pub callers: u64,
    pub callers_hit: u64,
    pub worst: Option<Worst>,
    /// What a caller asks for in the window in which they ask for most.
    pub usage: Usage,
    pub curve: Vec<Point>,
    pub is_curve_sampled: bool,
    /// The smallest number tried that refuses at most 0.1 % of the requests, if this one refuses more.
    pub suggestion: Option<u64>,
    /// The same limit in the policy beside this one.
    pub against: Option<Against>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Against {
    pub limit: u64,
    pub window_seconds: u64,
    pub refused: u64,
    pub callers_hit: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Worst {
    pub caller: String,
    pub refused: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Usage {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
    pub p999: u64,
    pub most: u64,
    /// How many callers ask for at most so many: [usage, callers], usage growing by doubling.
    pub histogram: Vec<[u64; 2]>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Hit {
    pub caller: String,
    pub requests: u64,
    pub refused: u64,
    pub refused_against: Option<u64>,
    pub rule: Option<String>,
}

/// A policy with a name.
pub struct Named {
    pub name: String,
    pub policy: Policy,
}

/// Replays logs against a policy, and one beside it.
pub fn simulate(
    logs: &mut Merged,
    policy: Named,
    against: Option<Named>,
    assumptions: &Assumptions,
) -> Result<Report> {
    let Assumptions { caller, curves } = assumptions;
    let mut gate = Gate::try_new(policy.policy, caller)?;
    let mut tally = Tally::of(gate.policy(), *curves);
    let mut beside = match against {
        None => None,
        Some(Named { name, policy }) => {
            let gate = Gate::try_new(policy, caller)?;
            let tally = Tally::of(gate.policy(), Curves::Left);
            Some((name, gate, tally))
        }
    };
    let mut callers = Callers::default();
    let mut calibration = Calibration {
        policy: beside
            .as_ref()
            .map_or(&policy.name, |(name, ..)| name)
            .clone(),
        ..Calibration::default()
    };
    let (mut from, mut to) = (None, 0);
    logs.each(|request| {
        let now = StoreInstant(request.time);
        from.get_or_insert(request.time);
        to = request.time;
        let verdict = gate.decide(&request);
        tally.count(&gate, &verdict, now);
        let verdict_beside = beside.as_mut().map(|(_, gate, tally)| {
            let verdict = gate.decide(&request);
            tally.count(gate, &verdict, now);
            verdict
        });
        callers.count(&verdict, verdict_beside.as_ref());
        if let Some(was_refused) = was_refused(&request) {
            let in_force = verdict_beside.as_ref().unwrap_or(&verdict);
            calibration.count(was_refused, in_force.is_refused());
        }
    })?;
    let log = logs.summary();
    let beside = beside
        .as_ref()
        .map(|(name, gate, tally)| Beside { name, gate, tally });
    let notes = notes(&gate, logs, assumptions, &tally);
    Ok(Report {
        policy: policy.name,
        against: beside.as_ref().map(|beside| beside.name.clone()),
        from_ms: from.unwrap_or(0) / 1000,
        to_ms: to / 1000,
        requests: log.read,
        callers: callers.0.len(),
        outcomes: outcomes(&tally),
        outcomes_against: beside.as_ref().map(|beside| outcomes(beside.tally)),
        calibration: calibration.finished(),
        limits: limits(&gate, &tally, beside.as_ref()),
        hit: hit(&gate, &callers, beside.is_some()),
        callers_hit: callers.0.values().filter(|one| one.refused > 0).count(),
        not_looked_at: not_looked_at(&tally, &log),
        notes,
        series: tally.series,
        log,
    })
}

struct Beside<'a> {
    name: &'a String,
    gate: &'a Gate,
    tally: &'a Tally,
}

impl Report {
    /// The share of the requests that the policy refuses.
    pub fn refused_share(&self) -> f64 {
        let refused = count_of(&self.outcomes, Decided::Denied);
        refused as f64 / self.requests.max(1) as f64
    }
}

impl Calibration {
    fn count(&mut self, log: bool, simulation: bool) {
        self.requests += 1;
        self.refused_by_log += u64::from(log);
        self.refused_by_simulation += u64::from(simulation);
        self.refused_by_both += u64::from(log && simulation);
    }

    /// Nothing where the log tells no answers.
    fn finished(mut self) -> Option<Calibration> {
        let only_one = self.refused_by_log + self.refused_by_simulation - 2 * self.refused_by_both;
        self.agreement = 1.0 - only_one as f64 / self.requests.max(1) as f64;
        (self.requests > 0).then_some(self)
    }
}

pub fn count_of(outcomes: &[Count], outcome: Decided) -> u64 {
    let found = outcomes.iter().find(|count| count.what == outcome.name());
    found.map_or(0, |count| count.count)
}

fn outcomes(tally: &Tally) -> Vec<Count> {
    let all = Decided::ALL.iter().zip(tally.outcomes);
    all.map(|(outcome, count)| Count {
        what: outcome.name().to_owned(),
        count,
    })
    .collect()
}

fn limits(gate: &Gate, tally: &Tally, beside: Option<&Beside<'_>>) -> Vec<OfLimit> {
    let names = gate.key_names();
    let mut keys: Vec<Vec<(usize, &OfKey)>> = vec![Vec::new(); tally.limits.len()];
    for (number, key) in tally.keys.iter().enumerate() {
        keys[key.limit.index()].push((number, key));
    }
    let policy = gate.policy();
    let mut told = Vec::new();
    for ((id, limit), own) in policy.limits().zip(&tally.limits) {
        let keys = &keys[id.index()];
        let worst = keys.iter().max_by_key(|(_, key)| key.refused);
        let worst = worst
            .filter(|(_, key)| key.refused > 0)
            .map(|(number, key)| Worst {
                caller: who(names[*number]),
                refused: u64::from(key.refused),
            });
        let curve = own
            .curve
            .as_ref()
            .map(|curve| curve.points())
            .unwrap_or_default();
        let quota = limit.terms.quota;
        let refuses_more = own.refused as f64 > SUGGESTED * own.requests as f64;
        let enough =
            |point: &&Point| point.refused_share <= SUGGESTED && point.limit > quota.limit();
        let rule = policy
            .rules()
            .iter()
            .chain(policy.off())
            .find(|rule| rule.name() == limit.rule);
        told.push(OfLimit {
            rule: limit.rule.clone(),
            scope: limit.scope.name(),
            whom: limit.label.clone(),
            algorithm: quota.algorithm().name(),
            limit: quota.limit(),
            window_seconds: quota.window_seconds(),
            capacity: quota.capacity(),
            is_on_trial: rule.is_some_and(|rule| !matches!(rule.mode(), Mode::Enforce)),
            requests: own.requests,
            refused: own.refused,
            callers: u64::from(own.keys),
            callers_hit: keys.iter().filter(|(_, key)| key.refused > 0).count() as u64,
            worst,
            usage: usage(keys.iter().map(|(_, key)| u64::from(key.most)).collect()),
            suggestion: curve
                .iter()
                .find(enough)
                .filter(|_| refuses_more)
                .map(|point| point.limit),
            curve,
            is_curve_sampled: own.curve.as_ref().is_some_and(|curve| curve.is_sampled()),
            against: beside.and_then(|beside| same(limit, beside)),
        });
    }
    told
}

/// The limit that counts the same for the same callers.
fn same(limit: &Limit, beside: &Beside<'_>) -> Option<Against> {
    let is_same = |other: &Limit| other.key_end == limit.key_end && other.label == limit.label;
    let is_like = |other: &Limit| {
        other.rule == limit.rule && other.scope == limit.scope && other.label == limit.label
    };
    let all = || beside.gate.policy().limits();
    let exact = all().find(|(_, other)| is_same(other));
    let (id, other) = exact.or_else(|| all().find(|(_, other)| is_like(other)))?;
    let hit = beside
        .tally
        .keys
        .iter()
        .filter(|key| key.limit == id && key.refused > 0);
    Some(Against {
        limit: other.terms.quota.limit(),
        window_seconds: other.terms.quota.window_seconds(),
        refused: beside.tally.limits[id.index()].refused,
        callers_hit: hit.count() as u64,
    })
}

fn usage(mut most: Vec<u64>) -> Usage {
    most.sort_unstable();
    // The nearest rank: the smallest that so many callers do not exceed.
    let rank = |thousandths: usize| {
        let place = (most.len() * thousandths).div_ceil(1000).saturating_sub(1);
        most.get(place).copied().unwrap_or(0)
    };
    let mut histogram: Vec<[u64; 2]> = Vec::new();
    for usage in &most {
        let bound = usage.max(&1).next_power_of_two();
        match histogram.last_mut() {
            Some([last, count]) if *last == bound => *count += 1,
            _ => histogram.push([bound, 1]),
        }
    }
    Usage {
        p50: rank(500),
        p95: rank(950),
        p99: rank(990),
        p999: rank(999),
        most: most.last().copied().unwrap_or(0),
        histogram,
    }
}

/// Whose counter it is: what its name has between braces, as `user ann`.
fn who(key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key);
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let Some((kind, id)) = tag.and_then(|(tag, _)| tag.split_once(':')) else {
        return key.into_owned();
    };
    match kind {
        "g" => "everybody".to_owned(),
        "u" => format!("user {id}"),
        "U" => format!("user #{}", &id[..id.len().min(12)]),
        "k" => format!("API key {}", &id[..id.len().min(12)]),
        _ => format!("address {id}"),
    }
}

fn hit(gate: &Gate, callers: &Callers, is_beside: bool) -> Vec<Hit> {
    let refused = callers
        .0
        .iter()
        .filter(|(_, caller)| caller.refused + caller.refused_against > 0);
    let mut hit: Vec<_> = refused.collect();
    // Of equals in the order of their names, so that two runs say the same.
    hit.sort_by_cached_key(|(subject, caller)| {
        (
            std::cmp::Reverse((caller.refused, caller.refused_against)),
            name(subject),
        )
    });
    let hit = hit.into_iter().take(NAMED).map(|(subject, caller)| Hit {
        caller: name(subject),
        requests: caller.requests,
        refused: caller.refused,
        refused_against: is_beside.then_some(caller.refused_against),
        rule: caller
            .by
            .and_then(|id| gate.policy().limit(id))
            .map(|limit| limit.rule.clone()),
    });
    hit.collect()
}

fn name(subject: &Subject) -> String {
    match subject {
        Subject::User(_) => format!("user {}", id_text(subject)),
        Subject::ApiKey(_) => id_text(subject),
        Subject::Address(_) => format!("address {}", id_text(subject)),
    }
}

fn not_looked_at(tally: &Tally, log: &Summary) -> Vec<Count> {
    let all = [
        ("lines that are broken", log.broken.count),
        (
            "requests of whom the log tells neither user, API key nor address",
            tally.nobody,
        ),
        (
            "requests of a tier that the policy does not name: they have the limits of default",
            tally.unknown_tiers,
        ),
        (
            "requests whose cost a response header tells that is not in the log: they cost the default",
            tally.without_cost,
        ),
        ("requests that a gateway answers with 400", tally.bad),
        ("status calls, which have a limit of their own", tally.own),
        (
            "requests further from their place in time than 32,768 lines: replayed where they stand",
            log.late,
        ),
    ];
    let some = all.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(what, count)| Count {
        what: what.to_owned(),
        count,
    })
    .collect()
}

/// What nobody can know from a log, and what was assumed.
fn notes(gate: &Gate, logs: &Merged, assumptions: &Assumptions, tally: &Tally) -> Vec<String> {
    let policy = gate.policy();
    let mut notes = Vec::new();
    let mut note = |note: String| notes.push(note);
    let tells = |slot: &Slot| logs.tells(slot);
    let names_users = tells(&Slot::User)
        || tells(&Slot::Decision)
        || tells(&Slot::ApiKey)
        || gate
            .id_headers()
            .iter()
            .any(|name| tells(&Slot::Request((*name).to_owned())));
    if !names_users {
        note("the log names no users, so everybody counts by address: log the header that names them".to_owned());
    }
    let is_of_tiers = policy.limits().any(|(_, limit)| {
        limit.scope == weir_core::policy::ids::Scope::User && limit.label != "default"
    });
    if is_of_tiers && !gate.tells_tier(tells) {
        let tier = assumptions.caller.tier.as_deref().unwrap_or("free");
        note(format!(
            "the log tells no tiers: whoever has an id is taken for {tier:?}; --tier says otherwise"
        ));
    }
    if policy.is_leased() {
        note("leases spend ahead: what is refused early near a limit for their sake is not simulated".to_owned());
    }
    if policy.has_soft_limits() {
        note(
            "requests that a limit delays go on at once here, and nobody leaves while they wait"
                .to_owned(),
        );
    }
    if logs.is_in_whole_seconds() {
        note(
            "the log tells whole seconds: requests of one second are spread over it evenly"
                .to_owned(),
        );
    }
    if tally.limits.iter().any(|limit| limit.refused > 0) {
        note(
            "clients that are refused would have behaved otherwise: they retry, or they stop"
                .to_owned(),
        );
    }
    notes
}
