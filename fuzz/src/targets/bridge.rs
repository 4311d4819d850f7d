//! The bridge: however the bytes are cut, the same comes out on the other side.
//!
//! An input is two bytes of cuts, and then what the limiter and redis_proxy send in turn, divided
//! by 0x1E.

use weir_core::codec::resp::Replies;
use weir_core::store::bridge::{Bridge, FLAG, Flow, PREFIX};

use crate::Target;
use crate::input::{Input, pieces};

pub const TARGET: Target = Target {
    name: "bridge",
    run,
    words: &[
        "\r\n\r\n",
        "\x1e",
        "POST / HTTP/1.1\r\n",
        "content-length: 14\r\n",
        "x-weir-replies: 1\r\n",
        "transfer-encoding: chunked\r\n",
        "+PONG\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "\r\n",
        "\n\n",
        "X-Weir-Replies:0\r\n",
        "-ERR\r\n",
        "content-length: 0\r\n",
        "\0\0\0\0\x0e",
        "\0\0\0\0\x01",
    ],
};

const TURN: u8 = 0x1E;

fn run(data: &[u8]) {
    let mut input = Input(data);
    let cuts = input.bytes(2);
    let whole = play(input.0, &[u8::MAX]);
    for cuts in [cuts, &[1]] {
        let cut = play(input.0, cuts);
        assert_eq!(cut.closed, whole.closed);
        if !whole.closed {
            assert_eq!(cut.to_redis, whole.to_redis);
            assert_eq!(cut.answers(), whole.answers());
        }
    }
    whole.answers();
}

/// Buffers as Envoy does for a network filter, and does what the bridge decides.
#[derive(Default)]
struct Host {
    bridge: Bridge,
    from_limiter: Vec<u8>,
    from_redis: Vec<u8>,
    to_redis: Vec<u8>,
    to_limiter: Vec<u8>,
    closed: bool,
}

fn play(turns: &[u8], cuts: &[u8]) -> Host {
    let mut host = Host::default();
    for (place, turn) in turns.split(|byte| *byte == TURN).enumerate() {
        for piece in pieces(turn, cuts) {
            match place % 2 {
                0 => host.limiter_sends(piece),
                _ => host.redis_sends(piece),
            }
            if host.closed {
                return host;
            }
        }
    }
    host
}

impl Host {
    fn limiter_sends(&mut self, piece: &[u8]) {
        let buffer = &mut self.from_limiter;
        buffer.extend_from_slice(piece);
        let down = self
            .bridge
            .downstream(buffer.len(), |range| buffer[range].to_vec());
        buffer.drain(..down.cut);
        match down.flow {
            Flow::Continue => self.to_redis.append(buffer),
            Flow::DelayedRequest => assert_eq!(down.cut, 0),
            Flow::Close => self.closed = true,
        }
    }

    fn redis_sends(&mut self, piece: &[u8]) {
        let buffer = &mut self.from_redis;
        buffer.extend_from_slice(piece);
        let up = self
            .bridge
            .upstream(buffer.len(), |range| buffer[range].to_vec());
        if let Some(prefix) = up.prefix {
            buffer.splice(..0, prefix);
        }
        match up.flow {
            Flow::Continue => self.to_limiter.append(buffer),
            Flow::DelayedRequest => {}
            Flow::Close => self.closed = true,
        }
    }

    /// What the limiter reads, whatever is around it.
    fn answers(&self) -> Vec<u8> {
        let mut rest = self.to_limiter.as_slice();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let (answer, after) = match rest {
                [FLAG, ..] => message(rest),
                _ => response(rest),
            };
            answers.extend_from_slice(answer);
            rest = after;
        }
        answers
    }
}

/// A message has five bytes before it that tell its length. What follows it is for the next.
fn message(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (prefix, rest) = bytes.split_at(PREFIX);
    let length = prefix
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    rest.split_at(length)
}

/// A response has a head that tells its length, and holds whole replies.
fn response(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = bytes.strip_prefix(b"HTTP/1.1 200 OK\r\ncontent-length: ");
    let length = length.expect("a head");
    let end = length.windows(4).position(|four| four == b"\r\n\r\n");
    let (length, body) = length.split_at(end.expect("the end of a head"));
    let length: usize = String::from_utf8_lossy(length).parse().expect("a length");
    let (body, after) = body[4..].split_at(length);
    let mut replies = Replies::new();
    assert!(replies.push(body).expect("replies") > 0);
    assert!(replies.at_boundary());
    (body, after)
}
