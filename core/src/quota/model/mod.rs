//! The algorithms without Redis: the plain statement of what the scripts do, which the scripts are
//! tested against, and what keeps limits while Redis is away. Pure: time is an argument. It knows
//! nothing of policies or shares; a state is only what is used, and the window that is measured in.

mod bucket;
mod concurrency;
mod fixed_window;
mod sliding_window;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::num::NonZeroU64;

use self::bucket::Bucket;
use self::concurrency::Concurrency;
use self::fixed_window::FixedWindow;
use self::sliding_window::SlidingWindow;
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota};
use crate::quota::operation::{Holder, Kind, OperationReply, Reading, Retry, Verdict};
use crate::time::{Span, StoreInstant};

/// Usage stops growing here, as it does in the scripts: beyond it a double loses integers.
const MOST: u64 = (1 << 53) - 1;

/// So many keys are compared with each other faster than they are hashed.
const FEW: usize = 8;

/// What every key holds.
#[derive(Clone, Debug)]
pub struct Counters<K> {
    states: HashMap<K, State>,
    weight: usize,
    /// Who asks: of permits in use, whoever asks holds what is taken.
    holder: Holder,
}

/// What one key holds.
#[derive(Clone, Debug)]
enum State {
    FixedWindow(FixedWindow),
    SlidingWindow(SlidingWindow),
    TokenBucket(Bucket),
    LeakyBucket(Bucket),
    Concurrency(Concurrency),
}

/// What somebody else told of a key: so many permits of it were used, and none will be any more
/// from `until` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub permits: u64,
    pub told: StoreInstant,
    pub until: StoreInstant,
}

// === impl Counters ===

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Counters {
            states: HashMap::new(),
            weight: 0,
            holder: Holder::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> Counters<K> {
    /// This one asks from here on.
    pub fn ask_as(&mut self, holder: Holder) {
        self.holder = holder;
    }

    /// Does operations in order. If the script decided them `together`, it tells of each key's reset as
    /// the last operation left it.
    pub fn run_batch<'a>(
        &mut self,
        operations: impl DoubleEndedIterator<Item = (Kind, &'a [(K, Quota, Cost)])> + Clone,
        now: StoreInstant,
        together: bool,
    ) -> Vec<OperationReply>
    where
        K: 'a,
    {
        let run = |(kind, limits): (Kind, &[_])| self.run(kind, limits, now);
        let mut all: Vec<OperationReply> = operations.clone().map(run).collect();
        if together {
            let mut resets = HashMap::new();
            for ((_, limits), told) in operations.rev().zip(all.iter_mut().rev()) {
                for ((key, ..), reading) in limits.iter().zip(&mut told.limits) {
                    reading.reset = *resets.entry(key).or_insert(reading.reset);
                }
            }
        }
        all
    }

    /// Does one operation over all of `limits`, each at its cost, as the script does.
    pub fn run(
        &mut self,
        kind: Kind,
        limits: &[(K, Quota, Cost)],
        now: StoreInstant,
    ) -> OperationReply {
        let out_of_range = matches!(kind, Kind::Lease { ttl } if ttl > Kind::LONGEST_LEASE);
        let strangers = limits.iter().any(|(key, quota, _)| !self.holds(key, quota));
        if out_of_range || strangers || names_twice(limits) {
            return self.unreadable(limits);
        }
        let is_held =
            |(_, quota, _): &(K, Quota, Cost)| quota.algorithm() == Algorithm::Concurrency;
        if matches!(kind, Kind::Hold | Kind::Release) && !limits.iter().all(is_held) {
            return OperationReply::unreadable(limits.len());
        }
        let holder = self.holder;
        let fits = |(key, quota, cost): &(K, Quota, Cost)| {
            self.view(key, quota, now).fits(quota, *cost, now)
        };
        let verdict = match kind {
            Kind::Take | Kind::Peek if !limits.iter().all(fits) => Verdict::Refused,
            _ => Verdict::Passed,
        };
        let mut granted = Vec::new();
        for &(ref key, ref quota, cost) in limits {
            match (kind, verdict) {
                (Kind::Take, Verdict::Passed) | (Kind::Charge, _) => {
                    let at_once = Span::ZERO;
                    self.change(key, quota, now, |state| {
                        state.add(quota, cost, at_once, holder, now);
                    });
                }
                (Kind::Lease { ttl }, _) => {
                    let free = self.view(key, quota, now).read(quota, Cost::ONE, now);
                    let most = cost.get().min(u64::try_from(free.remaining).unwrap_or(0));
                    self.change(key, quota, now, |state| {
                        if let Some(cost) = NonZeroU64::new(most).map(Cost) {
                            state.add(quota, cost, ttl, holder, now);
                        }
                    });
                    granted.push(most);
                }
                // Consumes nothing; but a state that clock or policy moved is kept as it is told,
                // or one that lies in the future would refuse for as long as it is refused.
                (Kind::Take, _) => self.change(key, quota, now, |_| ()),
                (Kind::Refund { receipt }, _) => {
                    self.change(key, quota, now, |state| {
                        state.refund(quota, cost, receipt, holder, now);
                    });
                }
                (Kind::Reset, _) => {
                    self.remove(key);
                }
                (Kind::Hold, _) => {
                    self.change(key, quota, now, |state| {
                        state.hold(holder, cost.get(), now);
                    });
                }
                (Kind::Release, _) => {
                    self.change(key, quota, now, |state| state.hold(holder, 0, now));
                }
                (Kind::Peek, _) => {}
            }
        }
        let read = |(key, quota, cost): &(K, Quota, Cost)| {
            self.view(key, quota, now).read(quota, *cost, now)
        };
        let mut readings: Vec<Reading> = limits.iter().map(read).collect();
        for (reading, granted) in readings.iter_mut().zip(granted) {
            *reading = Reading::leased(reading.remaining, granted, reading.reset);
        }
        if kind == Kind::Release {
            // It costs nothing, so only a debt stands in its way.
            for reading in &mut readings {
                reading.retry = match reading.remaining {
                    0.. => Retry::Now,
                    _ => Retry::Unknown,
                };
            }
        }
        OperationReply {
            verdict,
            limits: readings,
        }
    }

    /// Has at least as much of a key used as was told. What was counted here is not counted on top
    /// of that, and never forgotten for it.
    pub fn raise(&mut self, key: &K, quota: &Quota, usage: Usage, now: StoreInstant) {
        if usage.until > now && self.holds(key, quota) {
            self.change(key, quota, now, |state| state.raise(quota, usage, now));
        }
    }

    /// How much is held: a state weighs one, and each entry of a log one more.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Takes a key's state over from elsewhere, if it is there and not here.
    pub fn adopt(&mut self, key: &K, elsewhere: &mut Counters<K>) {
        if let Some(state) = elsewhere.remove(key)
            && !self.states.contains_key(key)
        {
            self.insert(key.clone(), state);
        }
    }

    fn insert(&mut self, key: K, state: State) {
        self.weight += state.weight();
        if let Some(before) = self.states.insert(key, state) {
            self.weight -= before.weight();
        }
    }

    fn remove(&mut self, key: &K) -> Option<State> {
        let state = self.states.remove(key)?;
        self.weight -= state.weight();
        Some(state)
    }

    /// Whether the key is free for this algorithm.
    fn holds(&self, key: &K, quota: &Quota) -> bool {
        self.states
            .get(key)
            .is_none_or(|state| state.algorithm() == quota.algorithm())
    }

    fn unreadable(&self, limits: &[(K, Quota, Cost)]) -> OperationReply {
        let read = |(key, quota, _): &(K, Quota, Cost)| Reading {
            remaining: if self.holds(key, quota) { 0 } else { -1 },
            retry: Retry::Now,
            reset: Span::ZERO,
        };
        OperationReply {
            verdict: Verdict::Unreadable,
            limits: limits.iter().map(read).collect(),
        }
    }

    /// The key's state in the terms of this quota and moment.
    fn view(&self, key: &K, quota: &Quota, now: StoreInstant) -> Cow<'_, State> {
        match self.states.get(key) {
            None => Cow::Owned(State::unused(quota.algorithm())),
            Some(state) => state
                .moved(quota, self.holder, now)
                .map_or(Cow::Borrowed(state), Cow::Owned),
        }
    }

    fn change(
        &mut self,
        key: &K,
        quota: &Quota,
        now: StoreInstant,
        change: impl FnOnce(&mut State),
    ) {
        let mut state = match self.remove(key) {
            None => State::unused(quota.algorithm()),
            Some(state) => state.moved(quota, self.holder, now).unwrap_or(state),
        };
        change(&mut state);
        if !state.is_unused() {
            self.insert(key.clone(), state);
        }
    }
}

// === impl State ===

impl State {
    fn unused(algorithm: Algorithm) -> State {
        match algorithm {
            Algorithm::FixedWindow => State::FixedWindow(FixedWindow::default()),
            Algorithm::SlidingWindow => State::SlidingWindow(SlidingWindow::default()),
            Algorithm::TokenBucket => State::TokenBucket(Bucket::default()),
            Algorithm::LeakyBucket => State::LeakyBucket(Bucket::default()),
            Algorithm::Concurrency => State::Concurrency(Concurrency::default()),
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            State::FixedWindow(_) => Algorithm::FixedWindow,
            State::SlidingWindow(_) => Algorithm::SlidingWindow,
            State::TokenBucket(_) => Algorithm::TokenBucket,
            State::LeakyBucket(_) => Algorithm::LeakyBucket,
            State::Concurrency(_) => Algorithm::Concurrency,
        }
    }

    fn weight(&self) -> usize {
        match self {
            State::SlidingWindow(log) => 1 + log.entries(),
            State::Concurrency(permits) => 1 + permits.holders(),
            State::FixedWindow(_) | State::TokenBucket(_) | State::LeakyBucket(_) => 1,
        }
    }

    fn is_unused(&self) -> bool {
        match self {
            State::FixedWindow(window) => window.is_unused(),
            State::SlidingWindow(log) => log.is_unused(),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => bucket.is_unused(),
            State::Concurrency(permits) => permits.is_unused(),
        }
    }

    /// The state anew, if its usage still counts but cannot stay where it is: the policy's window
    /// is another, the clock went back by more than a window, or holders have been silent.
    fn moved(&self, quota: &Quota, holder: Holder, now: StoreInstant) -> Option<State> {
        match self {
            State::Concurrency(permits) => permits.moved(holder, now).map(State::Concurrency),
            State::FixedWindow(window) => window.moved(quota, now).map(State::FixedWindow),
            State::SlidingWindow(log) => log.moved(quota, now).map(State::SlidingWindow),
            State::TokenBucket(bucket) => bucket.moved(quota, now).map(State::TokenBucket),
            State::LeakyBucket(bucket) => bucket.moved(quota, now).map(State::LeakyBucket),
        }
    }

    fn fits(&self, quota: &Quota, cost: Cost, now: StoreInstant) -> bool {
        self.read(quota, cost, now).retry == Retry::Now
    }

    fn read(&self, quota: &Quota, cost: Cost, now: StoreInstant) -> Reading {
        match self {
            State::FixedWindow(window) => window.read(quota, cost, now),
            State::SlidingWindow(log) => log.read(quota, cost, now),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => {
                bucket.read(quota, cost, now)
            }
            State::Concurrency(permits) => permits.read(quota, cost),
        }
    }

    /// `lead`: within which time the permits will be used. Only a log can tell.
    fn add(&mut self, quota: &Quota, cost: Cost, lead: Span, holder: Holder, now: StoreInstant) {
        match self {
            State::Concurrency(permits) => permits.add(holder, cost, now),
            State::FixedWindow(window) => window.add(quota, cost, now),
            State::SlidingWindow(log) => log.add(quota, cost, lead, now),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => bucket.add(quota, cost, now),
        }
    }

    fn raise(&mut self, quota: &Quota, usage: Usage, now: StoreInstant) {
        match self {
            State::FixedWindow(window) => window.raise(quota, usage, now),
            State::SlidingWindow(log) => log.raise(quota, usage, now),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => {
                bucket.raise(quota, usage, now);
            }
            // What others hold may be free in a moment: it is none of this worker's usage.
            State::Concurrency(_) => {}
        }
    }

    fn hold(&mut self, holder: Holder, permits: u64, now: StoreInstant) {
        if let State::Concurrency(held) = self {
            held.hold(holder, permits, now);
        }
    }

    fn refund(
        &mut self,
        quota: &Quota,
        cost: Cost,
        receipt: StoreInstant,
        holder: Holder,
        now: StoreInstant,
    ) {
        match self {
            State::Concurrency(permits) => permits.refund(holder, cost, now),
            State::FixedWindow(window) => window.refund(quota, cost, receipt, now),
            State::SlidingWindow(log) => log.refund(quota, cost, receipt, now),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => {
                bucket.refund(quota, cost, now);
            }
        }
    }
}

/// Whether a key stands there twice: one operation cannot take from it as two quotas see it.
fn names_twice<K: Eq + Hash>(limits: &[(K, Quota, Cost)]) -> bool {
    // Most operations are over one to three limits, and a set costs more than all of the rest.
    if limits.len() <= FEW {
        let pairs = |(place, (key, ..)): (usize, &(K, Quota, Cost))| {
            limits.iter().take(place).any(|(before, ..)| before == key)
        };
        return limits.iter().enumerate().any(pairs);
    }
    let mut before = HashSet::with_capacity(limits.len());
    !limits.iter().all(|(key, ..)| before.insert(key))
}

/// Capacity − used; both are below 2^53.
fn difference(capacity: u64, used: u64) -> i64 {
    capacity as i64 - used as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(permits: u64) -> Cost {
        Cost(permits.try_into().unwrap())
    }

    fn quotas() -> impl Strategy<Value = Quota> {
        let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
        (algorithm, 1..20u64, 1..100u64).prop_map(|(algorithm, limit, window)| {
            Quota::try_new(algorithm, limit, window, None).unwrap()
        })
    }

    proptest! {
        /// Not by comparison with anything: what is told must come true.
        #[test]
        fn the_wait_told_is_enough_and_a_millisecond_less_is_not(
            quota in quotas(),
            charges in prop::collection::vec((0..30_000_000u64, 1..8u64), 1..20),
            permits in 1..20u64,
        ) {
            let limits = |permits| [((), quota, cost(permits))];
            let mut counters = Counters::default();
            let mut now = 4_102_444_800_000_000;
            for (later, permits) in charges {
                now += later;
                counters.run(Kind::Charge, &limits(permits), StoreInstant(now));
            }
            let mut peek = |permits, now| {
                let told = counters.run(Kind::Peek, &limits(permits), StoreInstant(now));
                (told.verdict, told.limits[0])
            };
            let (verdict, reading) = peek(permits, now);
            match reading.retry {
                Retry::Now => prop_assert_eq!(verdict, Verdict::Passed),
                Retry::Unknown => prop_assert!(false, "all of these measure over time"),
                Retry::Never => prop_assert!(permits > quota.capacity()),
                Retry::After(wait) => {
                    let wait = wait.as_micros();
                    prop_assert_eq!(peek(permits, now + wait).0, Verdict::Passed);
                    prop_assert_eq!(peek(permits, now + wait - 1000).0, Verdict::Refused);
                }
            }
            let capacity = quota.capacity();
            prop_assert_eq!(peek(capacity, now + reading.reset.as_micros()).0, Verdict::Passed);
        }

        /// The promise of each algorithm, counted from outside.
        #[test]
        fn no_more_than_the_limit_passes_in_a_window(
            quota in quotas(),
            takes in prop::collection::vec((0..3_000_000u64, 1..4u64), 1..200),
        ) {
            let mut counters = Counters::default();
            let window = quota.window().as_micros();
            let mut now = 4_102_444_800_000_000;
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (later, permits) in takes {
                now += later;
                let limits = [((), quota, cost(permits))];
                let told = counters.run(Kind::Take, &limits, StoreInstant(now));
                if told.verdict == Verdict::Passed {
                    passed.push((now, permits));
                }
                let since = |start: u64| -> u64 {
                    passed.iter().filter(|(at, _)| *at > start).map(|(_, permits)| permits).sum()
                };
                let (counted, most) = match quota.algorithm() {
                    Algorithm::FixedWindow => (since(now - now % window - 1), quota.limit()),
                    Algorithm::SlidingWindow => (since(now - window), quota.limit()),
                    // A full bucket on top of what refills in the window; whole ms may round by one.
                    _ => (since(now - window), 2 * quota.limit()),
                };
                prop_assert!(counted <= most, "{} in a window of {}", counted, most);
            }
        }
    }

    #[test]
    fn a_key_of_another_algorithm_is_not_touched() {
        let mut counters = Counters::default();
        let quota = |algorithm| Quota::try_new(algorithm, 5, 10, None).unwrap();
        let window = |permits| [("key", quota(Algorithm::FixedWindow), cost(permits))];
        let mixed = [
            ("other", quota(Algorithm::LeakyBucket), cost(1)),
            ("key", quota(Algorithm::LeakyBucket), cost(1)),
        ];
        counters.run(Kind::Take, &window(2), StoreInstant(0));
        for kind in [Kind::Take, Kind::Charge, Kind::Reset] {
            let told = counters.run(kind, &mixed, StoreInstant(0));
            assert_eq!(told.verdict, Verdict::Unreadable);
            let remaining: Vec<_> = told.limits.iter().map(|limit| limit.remaining).collect();
            assert_eq!(remaining, [0, -1]);
        }
        let told = counters.run(Kind::Peek, &window(1), StoreInstant(0));
        assert_eq!(told.limits[0].remaining, 3);
    }
}
