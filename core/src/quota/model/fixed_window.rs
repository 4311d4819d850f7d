//! Permits in the current window, windows aligned to the Unix epoch or to a calendar.

use super::{MOST, Usage, difference};
use crate::quota::cost::Cost;
use crate::quota::limit::Quota;
use crate::quota::operation::{Reading, Retry};
use crate::time::{Span, StoreInstant};

/// `used` permits in the window that ends at `end`, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FixedWindow {
    used: u64,
    end: u64,
}

impl FixedWindow {
    pub fn is_unused(&self) -> bool {
        self.used == 0
    }

    pub fn moved(&self, quota: &Quota, now: StoreInstant) -> Option<FixedWindow> {
        let current = self.current(quota, now);
        (current.used > 0 && current.end != self.end).then_some(current)
    }

    pub fn read(&self, quota: &Quota, cost: Cost, now: StoreInstant) -> Reading {
        let FixedWindow { used, end } = self.current(quota, now);
        let ends_in = Span::millis(end - now.as_millis());
        Reading {
            remaining: difference(quota.capacity(), used),
            retry: if quota.never_fits(cost) {
                Retry::Never
            } else if used + cost.get() <= quota.capacity() {
                Retry::Now
            } else {
                Retry::After(ends_in)
            },
            reset: if used == 0 { Span::ZERO } else { ends_in },
        }
    }

    pub fn add(&mut self, quota: &Quota, cost: Cost, now: StoreInstant) {
        *self = self.current(quota, now);
        self.used = self.used.saturating_add(cost.get()).min(MOST);
    }

    /// Up to the end of a window that lies next to the moment told: another clock told it.
    pub fn raise(&mut self, quota: &Quota, usage: Usage, now: StoreInstant) {
        let period = quota.period();
        let within = usage
            .until
            .as_millis()
            .saturating_sub(period.longest().as_millis() / 2);
        let end = period.end(within);
        if end > now.as_millis() {
            let current = self.current(quota, now);
            *self = FixedWindow {
                used: current.used.max(usage.permits).min(MOST),
                end: current.end.max(end),
            };
        }
    }

    /// Only in the window that the receipt names: the next one owes nothing.
    pub fn refund(&mut self, quota: &Quota, cost: Cost, receipt: StoreInstant, now: StoreInstant) {
        let current = self.current(quota, now);
        if current.used > 0 && quota.period().end(receipt.as_millis()) == current.end {
            *self = current;
            self.used = self.used.saturating_sub(cost.get());
        }
    }

    fn current(&self, quota: &Quota, now: StoreInstant) -> FixedWindow {
        let (now, period) = (now.as_millis(), quota.period());
        let end = period.end(now);
        // The clock went back, by a window at most.
        let ahead = self.end > end
            && self.end <= now + 2 * period.longest().as_millis()
            && period.end(self.end - 1) == self.end;
        FixedWindow {
            // A window that policy cut short or drew out has not ended: its usage counts in this one.
            used: if self.end <= now { 0 } else { self.used },
            end: if ahead { self.end } else { end },
        }
    }
}
