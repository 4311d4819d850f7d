//! What can be asked of limits, and what they tell: operations, verdicts, readings. It knows no key and
//! no caller.

use crate::time::{Span, StoreInstant};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Consumes from every limit if every limit passes, else from none.
    Take,
    /// Tells what a take would be told before it consumed.
    Peek,
    /// Consumes whatever the limits say; may leave a debt.
    Charge,
    /// Takes as many as are free, up to the cost, to be used within this time: a day at most.
    Lease { ttl: Span },
    /// Undoes a take, charge or lease where what it counted in is still alive.
    Refund {
        /// `Answer::now` of the call that took.
        receipt: StoreInstant,
    },
    /// Forgets all usage.
    Reset,
    /// Says how many permits in use the caller holds, which is the cost: no more and no less.
    Hold,
    /// Says that the caller holds none.
    Release,
}

/// Who holds permits that are in use: a worker, by a random name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder(pub u64);

impl Kind {
    /// The longest lease that the script grants.
    pub const LONGEST_LEASE: Span = Span::seconds(24 * 60 * 60);

    /// What the script knows it by, and the number that goes with it.
    pub fn code(self) -> (u32, Option<u64>) {
        match self {
            Kind::Take => (1, None),
            Kind::Peek => (2, None),
            Kind::Charge => (3, None),
            Kind::Refund { receipt } => (4, Some(receipt.0)),
            Kind::Reset => (5, None),
            Kind::Lease { ttl } => (6, Some(ttl.as_millis())),
            Kind::Hold | Kind::Release => (7, None),
        }
    }
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationReply {
    pub verdict: Verdict,
    /// One for each limit, in order.
    pub limits: Vec<Reading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Passed,
    Refused,
    /// The operation or one of its keys is at fault: it holds something that is not Weir's, or numbers
    /// are out of range. Nothing was done. Readings are zero, but `remaining` is −1 where the key
    /// could not be read.
    Unreadable,
}

/// A limit after the operation; before it, if that was refused or a peek.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// Capacity − used, in whole permits; negative for a debt.
    pub remaining: i64,
    /// When this limit alone would let its cost pass.
    pub retry: Retry,
    /// Until nothing of the limit is used any more.
    pub reset: Span,
}

impl Reading {
    /// What a lease told: how many permits it took stands where other operations tell the wait.
    pub fn leased(remaining: i64, granted: u64, reset: Span) -> Reading {
        let retry = match granted {
            0 => Retry::Now,
            granted => Retry::After(Span::millis(granted)),
        };
        Reading {
            remaining,
            retry,
            reset,
        }
    }

    /// How many permits a lease took.
    pub fn granted(&self) -> u64 {
        match self.retry {
            Retry::After(granted) => granted.as_millis(),
            Retry::Now | Retry::Unknown | Retry::Never => 0,
        }
    }
}

/// In order of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Retry {
    Now,
    /// When somebody lets go of a permit, which nobody knows.
    Unknown,
    After(Span),
    /// The cost exceeds what the limit can ever hold.
    Never,
}

/// What is told where nothing can be.
pub const NOTHING: Reading = Reading {
    remaining: 0,
    retry: Retry::Now,
    reset: Span::ZERO,
};

impl OperationReply {
    pub fn unreadable(limits: usize) -> OperationReply {
        OperationReply {
            verdict: Verdict::Unreadable,
            limits: vec![NOTHING; limits],
        }
    }
}
