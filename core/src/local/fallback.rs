//! Limits kept in one worker's memory while the store is away: the same algorithms, at the worker's
//! share of each limit, from what the store last said is left of it. It knows no other worker.
//!
//! The bound, for a limit L over N workers, each with the share s: while U were counted by the store,
//! at most U + Σ max(1, ⌊s·r⌋) pass in a window, where r is what a worker was told last before it
//! decided itself. Told that nothing is left, it lets nothing through; told nothing, or that half is
//! left or more, it takes r for L. What was let through here the store never hears of, so it is
//! remembered when the store is back: asking again gives nobody more.

use crate::local::two_generations::Generations;
use crate::quota::cost::Cost;
use crate::quota::limit::{Quota, Share};
use crate::quota::model::{Counters, Usage};
use crate::quota::operation::{Kind, OperationReply, Reading};
use crate::store::check::Check;
use crate::time::StoreInstant;

/// States and log entries of one generation; with keys of about 80 bytes, two generations stay
/// below 16 MB.
const MOST: usize = 50_000;
/// A generation lasts at least so many requests. One log may outweigh a generation alone, and would
/// end it at every request, and with it everybody else's state.
const SHORTEST: usize = 5_000;
/// Limits of which little is left, in each of two generations. With keys of about 80 bytes both stay
/// below 4 MB.
const MOST_LOW: usize = 10_000;

#[derive(Debug)]
pub struct Local {
    share: Share,
    /// What the store last said is used, of limits of which less than half is left. It goes over into
    /// the counters with the next request that is decided here.
    low: Generations<Usage>,
    /// Whoever called since the generations last changed.
    young: Counters<Vec<u8>>,
    /// Whoever called before that; a call moves them over.
    old: Counters<Vec<u8>>,
    /// Requests in this generation.
    age: usize,
}

/// Whether so little is left that a worker must not forget it: less than half.
pub fn is_low(quota: &Quota, reading: Reading) -> bool {
    let half = quota.capacity().div_ceil(2);
    i64::try_from(half).is_ok_and(|half| reading.remaining < half)
}

impl Local {
    pub fn new(share: Share) -> Local {
        Local {
            share,
            low: Generations::new(MOST_LOW),
            young: Counters::default(),
            old: Counters::default(),
            age: 0,
        }
    }

    /// The store told of a limit of which little is left, at this time. What is used is
    /// remembered and not what is left: another policy may change the one, never the other.
    pub fn learn(&mut self, check: &Check, reading: Reading, told: StoreInstant) {
        let capacity = i64::try_from(check.terms.quota.capacity()).unwrap_or(i64::MAX);
        let used = capacity.saturating_sub(reading.remaining);
        let usage = Usage {
            permits: u64::try_from(used).unwrap_or(0),
            told,
            until: told + reading.reset,
        };
        self.low.insert(&check.key, usage);
    }

    /// Takes from all of these limits' shares, or from none.
    pub fn take(&mut self, checks: &[&Check], now: StoreInstant) -> OperationReply {
        for check in checks {
            self.recall(check, now);
        }
        let told = self.run(Kind::Take, checks, now);
        self.age += 1;
        if self.young.weight() > MOST && self.age > SHORTEST {
            self.old = std::mem::take(&mut self.young);
            self.age = 0;
        }
        told
    }

    /// Charges or refunds the difference when it is known what a request has cost of the limits
    /// that these checks took from.
    pub fn settle(&mut self, kind: Kind, checks: &[Check], difference: Cost, now: StoreInstant) {
        let quotas = checks.iter().map(|check| (check, self.quota(check)));
        let limits = quotas.map(|(check, quota)| (check.key.clone(), quota, difference));
        self.run_on(kind, &limits.collect::<Vec<_>>(), now);
    }

    /// Undoes a take of these checks, which was at the time of the receipt.
    pub fn refund(&mut self, checks: &[&Check], receipt: StoreInstant, now: StoreInstant) {
        self.run(Kind::Refund { receipt }, checks, now);
    }

    /// The part of a limit that is kept here.
    pub fn quota(&self, check: &Check) -> Quota {
        check.terms.quota.shared(self.share, check.cost)
    }

    /// Has the counter begin with this worker's share of what the store said is left.
    fn recall(&mut self, check: &Check, now: StoreInstant) {
        if self.low.is_empty() {
            return;
        }
        let Some(usage) = self.low.get(&check.key).copied() else {
            return;
        };
        self.low.remove(&check.key);
        let usage = Usage {
            permits: self.used_of_share(&check.terms.quota, usage.permits),
            ..usage
        };
        self.young.adopt(&check.key, &mut self.old);
        let quota = self.quota(check);
        self.young.raise(&check.key, &quota, usage, now);
    }

    /// How much of this worker's share is used where so much of the whole is. While anything is left
    /// of the whole, at least one permit is left of the share, as there is of an untouched one.
    fn used_of_share(&self, quota: &Quota, used: u64) -> u64 {
        let whole = quota.capacity();
        let part = quota.shared(self.share, Cost::ONE).capacity();
        match whole.saturating_sub(used) {
            0 => part.saturating_add(self.share.of(used.saturating_sub(whole))),
            left => part.saturating_sub(self.share.of(left).max(1)),
        }
    }

    fn run(&mut self, kind: Kind, checks: &[&Check], now: StoreInstant) -> OperationReply {
        let limits: Vec<_> = checks
            .iter()
            .map(|check| (check.key.clone(), self.quota(check), check.cost))
            .collect();
        self.run_on(kind, &limits, now)
    }

    fn run_on(
        &mut self,
        kind: Kind,
        limits: &[(Vec<u8>, Quota, Cost)],
        now: StoreInstant,
    ) -> OperationReply {
        for (key, ..) in limits {
            self.young.adopt(key, &mut self.old);
        }
        self.young.run(kind, limits, now)
    }

    /// How much is kept, in states and log entries.
    pub fn weight(&self) -> usize {
        self.young.weight() + self.old.weight()
    }
}

#[cfg(test)]
mod tests;
