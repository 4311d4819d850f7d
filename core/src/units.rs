//! Quantities with their units in the type, so that a millisecond never meets a microsecond.

use std::num::NonZeroU64;

/// A span or an instant in milliseconds; instants count from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// An instant in microseconds since the Unix epoch, as Redis's `TIME` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

/// How many permits a request takes. Never zero: a request that costs nothing needs no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(pub NonZeroU64);

impl Cost {
    pub const ONE: Cost = Cost(NonZeroU64::MIN);

    /// Nothing for 0.
    pub fn try_new(permits: u64) -> Option<Cost> {
        NonZeroU64::new(permits).map(Cost)
    }

    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl Millis {
    /// Whole seconds, rounded up: a client that waits this long has waited long enough.
    pub fn ceil_seconds(self) -> u64 {
        self.0.div_ceil(1000)
    }
}
