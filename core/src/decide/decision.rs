//! What became of one request, in ids of its policy: the one thing that statistics, access logs and
//! the list of top heavy hitters are fed from. It is made on every request's way and so allocates
//! nothing for what the policy does not ask for; names are looked up where somebody reads.

use postcard_schema::Schema;

use crate::decide::verdict::{Degraded, LimitStatus};
use crate::policy::ids::{LimitId, VariantId};
use crate::time::Span;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub outcome: Outcome,
    pub source: Source,
    /// The limit that decided, with where the caller stood: the first that refused, or of those that
    /// passed the one with the fewest left. None where no limit could be read.
    pub shown: Option<LimitStatus>,
    /// How long the request was delayed on purpose.
    pub delay: Span,
    /// It was to be delayed, and all places that its caller may have were taken.
    pub is_crowded: bool,
    /// What rules in shadow mode would have done, each by the limit that decided, in order of priority:
    /// those that would have refused it, and those that would have let it pass.
    pub shadow_denied: Vec<LimitId>,
    pub shadow_passed: Vec<LimitId>,
    /// The limits of which so much is used that the caller was warned.
    pub warned: Vec<LimitId>,
    /// The variants of experiments that it was decided by.
    pub variants: Vec<VariantId>,
}

/// What the client saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Schema)]
pub enum Outcome {
    Allowed,
    /// It passed, after having been delayed.
    Delayed,
    /// 429: a limit was used up.
    Denied,
    /// 503: the store could not be asked, and a limit refuses such requests.
    Unavailable,
    /// It is on the policy's list of those that no limit is for.
    Exempt,
    /// 403: it is on the policy's list of those that nothing is for.
    Blocked,
    /// No rule was for it.
    Unmatched,
}

/// Who knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Store,
    /// The worker, from what the store had refused a moment ago.
    Denials,
    /// The worker, from permits that it had taken in advance.
    Leases,
    /// Nobody: the store could not be asked about a limit at least, and this is the most severe of
    /// what the limits say to do then.
    Failure(Degraded),
    /// Nobody had to: no limit was asked about.
    Policy,
}

impl Record {
    /// One that has no more to tell.
    pub fn new(outcome: Outcome, source: Source, shown: Option<LimitStatus>) -> Record {
        Record {
            outcome,
            source,
            shown,
            delay: Span::ZERO,
            is_crowded: false,
            shadow_denied: Vec::new(),
            shadow_passed: Vec::new(),
            warned: Vec::new(),
            variants: Vec::new(),
        }
    }

    pub fn degraded(&self) -> Option<Degraded> {
        match self.source {
            Source::Failure(how) => Some(how),
            Source::Store | Source::Denials | Source::Leases | Source::Policy => None,
        }
    }
}

impl Outcome {
    pub const ALL: [Outcome; 7] = [
        Outcome::Allowed,
        Outcome::Delayed,
        Outcome::Denied,
        Outcome::Unavailable,
        Outcome::Exempt,
        Outcome::Blocked,
        Outcome::Unmatched,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Delayed => "delayed",
            Outcome::Denied => "denied",
            Outcome::Unavailable => "unavailable",
            Outcome::Exempt => "exempt",
            Outcome::Blocked => "blocked",
            Outcome::Unmatched => "unmatched",
        }
    }
}
