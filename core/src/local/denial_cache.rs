//! Callers who are known to be out of quota: refused again without a round trip, until the store
//! could say otherwise. What is told again is what the store told, with the time that has passed
//! taken off; a refusal from memory consumes nothing and is not learnt from.

use crate::local::two_generations::Generations;
use crate::quota::cost::Cost;
use crate::quota::limit::Quota;
use crate::quota::operation::{Reading, Retry};
use crate::store::check::Check;
use crate::time::{Micros, Millis};

/// Entries of one generation. With keys of about 80 bytes, two generations stay below 4 MB.
const MOST: usize = 10_000;

#[derive(Debug)]
pub struct Denials {
    /// How long a denial is believed: how late a reset or a raised limit is felt.
    keep: Millis,
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
    retry_at: Option<Micros>,
    reset_at: Micros,
    until: Micros,
}

impl Denials {
    /// With a `keep` of 0 nothing is remembered.
    pub fn new(keep: Millis) -> Denials {
        Denials {
            keep,
            known: Generations::new(MOST),
        }
    }

    /// Nobody is known to be refused any more.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// The store refused this check. `asked` is when it was asked, on the worker's clock: its times
    /// count from no earlier, so that nobody is refused for longer than it said.
    pub fn learn(&mut self, check: &Check, reading: Reading, asked: Micros) {
        let later = |wait: Millis| Micros(asked.0.saturating_add(wait.0.saturating_mul(1000)));
        let retry_at = match reading.retry {
            Retry::Now => return,
            Retry::After(wait) => Some(later(wait)),
            Retry::Never => None,
        };
        if self.keep.0 == 0 {
            return;
        }
        let keep = later(self.keep);
        let denial = Denial {
            quota: check.terms.quota,
            cost: check.cost,
            remaining: reading.remaining,
            retry_at,
            reset_at: later(reading.reset),
            until: retry_at.map_or(keep, |retry_at| retry_at.min(keep)),
        };
        self.known.insert(&check.key, denial);
    }

    /// What the store would say of this check, if that is known.
    pub fn recall(&mut self, check: &Check, now: Micros) -> Option<Reading> {
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
        let left = |at: Micros| Millis(at.0.saturating_sub(now.0).div_ceil(1000));
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
mod tests {
    use super::*;
    use crate::quota::limit::Algorithm;
    use crate::quota::packed::Terms;

    fn check(key: &[u8], permits: u64) -> Check {
        Check {
            key: key.to_vec(),
            terms: Terms::new(quota(5)),
            cost: Cost::try_new(permits).unwrap(),
        }
    }

    fn quota(limit: u64) -> Quota {
        Quota::try_new(Algorithm::FixedWindow, limit, 60, None).unwrap()
    }

    fn refused(retry: Retry) -> Reading {
        Reading {
            remaining: 0,
            retry,
            reset: Millis(60_000),
        }
    }

    fn denials() -> Denials {
        Denials::new(Millis(1000))
    }

    #[test]
    fn a_refusal_is_told_again_with_the_time_that_passed_taken_off() {
        let mut denials = denials();
        denials.learn(
            &check(b"ann", 1),
            refused(Retry::After(Millis(5000))),
            Micros(0),
        );
        let told = denials.recall(&check(b"ann", 1), Micros(999_999)).unwrap();
        assert_eq!(told.retry, Retry::After(Millis(4001)));
        assert_eq!(told.reset, Millis(59_001));
        assert_eq!(denials.recall(&check(b"bob", 1), Micros(0)), None);
    }

    #[test]
    fn it_is_believed_for_a_second_and_never_longer_than_the_store_said() {
        let mut denials = denials();
        denials.learn(
            &check(b"ann", 1),
            refused(Retry::After(Millis(5000))),
            Micros(0),
        );
        assert_eq!(denials.recall(&check(b"ann", 1), Micros(1_000_000)), None);
        denials.learn(
            &check(b"ann", 1),
            refused(Retry::After(Millis(20))),
            Micros(0),
        );
        assert!(denials.recall(&check(b"ann", 1), Micros(19_999)).is_some());
        assert_eq!(denials.recall(&check(b"ann", 1), Micros(20_000)), None);
    }

    #[test]
    fn a_smaller_cost_might_pass() {
        let mut denials = denials();
        denials.learn(
            &check(b"ann", 5),
            refused(Retry::After(Millis(5000))),
            Micros(0),
        );
        assert_eq!(denials.recall(&check(b"ann", 4), Micros(1)), None);
        assert!(denials.recall(&check(b"ann", 6), Micros(1)).is_some());
        denials.learn(&check(b"ann", 9), refused(Retry::Never), Micros(0));
        let told = denials.recall(&check(b"ann", 9), Micros(1)).unwrap();
        assert_eq!(told.retry, Retry::Never);
    }

    /// A key names what is counted, and callers of two tiers may count in one. It was refused to one
    /// whose limit allows more.
    #[test]
    fn another_limit_of_the_same_count_might_pass() {
        let mut denials = denials();
        denials.learn(&check(b"ann", 1), refused(Retry::Never), Micros(0));
        let mut wider = check(b"ann", 1);
        wider.terms = Terms::new(quota(1000));
        assert_eq!(denials.recall(&wider, Micros(1)), None);
        assert!(denials.recall(&check(b"ann", 1), Micros(1)).is_some());
    }

    #[test]
    fn what_passes_is_not_a_denial() {
        let mut denials = denials();
        denials.learn(&check(b"ann", 1), refused(Retry::Now), Micros(0));
        assert_eq!(denials.recall(&check(b"ann", 1), Micros(1)), None);
    }

    #[test]
    fn switched_off_it_remembers_nothing() {
        let mut denials = Denials::new(Millis(0));
        denials.learn(&check(b"ann", 1), refused(Retry::Never), Micros(0));
        assert_eq!(denials.recall(&check(b"ann", 1), Micros(0)), None);
    }

    #[test]
    fn callers_without_number_are_bounded() {
        let mut denials = denials();
        for i in 0..5 * MOST {
            denials.learn(
                &check(format!("{i}").as_bytes(), 1),
                refused(Retry::Never),
                Micros(0),
            );
        }
        assert!(denials.known.len() <= 2 * MOST);
    }
}
