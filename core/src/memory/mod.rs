//! The algorithms without Redis: the plain statement of what the scripts do, which the scripts are
//! tested against, and what keeps limits while Redis is away. Pure: time is an argument. It knows
//! nothing of policies or shares; a state is only what is used, and the window that is measured in.

mod bucket;
mod fixed_window;
mod sliding_window;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;

use crate::limit::{Algorithm, Quota};
use crate::script::{Kind, Reading, Retry, Told, Verdict};
use crate::units::{Cost, Micros, Millis};

use self::bucket::Bucket;
use self::fixed_window::FixedWindow;
use self::sliding_window::SlidingWindow;

/// Usage stops growing here, as it does in the scripts: beyond it a double loses integers.
const MOST: u64 = (1 << 53) - 1;

/// What every key holds.
#[derive(Clone, Debug)]
pub struct Counters<K> {
    states: HashMap<K, State>,
}

/// What one key holds.
#[derive(Clone, Debug)]
enum State {
    FixedWindow(FixedWindow),
    SlidingWindow(SlidingWindow),
    TokenBucket(Bucket),
    LeakyBucket(Bucket),
}

// === impl Counters ===

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Counters {
            states: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Counters<K> {
    /// Does one operation over all of `limits`, as the script does.
    pub fn run(&mut self, kind: Kind, cost: Cost, limits: &[(K, Quota)], now: Micros) -> Told {
        let strangers = limits.iter().any(|(key, quota)| !self.holds(key, quota));
        if strangers {
            return self.unreadable(limits);
        }
        let fits = |(key, quota): &(K, Quota)| self.view(key, quota, now).fits(quota, cost, now);
        let verdict = match kind {
            Kind::Take | Kind::Peek if !limits.iter().all(fits) => Verdict::Refused,
            _ => Verdict::Passed,
        };
        for (key, quota) in limits {
            match (kind, verdict) {
                (Kind::Take, Verdict::Passed) | (Kind::Charge, _) => {
                    self.change(key, quota, now, |state| state.add(quota, cost, now));
                }
                // Consumes nothing; but a state that clock or policy moved is kept as it is told,
                // or one that lies in the future would refuse for as long as it is refused.
                (Kind::Take, _) => self.change(key, quota, now, |_| ()),
                (Kind::GiveBack { receipt }, _) => {
                    self.change(key, quota, now, |state| {
                        state.give_back(quota, cost, receipt, now);
                    });
                }
                (Kind::Reset, _) => {
                    self.states.remove(key);
                }
                (Kind::Peek, _) => {}
            }
        }
        let read = |(key, quota): &(K, Quota)| self.view(key, quota, now).read(quota, cost, now);
        Told {
            verdict,
            limits: limits.iter().map(read).collect(),
        }
    }

    /// Whether the key is free for this algorithm.
    fn holds(&self, key: &K, quota: &Quota) -> bool {
        self.states
            .get(key)
            .is_none_or(|state| state.algorithm() == quota.algorithm())
    }

    fn unreadable(&self, limits: &[(K, Quota)]) -> Told {
        let read = |(key, quota): &(K, Quota)| Reading {
            remaining: if self.holds(key, quota) { 0 } else { -1 },
            retry: Retry::Now,
            reset: Millis(0),
        };
        Told {
            verdict: Verdict::Unreadable,
            limits: limits.iter().map(read).collect(),
        }
    }

    /// The key's state in the terms of this quota and moment.
    fn view(&self, key: &K, quota: &Quota, now: Micros) -> Cow<'_, State> {
        match self.states.get(key) {
            None => Cow::Owned(State::unused(quota.algorithm())),
            Some(state) => state
                .moved(quota, now)
                .map_or(Cow::Borrowed(state), Cow::Owned),
        }
    }

    fn change(&mut self, key: &K, quota: &Quota, now: Micros, change: impl FnOnce(&mut State)) {
        let mut state = match self.states.remove(key) {
            None => State::unused(quota.algorithm()),
            Some(state) => state.moved(quota, now).unwrap_or(state),
        };
        change(&mut state);
        if !state.is_unused() {
            self.states.insert(key.clone(), state);
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
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            State::FixedWindow(_) => Algorithm::FixedWindow,
            State::SlidingWindow(_) => Algorithm::SlidingWindow,
            State::TokenBucket(_) => Algorithm::TokenBucket,
            State::LeakyBucket(_) => Algorithm::LeakyBucket,
        }
    }

    fn is_unused(&self) -> bool {
        match self {
            State::FixedWindow(window) => window.is_unused(),
            State::SlidingWindow(log) => log.is_unused(),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => bucket.is_unused(),
        }
    }

    /// The state anew, if its usage still counts but cannot stay where it is: the policy's window
    /// is another, or the clock went back by more than a window.
    fn moved(&self, quota: &Quota, now: Micros) -> Option<State> {
        match self {
            State::FixedWindow(window) => window.moved(quota, now).map(State::FixedWindow),
            State::SlidingWindow(log) => log.moved(quota, now).map(State::SlidingWindow),
            State::TokenBucket(bucket) => bucket.moved(quota, now).map(State::TokenBucket),
            State::LeakyBucket(bucket) => bucket.moved(quota, now).map(State::LeakyBucket),
        }
    }

    fn fits(&self, quota: &Quota, cost: Cost, now: Micros) -> bool {
        self.read(quota, cost, now).retry == Retry::Now
    }

    fn read(&self, quota: &Quota, cost: Cost, now: Micros) -> Reading {
        match self {
            State::FixedWindow(window) => window.read(quota, cost, now),
            State::SlidingWindow(log) => log.read(quota, cost, now),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => {
                bucket.read(quota, cost, now)
            }
        }
    }

    fn add(&mut self, quota: &Quota, cost: Cost, now: Micros) {
        match self {
            State::FixedWindow(window) => window.add(quota, cost, now),
            State::SlidingWindow(log) => log.add(quota, cost, now),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => bucket.add(quota, cost, now),
        }
    }

    fn give_back(&mut self, quota: &Quota, cost: Cost, receipt: Micros, now: Micros) {
        match self {
            State::FixedWindow(window) => window.give_back(quota, cost, receipt, now),
            State::SlidingWindow(log) => log.give_back(quota, cost, receipt, now),
            State::TokenBucket(bucket) | State::LeakyBucket(bucket) => {
                bucket.give_back(quota, cost, now);
            }
        }
    }
}

fn whole_millis(instant: Micros) -> u64 {
    instant.0 / 1000
}

/// Capacity − used; both are below 2^53.
fn difference(capacity: u64, used: u64) -> i64 {
    capacity as i64 - used as i64
}
