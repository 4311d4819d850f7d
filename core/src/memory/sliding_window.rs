//! An exact log of what was taken in (now − window, now].

use std::collections::VecDeque;

use super::{MOST, difference};
use crate::limit::Quota;
use crate::script::{Reading, Retry};
use crate::units::{Cost, Micros, Millis};

/// Oldest first; at most one entry for each stamp. Expired entries stay until the next change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlidingWindow {
    log: VecDeque<Entry>,
    /// What all entries cost, the expired ones too.
    total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// µs since the epoch.
    stamp: u64,
    cost: u64,
}

impl SlidingWindow {
    pub fn is_unused(&self) -> bool {
        self.log.is_empty()
    }

    pub fn entries(&self) -> usize {
        self.log.len()
    }

    pub fn moved(&self, quota: &Quota, now: Micros) -> Option<SlidingWindow> {
        let newest = self.log.back()?;
        if newest.stamp.saturating_sub(now.0) <= micros(quota.window()) {
            return None;
        }
        let all = Entry {
            stamp: now.0,
            cost: self.used(quota, now),
        };
        Some(SlidingWindow {
            log: VecDeque::from([all]),
            total: all.cost,
        })
    }

    pub fn read(&self, quota: &Quota, cost: Cost, now: Micros) -> Reading {
        let used = self.used(quota, now);
        let until_expiry = |entry: &Entry| {
            let expires = entry.stamp + micros(quota.window());
            Millis((expires - now.0).div_ceil(1000))
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
                0 => Millis(0),
                _ => self.log.back().map_or(Millis(0), until_expiry),
            },
        }
    }

    pub fn add(&mut self, quota: &Quota, cost: Cost, now: Micros) {
        self.forget_expired(quota, now);
        let stamp = self.at(now);
        let room = MOST - self.used(quota, now);
        let cost = cost.get().min(room);
        self.total += cost;
        match self.log.back_mut() {
            Some(newest) if newest.stamp == stamp => newest.cost += cost,
            _ => self.log.push_back(Entry { stamp, cost }),
        }
    }

    /// The receipt is the entry's stamp.
    pub fn give_back(&mut self, quota: &Quota, cost: Cost, receipt: Micros, now: Micros) {
        let expired = self.cutoff(quota, now);
        if receipt.0 <= expired {
            return;
        }
        let place = self
            .log
            .binary_search_by_key(&receipt.0, |entry| entry.stamp);
        let Ok(place) = place else {
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
    fn used(&self, quota: &Quota, now: Micros) -> u64 {
        let expired = self.log.iter().take(self.expired(quota, now));
        self.total - expired.map(|entry| entry.cost).sum::<u64>()
    }

    fn live(&self, quota: &Quota, now: Micros) -> impl Iterator<Item = &Entry> {
        self.log.iter().skip(self.expired(quota, now))
    }

    fn forget_expired(&mut self, quota: &Quota, now: Micros) {
        self.forget(self.expired(quota, now));
    }

    fn forget(&mut self, oldest: usize) {
        for entry in self.log.drain(..oldest.min(self.log.len())) {
            self.total -= entry.cost;
        }
    }

    /// How many of the oldest entries have expired.
    fn expired(&self, quota: &Quota, now: Micros) -> usize {
        let cutoff = self.cutoff(quota, now);
        self.log.partition_point(|entry| entry.stamp <= cutoff)
    }

    /// Now, or the newest entry's stamp if the clock went back.
    fn at(&self, now: Micros) -> u64 {
        self.log
            .back()
            .map_or(now.0, |newest| newest.stamp.max(now.0))
    }

    /// Entries up to here are expired: one that is a whole window old is.
    fn cutoff(&self, quota: &Quota, now: Micros) -> u64 {
        self.at(now).saturating_sub(micros(quota.window()))
    }
}

fn micros(span: Millis) -> u64 {
    span.0.saturating_mul(1000)
}
