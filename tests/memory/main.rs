//! How much memory callers without number cost Envoy, whether Redis is there or not. A minute or
//! more each, so they run when asked: `cargo test --package weir-tests --test memory -- --ignored
//! --nocapture --test-threads 1`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use serde_json::json;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

const CALLERS: usize = 1_000_000;
const CONNECTIONS: usize = 16;
/// Requests that are written at once; Envoy takes them one after the other.
const PIPELINE: usize = 50;
/// What 2 workers may grow by, in KiB. With Redis nothing is kept for a caller; what grows is
/// buffers. Without, each worker keeps 100,000 states at most.
const BOUND_WITH_REDIS: u64 = 32 << 10;
const BOUND_WITHOUT: u64 = 96 << 10;

#[test]
#[ignore = "sends a million requests"]
fn a_million_callers_do_not_grow_envoy() {
    let redis = Redis::start().unwrap();
    let gateway = gateway(&redis);
    grows_by_less_than(&gateway, BOUND_WITH_REDIS);
}

#[test]
#[ignore = "sends a million requests"]
fn a_million_callers_are_forgotten_in_time_while_redis_is_away() {
    let mut redis = Redis::start().unwrap();
    let gateway = gateway(&redis);
    redis.stop();
    grows_by_less_than(&gateway, BOUND_WITHOUT);
}

fn gateway(redis: &Redis) -> Gateway {
    let limit = |algorithm| json!({ "type": algorithm, "limit": 5, "window": 3600 });
    let policy = json!({ "rules": [{
        "name": "api", "pattern": "/api/*",
        "user_limits": { "default": [limit("sliding_window"), limit("token_bucket")] },
    }] });
    Gateway::builder()
        .redis(redis)
        .policy(Policy::Text(policy.to_string()))
        .start()
        .unwrap()
}

fn grows_by_less_than(gateway: &Gateway, bound: u64) {
    // Connections, buffers and the allocator's reserve are there before the first caller counts.
    call(gateway, "warm", CALLERS / 50);
    let before = resident_kib(gateway);
    let mut told = vec![before];
    for part in 0..10 {
        call(gateway, &format!("part{part}"), CALLERS / 10);
        told.push(resident_kib(gateway));
    }
    println!("resident KiB after each tenth of {CALLERS} callers: {told:?}");
    let most = told.iter().max().unwrap() - before;
    assert!(most < bound, "grew by {most} KiB");
}

fn call(gateway: &Gateway, name: &str, callers: usize) {
    let address = gateway.address();
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut callers = (0..callers / CONNECTIONS).peekable();
                while callers.peek().is_some() {
                    let requests: Vec<String> = callers
                        .by_ref()
                        .take(PIPELINE)
                        .map(|caller| {
                            format!(
                                "HEAD /api/x HTTP/1.1\r\nhost: x\r\n\
                                 x-user-id: {name}-{connection}-{caller}-somebody-or-other\r\n\r\n"
                            )
                        })
                        .collect();
                    stream.write_all(requests.concat().as_bytes()).unwrap();
                    answers(&mut stream, requests.len());
                }
            });
        }
    });
}

/// An answer to HEAD is its head.
fn answers(stream: &mut TcpStream, mut count: usize) {
    let (mut piece, mut matched) = ([0; 16 << 10], 0);
    while count > 0 {
        let bytes = stream.read(&mut piece).unwrap();
        assert!(bytes > 0, "Envoy closed the connection");
        for &byte in &piece[..bytes] {
            matched = match byte {
                byte if byte == b"\r\n\r\n"[matched] => matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if matched == 4 {
                (matched, count) = (0, count - 1);
            }
        }
    }
}

fn resident_kib(gateway: &Gateway) -> u64 {
    let status = format!("/proc/{}/status", gateway.process().pid());
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}
