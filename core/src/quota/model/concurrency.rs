//! Permits in use, by who holds them.

use std::collections::HashMap;

use super::{MOST, difference};
use crate::quota::cost::Cost;
use crate::quota::limit::Quota;
use crate::quota::operation::{Holder, Reading, Retry};
use crate::time::{Span, StoreInstant};

/// How often all holders are looked at, and how long a silent one is believed.
const SWEEP: u64 = 1_000;
const SILENCE: u64 = 19_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Concurrency {
    holders: HashMap<Holder, Held>,
    /// When all were last looked at, in ms; never, where nobody holds anything.
    swept: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    permits: u64,
    /// When the holder last said so, in ms.
    spoken: u64,
}

impl Concurrency {
    pub fn is_unused(&self) -> bool {
        self.holders.is_empty()
    }

    pub fn holders(&self) -> usize {
        self.holders.len()
    }

    /// Without those that have been silent for too long, where it is time to look. `holder` asks.
    pub fn moved(&self, holder: Holder, now: StoreInstant) -> Option<Concurrency> {
        let now = now.as_millis();
        let is_recent = |swept: u64| swept <= now && now - swept < SWEEP;
        if self.swept.is_none_or(is_recent) {
            return None;
        }
        let living = self
            .holders
            .iter()
            .filter(|(_, held)| held.spoken + SILENCE > now);
        let living = living.map(|(name, held)| {
            let spoke_later = held.spoken > now + SILENCE;
            let spoken = match *name == holder || spoke_later {
                true => now,
                false => held.spoken,
            };
            (*name, Held { spoken, ..*held })
        });
        Some(Concurrency {
            holders: living.collect(),
            swept: Some(now),
        })
    }

    pub fn read(&self, quota: &Quota, cost: Cost) -> Reading {
        let used = self.used();
        Reading {
            remaining: difference(quota.capacity(), used),
            retry: if quota.never_fits(cost) {
                Retry::Never
            } else if used + cost.get() <= quota.capacity() {
                Retry::Now
            } else {
                Retry::Unknown
            },
            reset: Span::ZERO,
        }
    }

    pub fn add(&mut self, holder: Holder, cost: Cost, now: StoreInstant) {
        let room = MOST.saturating_sub(self.used());
        self.hold(holder, self.of(holder) + cost.get().min(room), now);
    }

    pub fn refund(&mut self, holder: Holder, cost: Cost, now: StoreInstant) {
        let held = self.of(holder);
        if held > 0 {
            self.hold(holder, held.saturating_sub(cost.get()), now);
        }
    }

    /// What the holder holds from here on.
    pub fn hold(&mut self, holder: Holder, permits: u64, now: StoreInstant) {
        let now = now.as_millis();
        self.swept.get_or_insert(now);
        match permits {
            0 => self.holders.remove(&holder),
            permits => self.holders.insert(
                holder,
                Held {
                    permits,
                    spoken: now,
                },
            ),
        };
    }

    fn of(&self, holder: Holder) -> u64 {
        self.holders.get(&holder).map_or(0, |held| held.permits)
    }

    fn used(&self) -> u64 {
        self.holders.values().map(|held| held.permits).sum()
    }
}
