//! Redis hangs, goes, comes back, or does not let us in.

use std::fs;
use std::time::{Duration, Instant};

use weir_lab::port;
use weir_lab::scratch::Scratch;

use crate::support::{
    MovingAddress, Redis, Running, add, add_by_source, eventually, fail, resp, sum,
};

#[tokio::test]
async fn a_hung_redis_is_answered_for_in_time_and_asked_no_command_twice() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &["--timeout-ms", "50"]).await;
    sidecar.post(&add_by_source("weir:a", 1)).await;
    redis.lab.pause().unwrap();

    let started = Instant::now();
    let told = sidecar.post(&add("weir:a", 1).repeat(2)).await;
    let took = started.elapsed();
    assert_eq!(
        told,
        "-TIMEOUT weir-sidecar: no reply within 50 ms\r\n".repeat(2)
    );
    assert!(
        took >= Duration::from_millis(50) && took < Duration::from_secs(1),
        "{took:?}"
    );

    let mut sent = 3;
    eventually("the hung connection is given up", async || {
        sent += 1;
        sidecar
            .post(&add("weir:a", 1))
            .await
            .starts_with("-UNREACHABLE")
    })
    .await;
    assert_eq!(sidecar.health().await.0, 503);
    // These give up before there is a connection again.
    for _ in 0..3 {
        sidecar.post(&add("weir:later", 1)).await;
    }

    redis.lab.resume().unwrap();
    sidecar.is_healthy().await;
    let sum = redis.ask_line("GET weir:a").await;
    let sum: u32 = sum.lines().nth(1).unwrap().parse().unwrap();
    assert!((1..=sent).contains(&sum), "{sent} were sent, {sum} ran");
    assert_eq!(
        redis.ask_line("EXISTS weir:later").await,
        ":0\r\n",
        "sent though nobody waited"
    );
}

#[tokio::test]
async fn a_redis_that_restarts_is_found_again() {
    let mut redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &[]).await;
    sidecar.post(&add_by_source("weir:a", 1)).await;
    redis.lab.stop();
    eventually("Redis is gone", async || {
        sidecar
            .post(&add("weir:a", 1))
            .await
            .starts_with("-UNREACHABLE weir-sidecar: 127.0.0.1:")
    })
    .await;
    eventually("health tells", async || {
        let told = format!("Redis at 127.0.0.1:{} does not answer\n", redis.port);
        sidecar.health().await == (503, told)
    })
    .await;
    redis.lab.restart().unwrap();
    eventually("Redis is back", async || {
        sidecar
            .post(&add("weir:a", 1))
            .await
            .starts_with("-NOSCRIPT ")
    })
    .await;
    assert_eq!(sidecar.post(&add_by_source("weir:a", 1)).await, sum(1, 1));
    sidecar.is_healthy().await;
}

#[tokio::test]
async fn a_redis_that_comes_later_is_waited_for() {
    let port = port::free().unwrap();
    let url = format!("redis://127.0.0.1:{port}");
    let sidecar = Running::with(&["--redis", &url]).await;
    assert_eq!(sidecar.health().await.0, 503);
    let started = Instant::now();
    let told = sidecar.post(&add("weir:a", 1)).await;
    assert!(
        told.starts_with("-UNREACHABLE weir-sidecar: 127.0.0.1:"),
        "{told}"
    );
    assert!(told.contains("refused"), "{told}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_password_lets_in_from_a_file_or_the_url() {
    let redis = Redis::start(&["--requirepass", "s@cret"]);
    let scratch = Scratch::try_new("password").unwrap();
    let file = scratch.file("password");
    fs::write(&file, "s@cret\n").unwrap();
    let flags = ["--redis-password-file", file.to_str().unwrap()];
    let by_file = Running::before(&redis, &flags).await;
    by_file.post(&add_by_source("weir:a", 1)).await;

    let url = format!("redis://default:s%40cret@127.0.0.1:{}/2", redis.port);
    let by_url = Running::with(&["--redis", &url]).await;
    by_url.is_healthy().await;
    assert_eq!(
        by_url.post(&add("weir:a", 1)).await,
        sum(1, 1),
        "another database"
    );
}

#[tokio::test]
async fn without_the_right_password_everyone_is_told_why() {
    let redis = Redis::start(&["--requirepass", "s@cret"]);
    let port = redis.port;
    for (url, reason) in [
        (format!("redis://:wrong@127.0.0.1:{port}"), "WRONGPASS "),
        (format!("redis://127.0.0.1:{port}"), "NOAUTH "),
        (
            format!("redis://:s%40cret@127.0.0.1:{port}/99"),
            "ERR DB index is out of range",
        ),
    ] {
        let sidecar = Running::with(&["--redis", &url]).await;
        let expected = format!("-UNREACHABLE weir-sidecar: 127.0.0.1:{port}: {reason}");
        eventually(reason, async || {
            sidecar.post(&add("weir:a", 1)).await.starts_with(&expected)
        })
        .await;
        assert_eq!(sidecar.health().await.0, 503);
    }
}

/// What a connection answers, and would go on to answer.
const STAYS: [&str; 8] = [
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'eval' command",
    "MISCONF Redis is configured to save RDB snapshots, but is unable to persist to disk.",
    "NOREPLICAS Not enough good replicas to write.",
    "LOADING Redis is loading the dataset in memory",
];

#[tokio::test]
async fn a_primary_that_was_demoted_is_left_for_the_one_that_took_over_its_address() {
    let (old, new) = (Redis::start(&[]), Redis::start(&[]));
    let address = MovingAddress::of(&old).await;
    let sidecar = Running::before_port(address.port, &[]).await;
    sidecar.post(&add_by_source("weir:a", 1)).await;
    new.lab.follow(&old.lab).unwrap();
    new.lab.promote().unwrap();
    old.lab.follow(&new.lab).unwrap();
    address.leads_to(&new);

    let started = Instant::now();
    let told = sidecar.post(&add("weir:a", 1)).await;
    assert!(told.starts_with("-READONLY "), "{told}");
    eventually("the new primary is asked", async || {
        match sidecar.post(&add_by_source("weir:a", 1)).await {
            told if told == sum(2, 1) => true,
            told => panic!("{told}"),
        }
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(address.connections(), 2);
}

#[tokio::test]
async fn every_answer_that_stays_the_same_ends_its_connection_and_no_other_does() {
    let redis = Redis::start(&[]);
    for text in STAYS {
        let address = MovingAddress::of(&redis).await;
        let sidecar = Running::before_port(address.port, &[]).await;
        sidecar.post(&add_by_source("weir:b", 0)).await;
        // Of one request all are answered first.
        let told = sidecar
            .post(&[fail("weir:b", text), add("weir:b", 0)].concat())
            .await;
        let word = text.split(' ').next().unwrap();
        assert!(told.starts_with(&format!("-{word} ")), "{told}");
        assert!(told.ends_with(&sum(0, 0)), "{told}");
        assert_eq!(sidecar.post(&add("weir:b", 0)).await, sum(0, 0), "{text}");
        assert_eq!(address.connections(), 2, "{text}");
    }
    let address = MovingAddress::of(&redis).await;
    let sidecar = Running::before_port(address.port, &[]).await;
    for text in ["OOM command not allowed", "BUSY", "Alone", "MOVED 1 h:1"] {
        sidecar.post(&fail("weir:b", text)).await;
        assert_eq!(sidecar.post(&add("weir:b", 0)).await, sum(0, 0), "{text}");
    }
    assert_eq!(address.connections(), 1);
}

#[tokio::test]
async fn a_server_that_means_it_is_dialled_once_a_second_and_costs_nobody_an_answer() {
    let (redis, primary) = (Redis::start(&[]), Redis::start(&[]));
    redis.lab.follow(&primary.lab).unwrap();
    let address = MovingAddress::of(&redis).await;
    let sidecar = Running::before_port(address.port, &[]).await;
    let started = Instant::now();
    let mut asked = 0;
    while started.elapsed() < Duration::from_millis(2500) {
        let told = sidecar.post(&add_by_source("weir:a", 1).repeat(20)).await;
        assert_eq!(told.matches("-READONLY ").count(), 20, "{told}");
        asked += 1;
    }
    let connections = address.connections();
    assert!((3..=4).contains(&connections), "{connections} for {asked}");
    // Nor does what is no answer of Redis's leave anything.
    sidecar.post(&resp("PING")).await;
    assert_eq!(address.connections(), connections);
}
