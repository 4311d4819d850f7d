//! What a rule in shadow mode would have done with a request.

use crate::decide::verdict::{self, LimitStatus, Verdict};
use crate::policy::ids::LimitId;
use crate::quota::cost::Cost;
use crate::quota::operation::{self, Retry};
use crate::store::fan_in::CheckReply;

/// The limits that a rule in shadow mode has for a request: an operation of their own after what is
/// enforced, in the same check request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowRule {
    pub limits: Vec<LimitId>,
    /// What the request costs, if it said so.
    pub cost: Option<Cost>,
}

/// What a rule in shadow mode would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowVerdict {
    /// The limit with the fewest left.
    Pass(LimitId),
    /// The first limit that failed, and the longest wait.
    Deny(LimitId, Retry),
}

impl ShadowRule {
    /// What the store's answer means; nothing where the store could not say. A trial is never decided
    /// from memory, and never a reason to answer without the store.
    pub fn outcome(
        &self,
        told: operation::Verdict,
        replies: &[CheckReply],
    ) -> Option<ShadowVerdict> {
        let read = self.limits.iter().zip(replies);
        let statuses = read.filter_map(|(&limit, replies)| match replies {
            CheckReply::Read(reading) => Some(LimitStatus {
                limit,
                reading: *reading,
            }),
            CheckReply::Unknown => None,
        });
        let mut statuses: Vec<LimitStatus> = statuses.collect();
        if told == operation::Verdict::Refused {
            return match verdict::refusal(&mut statuses.drain(..))? {
                Verdict::Refused { shown, retry } => Some(ShadowVerdict::Deny(shown.limit, retry)),
                Verdict::Passed { .. } | Verdict::Unavailable => None,
            };
        }
        let all = statuses.len() == self.limits.len();
        let shown = statuses
            .iter()
            .min_by_key(|status| status.reading.remaining);
        shown
            .filter(|_| all)
            .map(|status| ShadowVerdict::Pass(status.limit))
    }
}
