//! Random scenarios: a policy with a few versions of each limit, and steps that move the clock and
//! then run a batch. Built to meet edges: the very ends of windows, the very waits that were told,
//! clocks that step back, costs about the capacity.

use std::mem;

use proptest::collection::vec;
use proptest::prelude::*;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::operation::{Kind, Retry};
use weir_core::quota::period::{Calendar, Unit, UtcOffset};
use weir_core::store::reply::Answer;
use weir_core::time::{Span, StoreInstant};

use crate::weir::{Operation, cost};

/// 2100-01-01, so that no absolute expiry fires while a scenario plays in its own time.
pub const EPOCH: u64 = 4_102_444_800_000_000;

/// The furthest that one step goes: a debt may be told to last for millennia, where the clock's µs
/// are no longer integers to Lua.
const STRIDE: i64 = 100 * 24 * 3600 * 1_000_000;

/// Two keys for each algorithm.
const KEYS: usize = 8;

#[derive(Clone, Debug)]
pub struct Scenario {
    /// For each key, the versions of its limit that policies set in turn.
    policy: Vec<Vec<Quota>>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub shift: Shift,
    batch: Vec<Draft>,
}

/// How the clock moves before a batch.
#[derive(Clone, Debug)]
pub enum Shift {
    /// By so many µs.
    By(i64),
    /// By so many tenths of a limit's window, and a few µs.
    Window { limit: Pick, tenths: i64, and: i64 },
    /// To the end of a limit's window, if that is a fixed one, and a few µs.
    Edge { limit: Pick, and: i64 },
    /// By a wait that the last answer told, and a few µs.
    Told { which: usize, and: i64 },
}

/// A key and a version of its limit.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    key: usize,
    version: usize,
}

#[derive(Clone, Debug)]
struct Draft {
    kind: DraftKind,
    limits: Vec<(Pick, DraftCost)>,
    /// Whether it may name a key twice, which spoils it.
    twice: bool,
}

#[derive(Clone, Copy, Debug)]
enum DraftKind {
    Take,
    Peek,
    Charge,
    /// For so many hundreds of ms.
    Lease(u64),
    /// By the receipt of the call so many calls ago; 0 is this very one.
    Refund(usize),
    Reset,
}

#[derive(Clone, Copy, Debug)]
enum DraftCost {
    Exactly(u64),
    /// The limit's capacity, and a few.
    Capacity(i64),
    /// So many tenths of it.
    Tenths(u64),
}

pub fn scenarios() -> impl Strategy<Value = Scenario> {
    (policies(), vec(steps(), 1..40)).prop_map(|(policy, steps)| Scenario { policy, steps })
}

fn policies() -> impl Strategy<Value = Vec<Vec<Quota>>> {
    let limit = prop_oneof![4 => 1..=6u64, 2 => 7..=100u64, 1 => Just(1_000_000)];
    let window = prop_oneof![
        3 => 1..=3u64,
        2 => prop::sample::select(vec![7, 60, 3600]),
        1 => Just(30 * 24 * 3600),
    ];
    // What a token bucket holds, and how many may wait for a leaky one.
    let more = prop::option::of(1..=8u64);
    // Windows by a calendar, which only fixed ones can be.
    let calendar = prop::option::weighted(0.4, calendars());
    vec(vec((limit, window, more, calendar), 1..=3), KEYS).prop_map(|keys| {
        type Version = (u64, u64, Option<u64>, Option<Calendar>);
        let quota = |key, (limit, window, more, calendar): Version| {
            let algorithm = Algorithm::ALL[key % 4];
            if let Some(calendar) = calendar.filter(|_| algorithm == Algorithm::FixedWindow) {
                return Quota::try_calendar(limit, calendar).expect("a quota");
            }
            let burst = more.filter(|_| algorithm == Algorithm::TokenBucket);
            let quota = Quota::try_new(algorithm, limit, window, burst).expect("a quota");
            let waiting = more.filter(|_| algorithm == Algorithm::LeakyBucket);
            waiting.map_or(quota, |waiting| {
                let longest = Span::millis((waiting * quota.window().as_millis()).div_ceil(limit));
                quota.shaped(longest).expect("a longest wait above a turn")
            })
        };
        keys.into_iter()
            .enumerate()
            .map(|(key, versions)| versions.into_iter().map(|v| quota(key, v)).collect())
            .collect()
    })
}

/// Every unit, in all time zones that there are, and some that there are not.
pub fn calendars() -> impl Strategy<Value = Calendar> {
    let minutes = prop_oneof![
        1 => Just(0),
        2 => (-48..=56i16).prop_map(|quarters| quarters * 15),
        1 => -720..=840i16,
    ];
    let unit = prop::sample::select(Unit::ALL.to_vec());
    (unit, minutes).prop_map(|(unit, minutes)| {
        Calendar::new(unit, UtcOffset::try_new(minutes).expect("an offset"))
    })
}

fn steps() -> impl Strategy<Value = Step> {
    // Takes alone may be decided together.
    let batch = prop_oneof![
        2 => vec(drafts(), 1..=8),
        1 => vec(takes(), 1..=8),
    ];
    (shifts(), batch).prop_map(|(shift, batch)| Step { shift, batch })
}

fn takes() -> impl Strategy<Value = Draft> {
    drafts().prop_map(|draft| Draft {
        kind: DraftKind::Take,
        ..draft
    })
}

fn shifts() -> impl Strategy<Value = Shift> {
    let few = || prop::sample::select(vec![0, 0, 0, 1, -1, 999, -999, 1000, -1000]);
    prop_oneof![
        3 => Just(Shift::By(0)),
        6 => (1..2_000i64).prop_map(Shift::By),
        4 => (1..1_500_000i64).prop_map(Shift::By),
        2 => (-1_500_000..0i64).prop_map(Shift::By),
        1 => Just(Shift::By(-40 * 24 * 3600 * 1_000_000)),
        3 => (picks(), -12..=12i64, few())
            .prop_map(|(limit, tenths, and)| Shift::Window { limit, tenths, and }),
        2 => (picks(), few()).prop_map(|(limit, and)| Shift::Edge { limit, and }),
        5 => (any::<prop::sample::Index>(), few())
            .prop_map(|(which, and)| Shift::Told { which: which.index(64), and }),
    ]
}

/// Mostly the first version of a key's limit, so that usage gathers there.
fn picks() -> impl Strategy<Value = Pick> {
    let version = prop_oneof![6 => Just(0), 1 => 0..3usize];
    (0..KEYS, version).prop_map(|(key, version)| Pick { key, version })
}

fn drafts() -> impl Strategy<Value = Draft> {
    let kind = prop_oneof![
        8 => Just(DraftKind::Take),
        2 => Just(DraftKind::Peek),
        2 => Just(DraftKind::Charge),
        4 => (1..40u64).prop_map(DraftKind::Lease),
        3 => (0..4usize).prop_map(DraftKind::Refund),
        1 => Just(DraftKind::Reset),
    ];
    let cost = prop_oneof![
        8 => Just(DraftCost::Exactly(1)),
        4 => (2..=5u64).prop_map(DraftCost::Exactly),
        2 => (-1..=1i64).prop_map(DraftCost::Capacity),
        2 => (1..=9u64).prop_map(DraftCost::Tenths),
    ];
    let limit = (picks(), cost.clone());
    // Mostly one cost for all limits: with many, some limit refuses too often.
    let limits = prop_oneof![
        3 => (vec(picks(), 1..=4), cost)
            .prop_map(|(picks, cost)| picks.into_iter().map(|pick| (pick, cost)).collect()),
        1 => vec(limit, 1..=4),
    ];
    let twice = prop::bool::weighted(0.1);
    (kind, limits, twice).prop_map(|(kind, limits, twice)| Draft {
        kind,
        limits,
        twice,
    })
}

// === playing a scenario ===

/// The scenario's own time, and what its next steps refer to.
pub struct Clock {
    pub now: StoreInstant,
    receipts: Vec<StoreInstant>,
    waits: Vec<i64>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock {
            now: StoreInstant(EPOCH),
            receipts: Vec::new(),
            waits: Vec::new(),
        }
    }
}

impl Clock {
    pub fn advance(&mut self, shift: &Shift, scenario: &Scenario) {
        let window = |limit: &Pick| scenario.quota(*limit).window().as_millis() as i64 * 1000;
        let by = match shift {
            Shift::By(micros) => *micros,
            Shift::Window { limit, tenths, and } => window(limit) / 10 * tenths + and,
            Shift::Edge { limit, and } => {
                let end = scenario.quota(*limit).period().end(self.now.0 / 1000);
                end as i64 * 1000 - self.now.0 as i64 + and
            }
            Shift::Told { which, and } => match self.waits.len() {
                0 => 0,
                waits => self.waits[which % waits] * 1000 + and,
            },
        };
        self.now = StoreInstant(self.now.0.saturating_add_signed(by.min(STRIDE)));
    }

    pub fn note(&mut self, answer: &Answer) {
        self.receipts.push(answer.now);
        let readings = answer.told.iter().flat_map(|told| &told.limits);
        self.waits = readings
            .flat_map(|reading| {
                let retry = match reading.retry {
                    Retry::After(wait) => Some(wait.as_millis() as i64),
                    Retry::Now | Retry::Unknown | Retry::Never => None,
                };
                retry.into_iter().chain([reading.reset.as_millis() as i64])
            })
            .collect();
    }

    fn receipt(&self, calls_ago: usize) -> StoreInstant {
        match calls_ago {
            0 => self.now,
            ago => *self.receipts.iter().nth_back(ago - 1).unwrap_or(&self.now),
        }
    }
}

impl Scenario {
    fn quota(&self, pick: Pick) -> Quota {
        let versions = &self.policy[pick.key];
        versions[pick.version % versions.len()]
    }
}

impl Step {
    pub fn operations(&self, scenario: &Scenario, clock: &Clock) -> Vec<Operation> {
        let operation = |draft: &Draft| {
            let limit = |(pick, draft): &(Pick, DraftCost)| {
                let quota = scenario.quota(*pick);
                let permits = match *draft {
                    DraftCost::Exactly(permits) => permits,
                    DraftCost::Capacity(and) => quota.capacity().saturating_add_signed(and).max(1),
                    DraftCost::Tenths(tenths) => (quota.capacity() * tenths / 10).max(1),
                };
                (format!("weir:2:{}", pick.key), quota, cost(permits))
            };
            // An operation is to name a key once.
            let mut named = [false; KEYS];
            let mut again = |key: usize| mem::replace(&mut named[key], true);
            let limits = draft.limits.iter();
            let distinct = limits.filter(|(pick, _)| !again(pick.key) || draft.twice);
            Operation {
                kind: match draft.kind {
                    DraftKind::Take => Kind::Take,
                    DraftKind::Peek => Kind::Peek,
                    DraftKind::Charge => Kind::Charge,
                    DraftKind::Lease(hundreds) => Kind::Lease {
                        ttl: Span::millis(hundreds * 100),
                    },
                    DraftKind::Refund(ago) => Kind::Refund {
                        receipt: clock.receipt(ago),
                    },
                    DraftKind::Reset => Kind::Reset,
                },
                limits: distinct.map(limit).collect(),
            }
        };
        self.batch.iter().map(operation).collect()
    }
}
