//! What a request takes of a limit, in permits.

use std::num::NonZeroU64;

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
