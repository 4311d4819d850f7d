//! Instants and spans: one type a clock, so that what one clock told is never taken for what another did,
//! and one type for how long something lasts. It knows no clock itself.

pub mod rfc3339;

use std::ops::{Add, Sub};

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// How long something lasts, in whole microseconds. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// An instant on the worker's own clock, which never goes back, in microseconds since some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(not(test), derive(PartialOrd, Ord))]
pub struct WorkerInstant(pub u64);

/// An instant in microseconds since the Unix epoch, as Redis's `TIME` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreInstant(pub u64);

/// The proxy's time of day, in microseconds since the Unix epoch. It can be set, either way.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    Schema,
)]
pub struct WallTime(pub u64);

// === impl Span ===

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn micros(micros: u64) -> Span {
        Span(micros)
    }

    pub const fn millis(millis: u64) -> Span {
        Span(bounded(millis, 1_000))
    }

    pub const fn seconds(seconds: u64) -> Span {
        Span(bounded(seconds, 1_000_000))
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole seconds, rounded down.
    pub const fn as_seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Rounded up to whole milliseconds: whoever waits this long has waited long enough.
    #[must_use]
    pub const fn ceil_millis(self) -> Span {
        Span::millis(self.0.div_ceil(1_000))
    }

    /// Whole seconds, rounded up: a client that waits this long has waited long enough.
    pub const fn ceil_seconds(self) -> u64 {
        self.0.div_ceil(1_000_000)
    }

    /// One of so many equal parts, rounded down.
    #[must_use]
    pub const fn divided(self, parts: u64) -> Span {
        match self.0.checked_div(parts) {
            Some(part) => Span(part),
            None => self,
        }
    }

    #[must_use]
    pub const fn times(self, factor: u64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
}

/// As a saturating multiplication, which in wasm is a call for 128 bits.
const fn bounded(number: u64, unit: u64) -> u64 {
    if number > u64::MAX / unit {
        u64::MAX
    } else {
        number * unit
    }
}

impl Add for Span {
    type Output = Span;

    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Span;

    fn sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

// === the clocks ===

/// What every clock's instants can do, and only with instants of the same clock.
macro_rules! clock {
    ($instant:ident) => {
        impl $instant {
            /// How long ago an earlier instant was; nothing for a later one.
            pub const fn since(self, earlier: $instant) -> Span {
                Span(self.0.saturating_sub(earlier.0))
            }

            /// Whole milliseconds, rounded down.
            pub const fn as_millis(self) -> u64 {
                self.0 / 1_000
            }

            /// Whole seconds, rounded down.
            pub const fn as_seconds(self) -> u64 {
                self.0 / 1_000_000
            }
        }

        impl Add<Span> for $instant {
            type Output = $instant;

            fn add(self, span: Span) -> $instant {
                $instant(self.0.saturating_add(span.0))
            }
        }

        impl Sub<Span> for $instant {
            type Output = $instant;

            fn sub(self, span: Span) -> $instant {
                $instant(self.0.saturating_sub(span.0))
            }
        }
    };
}

clock!(WorkerInstant);
clock!(StoreInstant);
clock!(WallTime);

/// What is ordered by time is asked for its order at each step: tests count these.
#[cfg(test)]
pub mod comparisons {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use super::WorkerInstant;

    thread_local! {
        static MADE: Cell<u64> = const { Cell::new(0) };
    }

    impl PartialOrd for WorkerInstant {
        fn partial_cmp(&self, other: &WorkerInstant) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for WorkerInstant {
        fn cmp(&self, other: &WorkerInstant) -> Ordering {
            MADE.set(MADE.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    /// How many instants are compared meanwhile.
    pub fn during(what: impl FnOnce()) -> u64 {
        let before = MADE.get();
        what();
        MADE.get() - before
    }
}
