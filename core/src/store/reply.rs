//! What a call's reply means, by the contract in `lua/README.md`. It knows integers, not whose limits
//! they are of.

use std::fmt;

use crate::quota::cost::Cost;
use crate::quota::operation::{NOTHING, OperationReply, Reading, Retry, Verdict};
use crate::time::{Span, StoreInstant};

/// What a reply is read by: how many limits each operation has, and of each limit the place of its key
/// in the call, and its cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplySchema {
    operations: Vec<usize>,
    limits: Vec<(usize, Cost)>,
}

/// Stands where a reply begins that tells of keys, not of operations.
const TOGETHER: i64 = 2;

/// What one call told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Redis's time of the call, and the receipt of whatever it took.
    pub now: StoreInstant,
    /// Whether it told of keys, as the last operation left them, and not of operations: resets are of
    /// then.
    pub together: bool,
    /// One for each operation, in order.
    pub told: Vec<OperationReply>,
}

/// Why integers are not an answer to the operations they came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// It ended within the operation of this index, or before it.
    TooShort { operation: usize },
    /// It went on after the last operation.
    TooLong,
    /// What stands where the time must is none.
    Now(i64),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::TooShort { operation } => {
                write!(f, "the script's answer ends in operation {operation}")
            }
            AnswerError::TooLong => {
                write!(f, "the script's answer goes on after the last operation")
            }
            AnswerError::Now(value) => {
                write!(f, "{value} is no time: is this Weir's script?")
            }
        }
    }
}

impl std::error::Error for AnswerError {}

/// Beyond this a double stands for more than one integer.
const MOST: u64 = 1 << 53;

/// Stands for a double that is no integer, or that stands for more than one.
pub(super) const NO_INTEGER: i64 = i64::MIN;

/// The integers of a reply: doubles, for Lua has no other numbers, their last byte first. What is no
/// integer spoils the operation that it is told of, once it is decoded. None if it is no doubles.
pub fn integers(reply: &[u8]) -> Option<Vec<i64>> {
    let (doubles, []) = reply.as_chunks() else {
        return None;
    };
    let mut integers = Vec::with_capacity(doubles.len());
    for double in doubles {
        let double = f64::from_le_bytes(*double);
        let integer = double as i64;
        let exact = integer as f64 == double && integer.unsigned_abs() <= MOST;
        integers.push(if exact { integer } else { NO_INTEGER });
    }
    Some(integers)
}

impl ReplySchema {
    /// With room for so many limits.
    pub fn with_room(limits: usize) -> ReplySchema {
        ReplySchema {
            operations: Vec::new(),
            limits: Vec::with_capacity(limits),
        }
    }

    /// One more limit, of the operation that will be told next.
    pub fn limit(&mut self, key: usize, cost: Cost) {
        self.limits.push((key, cost));
    }

    /// An operation has that many limits, the last ones.
    pub fn operation(&mut self, limits: usize) {
        self.operations.push(limits);
    }

    /// How many keys there are.
    fn keys(&self) -> usize {
        let last = self.limits.iter().map(|(key, _)| *key).max();
        last.map_or(0, |last| last + 1)
    }

    /// Each operation's limits.
    fn operations(&self) -> impl Iterator<Item = &[(usize, Cost)]> {
        let mut rest = self.limits.as_slice();
        self.operations.iter().map(move |limits| {
            let (own, others) = rest.split_at_checked(*limits).unwrap_or((rest, &[]));
            rest = others;
            own
        })
    }
}

/// Reads the reply to operations of this schema. A number that is out of range spoils its operation;
/// only where all begins, and where one operation ends, must be certain.
pub fn decode(
    schema: &ReplySchema,
    reply: impl IntoIterator<Item = i64>,
) -> Result<Answer, AnswerError> {
    let mut reply = reply.into_iter().peekable();
    let now = reply.next().ok_or(AnswerError::TooShort { operation: 0 })?;
    let now = natural(now)
        .map(StoreInstant)
        .ok_or(AnswerError::Now(now))?;
    let together = reply.next_if_eq(&TOGETHER).is_some();
    let told = match together {
        true => decode_together(schema, &mut reply)?,
        false => decode_each(schema, &mut reply)?,
    };
    match reply.next() {
        None => Ok(Answer {
            now,
            together,
            told,
        }),
        Some(_) => Err(AnswerError::TooLong),
    }
}

/// Each operation was told of.
fn decode_each(
    schema: &ReplySchema,
    reply: &mut impl Iterator<Item = i64>,
) -> Result<Vec<OperationReply>, AnswerError> {
    let mut told = Vec::with_capacity(schema.operations.len());
    for (operation, limits) in schema.operations.iter().enumerate() {
        let mut next = || reply.next().ok_or(AnswerError::TooShort { operation });
        let verdict = match next()? {
            1 => Some(Verdict::Passed),
            0 => Some(Verdict::Refused),
            -1 => Some(Verdict::Unreadable),
            _ => None,
        };
        let mut readings = Vec::with_capacity(*limits);
        let mut sound = true;
        for _ in 0..*limits {
            let reading = reading(next()?, next()?, next()?);
            sound &= reading.is_some();
            readings.push(reading.unwrap_or(NOTHING));
        }
        told.push(match verdict.filter(|_| sound) {
            Some(verdict) => OperationReply {
                verdict,
                limits: readings,
            },
            None => OperationReply::unreadable(*limits),
        });
    }
    Ok(told)
}

/// All passed, and each key was told of as the last of them left it. Those before found more: what the
/// later ones took.
fn decode_together(
    schema: &ReplySchema,
    reply: &mut impl Iterator<Item = i64>,
) -> Result<Vec<OperationReply>, AnswerError> {
    let mut next = || reply.next().ok_or(AnswerError::TooShort { operation: 0 });
    let mut keys = Vec::with_capacity(schema.limits.len());
    for _ in 0..schema.keys() {
        keys.push(reading(next()?, 0, next()?));
    }
    let mut take = |key: usize, cost: i64| {
        let reading = keys.get_mut(key)?.as_mut()?;
        reading.remaining = reading.remaining.saturating_sub(cost);
        Some(*reading)
    };
    for (key, cost) in &schema.limits {
        take(*key, -signed(*cost));
    }
    let told = schema.operations().map(|limits| {
        // Of all, though one cannot be told: what they took is to be seen by those that follow.
        let mut readings = Vec::with_capacity(limits.len());
        readings.extend(
            limits
                .iter()
                .filter_map(|(key, cost)| take(*key, signed(*cost))),
        );
        if readings.len() < limits.len() {
            return OperationReply::unreadable(limits.len());
        }
        OperationReply {
            verdict: Verdict::Passed,
            limits: readings,
        }
    });
    Ok(told.collect())
}

fn signed(cost: Cost) -> i64 {
    i64::try_from(cost.get()).unwrap_or(i64::MAX)
}

/// Nothing if a number is out of range.
pub(super) fn reading(remaining: i64, retry: i64, reset: i64) -> Option<Reading> {
    Some(Reading {
        remaining: (remaining.unsigned_abs() <= MOST).then_some(remaining)?,
        retry: match retry {
            -1 => Retry::Never,
            -2 => Retry::Unknown,
            0 => Retry::Now,
            wait => Retry::After(Span::millis(natural(wait)?)),
        },
        reset: Span::millis(natural(reset)?),
    })
}

fn natural(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value <= MOST)
}
