//! A level that rises with every permit and falls with time: a token bucket, whose level is the
//! tokens that are gone, or a leaky one.

use super::{MOST, Usage};
use crate::quota::cost::Cost;
use crate::quota::limit::Quota;
use crate::quota::operation::{Reading, Retry};
use crate::time::{Span, StoreInstant};

/// The level at `time` (ms), in units of permit × `window` (ms): a permit adds `window` units and
/// each ms takes away the limit, so that nothing is ever rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    level: u64,
    time: u64,
    window: u64,
}

impl Bucket {
    pub fn is_unused(&self) -> bool {
        self.level == 0
    }

    pub fn moved(&self, quota: &Quota, now: StoreInstant) -> Option<Bucket> {
        let current = self.current(quota, now);
        let elsewhere = self.window != current.window || self.time > current.time;
        (current.level > 0 && elsewhere).then_some(current)
    }

    pub fn read(&self, quota: &Quota, cost: Cost, now: StoreInstant) -> Reading {
        let Bucket {
            level,
            time,
            window,
        } = self.current(quota, now);
        let ahead = time - now.as_millis();
        let until_leaked = |units: u64| match units {
            0 => 0,
            units => ahead + units.div_ceil(quota.limit()),
        };
        let brim = quota.capacity() * window;
        Reading {
            remaining: (brim as i64 - level as i64).div_euclid(window as i64),
            retry: match quota.capacity().checked_sub(cost.get()) {
                None => Retry::Never,
                Some(room) => match until_leaked(level.saturating_sub(room * window)) {
                    0 => Retry::Now,
                    wait => Retry::After(Span::millis(wait)),
                },
            },
            reset: Span::millis(until_leaked(level)),
        }
    }

    pub fn add(&mut self, quota: &Quota, cost: Cost, now: StoreInstant) {
        *self = self.current(quota, now);
        let rise = cost.get().saturating_mul(self.window);
        self.level = self.level.saturating_add(rise).min(MOST);
    }

    pub fn raise(&mut self, quota: &Quota, usage: Usage, now: StoreInstant) {
        let window = quota.window().as_millis();
        let told = Bucket {
            level: usage.permits.saturating_mul(window).min(MOST),
            time: usage.told.as_millis(),
            window,
        };
        let (own, told) = (self.current(quota, now), told.current(quota, now));
        *self = if told.level > own.level { told } else { own };
    }

    /// What has leaked since is gone: the level never falls below nothing.
    pub fn refund(&mut self, quota: &Quota, cost: Cost, now: StoreInstant) {
        let current = self.current(quota, now);
        if current.level > 0 {
            *self = current;
            let fall = cost.get().saturating_mul(self.window);
            self.level = self.level.saturating_sub(fall);
        }
    }

    fn current(&self, quota: &Quota, now: StoreInstant) -> Bucket {
        let (now, window) = (now.as_millis(), quota.window().as_millis());
        let level = if self.window == window || self.level == 0 {
            self.level
        } else {
            rescale(self.level, self.window, window)
        };
        if self.time.saturating_sub(now) > window {
            return Bucket {
                level,
                time: now,
                window,
            };
        }
        let elapsed = now.saturating_sub(self.time);
        Bucket {
            level: level.saturating_sub(elapsed.saturating_mul(quota.limit())),
            time: now.max(self.time),
            window,
        }
    }
}

/// A level in another window's units, rounded up, against the caller.
fn rescale(level: u64, from: u64, to: u64) -> u64 {
    let exact = (u128::from(level) * u128::from(to)).div_ceil(u128::from(from));
    u64::try_from(exact).map_or(MOST, |level| level.min(MOST))
}
