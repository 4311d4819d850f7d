//! Limits kept in one worker's memory while the store is away: the same algorithms, at the worker's
//! share of each limit. Bounded whatever the number of callers: when it is full, those who have not
//! called for longest are forgotten first.

use crate::quota::cost::Cost;
use crate::quota::limit::{Quota, Share};
use crate::quota::model::Counters;
use crate::quota::operation::{Kind, Told};
use crate::store::check::Check;
use crate::time::Micros;

/// States and log entries of one generation; with keys of about 80 bytes, two generations stay
/// below 16 MB.
const MOST: usize = 50_000;
/// A generation lasts at least so many requests. One log may outweigh a generation alone, and would
/// end it at every request, and with it everybody else's state.
const SHORTEST: usize = 5_000;

#[derive(Debug)]
pub struct Local {
    share: Share,
    /// Whoever called since the generations last changed.
    young: Counters<Vec<u8>>,
    /// Whoever called before that; a call moves them over.
    old: Counters<Vec<u8>>,
    /// Requests in this generation.
    age: usize,
}

impl Local {
    pub fn new(share: Share) -> Local {
        Local {
            share,
            young: Counters::default(),
            old: Counters::default(),
            age: 0,
        }
    }

    /// Takes from all of these limits' shares, or from none.
    pub fn take(&mut self, checks: &[&Check], now: Micros) -> Told {
        let told = self.run(Kind::Take, checks, now);
        self.age += 1;
        if self.young.weight() > MOST && self.age > SHORTEST {
            self.old = std::mem::take(&mut self.young);
            self.age = 0;
        }
        told
    }

    /// Charges or gives back the difference when it is known what a request has cost of the limits
    /// that these checks took from.
    pub fn settle(&mut self, kind: Kind, checks: &[Check], difference: Cost, now: Micros) {
        let quotas = checks.iter().map(|check| (check, self.quota(check)));
        let limits = quotas.map(|(check, quota)| (check.key.clone(), quota, difference));
        self.run_on(kind, &limits.collect::<Vec<_>>(), now);
    }

    /// Undoes a take of these checks, which was at the time of the receipt.
    pub fn give_back(&mut self, checks: &[&Check], receipt: Micros, now: Micros) {
        self.run(Kind::GiveBack { receipt }, checks, now);
    }

    /// The part of a limit that is kept here.
    pub fn quota(&self, check: &Check) -> Quota {
        check.terms.quota.shared(self.share, check.cost)
    }

    fn run(&mut self, kind: Kind, checks: &[&Check], now: Micros) -> Told {
        let limits: Vec<_> = checks
            .iter()
            .map(|check| (check.key.clone(), self.quota(check), check.cost))
            .collect();
        self.run_on(kind, &limits, now)
    }

    fn run_on(&mut self, kind: Kind, limits: &[(Vec<u8>, Quota, Cost)], now: Micros) -> Told {
        for (key, ..) in limits {
            self.young.adopt(key, &mut self.old);
        }
        self.young.run(kind, limits, now)
    }

    /// How much is kept, in states and log entries.
    pub fn weight(&self) -> usize {
        self.young.weight() + self.old.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::limit::Algorithm;
    use crate::quota::operation::Verdict;
    use crate::quota::packed::Terms;

    fn check(key: &str, limit: u64) -> Check {
        let quota = Quota::try_new(Algorithm::FixedWindow, limit, 60, None).unwrap();
        Check {
            key: key.as_bytes().to_vec(),
            terms: Terms::new(quota),
            cost: Cost::ONE,
        }
    }

    fn passes(local: &mut Local, check: &Check) -> bool {
        local.take(&[check], Micros(1)).verdict == Verdict::Passed
    }

    #[test]
    fn a_worker_lets_its_share_through_and_no_more() {
        let mut local = Local::new(Share::one_of(4));
        let check = check("ann", 20);
        let passed = (0..20).filter(|_| passes(&mut local, &check)).count();
        assert_eq!(passed, 5);
    }

    #[test]
    fn a_share_is_at_least_one() {
        let mut local = Local::new(Share::one_of(1000));
        let check = check("ann", 3);
        assert!(passes(&mut local, &check));
        assert!(!passes(&mut local, &check));
    }

    #[test]
    fn a_log_that_outweighs_a_generation_makes_nobody_else_forgotten() {
        let mut local = Local::new(Share::one_of(1));
        let quota = Quota::try_new(Algorithm::SlidingWindow, 60_000, 60, None).unwrap();
        let busy = Check {
            key: b"busy".to_vec(),
            terms: Terms::new(quota),
            cost: Cost::ONE,
        };
        for stamp in 0..(MOST as u64 + 100) {
            local.young.run(
                Kind::Charge,
                &[(busy.key.clone(), quota, Cost::ONE)],
                Micros(1_000 + stamp),
            );
        }
        let ann = check("ann", 1);
        assert!(passes(&mut local, &ann));
        for _ in 0..10 {
            passes(&mut local, &busy);
        }
        assert!(!passes(&mut local, &ann));
    }

    #[test]
    fn callers_without_number_are_bounded_and_those_who_keep_calling_are_kept() {
        let mut local = Local::new(Share::one_of(1));
        let ann = check("ann", 10);
        let mut passed = 0;
        for i in 0..150_000 {
            assert!(passes(&mut local, &check(&format!("stranger{i}"), 10)));
            if i % 10_000 == 0 && passes(&mut local, &ann) {
                passed += 1;
            }
        }
        assert_eq!(passed, 10, "ann called often enough never to be forgotten");
        assert!(
            local.weight() <= 2 * (MOST + SHORTEST),
            "{}",
            local.weight()
        );
    }
}
