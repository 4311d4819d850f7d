//! What operators are told of a gateway by the gateway itself, without any store: traffic by rule,
//! the callers that are refused most, how the store does. Each worker leaves a [`View`] of its own
//! where the others find it, and whoever is asked puts them together.
//!
//! It is one gateway's word about the last quarter of an hour. What many gateways see, and for
//! longer, is in the proxy's statistics.

use std::collections::BTreeMap;

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::codec::packed::Layout;
use crate::decide::answer::{self, Answer};
use crate::decide::decision::Outcome;
use crate::decide::verdict::Degraded;
use crate::live::snapshot::Version;
use crate::observe::advice;
use crate::observe::counters::Count;
use crate::observe::notice::Notice;
use crate::observe::time_series::{self, INTERVAL_SECONDS, INTERVALS, Interval, Latency, Traffic};
use crate::observe::top_k::{By, HeavyHitter, HeavyHitters};
use crate::store::batch::Health;
use crate::time::{Span, WallTime};

/// Counts are listed by these enums, so a member more or another order is another layout.
const LAYOUT: Layout = Layout::of::<(View, Outcome, Degraded, Count)>();
/// A worker that cannot use a way to the store leaves a view at least so often.
pub const LONGEST_SILENCE: Span = Span::seconds(5);
/// A worker that has been silent for longer has nothing to do, or is no more: what it said of its
/// way to the store holds no longer. What it counted does.
const PRESENT: Span = Span::seconds(15);
/// Callers on the list: more than anybody reads in an incident.
const MOST_HEAVY_HITTERS: usize = 20;

/// What one worker has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct View {
    /// When it was left.
    pub at: WallTime,
    /// The version of the policy in force.
    pub version: u64,
    pub lanes: u32,
    pub open_lanes: u32,
    /// How often a breaker of the worker's has opened.
    pub opened: u64,
    /// When the first of the open lanes was shut, and why, in the words of the call
    /// that failed last; 0 and nothing where all are asked.
    pub shut_at: WallTime,
    pub last_error: String,
    /// When a call was answered last, as of the last time that this was told.
    pub answered_at: WallTime,
    pub traffic: Traffic,
    pub heavy_hitters: HeavyHitters,
}

#[derive(Serialize)]
struct Report {
    /// What this speaks of, for whoever might take it for the whole fleet.
    scope: &'static str,
    /// Which one, if the proxy was told its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// Seconds since the Unix epoch, by the gateway's clock.
    timestamp: u64,
    workers: Workers,
    policy: PolicyInForce,
    interval_seconds: u64,
    /// When the first interval of each list began.
    from: u64,
    /// Every request once, by outcome.
    requests: BTreeMap<&'static str, Vec<u32>>,
    /// Busiest first.
    rules: Vec<RuleReport>,
    store: StoreReport,
    /// Wrong ones that were sent as the operators' secret.
    wrong_secrets: u64,
    /// Requests that the store did not decide, by what was done with them.
    degraded: BTreeMap<&'static str, u64>,
    heavy_hitters: Vec<HeavyHitterReport>,
}

#[derive(Serialize)]
struct Workers {
    /// Who has told anything in the time that this is about.
    seen: usize,
    /// Who has had something to do of late.
    active: usize,
}

#[derive(Serialize)]
struct PolicyInForce {
    /// 0 is the configuration's own.
    version: u64,
    /// Whether every active worker runs it.
    everywhere: bool,
}

#[derive(Serialize)]
struct RuleReport {
    name: String,
    #[serde(flatten)]
    counts: BTreeMap<&'static str, Vec<u32>>,
}

#[derive(Serialize)]
struct StoreReport {
    /// What only an operator can mend, in words.
    notices: Vec<String>,
    /// Lanes to the store of the active workers, those that are not asked for now, and of the others
    /// those that nobody has asked since: whether they would be answered is not known.
    lanes: u32,
    open_lanes: u32,
    untried_lanes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_asked: Option<NotAsked>,
    breaker_opened: u64,
    calls: Vec<u32>,
    failures: Vec<u32>,
    /// Requests in a call, on average.
    batch_size: Option<f64>,
    latency_micros: LatencyReport,
}

/// Why the store is not asked.
#[derive(Serialize)]
struct NotAsked {
    /// Seconds since the Unix epoch.
    since: u64,
    /// In the words of the call that failed last.
    why: String,
    advice: &'static str,
}

/// None of it where no call was answered.
#[derive(Serialize)]
struct LatencyReport {
    p50: Option<u64>,
    p99: Option<u64>,
}

#[derive(Serialize)]
struct HeavyHitterReport {
    kind: &'static str,
    subject: String,
    /// What the status call finds them by, if it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(flatten)]
    by: ByReport,
    /// Refusals of late, older ones counting less.
    denied_at_least: u64,
    denied_at_most: u64,
}

/// What refused last: one of these.
#[derive(Default, Serialize)]
struct ByReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// The list of the policy and the entry of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<String>,
    /// What they sent is not the operators' secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong_secret: Option<bool>,
}

/// What the proxy is called.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub id: String,
    pub cluster: String,
}

impl View {
    pub fn health(&mut self, health: Health) {
        let small = |lanes: usize| u32::try_from(lanes).unwrap_or(u32::MAX);
        self.lanes = small(health.lanes);
        self.open_lanes = small(health.open);
        self.opened = health.opened;
    }

    pub fn pack(&self) -> Vec<u8> {
        LAYOUT.pack(self)
    }

    /// Nothing of what is not whole, or of another layout.
    pub fn unpack(bytes: &[u8]) -> Option<View> {
        LAYOUT.unpack(bytes)
    }
}

/// The answer to an operator, from all workers' views, by a worker that runs this version of the
/// policy. `notices` is what it knows of the store.
pub fn report(
    views: &[View],
    node: &Node,
    notices: &[Notice],
    Version(version): Version,
    now: WallTime,
) -> Answer {
    let last = time_series::interval(now);
    let first = last.saturating_sub(INTERVALS as u64 - 1);
    let silent = |view: &View| now.since(view.at);
    let longest = Span::seconds(INTERVALS as u64 * INTERVAL_SECONDS);
    let seen: Vec<&View> = views.iter().filter(|view| silent(view) < longest).collect();
    let active: Vec<&View> = seen
        .iter()
        .copied()
        .filter(|view| silent(view) < PRESENT)
        .collect();

    let mut sums = Sums::default();
    let mut heavy_hitters = HeavyHitters::default();
    for view in &seen {
        let mut own = view.heavy_hitters.clone();
        own.age(now);
        heavy_hitters.merge(&own);
        for interval in view.traffic.intervals() {
            let place = interval.number.checked_sub(first);
            if let Some(place) = place.and_then(|place| usize::try_from(place).ok()) {
                sums.add(place, interval);
            }
        }
    }
    answer::json(
        "weir_gateway",
        &Report {
            scope: "this gateway",
            node: named(&node.id),
            cluster: named(&node.cluster),
            timestamp: now.as_seconds(),
            workers: Workers {
                seen: seen.len(),
                active: active.len(),
            },
            policy: PolicyInForce {
                version,
                everywhere: active.iter().all(|view| view.version == version),
            },
            interval_seconds: INTERVAL_SECONDS,
            from: first * INTERVAL_SECONDS,
            store: StoreReport {
                notices: notices.iter().map(Notice::to_string).collect(),
                lanes: active.iter().map(|view| view.lanes).sum(),
                open_lanes: active.iter().map(|view| view.open_lanes).sum(),
                untried_lanes: untried_lanes(&active),
                not_asked: not_asked(&active),
                breaker_opened: seen.iter().map(|view| view.opened).sum(),
                calls: sums.calls,
                failures: sums.failures,
                batch_size: (sums.answered > 0).then(|| {
                    // Two digits are all that anybody reads.
                    (sums.check_requests as f64 / sums.answered as f64 * 100.0).round() / 100.0
                }),
                latency_micros: LatencyReport {
                    p50: sums.latency.quantile(0.5).map(Span::as_micros),
                    p99: sums.latency.quantile(0.99).map(Span::as_micros),
                },
            },
            requests: sums.requests,
            rules: busiest_first(sums.rules),
            wrong_secrets: sums.wrong_secrets,
            degraded: sums.degraded,
            heavy_hitters: heavy_hitters
                .top(MOST_HEAVY_HITTERS)
                .into_iter()
                .map(HeavyHitterReport::from)
                .collect(),
        },
    )
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_string())
}

/// The one that has been shut for longest.
fn first_shut<'a>(active: &[&'a View]) -> Option<&'a View> {
    let shut = active.iter().filter(|view| view.open_lanes > 0);
    shut.min_by_key(|view| view.shut_at).copied()
}

fn not_asked(active: &[&View]) -> Option<NotAsked> {
    let view = first_shut(active)?;
    Some(NotAsked {
        since: view.shut_at.as_seconds(),
        why: view.last_error.clone(),
        advice: advice::on(&view.last_error),
    })
}

/// A view alone says nothing: whoever is asked for this report leaves one.
fn untried_lanes(active: &[&View]) -> u32 {
    let Some(first) = first_shut(active) else {
        return 0;
    };
    let untried = active
        .iter()
        .filter(|view| view.open_lanes == 0 && view.answered_at <= first.shut_at);
    untried.map(|view| view.lanes).sum()
}

/// A list of intervals for each thing that came.
struct Sums {
    requests: BTreeMap<&'static str, Vec<u32>>,
    rules: BTreeMap<String, BTreeMap<&'static str, Vec<u32>>>,
    degraded: BTreeMap<&'static str, u64>,
    calls: Vec<u32>,
    failures: Vec<u32>,
    answered: u64,
    check_requests: u64,
    wrong_secrets: u64,
    latency: Latency,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums {
            requests: BTreeMap::new(),
            rules: BTreeMap::new(),
            degraded: Degraded::ALL.map(|how| (how.name(), 0)).into(),
            calls: vec![0; INTERVALS],
            failures: vec![0; INTERVALS],
            answered: 0,
            check_requests: 0,
            wrong_secrets: 0,
            latency: Latency::default(),
        }
    }
}

impl Sums {
    fn add(&mut self, place: usize, interval: &Interval) {
        for (outcome, &count) in Outcome::ALL.iter().zip(&interval.outcomes) {
            add_named(&mut self.requests, outcome.name(), place, count);
        }
        for (rule, counts) in &interval.rules {
            let own = self.rules.entry(rule.to_string()).or_default();
            for (count, &more) in Count::ALL.iter().zip(counts) {
                add_named(own, count.name(), place, more);
            }
        }
        for (how, &count) in Degraded::ALL.iter().zip(&interval.degraded) {
            *self.degraded.entry(how.name()).or_default() += u64::from(count);
        }
        add(&mut self.calls, place, interval.calls);
        add(&mut self.failures, place, interval.failures);
        self.answered += interval.latency.count();
        self.check_requests += u64::from(interval.check_requests);
        self.wrong_secrets += u64::from(interval.wrong_secrets);
        self.latency.merge(&interval.latency);
    }
}

/// What never came has no list.
fn add_named(
    lists: &mut BTreeMap<&'static str, Vec<u32>>,
    name: &'static str,
    place: usize,
    more: u32,
) {
    if more > 0 {
        let list = lists.entry(name).or_insert_with(|| vec![0; INTERVALS]);
        add(list, place, more);
    }
}

fn add(list: &mut [u32], place: usize, more: u32) {
    if let Some(count) = list.get_mut(place) {
        *count = count.saturating_add(more);
    }
}

fn busiest_first(rules: BTreeMap<String, BTreeMap<&'static str, Vec<u32>>>) -> Vec<RuleReport> {
    let mut rules: Vec<RuleReport> = rules
        .into_iter()
        .map(|(name, counts)| RuleReport { name, counts })
        .collect();
    rules.sort_by_cached_key(|rule| std::cmp::Reverse(rule.requests()));
    rules
}

impl RuleReport {
    fn requests(&self) -> u64 {
        let outcomes = Outcome::ALL.iter();
        let lists = outcomes.filter_map(|outcome| self.counts.get(outcome.name()));
        lists.flatten().map(|&count| u64::from(count)).sum()
    }
}

impl From<HeavyHitter> for HeavyHitterReport {
    fn from(heavy_hitter: HeavyHitter) -> HeavyHitterReport {
        HeavyHitterReport {
            kind: heavy_hitter.name.kind(),
            subject: heavy_hitter.name.text(),
            query: heavy_hitter.name.query(),
            by: heavy_hitter.by.into(),
            denied_at_least: heavy_hitter.at_least,
            denied_at_most: heavy_hitter.at_most,
        }
    }
}

impl From<By> for ByReport {
    fn from(by: By) -> ByReport {
        let nothing = ByReport::default();
        match by {
            By::Rule(name) => ByReport {
                rule: Some(name.to_string()),
                ..nothing
            },
            By::List(entry) => ByReport {
                list: Some(entry.to_string()),
                ..nothing
            },
            By::Secret => ByReport {
                wrong_secret: Some(true),
                ..nothing
            },
        }
    }
}

#[cfg(test)]
mod tests;
