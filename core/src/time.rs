//! Quantities with their units in the type, so that a millisecond never meets a microsecond.

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// A span or an instant in milliseconds; instants count from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// An instant in microseconds since the Unix epoch, as Redis's `TIME` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Schema)]
#[cfg_attr(not(test), derive(PartialOrd, Ord))]
pub struct Micros(pub u64);

impl Millis {
    /// Whole seconds, rounded up: a client that waits this long has waited long enough.
    pub fn ceil_seconds(self) -> u64 {
        self.0.div_ceil(1000)
    }
}

/// What is ordered by time is asked for its order at each step: tests count these.
#[cfg(test)]
pub mod comparisons {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use super::Micros;

    thread_local! {
        static MADE: Cell<u64> = const { Cell::new(0) };
    }

    impl PartialOrd for Micros {
        fn partial_cmp(&self, other: &Micros) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Micros {
        fn cmp(&self, other: &Micros) -> Ordering {
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
