//! Where the sidecar listens, what it refuses to start with, and how it stops.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use weir_lab::port;
use weir_lab::scratch::Scratch;
use weir_sidecar::Sidecar;
use weir_sidecar::flags::{Config, Flags};

use crate::support::{
    PATIENCE, Redis, Running, add, add_by_source, eventually, request, script, sum,
};

/// Why it does not start.
async fn refusal(flags: &[&str]) -> String {
    let flags = match Flags::try_parse_from([&["weir-sidecar"], flags].concat()) {
        Ok(flags) => flags,
        Err(error) => return error.to_string(),
    };
    let started = match Config::try_new(flags) {
        Ok(config) => Sidecar::bind(config, script()).await,
        Err(error) => return format!("{error:#}"),
    };
    format!("{:#}", started.err().expect("it started"))
}

#[tokio::test]
async fn a_unix_socket_has_the_permissions_that_were_asked_for() {
    let redis = Redis::start(&[]);
    let dir = Scratch::try_new("socket").unwrap();
    let path = dir.file("weir.sock");
    let place = format!("unix:{}", path.display());

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale socket");
    let mut sidecar = Running::before(&redis, &["--listen", &place, "--socket-mode", "0600"]).await;
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(sidecar.post(&add_by_source("weir:a", 1)).await, sum(1, 1));

    let told = refusal(&["--listen", &place]).await;
    assert!(told.ends_with("another process listens there; stop it, or choose another path"));

    sidecar.stop.take().unwrap().send(()).unwrap();
    timeout(PATIENCE, sidecar.served).await.unwrap().unwrap();
    assert!(!path.exists(), "left behind");

    fs::write(&path, "precious").unwrap();
    let told = refusal(&["--listen", &place]).await;
    assert!(told.ends_with("a file that is no socket is there; choose another path"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_its_mend() {
    let table: &[(&[&str], &str)] = &[
        (
            &["--listen", "0.0.0.0:0"],
            "0.0.0.0:0 can be reached from other machines, and whoever \
            reaches it can spend permits; listen on 127.0.0.1, or add --allow-remote if your \
            network keeps others out",
        ),
        (
            &["--listen", "6380"],
            "must be an address and a port, as in 127.0.0.1:6380, or unix: and a path",
        ),
        (
            &["--socket-mode", "rw"],
            "must be octal, from 0 to 0777, as in 0660",
        ),
        (
            &["--redis", "localhost"],
            "the URL must start with redis:// or rediss://",
        ),
        (
            &["--redis", "redis://a,redis://b"],
            "several --redis are for a Redis Cluster; add --cluster",
        ),
        (
            &["--cluster", "--redis", "redis://a,redis://:x@b"],
            "every --redis must have the same scheme, user, password and database",
        ),
        (
            &["--cluster", "--redis", "redis://a/1"],
            "a Redis Cluster has only database 0; take /1 off --redis",
        ),
        (
            &["--redis", "redis://ann@h"],
            "--redis names a user without a password; name a file with --redis-password-file",
        ),
        (
            &["--redis-password-file", "/nowhere"],
            "--redis-password-file /nowhere: No such file",
        ),
        (
            &["--redis-ca", "ca.pem"],
            "--redis-ca and --redis-cert are for TLS; write rediss:// in --redis",
        ),
        (&["--redis-cert", "cert.pem"], "--redis-key <FILE>"),
        (
            &["--redis", "rediss://h", "--redis-ca", "/nowhere"],
            "/nowhere: no certificates in PEM",
        ),
        (
            &["--redis", "rediss://h", "--redis-ca", "/dev/null"],
            "/dev/null: no certificates in PEM",
        ),
        (&["--timeout-ms", "0"], "0 is not in 1..=500"),
    ];
    for (flags, mend) in table {
        let told = refusal(flags).await;
        assert!(told.contains(mend), "{flags:?}: {told}");
    }
}

#[tokio::test]
async fn only_who_knows_the_secret_is_served() {
    let redis = Redis::start(&[]);
    let dir = Scratch::try_new("secret").unwrap();
    let file = dir.file("secret");
    fs::write(&file, "a secret of the gateway's\n").unwrap();
    let sidecar = Running::before(&redis, &["--secret-file", file.to_str().unwrap()]).await;
    let commands = add_by_source("weir:a", 1);
    for (headers, status) in [
        ("", 401),
        ("x-weir-secret: another secret, of nobody\r\n", 401),
        ("x-weir-secret: a secret of the gateway\r\n", 401),
        (
            "x-weir-secret: a secret of the gateway's\r\nx-weir-secret: x\r\n",
            401,
        ),
        ("X-Weir-Secret: a secret of the gateway's\r\n", 200),
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: weir\r\n{headers}content-length: ");
        let rest = format!("{}\r\n\r\n", commands.len());
        let mut client = sidecar.client().await;
        client
            .send(&[head.as_bytes(), rest.as_bytes(), &commands].concat())
            .await;
        assert_eq!(client.response().await.0, status, "{headers}");
    }
    let counted = redis.ask_line("GET weir:a").await;
    assert_eq!(counted, "$1\r\n1\r\n", "of five requests one ran");
}

#[tokio::test]
async fn a_secret_that_is_none_is_refused() {
    let dir = Scratch::try_new("secret").unwrap();
    let file = dir.file("secret");
    let flags = ["--secret-file", file.to_str().unwrap()];
    for (text, mend) in [
        (None, "No such file"),
        (Some("\n"), "is empty"),
        (Some("guess me\n"), "is shorter than 16 bytes"),
        (
            Some("two lines of secret\nand another\n"),
            "has bytes that a header",
        ),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let told = refusal(&flags).await;
        assert!(told.contains(mend), "{text:?}: {told}");
        assert!(
            !told.contains("guess me") && !told.contains("two lines"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_allowed_on_request() {
    let flags = [
        "--allow-remote",
        "--listen",
        "0.0.0.0:0",
        "--redis",
        "redis://127.0.0.1:1",
    ];
    Running::with(&flags).await;
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_stop() {
    let redis = Redis::start(&[]);
    let mut sidecar = Running::before(&redis, &["--timeout-ms", "500"]).await;
    redis.lab.pause().unwrap();
    let mut idle = sidecar.client().await;
    idle.post(b"").await;
    let mut client = sidecar.client().await;
    client.send(&request(&add("weir:a", 1))).await;
    // The server has the request once it answers one that was sent later.
    sidecar.health().await;
    sidecar.stop.take().unwrap().send(()).unwrap();
    let early = timeout(Duration::from_millis(100), &mut sidecar.served).await;
    assert!(early.is_err(), "it did not wait for the request");
    let (_, body) = client.response().await;
    assert_eq!(body, "-TIMEOUT weir-sidecar: no reply within 500 ms\r\n");
    timeout(PATIENCE, sidecar.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_their_turn() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &["--max-connections", "1"]).await;
    let mut first = sidecar.client().await;
    first.post(b"").await;
    let mut second = sidecar.client().await;
    second.send(&request(b"")).await;
    first.post(b"").await;
    let early = timeout(Duration::from_millis(100), second.response()).await;
    assert!(early.is_err(), "two at once");
    drop(first);
    assert_eq!(timeout(PATIENCE, second.response()).await.unwrap().0, 400);
}

#[tokio::test]
async fn the_binary_stops_when_it_is_told_to() {
    for name in ["TERM", "INT"] {
        let redis = Redis::start(&[]);
        let port = port::free().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir-sidecar"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args([
                "--redis",
                &format!("redis://:hush@127.0.0.1:{}", redis.port),
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("it listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        })
        .await;
        let told = Command::new("kill")
            .args([format!("-{name}"), child.id().to_string()])
            .status();
        assert!(told.unwrap().success());
        let ended = spawn_blocking(move || {
            child.wait().unwrap();
            child.wait_with_output().unwrap()
        });
        let output = timeout(PATIENCE, ended).await.unwrap().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{name}: {log}");
        let first = format!(
            "weir-sidecar: listening on 127.0.0.1:{port}, Redis at 127.0.0.1:{}\n",
            redis.port
        );
        assert!(log.contains(&first), "{log}");
        assert!(!log.contains("hush"), "{log}");
    }
}
