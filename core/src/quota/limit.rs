//! What a limit is: an algorithm with its numbers. It knows nothing of who is limited or where
//! the usage is kept. A `Quota` that exists is one the scripts can compute exactly.

use std::fmt;

use crate::quota::cost::Cost;
use crate::quota::period::{Calendar, Period};
use crate::time::Span;

/// How usage is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// At most `limit` in each window aligned to the Unix epoch, or to a calendar.
    FixedWindow,
    /// At most `limit` in any (now − window, now]: an exact log.
    SlidingWindow,
    /// Starts full with `capacity` permits, refilled at limit/window.
    TokenBucket,
    /// Starts empty, holds `limit`, leaks limit/window.
    LeakyBucket,
    /// At most `limit` in use at one time.
    Concurrency,
}

impl Algorithm {
    /// Those that measure over time: all but concurrency.
    pub const ALL: [Algorithm; 4] = [
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
    ];

    /// The name in policies and answers.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::FixedWindow => "fixed_window",
            Algorithm::SlidingWindow => "sliding_window",
            Algorithm::TokenBucket => "token_bucket",
            Algorithm::LeakyBucket => "leaky_bucket",
            Algorithm::Concurrency => "concurrency",
        }
    }

    /// The name in keys and script arguments, where every byte is paid for at each request.
    pub fn code(self) -> &'static str {
        match self {
            Algorithm::FixedWindow => "fw",
            Algorithm::SlidingWindow => "sl",
            Algorithm::TokenBucket => "tb",
            Algorithm::LeakyBucket => "lb",
            Algorithm::Concurrency => "cc",
        }
    }
}

/// A limit's numbers, checked: every quantity the scripts derive from them is an integer < 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    algorithm: Algorithm,
    limit: u64,
    period: Period,
    capacity: u64,
}

/// A part of a whole, above 0 and at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    pub fn try_new(share: f64) -> Option<Share> {
        (share > 0.0 && share <= 1.0).then_some(Share(share))
    }

    /// One of so many equal parts.
    pub fn one_of(parts: u64) -> Share {
        Share(1.0 / parts.max(1) as f64)
    }

    /// One of so many equal parts of this part.
    #[must_use]
    pub fn divided(self, parts: f64) -> Share {
        Share(self.0 / parts.max(1.0))
    }

    /// The whole permits in this part of so many.
    pub fn of(self, whole: u64) -> u64 {
        (whole as f64 * self.0) as u64
    }
}

/// Why numbers do not make a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaError {
    /// A limit of 0 would refuse everything.
    ZeroLimit,
    /// A window of 0 seconds has no meaning.
    ZeroWindow,
    /// Beyond ten years the log's clock, in µs, would run out of exact integers.
    WindowTooLong,
    /// A bucket that holds nothing refuses everything.
    ZeroBurst,
    /// A burst was given to an algorithm that has none.
    BurstOutsideTokenBucket,
    /// Nobody could ever wait for a turn: they are further apart than the longest wait.
    WaitBelowTurn { turn: Span },
    /// Lua's numbers are doubles: beyond 2^53 they lose integers.
    Overflow { capacity: u64, window_seconds: u64 },
}

/// Ten years.
pub const LONGEST_WINDOW_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;

/// The first integer that a double cannot tell from its neighbour.
const DOUBLE_EXACT: u64 = 1 << 53;

impl Quota {
    /// Whether whatever this quota lets through fits into the other one, so that of the two the other
    /// never refuses. Both count the same requests, at the same cost.
    pub fn comes_before(self, other: Quota) -> bool {
        use Algorithm::{Concurrency, FixedWindow, LeakyBucket, SlidingWindow, TokenBucket};
        let (own, others) = (
            self.period.shortest().as_millis(),
            other.window().as_millis(),
        );
        if [self.algorithm, other.algorithm].contains(&Concurrency) {
            return self.algorithm == other.algorithm && self.limit <= other.limit;
        }
        let is_of_buckets = |quota: Quota| matches!(quota.algorithm, TokenBucket | LeakyBucket);
        // At most so much within any time as long as the other's window.
        let most = match self.algorithm {
            SlidingWindow => self.limit.saturating_mul(others.div_ceil(own)),
            // A span that is no whole window can end in one and begin in another.
            FixedWindow => {
                let is_aligned =
                    other.algorithm == FixedWindow && self.period.ends_with(other.period);
                let windows = others.div_ceil(own).saturating_add(u64::from(!is_aligned));
                self.limit.saturating_mul(windows)
            }
            TokenBucket | LeakyBucket | Concurrency => {
                let refilled = u128::from(self.limit) * u128::from(others) / u128::from(own.max(1));
                let refilled = u64::try_from(refilled).unwrap_or(u64::MAX);
                self.capacity.saturating_add(refilled)
            }
        };
        if !is_of_buckets(other) {
            return most <= other.limit;
        }
        let is_slower = u128::from(self.limit) * u128::from(others)
            <= u128::from(other.limit) * u128::from(own);
        let at_once = match self.algorithm {
            SlidingWindow | TokenBucket | LeakyBucket => self.capacity,
            FixedWindow | Concurrency => self.limit.saturating_mul(2),
        };
        is_slower && at_once <= other.capacity
    }

    /// `burst` is a token bucket's capacity; without it the capacity is the limit.
    pub fn try_new(
        algorithm: Algorithm,
        limit: u64,
        window_seconds: u64,
        burst: Option<u64>,
    ) -> Result<Quota, QuotaError> {
        if limit == 0 {
            return Err(QuotaError::ZeroLimit);
        }
        if window_seconds == 0 {
            return Err(QuotaError::ZeroWindow);
        }
        if window_seconds > LONGEST_WINDOW_SECONDS {
            return Err(QuotaError::WindowTooLong);
        }
        let capacity = match burst {
            None => limit,
            Some(_) if algorithm != Algorithm::TokenBucket => {
                return Err(QuotaError::BurstOutsideTokenBucket);
            }
            Some(0) => return Err(QuotaError::ZeroBurst),
            Some(burst) => burst,
        };
        let overflow = QuotaError::Overflow {
            capacity: capacity.max(limit),
            window_seconds,
        };
        let window = window_seconds.checked_mul(1000).ok_or(overflow)?;
        // A bucket refills `limit` units a millisecond and needs up to capacity × window of them.
        match capacity.max(limit).checked_mul(window) {
            Some(product) if product < DOUBLE_EXACT => {}
            _ => return Err(overflow),
        }
        Ok(Quota {
            algorithm,
            limit,
            period: Period::Fixed(Span::millis(window)),
            capacity,
        })
    }

    /// At most so many in use at one time.
    pub fn try_concurrency(limit: u64) -> Result<Quota, QuotaError> {
        // As much as the script counts by a second, which is the least it counts by.
        let quota = Quota::try_new(Algorithm::FixedWindow, limit, 1, None)?;
        Ok(Quota {
            algorithm: Algorithm::Concurrency,
            period: Period::None,
            ..quota
        })
    }

    /// A fixed window that a calendar begins and ends.
    pub fn try_calendar(limit: u64, calendar: Calendar) -> Result<Quota, QuotaError> {
        let period = Period::from(calendar);
        let longest = period.longest().as_seconds();
        let quota = Quota::try_new(Algorithm::FixedWindow, limit, longest, None)?;
        Ok(Quota { period, ..quota })
    }

    /// Other numbers in the same windows, by the same algorithm.
    pub fn with_limit(&self, limit: u64, burst: Option<u64>) -> Result<Quota, QuotaError> {
        let quota = Quota::try_new(self.algorithm, limit, self.window_seconds(), burst)?;
        Ok(Quota {
            period: self.period,
            ..quota
        })
    }

    /// The same rate, holding as many requests as leave within `longest`: the one that leaves now,
    /// and those that wait.
    pub fn shaped(&self, longest: Span) -> Result<Quota, QuotaError> {
        let overflow = QuotaError::Overflow {
            capacity: self.limit,
            window_seconds: self.window_seconds(),
        };
        let leaked = longest
            .as_millis()
            .checked_mul(self.limit)
            .ok_or(overflow)?;
        let window = self.window().as_millis();
        if leaked < window {
            return Err(QuotaError::WaitBelowTurn {
                turn: Span::millis(window.div_ceil(self.limit)),
            });
        }
        let capacity = 1 + leaked / window;
        match capacity.checked_mul(window) {
            Some(product) if product < DOUBLE_EXACT => Ok(Quota { capacity, ..*self }),
            _ => Err(QuotaError::Overflow {
                capacity,
                window_seconds: self.window_seconds(),
            }),
        }
    }

    /// From the numbers that a call carries.
    #[cfg(test)]
    pub fn of_numbers(algorithm: Algorithm, limit: u64, period: Period, capacity: u64) -> Quota {
        Quota {
            algorithm,
            limit,
            period,
            capacity,
        }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// When windows begin and end.
    pub fn period(&self) -> Period {
        self.period
    }

    /// How long a window is; of a calendar's the longest.
    pub fn window(&self) -> Span {
        self.period.longest()
    }

    pub fn window_seconds(&self) -> u64 {
        self.window().as_seconds()
    }

    /// The most that can be held at once: a token bucket's burst, what waits for its turn in a shaped
    /// leaky bucket, else the limit.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The part of this limit that one of several holders may use on its own: enough for one request
    /// at this cost, if the whole is, since a limit of less would refuse everybody.
    pub fn shared(&self, share: Share, cost: Cost) -> Quota {
        let part = |whole: u64| {
            let least = cost.get().min(whole);
            share.of(whole).clamp(least, whole)
        };
        Quota {
            limit: part(self.limit),
            capacity: part(self.capacity),
            ..*self
        }
    }

    /// Whether this cost exceeds what the limit could ever hold.
    pub fn never_fits(&self, cost: Cost) -> bool {
        cost.get() > self.capacity
    }
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaError::ZeroLimit => f.write_str("has a limit of 0; a limit is at least 1"),
            QuotaError::ZeroWindow => f.write_str("has a window of 0; at least 1 second"),
            QuotaError::WindowTooLong => f.write_str("has a window beyond ten years; shorten it"),
            QuotaError::ZeroBurst => f.write_str("has a burst_limit of 0; at least 1"),
            QuotaError::BurstOutsideTokenBucket => {
                f.write_str("has a burst_limit outside a token_bucket")
            }
            QuotaError::WaitBelowTurn { turn } => write!(
                f,
                "has a max_wait_ms below {}, how far turns are apart (window / limit), so that nobody \
                 could wait for one; raise it, or refuse at once without \"shape\"",
                turn.as_millis()
            ),
            QuotaError::Overflow {
                capacity,
                window_seconds,
            } => write!(
                f,
                "counts {capacity} permits by {window_seconds} seconds, beyond what Redis computes \
                 exactly (permits × window in ms must stay below 2^53); shorten the window or lower \
                 the limit"
            ),
        }
    }
}
