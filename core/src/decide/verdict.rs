//! From what was heard of each limit to one verdict on the request. It knows limits by id and their
//! readings; how a verdict is worded is `answer`'s business.

use postcard_schema::Schema;

use crate::policy::ids::LimitId;
use crate::policy::{OnStoreFailure, Policy};
use crate::quota::operation::{self, OperationReply, Reading, Retry};
use crate::store::fan_in::CheckReply;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every limit passed. The one with the fewest requests left is shown; none where no limit
    /// could be read.
    Passed { shown: Option<LimitStatus> },
    /// `shown` is the first limit that failed, in reporting order; `retry` the longest wait.
    Refused { shown: LimitStatus, retry: Retry },
    /// The store could not be asked, and a limit refuses such requests.
    Unavailable,
}

/// A verdict, and what it was reached by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub verdict: Verdict,
    pub degraded: Option<Degraded>,
    /// In reporting order; nothing for a limit that could not be read.
    pub statuses: Vec<Option<LimitStatus>>,
    /// The places of the limits that were taken from in the worker's memory.
    pub local: Vec<usize>,
}

/// How a limit that the store could not be asked about was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Schema)]
pub enum Degraded {
    Allow,
    Local,
    Deny,
}

/// Where a caller stands with one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStatus {
    pub limit: LimitId,
    pub reading: Reading,
}

/// The verdict on a request that met `limits`, in reporting order. `told` is what the store
/// said of all of them; `take_local` takes from those at the given places, all or none.
pub fn decide(
    policy: &Policy,
    limits: &[LimitId],
    told: operation::Verdict,
    replies: &[CheckReply],
    take_local: impl FnOnce(&[usize]) -> OperationReply,
) -> Decided {
    let mut statuses: Vec<Option<LimitStatus>> = Vec::with_capacity(limits.len());
    let mut local: Vec<usize> = Vec::new();
    let mut degraded = None;
    let decided = |verdict, degraded, statuses, local| Decided {
        verdict,
        degraded,
        statuses,
        local,
    };
    for (place, (&limit, replies)) in limits.iter().zip(replies).enumerate() {
        match replies {
            CheckReply::Read(reading) => statuses.push(Some(LimitStatus {
                limit,
                reading: *reading,
            })),
            CheckReply::Unknown => {
                statuses.push(None);
                let how = on_failure(policy, limit);
                degraded = degraded.max(Some(how));
                if how == Degraded::Local {
                    local.push(place);
                }
            }
        }
    }
    if told == operation::Verdict::Refused {
        return decided(refused_by(&statuses), degraded, statuses, Vec::new());
    }
    if degraded == Some(Degraded::Deny) {
        return decided(Verdict::Unavailable, degraded, statuses, Vec::new());
    }
    if !local.is_empty() {
        let told = take_local(&local);
        for (place, reading) in local.iter().zip(told.limits) {
            if let (Some(status), Some(&limit)) = (statuses.get_mut(*place), limits.get(*place)) {
                *status = Some(LimitStatus { limit, reading });
            }
        }
        if told.verdict == operation::Verdict::Refused {
            return decided(refused_by(&statuses), degraded, statuses, Vec::new());
        }
    }
    let shown = tightest(statuses.iter().flatten());
    decided(Verdict::Passed { shown }, degraded, statuses, local)
}

/// The limit with the fewest requests left; of equals the first in reporting order.
pub fn tightest<'a>(statuses: impl Iterator<Item = &'a LimitStatus>) -> Option<LimitStatus> {
    // `min_by_key` keeps the first of equals.
    let tightest = statuses.min_by_key(|status| status.reading.remaining);
    tightest.copied()
}

/// A refusal that names no limit is no answer of the script's.
fn refused_by(statuses: &[Option<LimitStatus>]) -> Verdict {
    refusal(&mut statuses.iter().flatten().copied()).unwrap_or(Verdict::Unavailable)
}

/// The refusal that limits make together, told in reporting order; none if each would pass.
pub fn refusal(statuses: &mut dyn Iterator<Item = LimitStatus>) -> Option<Verdict> {
    let mut failing = statuses.filter(|status| status.reading.retry != Retry::Now);
    let shown = failing.next()?;
    let retry = failing.fold(shown.reading.retry, |most, next| {
        most.max(next.reading.retry)
    });
    Some(Verdict::Refused { shown, retry })
}

pub fn on_failure(policy: &Policy, limit: LimitId) -> Degraded {
    match policy.limit(limit).map(|limit| limit.on_store_failure) {
        Some(OnStoreFailure::Allow) | None => Degraded::Allow,
        Some(OnStoreFailure::Local) => Degraded::Local,
        Some(OnStoreFailure::Deny) => Degraded::Deny,
    }
}

impl Degraded {
    pub const ALL: [Degraded; 3] = [Degraded::Allow, Degraded::Local, Degraded::Deny];

    pub fn name(self) -> &'static str {
        match self {
            Degraded::Allow => "allow",
            Degraded::Local => "local",
            Degraded::Deny => "deny",
        }
    }
}
