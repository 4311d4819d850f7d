//! The bridge between the limiter and Redis, as raw bytes in and raw bytes out.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::ops::Range;

use proptest::prelude::*;
use weir_core::store::bridge::{Bridge, Flow, MAX_HEAD, PREFIX, prefix};
use weir_core::store::wire::{MAX_BODY, MAX_COMMANDS};

/// Buffers as Envoy does for a network filter, and performs what the bridge decides.
#[derive(Default)]
struct Host {
    bridge: Bridge,
    from_limiter: Vec<u8>,
    from_redis: Vec<u8>,
    to_redis: Vec<u8>,
    to_limiter: Vec<u8>,
    closed: bool,
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
            Flow::DelayedRequest => {}
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
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A request as Envoy's HTTP/1.1 client writes it.
fn request(replies: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: weir\r\ncontent-length: {}\r\nx-weir-replies: {replies}\r\n\
         x-envoy-internal: true\r\nx-forwarded-for: 127.0.0.1\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn response(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_request_loses_its_head_and_its_replies_gain_one() {
    let mut host = Host::default();
    host.limiter_sends(&request(2, &PING.repeat(2)));
    assert_eq!(host.to_redis, PING.repeat(2));
    host.redis_sends(b"+PONG\r\n");
    assert_eq!(host.to_limiter, b"", "one of two replies");
    host.redis_sends(b"-ERR no\r\n");
    assert_eq!(host.to_limiter, response(b"+PONG\r\n-ERR no\r\n"));
    assert!(!host.closed);
}

#[test]
fn header_names_are_read_in_any_case() {
    let mut host = Host::default();
    host.limiter_sends(b"POST / HTTP/1.1\r\nContent-Length:4\r\nX-Weir-Replies:  1 \r\n\r\nPING");
    assert_eq!(host.to_redis, b"PING");
}

#[test]
fn a_held_head_is_not_searched_twice() {
    let whole = request(1, PING);
    let mut bridge = Bridge::new();
    let mut read: Vec<Range<usize>> = Vec::new();
    bridge.downstream(0, |range| {
        read.push(range);
        b""
    });
    assert!(read.is_empty(), "an empty buffer need not be read");
    assert_eq!(
        bridge.downstream(9, |range| &whole[range]).flow,
        Flow::DelayedRequest
    );
    let body = PING.len();
    bridge.downstream(whole.len() - body, |range| &whole[range]);
    bridge.downstream(body, |range| -> &[u8] {
        panic!("a body was read: {range:?}")
    });
}

#[test]
fn held_replies_are_not_scanned_twice() {
    let mut bridge = Bridge::new();
    let request = request(2, PING);
    bridge.downstream(request.len(), |range| &request[range]);
    let replies = b"+PONG\r\n+PONG\r\n";
    let mut read = Vec::new();
    for size in [4, 4, 9, 14] {
        bridge.upstream(size, |range| {
            read.push(range.clone());
            &replies[range]
        });
    }
    assert_eq!(read, [0..4, 4..4, 4..9, 9..14]);
}

/// A request with one thing changed.
fn with(from: &str, to: &str) -> Vec<u8> {
    let request = String::from_utf8(request(1, PING)).unwrap();
    assert!(request.contains(from), "{from}");
    request.replace(from, to).into_bytes()
}

#[test]
fn what_the_limiter_never_sends_closes_the_connection() {
    let huge = format!("content-length: {}", MAX_BODY + 1);
    let many = format!("x-weir-replies: {}", MAX_COMMANDS + 1);
    let endless = format!("x-weir-replies: 1\r\nx: {}", "x".repeat(MAX_HEAD));
    let crowded = format!("x-weir-replies: 1{}", "\r\nx: y".repeat(60));
    let table = [
        ("another method", with("POST", "PUT")),
        ("another path", with("POST / ", "POST /x ")),
        ("another version", with("HTTP/1.1", "HTTP/1.0")),
        ("a response", with("POST / HTTP/1.1", "HTTP/1.1 200 OK")),
        ("no length", with("content-length", "x-length")),
        (
            "an empty body",
            with("content-length: 14", "content-length: 0"),
        ),
        (
            "a signed length",
            with("content-length: 14", "content-length: +14"),
        ),
        (
            "a length with a tail",
            with("content-length: 14", "content-length: 14, 14"),
        ),
        ("a huge length", with("content-length: 14", &huge)),
        (
            "an endless length",
            with(": 14", ": 99999999999999999999999999"),
        ),
        ("two lengths", with("host: weir", "content-length: 14")),
        ("chunks", with("host: weir", "transfer-encoding: chunked")),
        ("no count of replies", with("x-weir-replies", "x-replies")),
        ("no replies", with("x-weir-replies: 1", "x-weir-replies: 0")),
        ("two counts", with("host: weir", "x-weir-replies: 1")),
        ("too many replies", with("x-weir-replies: 1", &many)),
        ("a line folded", with("host: weir", "host: weir\r\n folded")),
        ("a line without a colon", with("host: weir", "host")),
        (
            "a head in a head",
            with("x-envoy-internal: true\r\n", "x-envoy-internal: true\n\n"),
        ),
        (
            "lines ended by LF",
            with("host: weir\r\n", "host: weir\n\n"),
        ),
        ("a head too long", with("x-weir-replies: 1", &endless)),
        ("too many headers", with("x-weir-replies: 1", &crowded)),
        ("commands without a head", [PING, b"\r\n\r\n"].concat()),
        (
            "a body too long",
            [request(1, PING), b"*".to_vec()].concat(),
        ),
        ("a pipelined request", request(1, PING).repeat(2)),
    ];
    for (defect, bytes) in table {
        let mut host = Host::default();
        host.limiter_sends(&bytes);
        assert!(host.closed, "{defect} was let in");
        assert_eq!(host.to_redis, b"", "{defect}");
        host.from_limiter.clear();
        host.closed = false;
        host.limiter_sends(&request(1, PING));
        assert!(host.closed, "{defect}: a closed connection was used again");
    }
}

#[test]
fn a_head_that_never_ends_is_not_held_forever() {
    let mut host = Host::default();
    host.limiter_sends(&[b'P'; MAX_HEAD - 1]);
    assert!(!host.closed);
    host.limiter_sends(b"P");
    assert!(host.closed);
}

#[test]
fn replies_out_of_step_close_the_connection() {
    let table: &[(&str, &[u8])] = &[
        ("a reply too many", b"+PONG\r\n+PONG\r\n"),
        ("a reply begun too many", b"+PONG\r\n+"),
        ("malformed", b"PONG\r\n"),
    ];
    for (defect, bytes) in table {
        let mut host = Host::default();
        host.limiter_sends(&request(1, PING));
        host.redis_sends(bytes);
        assert!(host.closed, "{defect}");
        assert_eq!(host.to_limiter, b"", "{defect}");
    }

    let mut host = Host::default();
    host.redis_sends(b"+PONG\r\n");
    assert!(host.closed, "a reply to no request");

    let mut host = Host::default();
    let whole = request(1, PING);
    host.limiter_sends(&whole[..whole.len() - 1]);
    host.redis_sends(b"+PONG\r\n");
    assert!(host.closed, "a reply before its command");
}

#[test]
fn replies_above_the_cap_close_the_connection() {
    let mut host = Host::default();
    host.limiter_sends(&request(MAX_COMMANDS, PING));
    let megabyte = [b"$1048576\r\n", &[b'x'; 1 << 20][..], b"\r\n"].concat();
    for _ in 0..3 {
        host.redis_sends(&megabyte);
    }
    assert!(!host.closed);
    host.redis_sends(&megabyte);
    assert!(host.closed);
}

#[test]
fn a_host_that_cannot_read_closes_the_connection() {
    assert_eq!(Bridge::new().downstream(9, |_| b"").flow, Flow::Close);
    let mut bridge = Bridge::new();
    let request = request(1, PING);
    bridge.downstream(request.len(), |range| &request[range]);
    assert_eq!(bridge.upstream(7, |_| b"").flow, Flow::Close);
}

/// The pieces of `bytes` between cuts that a seed chooses.
fn pieces(bytes: &[u8], cuts: u64) -> Vec<&[u8]> {
    let mut start = 0;
    let mut pieces = Vec::new();
    for end in 1..=bytes.len() {
        if end == bytes.len() || cuts.rotate_left(end as u32) & 1 == 1 {
            pieces.push(&bytes[start..end]);
            start = end;
        }
    }
    pieces
}

proptest! {
    #[test]
    fn any_split_of_a_kept_alive_connection_gives_the_same(
        exchanges in prop::collection::vec((1usize..5, any::<u64>(), any::<u64>()), 1..5),
    ) {
        let mut host = Host::default();
        let (mut to_redis, mut to_limiter) = (Vec::new(), Vec::new());
        for (count, down_cuts, up_cuts) in exchanges {
            let body = PING.repeat(count);
            let replies = b"*2\r\n:1\r\n$2\r\n\r\n\r\n".repeat(count);
            for piece in pieces(&request(count, &body), down_cuts) {
                host.limiter_sends(piece);
            }
            to_redis.extend_from_slice(&body);
            prop_assert_eq!(&host.to_redis, &to_redis);
            let pieces = pieces(&replies, up_cuts);
            let (last, before) = pieces.split_last().unwrap();
            for piece in before {
                host.redis_sends(piece);
                prop_assert_eq!(&host.to_limiter, &to_limiter, "before the last byte");
            }
            host.redis_sends(last);
            to_limiter.extend_from_slice(&response(&replies));
            prop_assert_eq!(&host.to_limiter, &to_limiter);
        }
        prop_assert!(!host.closed);
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(down: Vec<Vec<u8>>, up: Vec<Vec<u8>>, whole: bool) {
        let mut host = Host::default();
        if whole {
            host.limiter_sends(&request(1, PING));
        }
        down.iter().for_each(|piece| host.limiter_sends(piece));
        up.iter().for_each(|piece| host.redis_sends(piece));
    }
}

// === A link that is kept ===

fn framed(message: &[u8]) -> Vec<u8> {
    [prefix(message.len()).unwrap().as_slice(), message].concat()
}

#[test]
fn a_message_loses_its_prefix_and_each_piece_of_its_answer_gains_one() {
    let mut host = Host::default();
    for _ in 0..3 {
        host.limiter_sends(&framed(&PING.repeat(2)));
        assert_eq!(host.to_redis, PING.repeat(2));
        host.redis_sends(b"+PO");
        host.redis_sends(b"NG\r\n+PONG\r\n");
        let answer = [framed(b"+PO"), framed(b"NG\r\n+PONG\r\n")].concat();
        assert_eq!(host.to_limiter, answer);
        host.to_redis.clear();
        host.to_limiter.clear();
    }
    assert!(!host.closed);
}

#[test]
fn a_message_may_come_in_any_pieces() {
    let message = framed(PING);
    for cut in 1..message.len() {
        let mut host = Host::default();
        let (head, tail) = message.split_at(cut);
        host.limiter_sends(head);
        host.limiter_sends(tail);
        assert_eq!(host.to_redis, PING, "{cut}");
        assert!(!host.closed);
    }
}

#[test]
fn what_is_no_message_of_the_limiters_closes_a_link() {
    let compressed = [&[1, 0, 0, 0, 14], PING].concat();
    let endless = [0, 0xff, 0xff, 0xff, 0xff];
    let two_at_once = framed(PING).repeat(2);
    for pieces in [
        vec![framed(b"")],
        vec![endless.to_vec()],
        vec![two_at_once],
        vec![framed(PING), framed(PING)],
        vec![framed(PING), compressed],
    ] {
        let mut host = Host::default();
        for piece in &pieces {
            assert!(!host.closed);
            host.limiter_sends(piece);
        }
        assert!(host.closed, "{pieces:?}");
        let redis = host.to_redis.len();
        host.limiter_sends(&framed(PING));
        assert_eq!(host.to_redis.len(), redis, "nothing is believed any more");
    }
}

#[test]
fn redis_may_say_nothing_before_it_was_asked() {
    let mut host = Host::default();
    host.redis_sends(b"+PONG\r\n");
    assert!(host.closed);
}

#[test]
fn a_command_may_be_answered_before_the_next_has_come() {
    let message = framed(&PING.repeat(2));
    let (first, second) = message.split_at(PREFIX + PING.len());
    let mut host = Host::default();
    host.limiter_sends(first);
    host.redis_sends(b"+PONG\r\n");
    host.limiter_sends(second);
    host.redis_sends(b"+PONG\r\n");
    assert_eq!(host.to_redis, PING.repeat(2));
    assert_eq!(host.to_limiter, framed(b"+PONG\r\n").repeat(2));
    host.limiter_sends(&framed(PING));
    assert!(!host.closed);
}

#[test]
fn what_was_answered_too_early_lets_no_further_message_pass() {
    let mut host = Host::default();
    let (first, second) = PING.split_at(1);
    host.limiter_sends(&[prefix(PING.len()).unwrap().as_slice(), first].concat());
    host.redis_sends(b"+PONG\r\n");
    host.limiter_sends(second);
    host.limiter_sends(&framed(PING));
    assert!(host.closed);
}
