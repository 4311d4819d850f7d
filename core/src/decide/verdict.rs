//! From what was heard of each limit to one verdict on the request. It knows limits by id and their
//! readings; how a verdict is worded is `answer`'s business.

use postcard_schema::Schema;

use crate::policy::ids::LimitId;
use crate::policy::{OnStoreFailure, Policy};
use crate::quota::operation::{self, Reading, Retry, Told};
use crate::store::fan_in::Heard;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every limit passed. The one with the fewest requests left is shown; none where no limit
    /// could be read.
    Passed { shown: Option<Standing> },
    /// `shown` is the first limit that failed, in reporting order; `retry` the longest wait.
    Refused { shown: Standing, retry: Retry },
    /// The store could not be asked, and a limit refuses such requests.
    Unavailable,
}

/// A verdict, and what it was reached by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub verdict: Verdict,
    pub degraded: Option<Degraded>,
    /// In reporting order; nothing for a limit that could not be read.
    pub standings: Vec<Option<Standing>>,
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
pub struct Standing {
    pub limit: LimitId,
    pub reading: Reading,
}

/// The verdict on a request that met `limits`, in reporting order. `refused` says that the store
/// refused some of them; `take_local` takes from those at the given places, all or none.
pub fn decide(
    policy: &Policy,
    limits: &[LimitId],
    refused: bool,
    heard: &[Heard],
    take_local: impl FnOnce(&[usize]) -> Told,
) -> Decided {
    let mut standings: Vec<Option<Standing>> = Vec::with_capacity(limits.len());
    let mut local: Vec<usize> = Vec::new();
    let mut degraded = None;
    let decided = |verdict, degraded, standings, local| Decided {
        verdict,
        degraded,
        standings,
        local,
    };
    for (place, (&limit, heard)) in limits.iter().zip(heard).enumerate() {
        match heard {
            Heard::Told(reading) => standings.push(Some(Standing {
                limit,
                reading: *reading,
            })),
            Heard::Nothing => {
                standings.push(None);
                let how = on_failure(policy, limit);
                degraded = degraded.max(Some(how));
                if how == Degraded::Local {
                    local.push(place);
                }
            }
        }
    }
    if refused {
        return decided(refused_by(&standings), degraded, standings, Vec::new());
    }
    if degraded == Some(Degraded::Deny) {
        return decided(Verdict::Unavailable, degraded, standings, Vec::new());
    }
    if !local.is_empty() {
        let told = take_local(&local);
        for (place, reading) in local.iter().zip(told.limits) {
            if let (Some(standing), Some(&limit)) = (standings.get_mut(*place), limits.get(*place))
            {
                *standing = Some(Standing { limit, reading });
            }
        }
        if told.verdict == operation::Verdict::Refused {
            return decided(refused_by(&standings), degraded, standings, Vec::new());
        }
    }
    let shown = tightest(standings.iter().flatten());
    decided(Verdict::Passed { shown }, degraded, standings, local)
}

/// The limit with the fewest requests left; of equals the first in reporting order.
pub fn tightest<'a>(standings: impl Iterator<Item = &'a Standing>) -> Option<Standing> {
    // `min_by_key` keeps the first of equals.
    let tightest = standings.min_by_key(|standing| standing.reading.remaining);
    tightest.copied()
}

/// A refusal that names no limit is no answer of the script's.
fn refused_by(standings: &[Option<Standing>]) -> Verdict {
    refusal(&mut standings.iter().flatten().copied()).unwrap_or(Verdict::Unavailable)
}

/// The refusal that limits make together, told in reporting order; none if each would pass.
pub fn refusal(standings: &mut dyn Iterator<Item = Standing>) -> Option<Verdict> {
    let mut failing = standings.filter(|standing| standing.reading.retry != Retry::Now);
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
