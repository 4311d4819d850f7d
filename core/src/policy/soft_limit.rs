//! What a limit does before it refuses: it warns, it slows down, or it lets requests out one by one.
//! From where a caller stands with the limits of a request that passes to a warning and a delay.
//! Nobody waits here: that is [`crate::local::timer_queue`]' business.

use std::fmt;

use super::document;
use crate::codec::json::{ConfigError, Path};
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota, QuotaError};
use crate::quota::operation::Reading;
use crate::time::Span;

/// How a limit treats those who near it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoftLimit {
    /// With so much of the limit used, the answer says so.
    pub warn_at: Option<Level>,
    pub pace: Pace,
}

/// When a request that passes goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Pace {
    /// At once.
    #[default]
    Free,
    /// Once more than `from` is used later and later, up to `most` for the last that passes.
    Slowed { from: Level, most: Span },
    /// When its turn comes: requests leave one by one, at the rate of a leaky bucket, and none waits
    /// longer than `longest`.
    Shaped { longest: Span },
}

/// A part of what a limit holds, above 0 and below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level(f64);

/// How much of what a limit holds is used, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used(u64);

// === impl SoftLimit ===

impl SoftLimit {
    /// What a limit says of it.
    pub(super) fn compile(
        limit: &document::Limit,
        at: &Path<'_>,
    ) -> Result<SoftLimit, ConfigError> {
        let wrong = |field, message: &str| Err(at.member(field).error(message));
        let slowed = match (limit.slow_from.and_then(Level::try_new), limit.max_delay_ms) {
            (None, None) => None,
            (Some(from), Some(most)) => Some(Pace::Slowed {
                from,
                most: Span::millis(most),
            }),
            (Some(_), None) => {
                return wrong(
                    "slow_from",
                    "is set without \"max_delay_ms\"; say how long the last request before the \
                     limit is delayed",
                );
            }
            (None, Some(_)) => {
                return wrong(
                    "max_delay_ms",
                    "is set without \"slow_from\"; say from which share of the limit on requests \
                     are delayed, such as 0.8",
                );
            }
        };
        let shaped = match (limit.shape, limit.max_wait_ms) {
            (false, None) => None,
            (true, _) if limit.algorithm != Algorithm::LeakyBucket => {
                return Err(at.member("shape").error(format!(
                    "is set, but {} has no queue; remove it or use \"leaky_bucket\"",
                    limit.algorithm.name()
                )));
            }
            (true, Some(longest)) => Some(Pace::Shaped {
                longest: Span::millis(longest),
            }),
            (true, None) => {
                return wrong(
                    "shape",
                    "is set without \"max_wait_ms\"; say how long a request may wait for its turn",
                );
            }
            (false, Some(_)) => {
                return wrong(
                    "max_wait_ms",
                    "is set without \"shape\": true; only requests that wait for their turn wait",
                );
            }
        };
        let pace = match (slowed, shaped) {
            (Some(_), Some(_)) => {
                return wrong(
                    "slow_from",
                    "is set together with \"shape\", whose requests wait for their turn already; \
                     remove one of them",
                );
            }
            (slowed, shaped) => shaped.or(slowed).unwrap_or_default(),
        };
        let warn_at = limit.warn_at.and_then(Level::try_new);
        Ok(SoftLimit { warn_at, pace })
    }

    /// The quota of a limit that is soft_limited like this.
    pub fn quota(&self, quota: Quota) -> Result<Quota, QuotaError> {
        match self.pace {
            Pace::Free | Pace::Slowed { .. } => Ok(quota),
            Pace::Shaped { longest } => quota.shaped(longest),
        }
    }

    /// Whether it does nothing at all before it refuses.
    pub fn is_plain(&self) -> bool {
        self.warn_at.is_none() && self.pace == Pace::Free
    }

    /// How much is used, where that is to be warned of.
    pub fn warning(&self, quota: &Quota, reading: Reading) -> Option<Used> {
        let used = used(quota, reading);
        let is_near = self.warn_at?.reached(used, quota);
        is_near.then(|| Used::of(used, quota))
    }

    /// How long a request waits that has taken `cost` of this quota and left it so.
    pub fn wait(&self, quota: &Quota, cost: Cost, reading: Reading) -> Span {
        match self.pace {
            Pace::Free => Span::ZERO,
            Pace::Slowed { from, most } => from.wait(used(quota, reading), quota, most),
            Pace::Shaped { .. } => turn(quota, cost, reading),
        }
    }
}

pub fn used(quota: &Quota, reading: Reading) -> u64 {
    let used = i128::from(quota.capacity()) - i128::from(reading.remaining);
    u64::try_from(used).unwrap_or(0)
}

/// What a leaky bucket held before the request leaks out before its turn. What it holds since has
/// leaked at `reset`, and of that the request's own part comes last. Rounded up, but nobody waits
/// where there was less than a millisecond's worth.
fn turn(quota: &Quota, cost: Cost, reading: Reading) -> Span {
    let own = cost.get().saturating_mul(quota.window().as_millis());
    if reading.reset.as_millis() <= own.div_ceil(quota.limit()) {
        return Span::ZERO;
    }
    Span::millis(reading.reset.as_millis() - own / quota.limit())
}

// === impl Level ===

impl Level {
    pub fn try_new(share: f64) -> Option<Level> {
        (share > 0.0 && share < 1.0).then_some(Level(share))
    }

    /// Divided, not multiplied: 55 of 100 is the double that "0.55" is read as, 100 × 0.55 is more
    /// than 55.
    pub fn reached(self, used: u64, quota: &Quota) -> bool {
        used as f64 / quota.capacity() as f64 >= self.0
    }

    /// Grows from nothing at this level to `most` where all is used.
    fn wait(self, used: u64, quota: &Quota, most: Span) -> Span {
        let share = (used as f64 / quota.capacity() as f64).min(1.0);
        let beyond = (share - self.0).max(0.0) / (1.0 - self.0);
        Span::millis((most.as_millis() as f64 * beyond).round() as u64)
    }
}

impl Used {
    fn of(used: u64, quota: &Quota) -> Used {
        let thousandths = u128::from(used) * 1000 / u128::from(quota.capacity());
        Used(u64::try_from(thousandths).unwrap_or(u64::MAX))
    }
}

/// A decimal as structured fields have it: at least one digit after the point, at most three.
impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:03}", self.0 % 1000);
        let digits = match digits.trim_end_matches('0') {
            "" => "0",
            digits => digits,
        };
        write!(f, "{}.{digits}", self.0 / 1000)
    }
}

/// As the log tells it after the limit's numbers.
impl fmt::Display for SoftLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Level(share)) = self.warn_at {
            write!(f, " warn at {share}")?;
        }
        match self.pace {
            Pace::Free => Ok(()),
            Pace::Slowed { from, most } => {
                write!(f, " slow from {} up to {}ms", from.0, most.as_millis())
            }
            Pace::Shaped { longest } => write!(f, " shaped up to {}ms", longest.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests;
