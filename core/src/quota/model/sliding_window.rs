//! An exact log of what was taken in (now − window, now], and of what was leased to be used until a
//! moment to come.

use std::collections::VecDeque;

use super::{MOST, Usage, difference};
use crate::quota::cost::Cost;
use crate::quota::limit::Quota;
use crate::quota::operation::{Reading, Retry};
use crate::time::{Span, StoreInstant};

/// Oldest first; at most one entry for each stamp. Expired entries stay until the next change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlidingWindow {
    log: VecDeque<Entry>,
    /// What all entries cost, the expired ones too.
    total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The last moment at which it may be used, µs since the generation; what was not leased is used at
    /// once.
    stamp: u64,
    /// When the first of it was taken. Both grow from entry to entry.
    begun: u64,
    cost: u64,
}

impl SlidingWindow {
    pub fn is_unused(&self) -> bool {
        self.log.is_empty()
    }

    pub fn entries(&self) -> usize {
        self.log.len()
    }

    pub fn moved(&self, quota: &Quota, now: StoreInstant) -> Option<SlidingWindow> {
        let newest = self.log.back()?;
        if newest.begun.saturating_sub(now.0) <= quota.window().as_micros() {
            return None;
        }
        let all = Entry {
            stamp: now.0 + (newest.stamp - newest.begun),
            begun: now.0,
            cost: self.used(quota, now),
        };
        Some(SlidingWindow {
            log: VecDeque::from([all]),
            total: all.cost,
        })
    }

    pub fn read(&self, quota: &Quota, cost: Cost, now: StoreInstant) -> Reading {
        let used = self.used(quota, now);
        let until_expiry = |entry: &Entry| {
            let expires = entry.stamp + quota.window().as_micros();
            Span::micros(expires - now.0).ceil_millis()
        };
        let needed = used
            .saturating_add(cost.get())
            .saturating_sub(quota.capacity());
        let mut freed = 0;
        let frees_enough = |entry: &&Entry| {
            freed += entry.cost;
            freed >= needed
        };
        Reading {
            remaining: difference(quota.capacity(), used),
            retry: if quota.never_fits(cost) {
                Retry::Never
            } else if needed == 0 {
                Retry::Now
            } else {
                self.live(quota, now)
                    .find(frees_enough)
                    .map_or(Retry::Now, |entry| Retry::After(until_expiry(entry)))
            },
            reset: match used {
                0 => Span::ZERO,
                _ => self.log.back().map_or(Span::ZERO, until_expiry),
            },
        }
    }

    /// To be used up to `lead` later. What is taken while leased permits may still be used counts as
    /// long as they do.
    pub fn add(&mut self, quota: &Quota, cost: Cost, lead: Span, now: StoreInstant) {
        self.forget_expired(quota, now);
        let begun = self.at(now);
        let stamp = begun + lead.as_micros();
        let room = MOST - self.used(quota, now);
        let cost = cost.get().min(room);
        self.total += cost;
        match self.log.back_mut() {
            Some(newest) if newest.stamp >= stamp || newest.begun == begun => {
                newest.stamp = newest.stamp.max(stamp);
                newest.cost += cost;
            }
            _ => self.log.push_back(Entry { stamp, begun, cost }),
        }
    }

    /// All that expires by the moment told becomes one entry that expires then: what is used here
    /// may be part of what was told, and must not be free again before it.
    pub fn raise(&mut self, quota: &Quota, usage: Usage, now: StoreInstant) {
        self.forget_expired(quota, now);
        let stamp = (usage.until - quota.window()).0;
        let place = self.log.partition_point(|entry| entry.stamp <= stamp);
        let before: u64 = self.log.drain(..place).map(|entry| entry.cost).sum();
        let after = self.total - before;
        let cost = before
            .max(usage.permits.saturating_sub(after))
            .min(MOST - after);
        self.total = after + cost;
        if cost > 0 {
            let oldest = self.log.front().map_or(now.0, |entry| entry.begun);
            let begun = stamp.min(oldest).min(now.0);
            self.log.push_front(Entry { stamp, begun, cost });
        }
    }

    /// The receipt is the time of the take, which went into the newest entry begun by then.
    pub fn refund(&mut self, quota: &Quota, cost: Cost, receipt: StoreInstant, now: StoreInstant) {
        let cutoff = self.cutoff(quota, now);
        let begun = self.log.partition_point(|entry| entry.begun <= receipt.0);
        let covers = |entry: &Entry| entry.stamp >= receipt.0 && entry.stamp > cutoff;
        let place = begun.checked_sub(1);
        let Some(place) = place.filter(|place| self.log.get(*place).is_some_and(covers)) else {
            return;
        };
        // Before the entry goes: with it the log's own time may go back.
        let expired = self.expired(quota, now);
        if let Some(entry) = self.log.get_mut(place) {
            let returned = entry.cost.min(cost.get());
            entry.cost -= returned;
            self.total -= returned;
            if entry.cost == 0 {
                self.log.remove(place);
            }
        }
        self.forget(expired);
    }

    /// Expired entries are few: the next change forgets them, and until then a longer window would
    /// count them again.
    fn used(&self, quota: &Quota, now: StoreInstant) -> u64 {
        let expired = self.log.iter().take(self.expired(quota, now));
        self.total - expired.map(|entry| entry.cost).sum::<u64>()
    }

    fn live(&self, quota: &Quota, now: StoreInstant) -> impl Iterator<Item = &Entry> {
        self.log.iter().skip(self.expired(quota, now))
    }

    fn forget_expired(&mut self, quota: &Quota, now: StoreInstant) {
        self.forget(self.expired(quota, now));
    }

    fn forget(&mut self, oldest: usize) {
        for entry in self.log.drain(..oldest.min(self.log.len())) {
            self.total -= entry.cost;
        }
    }

    /// How many of the oldest entries have expired.
    fn expired(&self, quota: &Quota, now: StoreInstant) -> usize {
        let cutoff = self.cutoff(quota, now);
        self.log.partition_point(|entry| entry.stamp <= cutoff)
    }

    /// Now, or when the newest entry was begun if the clock went back.
    fn at(&self, now: StoreInstant) -> u64 {
        self.log
            .back()
            .map_or(now.0, |newest| newest.begun.max(now.0))
    }

    /// Entries up to here are expired: one that is a whole window old is.
    fn cutoff(&self, quota: &Quota, now: StoreInstant) -> u64 {
        self.at(now).saturating_sub(quota.window().as_micros())
    }
}
