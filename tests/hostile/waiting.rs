//! Clients that have as many requests waiting as they can, beside one that has one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

const SOON: Duration = Duration::from_secs(60);
/// No pause of a busy machine is as long; what a worker was stopped for was.
const TIMEOUT_MS: u64 = 500;
const WORKERS: usize = 2;
/// Connections of the client that is served while others do something.
const SERVED: usize = 4;
/// Streams of a connection: below what Envoy allows.
const STREAMS: usize = 250;
/// What one caller alone can have waiting in a worker, of 4,096.
const SHARE: usize = 455;

fn gateway(redis: &Redis) -> Gateway {
    let line = |limit: u64| {
        json!({
            "type": "leaky_bucket", "limit": limit, "window": 1, "shape": true,
            "max_wait_ms": 60_000,
        })
    };
    let policy = json!({ "rules": [
        { "name": "shared", "pattern": "/shared", "global_limit": line(200) },
        { "name": "own", "pattern": "/own", "user_limits": { "default": line(100) } },
        { "name": "plain", "pattern": "/plain", "user_limits": { "default": {
            "type": "fixed_window", "limit": 100_000_000, "window": 86_400,
        } } },
    ] });
    Gateway::builder()
        .workers(WORKERS)
        .redis(redis)
        .policy(Policy::Text(policy.to_string()))
        .timeout_ms(TIMEOUT_MS)
        .start()
        .unwrap()
}

/// Each of 8,000 ends was work on all that waited, and both workers stood still for seconds: nobody was
/// answered, and their calls to Redis counted as failed.
#[test]
fn a_client_that_leaves_with_all_its_requests_holds_up_nobody() {
    const REQUESTS: usize = 8_000;
    let redis = Redis::start().unwrap();
    let gateway = gateway(&redis);
    let crowd: Vec<TcpStream> = (0..REQUESTS)
        .step_by(STREAMS)
        .map(|first| {
            let ids = first..first + STREAMS;
            let user = |id| format!("one-of-many-{id}");
            ask(gateway.address(), "/shared", ids, user)
        })
        .collect();
    // The kernel shares connections out unevenly, and a worker has 4,096 places.
    until_held_back(&gateway, REQUESTS * 3 / 4);
    let client = gateway.client();
    let (answers, longest) = served_meanwhile(&gateway, || {
        for client in &crowd {
            client.shutdown(Shutdown::Both).unwrap();
        }
        until_nobody_waits(&gateway);
        // What they had taken is given back: nobody waits for turns of theirs.
        deadline::poll(SOON / 4, "an empty line", || {
            let status = client.get("/api/v1/rate-limits/status");
            let status = status.header("x-user-id", "other").send()?.json()?;
            let used = &status["rate_limits"]["shared"]["current_usage"];
            Ok((used.as_u64() == Some(0)).then_some(()))
        })
        .unwrap();
    });
    println!("{answers} answers, the longest took {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert_eq!(count(&gateway, "wasmcustom.weir.breaker.opened_total"), 0);
}

/// One took all places of the workers, and every other turn was refused.
#[test]
fn a_caller_cannot_have_all_the_places() {
    const REQUESTS: usize = 4_000;
    let redis = Redis::start().unwrap();
    let gateway = gateway(&redis);
    let connections = (0..REQUESTS).step_by(STREAMS);
    let _greedy: Vec<TcpStream> = connections
        .map(|_| {
            ask(gateway.address(), "/own", 0..STREAMS, |_| {
                "greedy".to_owned()
            })
        })
        .collect();
    let turned_away = deadline::poll(SOON, "all of them to be counted", || {
        let waiting = count(&gateway, "http.gateway.downstream_rq_active");
        let refused = count(&gateway, "wasmcustom.weir.no_place_to_wait_total");
        // Some have had their turn meanwhile.
        let is_all = waiting <= WORKERS * SHARE && refused >= REQUESTS - 2 * WORKERS * SHARE;
        Ok(is_all.then_some(refused))
    })
    .unwrap();
    println!("{turned_away} of {REQUESTS} found no place");
    for _ in 0..4 {
        let client = gateway.client();
        let modest = || client.get("/own").header("x-user-id", "modest");
        let statuses = thread::scope(|scope| {
            let both = [0, 1].map(|_| scope.spawn(|| modest().send().unwrap().status));
            both.map(|one| one.join().unwrap())
        });
        assert_eq!(
            statuses,
            [200, 200],
            "a turn, and one that waits for the next"
        );
    }
}

/// What a client of its own is answered while others do something: how many answers, each as always,
/// and the longest that one took.
fn served_meanwhile(gateway: &Gateway, meanwhile: impl FnOnce()) -> (usize, Duration) {
    let over = AtomicBool::new(false);
    let client = gateway.client();
    let ask = || {
        let (mut answers, mut longest) = (0, Duration::ZERO);
        while !over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let request = client.get("/plain").header("x-user-id", "other");
            let answer = request.send().unwrap();
            longest = longest.max(start.elapsed());
            answers += 1;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-weir-degraded"), None, "after {longest:?}");
            assert!(answer.header("x-ratelimit-remaining").is_some());
        }
        (answers, longest)
    };
    thread::scope(|scope| {
        let clients: [_; SERVED] = std::array::from_fn(|_| scope.spawn(ask));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        over.store(true, Ordering::Relaxed);
        let told = clients.map(|client| client.join().unwrap());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let answers = told.iter().map(|(answers, _)| answers).sum();
        (
            answers,
            told.into_iter()
                .map(|(_, longest)| longest)
                .max()
                .unwrap_or_default(),
        )
    })
}

fn count(gateway: &Gateway, name: &str) -> usize {
    let count = gateway.stat(name).unwrap().unwrap_or(0);
    count.try_into().unwrap()
}

/// Until so many have been held back.
fn until_held_back(gateway: &Gateway, wanted: usize) {
    deadline::poll(SOON, "requests that wait", || {
        let delayed = count(gateway, "wasmcustom.weir.decisions_total.outcome.delayed");
        Ok((delayed >= wanted).then_some(()))
    })
    .unwrap();
}

/// Until Envoy knows no more requests than those of the client that is served.
fn until_nobody_waits(gateway: &Gateway) {
    deadline::poll(SOON, "end of the requests", || {
        let active = count(gateway, "http.gateway.downstream_rq_active");
        Ok((active <= SERVED).then_some(()))
    })
    .unwrap();
}

/// Requests on one connection, without waiting for answers: HTTP/2 by hand, whose headers are all
/// literal.
fn ask(
    gateway: SocketAddr,
    path: &str,
    ids: Range<usize>,
    user: impl Fn(usize) -> String,
) -> TcpStream {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    const END_OF_STREAM_AND_HEADERS: u8 = 5;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
    };
    frame(SETTINGS, 0, 0, &[]);
    // Room for all the answers.
    frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    for (nth, id) in ids.enumerate() {
        let user = user(id);
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "gateway"),
            (":path", path),
            ("x-user-id", &user),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            // Without indexing, and with a name of its own.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        frame(
            HEADERS,
            END_OF_STREAM_AND_HEADERS,
            nth as u32 * 2 + 1,
            &block,
        );
    }
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.write_all(&bytes).unwrap();
    // Answers are for nobody, but somebody has to take them.
    let mut answers = stream.try_clone().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        while answers.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    stream
}
