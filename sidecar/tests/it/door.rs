//! How long a connection may be held, and by whom.

use std::fs;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use weir_core::store::wire::SECRET_HEADER;
use weir_lab::scratch::Scratch;
use weir_sidecar::door::Bounds;
use weir_sidecar::listen::Place;

use crate::support::{Client, PATIENCE, Redis, Running, add, add_by_source, eventually, resp, sum};

const SECRET: &str = "0123456789abcdef";

/// What a test waits for a connection to be closed.
const SHORT: Duration = Duration::from_millis(300);

/// Far above what is slow here, and still far above what a test waits for.
const LONG: Duration = Duration::from_secs(60);

/// Nobody is sent away for being slow.
const PATIENT: Bounds = Bounds {
    strangers: 512,
    stranger: LONG,
    head: LONG,
    body: LONG,
    write: LONG,
    idle: LONG,
};

/// A sidecar that asks for [`SECRET`].
async fn guarded(redis: &Redis, bounds: Bounds, flags: &[&str]) -> Running {
    let scratch = Scratch::try_new("secret").unwrap();
    let file = scratch.file("secret");
    fs::write(&file, SECRET).unwrap();
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let own = ["--secret-file", file.to_str().unwrap(), "--redis", &url];
    let sidecar = Running::within(bounds, &[&own, flags].concat()).await;
    sidecar.is_healthy().await;
    sidecar
}

fn head(secret: &str, length: usize) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: w\r\n{SECRET_HEADER}: {secret}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

fn request(secret: &str, commands: &[u8]) -> Vec<u8> {
    [head(secret, commands.len()).as_bytes(), commands].concat()
}

async fn ask(client: &mut Client, commands: &[u8]) -> (u16, String) {
    client.send(&request(SECRET, commands)).await;
    client.response().await
}

/// A client that has shown the secret.
async fn known(sidecar: &Running) -> Client {
    let mut client = sidecar.client().await;
    assert_eq!(ask(&mut client, &add_by_source("weir:k", 0)).await.0, 200);
    client
}

#[tokio::test]
async fn a_stranger_has_seconds_whatever_it_sends() {
    let redis = Redis::start(&[]);
    let bounds = Bounds {
        stranger: SHORT,
        ..PATIENT
    };
    let sidecar = guarded(&redis, bounds, &[]).await;
    let mut known = known(&sidecar).await;
    let whole = request(SECRET, &add("weir:a", 1));
    let starts: [&[u8]; 4] = [b"", b"\r\n", b"POST / HT", &whole[..whole.len() / 3]];
    for start in starts {
        let mut client = sidecar.client().await;
        client.send(start).await;
        assert!(
            client.is_ended_within(PATIENCE).await,
            "{}",
            start.escape_ascii()
        );
    }
    // A byte now and then makes it no younger.
    let mut slow = sidecar.client().await;
    slow.send(b"POST / HTTP/1.1\r\nx: ").await;
    eventually("an end of a head that goes on", async || {
        slow.stream.write_all(b"x").await.is_err()
    })
    .await;
    assert_eq!(ask(&mut known, &add("weir:a", 1)).await, (200, sum(1, 1)));
}

#[tokio::test]
async fn a_stranger_is_answered_once() {
    let redis = Redis::start(&[]);
    let sidecar = guarded(&redis, PATIENT, &[]).await;
    let body = add_by_source("weir:a", 1);
    let requests = [
        (b"GET /healthz HTTP/1.1\r\nhost: w\r\n\r\n".to_vec(), 200),
        (b"GET /none HTTP/1.1\r\nhost: w\r\n\r\n".to_vec(), 404),
        (b"GET / HTTP/1.1\r\nhost: w\r\n\r\n".to_vec(), 405),
        (request("guessed0guessed0", &body), 401),
        // The body never comes.
        (head("guessed0guessed0", 1000).into_bytes(), 401),
    ];
    for (first, status) in requests {
        let mut client = sidecar.client().await;
        let _ = client
            .stream
            .write_all(&[first, request(SECRET, &body)].concat())
            .await;
        assert_eq!(client.response().await.0, status);
        assert!(client.is_ended_within(PATIENCE).await, "{status}");
    }
    assert_eq!(redis.ask_line("EXISTS weir:a").await, ":0\r\n");
}

#[tokio::test]
async fn strangers_lock_nobody_out() {
    let redis = Redis::start(&[]);
    let bounds = Bounds {
        strangers: 20,
        ..PATIENT
    };
    let sidecar = guarded(&redis, bounds, &["--max-connections", "1"]).await;
    let mut strangers = Vec::new();
    for round in 1..=3 {
        for _ in 0..20 {
            let mut stranger = sidecar.client().await;
            stranger.send(b"POST / HTTP/1.1\r\n").await;
            strangers.push(stranger);
        }
        let started = Instant::now();
        let mut client = sidecar.client().await;
        let told = ask(&mut client, &add_by_source("weir:a", 1)).await;
        assert_eq!(told, (200, sum(round, 1)));
        assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    }
    assert!(strangers[0].is_ended_within(PATIENCE).await, "the oldest");
    let mut last = strangers.pop().unwrap();
    assert!(!last.is_ended_within(SHORT).await, "the youngest");
}

#[tokio::test]
async fn a_crowd_that_shows_the_secret_is_let_in_whole() {
    let redis = Redis::start(&[]);
    let bounds = Bounds {
        strangers: 4,
        ..PATIENT
    };
    let sidecar = guarded(&redis, bounds, &[]).await;
    known(&sidecar).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(sidecar.client().await);
    }
    for client in &mut crowd {
        client.send(&request(SECRET, &add("weir:a", 1))).await;
    }
    for client in &mut crowd {
        assert_eq!(client.response().await.0, 200);
    }
}

#[tokio::test]
async fn who_shows_the_secret_is_held_to_a_time_for_each_thing() {
    let redis = Redis::start(&[]);
    let body = resp("PING");
    // What is short, and what a client sends that keeps the sidecar waiting for it.
    let table = [
        (
            "a head",
            Bounds {
                head: SHORT,
                ..PATIENT
            },
            b"POST / HTTP/1.1\r\nho".to_vec(),
        ),
        (
            "a body",
            Bounds {
                body: SHORT,
                idle: SHORT,
                ..PATIENT
            },
            head(SECRET, 1000).into_bytes(),
        ),
        (
            "silence",
            Bounds {
                idle: SHORT,
                ..PATIENT
            },
            request(SECRET, &body),
        ),
    ];
    for (what, bounds, sent) in table {
        let sidecar = guarded(&redis, bounds, &[]).await;
        let mut client = known(&sidecar).await;
        client.send(&sent).await;
        assert!(client.is_ended_within(PATIENCE).await, "{what}");
    }
}

#[tokio::test]
async fn who_does_not_read_its_answers_is_closed() {
    let redis = Redis::start(&[]);
    let bounds = Bounds {
        write: SHORT,
        ..PATIENT
    };
    let sidecar = guarded(&redis, bounds, &[]).await;
    let mut client = known(&sidecar).await;
    let one = request(SECRET, &resp("PING").repeat(1000));
    let started = Instant::now();
    // Its own writes stop when nobody reads them, and fail when the connection is gone.
    loop {
        match tokio::time::timeout(PATIENCE, client.stream.write_all(&one)).await {
            Ok(Ok(())) => assert!(started.elapsed() < PATIENCE * 3, "read for ever"),
            Ok(Err(_)) => break,
            Err(_) => panic!("held for {PATIENCE:?}"),
        }
    }
}

#[tokio::test]
async fn a_machine_that_is_gone_without_a_word_is_looked_for() {
    let redis = Redis::start(&[]);
    let sidecar = guarded(&redis, PATIENT, &[]).await;
    let _client = known(&sidecar).await;
    let Place::Tcp(address) = sidecar.place else {
        panic!("not TCP")
    };
    let local = format!(":{:04X}", address.port());
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    // Local address, remote one, state, queues, and the timer: 02 is keepalive's, 01 established.
    let is_watched = sockets.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&local) && fields[3] == "01" && fields[5].starts_with("02:")
    });
    assert!(is_watched, "{sockets}");
}
