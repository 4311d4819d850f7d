//! From what the store told of each limit to one verdict on the request. It knows limits by id and
//! their readings; how a verdict is worded is `answer`'s business.

use crate::policy::{LimitId, OnStoreFailure, Policy};
use crate::script::{Reading, Retry, Told};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every limit passed; the one with the fewest requests left is shown.
    Passed { shown: Standing },
    /// `shown` is the first limit that failed, in reporting order.
    Refused { shown: Standing, retry: Retry },
    /// The store could not be asked, and every limit lets such requests through.
    PassedUnasked,
    /// The store could not be asked, and a limit refuses such requests.
    Unavailable,
}

/// Where a caller stands with one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub limit: LimitId,
    pub reading: Reading,
}

/// The verdict on a request that met `limits`, in reporting order, once the store has told.
pub fn decide(policy: &Policy, limits: &[LimitId], told: &Told) -> Verdict {
    let standings = limits.iter().zip(&told.limits);
    let standings = standings.map(|(&limit, &reading)| Standing { limit, reading });
    match told.verdict {
        crate::script::Verdict::Passed => {
            // `min_by_key` keeps the first of equals: ties go to reporting order.
            match standings.min_by_key(|standing| standing.reading.remaining) {
                Some(shown) => Verdict::Passed { shown },
                None => Verdict::PassedUnasked,
            }
        }
        crate::script::Verdict::Refused => {
            let mut failing = standings.filter(|standing| standing.reading.retry != Retry::Now);
            match failing.next() {
                Some(shown) => {
                    let retry = failing.fold(shown.reading.retry, |most, next| {
                        most.max(next.reading.retry)
                    });
                    Verdict::Refused { shown, retry }
                }
                None => unasked(policy, limits),
            }
        }
        crate::script::Verdict::Unreadable => unasked(policy, limits),
    }
}

/// The verdict on a request whose limits could not be asked about.
pub fn unasked(policy: &Policy, limits: &[LimitId]) -> Verdict {
    let denies = |id: &LimitId| {
        policy
            .limit(*id)
            .is_some_and(|limit| limit.on_store_failure == OnStoreFailure::Deny)
    };
    if limits.iter().any(denies) {
        Verdict::Unavailable
    } else {
        Verdict::PassedUnasked
    }
}
