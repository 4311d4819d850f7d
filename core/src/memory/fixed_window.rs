//! Permits in the current window, windows aligned to the Unix epoch.

use super::{MOST, difference, whole_millis};
use crate::limit::Quota;
use crate::script::{Reading, Retry};
use crate::units::{Cost, Micros, Millis};

/// `used` permits in [start, start + window), in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FixedWindow {
    used: u64,
    start: u64,
    window: u64,
}

impl FixedWindow {
    pub fn is_unused(&self) -> bool {
        self.used == 0
    }

    pub fn moved(&self, quota: &Quota, now: Micros) -> Option<FixedWindow> {
        let current = self.current(quota, now);
        let elsewhere = (current.start, current.window) != (self.start, self.window);
        (current.used > 0 && elsewhere).then_some(current)
    }

    pub fn read(&self, quota: &Quota, cost: Cost, now: Micros) -> Reading {
        let FixedWindow {
            used,
            start,
            window,
        } = self.current(quota, now);
        let ends_in = Millis(start + window - whole_millis(now));
        Reading {
            remaining: difference(quota.capacity(), used),
            retry: if quota.never_fits(cost) {
                Retry::Never
            } else if used + cost.get() <= quota.capacity() {
                Retry::Now
            } else {
                Retry::After(ends_in)
            },
            reset: if used == 0 { Millis(0) } else { ends_in },
        }
    }

    pub fn add(&mut self, quota: &Quota, cost: Cost, now: Micros) {
        *self = self.current(quota, now);
        self.used = self.used.saturating_add(cost.get()).min(MOST);
    }

    /// Only in the window that the receipt names: the next one owes nothing.
    pub fn give_back(&mut self, quota: &Quota, cost: Cost, receipt: Micros, now: Micros) {
        let current = self.current(quota, now);
        let taken = whole_millis(receipt);
        if current.used > 0 && taken - taken % current.window == current.start {
            *self = current;
            self.used = self.used.saturating_sub(cost.get());
        }
    }

    fn current(&self, quota: &Quota, now: Micros) -> FixedWindow {
        let (now, window) = (whole_millis(now), quota.window().0);
        let ahead = self.start.saturating_sub(now);
        let at = if ahead <= window {
            now.max(self.start)
        } else {
            now
        };
        // A window that policy cut short or drew out has not ended: its usage counts in this one.
        let ended = at >= self.start + self.window;
        FixedWindow {
            used: if ended { 0 } else { self.used },
            start: at - at % window,
            window,
        }
    }
}
