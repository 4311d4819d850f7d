//! One HTTP/1.1 connection of Envoy's own client. The bridge takes the head off each request and
//! withholds the replies until all of a request's are there and a head can tell their length.

use std::ops::Range;

use super::{Down, Flow, Up};
use crate::codec::resp::{Replies, push_decimal};
use crate::store::wire::{MAX_BODY, MAX_COMMANDS, PATH, REPLIES_HEADER};

/// The longest request head, in bytes. The limiter's has about 200; Envoy may add tracing headers.
pub const MAX_HEAD: usize = 8 << 10;

/// The most headers in a request head, the same again with room.
const MAX_HEADERS: usize = 48;

/// It carries one request at a time, as many as the client likes.
#[derive(Debug, Default)]
pub(super) struct Http {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A head is awaited; its end does not begin in the first `scanned` bytes.
    Head { scanned: usize },
    /// A head has been taken off: its body passes down, its replies gather.
    Exchange(Exchange),
}

#[derive(Debug)]
struct Exchange {
    /// Bytes of the body that have not come yet.
    body_left: usize,
    expected: usize,
    replies: Replies,
    /// Bytes of the replies that `replies` has seen; they are held by the host.
    scanned: usize,
}

/// What a request's head announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Announced {
    body: usize,
    replies: usize,
}

impl Default for Phase {
    fn default() -> Phase {
        Phase::Head { scanned: 0 }
    }
}

impl Http {
    /// As for `Bridge::downstream`; nothing where the stream is out of step.
    pub(super) fn downstream<B: AsRef<[u8]>>(
        &mut self,
        size: usize,
        mut read: impl FnMut(Range<usize>) -> B,
    ) -> Option<Down> {
        match &mut self.phase {
            Phase::Head { .. } if size == 0 => Some(Down::pass(0)),
            Phase::Head { scanned } => {
                let visible = size.min(MAX_HEAD);
                let seen = read(0..visible);
                match take_head(seen.as_ref(), *scanned) {
                    _ if seen.as_ref().len() != visible => None,
                    Head::Partial if size >= MAX_HEAD => None,
                    Head::Partial => {
                        *scanned = size;
                        Some(Down::HOLD)
                    }
                    Head::Complete { len, announced } => {
                        let body_left = announced.body.checked_sub(size.checked_sub(len)?)?;
                        self.phase = Phase::Exchange(Exchange {
                            body_left,
                            expected: announced.replies,
                            replies: Replies::new(),
                            scanned: 0,
                        });
                        Some(Down::pass(len))
                    }
                    Head::Refused => None,
                }
            }
            // What exceeds the body is a second request before the first has its answer. Envoy's
            // client does not pipeline, so these bytes are not from it.
            Phase::Exchange(exchange) => {
                exchange.body_left = exchange.body_left.checked_sub(size)?;
                Some(Down::pass(0))
            }
        }
    }

    /// As for `Bridge::upstream`.
    pub(super) fn upstream<B: AsRef<[u8]>>(
        &mut self,
        size: usize,
        read: impl FnMut(Range<usize>) -> B,
    ) -> Option<Up> {
        let up = match &mut self.phase {
            Phase::Exchange(exchange) => exchange.upstream(size, read)?,
            // Replies that nobody asked for.
            Phase::Head { .. } => return None,
        };
        if up.flow == Flow::Continue {
            self.phase = Phase::default();
        }
        Some(up)
    }
}

impl Exchange {
    /// `None` where the stream is out of step.
    fn upstream<B: AsRef<[u8]>>(
        &mut self,
        size: usize,
        mut read: impl FnMut(Range<usize>) -> B,
    ) -> Option<Up> {
        let unseen = size.checked_sub(self.scanned)?;
        if size > MAX_BODY {
            return None;
        }
        let fresh = read(self.scanned..size);
        let fresh = fresh.as_ref();
        if fresh.len() != unseen {
            return None;
        }
        self.scanned = size;
        let complete = self.replies.push(fresh).ok()?;
        if complete < self.expected {
            return Some(Up::HOLD);
        }
        // More than was asked for, or an answer to a check request not fully put: the announced number
        // was wrong, and what follows would belong to nobody.
        if complete > self.expected || !self.replies.at_boundary() || self.body_left > 0 {
            return None;
        }
        Some(Up::pass(response_head(size)))
    }
}

fn response_head(body: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(64);
    head.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: ");
    push_decimal(&mut head, body as u64);
    head.extend_from_slice(b"\r\n\r\n");
    head
}

// === Heads ===

enum Head {
    /// Its end is not here yet.
    Partial,
    /// The first `len` bytes are one that the limiter could have sent.
    Complete {
        len: usize,
        announced: Announced,
    },
    Refused,
}

/// The head at the front of `bytes`, whose end does not begin in the first `scanned`.
fn take_head(bytes: &[u8], scanned: usize) -> Head {
    const END: &[u8] = b"\r\n\r\n";
    // An end may begin in the last three bytes that were scanned.
    let from = scanned.saturating_sub(END.len() - 1);
    let unscanned = bytes.get(from..).unwrap_or_default();
    let Some(at) = unscanned.windows(END.len()).position(|end| end == END) else {
        return Head::Partial;
    };
    let len = from + at + END.len();
    match bytes.get(..len).and_then(read_head) {
        Some(announced) => Head::Complete { len, announced },
        None => Head::Refused,
    }
}

/// What a head announces; `None` if it is not one of the limiter's.
fn read_head(head: &[u8]) -> Option<Announced> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        // A bare LF also ends a line for httparse: a head that ends for it before it ends for us
        // is not from Envoy.
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        _ => return None,
    }
    let (method, path, version) = (request.method?, request.path?, request.version?);
    if method != "POST" || path != PATH || version != 1 {
        return None;
    }
    let (mut body, mut replies) = (None, None);
    for header in request.headers.iter() {
        let (slot, cap) = if header.name.eq_ignore_ascii_case("content-length") {
            (&mut body, MAX_BODY)
        } else if header.name.eq_ignore_ascii_case(REPLIES_HEADER) {
            (&mut replies, MAX_COMMANDS)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        } else {
            continue;
        };
        if slot.is_some() {
            return None;
        }
        *slot = Some(count(header.value, cap)?);
    }
    Some(Announced {
        body: body?,
        replies: replies?,
    })
}

/// A decimal in 1..=cap. Not `str::parse`, which takes a sign.
fn count(value: &[u8], cap: usize) -> Option<usize> {
    let mut count: usize = 0;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        count = count
            .checked_mul(10)?
            .checked_add(usize::from(byte - b'0'))?;
    }
    (1..=cap).contains(&count).then_some(count)
}
