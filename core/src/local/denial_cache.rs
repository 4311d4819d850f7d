//! Callers who are known to be out of quota: refused again without a round trip, until the store
//! could say otherwise. What is told again is what the store told, with the time that has passed
//! taken off; a refusal from memory consumes nothing and is not learnt from.

use crate::local::two_generations::Generations;
use crate::quota::cost::Cost;
use crate::quota::limit::Quota;
use crate::quota::operation::{Reading, Retry};
use crate::store::check::Check;
use crate::time::{Span, WorkerInstant};

/// Entries of one generation. With keys of about 80 bytes, two generations stay below 4 MB.
const MOST: usize = 10_000;

#[derive(Debug)]
pub struct Denials {
    /// How long a denial is believed: how late a reset or a raised limit is felt.
    keep: Span,
    known: Generations<Denial>,
}

#[derive(Clone, Copy, Debug)]
struct Denial {
    /// What refused it: in another tier, more may be allowed of what the key counts.
    quota: Quota,
    /// The smallest cost known to be refused: a smaller one might pass.
    cost: Cost,
    remaining: i64,
    /// When the limit would let the cost pass; never, where it could not hold it.
    retry_at: Option<WorkerInstant>,
    reset_at: WorkerInstant,
    until: WorkerInstant,
}

impl Denials {
    /// With a `keep` of 0 nothing is remembered.
    pub fn new(keep: Span) -> Denials {
        Denials {
            keep,
            known: Generations::new(MOST),
        }
    }

    /// Nobody is known to be refused any more.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// The store refused this check. `asked` is when it was asked: its times
    /// count from no earlier, so that nobody is refused for longer than it said.
    pub fn learn(&mut self, check: &Check, reading: Reading, asked: WorkerInstant) {
        let retry_at = match reading.retry {
            // Somebody may let go of a permit at any time.
            Retry::Now | Retry::Unknown => return,
            Retry::After(wait) => Some(asked + wait),
            Retry::Never => None,
        };
        if self.keep == Span::ZERO {
            return;
        }
        let keep = asked + self.keep;
        let denial = Denial {
            quota: check.terms.quota,
            cost: check.cost,
            remaining: reading.remaining,
            retry_at,
            reset_at: asked + reading.reset,
            until: retry_at.map_or(keep, |retry_at| retry_at.min(keep)),
        };
        self.known.insert(&check.key, denial);
    }

    /// What the store would say of this check, if that is known.
    pub fn recall(&mut self, check: &Check, now: WorkerInstant) -> Option<Reading> {
        if self.known.is_empty() {
            return None;
        }
        let denial = *self.known.get(&check.key)?;
        if now >= denial.until {
            self.known.remove(&check.key);
            return None;
        }
        if check.terms.quota != denial.quota || check.cost < denial.cost {
            return None;
        }
        let left = |at: WorkerInstant| at.since(now).ceil_millis();
        Some(Reading {
            remaining: denial.remaining,
            retry: denial
                .retry_at
                .map_or(Retry::Never, |at| Retry::After(left(at))),
            reset: left(denial.reset_at),
        })
    }
}

#[cfg(test)]
mod tests;
