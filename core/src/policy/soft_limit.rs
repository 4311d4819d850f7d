//! What a limit does before it refuses: it warns, it slows down, or it lets requests out one by one.
//! From where a caller stands with the limits of a request that passes to a warning and a delay.
//! Nobody waits here: that is [`crate::local::timer_queue`]' business.

use std::fmt;

use crate::codec::json::{At, ConfigError, Fields};
use crate::quota::cost::Cost;
use crate::quota::limit::{Algorithm, Quota, QuotaError};
use crate::quota::operation::Reading;
use crate::time::Millis;

/// How a limit treats those who near it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Approach {
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
    Slowed { from: Level, most: Millis },
    /// When its turn comes: requests leave one by one, at the rate of a leaky bucket, and none waits
    /// longer than `longest`.
    Shaped { longest: Millis },
}

/// A part of what a limit holds, above 0 and below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level(f64);

/// How much of what a limit holds is used, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used(u64);

/// Longer, and most clients have gone before they are answered.
const LONGEST_DELAY_MS: u64 = 60_000;

// === impl Approach ===

impl Approach {
    /// Takes its fields of a limit's; what the quota is with them.
    pub fn read(fields: &mut Fields<'_>, algorithm: Algorithm) -> Result<Approach, ConfigError> {
        let warn_at = fields
            .optional("warn_at")
            .map(|at| Level::read(&at))
            .transpose()?;
        let slow_from = fields.optional("slow_from");
        let max_delay = fields.optional("max_delay_ms");
        let shape = match fields.optional("shape") {
            Some(at) if at.flag()? => Some(at),
            _ => None,
        };
        let max_wait = fields.optional("max_wait_ms");
        let slowed = match (&slow_from, &max_delay) {
            (None, None) => None,
            (Some(from), Some(most)) => Some(Pace::Slowed {
                from: Level::read(from)?,
                most: wait(most)?,
            }),
            (Some(from), None) => {
                return Err(from.error(
                    "is set without \"max_delay_ms\"; say how long the last request before the \
                     limit is delayed",
                ));
            }
            (None, Some(most)) => {
                return Err(most.error(
                    "is set without \"slow_from\"; say from which share of the limit on requests \
                     are delayed, such as 0.8",
                ));
            }
        };
        let shaped = match (&shape, &max_wait) {
            (None, None) => None,
            (Some(shape), _) if algorithm != Algorithm::LeakyBucket => {
                return Err(shape.error(format!(
                    "is set, but {} has no queue; remove it or use \"leaky_bucket\"",
                    algorithm.name()
                )));
            }
            (Some(_), Some(longest)) => Some(Pace::Shaped {
                longest: wait(longest)?,
            }),
            (Some(shape), None) => {
                return Err(shape.error(
                    "is set without \"max_wait_ms\"; say how long a request may wait for its turn",
                ));
            }
            (None, Some(longest)) => {
                return Err(longest.error(
                    "is set without \"shape\": true; only requests that wait for their turn wait",
                ));
            }
        };
        let pace = match (slowed, shaped, &slow_from) {
            (Some(_), Some(_), Some(slow_from)) => {
                return Err(slow_from.error(
                    "is set together with \"shape\", whose requests wait for their turn already; \
                     remove one of them",
                ));
            }
            (slowed, shaped, _) => shaped.or(slowed).unwrap_or_default(),
        };
        Ok(Approach { warn_at, pace })
    }

    /// The quota of a limit that is approached like this.
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
    pub fn wait(&self, quota: &Quota, cost: Cost, reading: Reading) -> Millis {
        match self.pace {
            Pace::Free => Millis(0),
            Pace::Slowed { from, most } => from.wait(used(quota, reading), quota, most),
            Pace::Shaped { .. } => turn(quota, cost, reading),
        }
    }
}

fn wait(at: &At<'_>) -> Result<Millis, ConfigError> {
    match at.whole()? {
        millis @ 1..=LONGEST_DELAY_MS => Ok(Millis(millis)),
        other => Err(at.error(format!(
            "is {other}; from 1 to {LONGEST_DELAY_MS}: a client does not wait for ever"
        ))),
    }
}

pub fn used(quota: &Quota, reading: Reading) -> u64 {
    let used = i128::from(quota.capacity()) - i128::from(reading.remaining);
    u64::try_from(used).unwrap_or(0)
}

/// What a leaky bucket held before the request leaks out before its turn. What it holds since has
/// leaked at `reset`, and of that the request's own part comes last. Rounded up, but nobody waits
/// where there was less than a millisecond's worth.
fn turn(quota: &Quota, cost: Cost, reading: Reading) -> Millis {
    let own = cost.get().saturating_mul(quota.window().0);
    if reading.reset.0 <= own.div_ceil(quota.limit()) {
        return Millis(0);
    }
    Millis(reading.reset.0 - own / quota.limit())
}

// === impl Level ===

impl Level {
    pub fn try_new(share: f64) -> Option<Level> {
        (share > 0.0 && share < 1.0).then_some(Level(share))
    }

    fn read(at: &At<'_>) -> Result<Level, ConfigError> {
        let share = at.number()?;
        Level::try_new(share).ok_or_else(|| {
            at.error(format!(
                "is {share}; a share of the limit, above 0 and below 1, such as 0.8"
            ))
        })
    }

    /// Divided, not multiplied: 55 of 100 is the double that "0.55" is read as, 100 × 0.55 is more
    /// than 55.
    pub fn reached(self, used: u64, quota: &Quota) -> bool {
        used as f64 / quota.capacity() as f64 >= self.0
    }

    /// Grows from nothing at this level to `most` where all is used.
    fn wait(self, used: u64, quota: &Quota, most: Millis) -> Millis {
        let share = (used as f64 / quota.capacity() as f64).min(1.0);
        let beyond = (share - self.0).max(0.0) / (1.0 - self.0);
        Millis((most.0 as f64 * beyond).round() as u64)
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
impl fmt::Display for Approach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Level(share)) = self.warn_at {
            write!(f, " warn at {share}")?;
        }
        match self.pace {
            Pace::Free => Ok(()),
            Pace::Slowed { from, most } => write!(f, " slow from {} up to {}ms", from.0, most.0),
            Pace::Shaped { longest } => write!(f, " shaped up to {}ms", longest.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::nearing::{Delay, Line, Nearing};
    use crate::decide::verdict::Standing;
    use crate::policy::ids::LimitId;
    use crate::quota::model::Counters;
    use crate::quota::operation::{Kind, Retry, Verdict};
    use crate::time::Micros;

    fn quota(algorithm: Algorithm, limit: u64, window: u64) -> Quota {
        Quota::try_new(algorithm, limit, window, None).unwrap()
    }

    fn left(remaining: i64) -> Reading {
        Reading {
            remaining,
            retry: Retry::Now,
            reset: Millis(0),
        }
    }

    fn level(share: f64) -> Level {
        Level::try_new(share).unwrap()
    }

    fn nth(place: usize, reading: Reading) -> (usize, Standing) {
        let limit = LimitId::nth(place);
        (place, Standing { limit, reading })
    }

    fn nearing(all: &[(Approach, Quota, Reading)]) -> Nearing {
        let mut nearing = Nearing::default();
        for (place, (approach, quota, reading)) in all.iter().enumerate() {
            nearing.add(nth(place, *reading), *approach, quota, Cost::ONE);
        }
        nearing
    }

    #[test]
    fn a_limit_warns_from_exactly_its_share_on() {
        for (capacity, share, remaining, warns) in [
            (100, 0.55, 46, None),
            (100, 0.55, 45, Some("0.55")),
            (5, 0.6, 3, None),
            (5, 0.6, 2, Some("0.6")),
            (3, 0.5, 1, Some("0.666")),
            (10, 0.7, 0, Some("1.0")),
            (1000, 0.001, 999, Some("0.001")),
        ] {
            let approach = Approach {
                warn_at: Some(level(share)),
                pace: Pace::Free,
            };
            let quota = quota(Algorithm::FixedWindow, capacity, 60);
            let warned = nearing(&[(approach, quota, left(remaining))]).warned;
            let told = warned.first().map(|(_, used)| used.to_string());
            assert_eq!(
                told.as_deref(),
                warns,
                "{share} of {capacity}, {remaining} left"
            );
        }
    }

    #[test]
    fn a_delay_grows_with_use_up_to_the_last_request_before_the_limit() {
        let approach = Approach {
            warn_at: None,
            pace: Pace::Slowed {
                from: level(0.5),
                most: Millis(1000),
            },
        };
        let quota = quota(Algorithm::SlidingWindow, 10, 60);
        let waits: Vec<u64> = (0..10)
            .rev()
            .map(|remaining| nearing(&[(approach, quota, left(remaining))]).delay.wait.0)
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 200, 400, 600, 800, 1000]);
    }

    #[test]
    fn of_several_delays_the_longest_counts() {
        let slowed = |most| Approach {
            warn_at: None,
            pace: Pace::Slowed {
                from: level(0.5),
                most: Millis(most),
            },
        };
        let shaped = Approach {
            warn_at: None,
            pace: Pace::Shaped {
                longest: Millis(9000),
            },
        };
        let window = quota(Algorithm::FixedWindow, 10, 60);
        let bucket = quota(Algorithm::LeakyBucket, 10, 10);
        let turn = Reading {
            reset: Millis(1400),
            ..left(5)
        };
        let slow = |most| (slowed(most), window, left(0));
        let shape = (shaped, bucket, turn);
        let later = (
            shaped,
            bucket,
            Reading {
                reset: Millis(1500),
                ..left(5)
            },
        );
        // The line is told by its place, its own wait and the longest of the others'.
        for (all, wait, line) in [
            ([slow(100), slow(300), slow(200)], 300, None),
            ([slow(900), shape, slow(200)], 900, Some((1, 400, 900))),
            ([slow(100), shape, slow(200)], 400, Some((1, 400, 200))),
            ([slow(300), slow(200), shape], 400, Some((2, 400, 300))),
            ([later, slow(200), shape], 500, Some((0, 500, 400))),
            ([shape, slow(200), later], 500, Some((2, 500, 400))),
        ] {
            let line = line.map(|(place, wait, others)| Line {
                place,
                wait: Millis(wait),
                others: Millis(others),
            });
            let wait = Millis(wait);
            assert_eq!(nearing(&all).delay, Delay { wait, line });
        }
    }

    /// What the bucket alone says, request by request: turns at its rate, whatever the costs, and
    /// no wait beyond the longest.
    #[test]
    fn turns_come_at_the_rate_of_the_bucket_and_none_is_too_far_away() {
        let longest = Millis(1000);
        let approach = Approach {
            warn_at: None,
            pace: Pace::Shaped { longest },
        };
        // A turn each 142.857… ms.
        let quota = approach.quota(quota(Algorithm::LeakyBucket, 7, 1)).unwrap();
        assert_eq!(quota.capacity(), 8);
        let mut counters = Counters::default();
        let mut free = 0.0_f64;
        let mut refused = 0;
        for (number, later) in [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 150, 3, 2000, 40, 40, 900, 1]
            .iter()
            .scan(0, |now, later| {
                *now += later;
                Some(*now)
            })
            .enumerate()
        {
            let cost = Cost((1 + number as u64 % 2).try_into().unwrap());
            let now = Micros(later * 1000);
            let told = counters.run(Kind::Take, &[((), quota, cost)], now);
            let turn = (later as f64).max(free);
            if told.verdict == Verdict::Refused {
                let after = turn - later as f64 + (cost.get() - 1) as f64 * 1000.0 / 7.0;
                assert!(after > longest.0 as f64, "{number}: {after}");
                refused += 1;
                continue;
            }
            let mut nearing = Nearing::default();
            nearing.add(nth(0, told.limits[0]), approach, &quota, cost);
            let wait = nearing.delay.wait.0;
            let told = later as f64 + wait as f64;
            assert!(
                (turn - 1.0..turn + 2.0).contains(&told),
                "{number}: {told} is not {turn}"
            );
            assert!(wait <= longest.0 + 1, "{wait}");
            free = turn + cost.get() as f64 * 1000.0 / 7.0;
        }
        assert!(refused > 0);
    }
}
