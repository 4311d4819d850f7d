//! A link that is kept: Envoy writes what the limiter sends on a stream as gRPC messages, bytes with
//! five before them (a flag, and the length big-endian), and expects the same of what comes back.
//!
//! What each message is answered with is none of the bridge's business: the limiter counts replies. So
//! nothing is read here but the five bytes, and answers pass as they come, a message for each piece.

use std::ops::Range;

use super::{Down, Up};
use crate::store::wire::MAX_BODY;

/// How many bytes are before a message.
pub const PREFIX: usize = 5;

/// Of a message that is not compressed.
pub const FLAG: u8 = 0;

/// It carries one message at a time, and the next when something has come back after all of it.
#[derive(Debug, Default)]
pub(super) struct Framed {
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    /// A message is awaited.
    #[default]
    Idle,
    /// Its prefix has been taken off, and so many of its bytes have not come yet.
    Message { left: usize },
}

impl Framed {
    /// As for `Bridge::downstream`; nothing where the stream is out of step.
    pub(super) fn downstream<B: AsRef<[u8]>>(
        &mut self,
        size: usize,
        mut read: impl FnMut(Range<usize>) -> B,
    ) -> Option<Down> {
        let (cut, left) = match self.phase {
            Phase::Idle if size == 0 => return Some(Down::pass(0)),
            Phase::Idle if size < PREFIX => return Some(Down::HOLD),
            Phase::Idle => (PREFIX, length(read(0..PREFIX).as_ref())?),
            Phase::Message { left } => (0, left),
        };
        // What exceeds the message is a second one before the first has its answer.
        let left = left.checked_sub(size.checked_sub(cut)?)?;
        self.phase = Phase::Message { left };
        Some(Down::pass(cut))
    }

    /// As for `Bridge::upstream`.
    pub(super) fn upstream(&mut self, size: usize) -> Option<Up> {
        // The first of a message's commands may be answered while the last is still on its way here.
        if let Phase::Message { left: 0 } = self.phase {
            self.phase = Phase::Idle;
        }
        Some(Up::pass(prefix(size)?.to_vec()))
    }
}

/// What stands before a message of this length.
pub fn prefix(length: usize) -> Option<[u8; PREFIX]> {
    let [a, b, c, d] = u32::try_from(length).ok()?.to_be_bytes();
    Some([FLAG, a, b, c, d])
}

/// The length of the message that these stand before.
fn length(prefix: &[u8]) -> Option<usize> {
    let [FLAG, a, b, c, d] = *prefix else {
        return None;
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (1..=MAX_BODY).contains(&length).then_some(length)
}
