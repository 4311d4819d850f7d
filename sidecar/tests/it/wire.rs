//! What goes through and what does not.

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use weir_core::store::wire::{MAX_BODY, MAX_COMMANDS};

use crate::support::{Redis, Running, add, add_by_source, fail, request, resp, sum};

#[tokio::test]
async fn replies_and_errors_come_through_in_order_as_redis_writes_them() {
    let redis = Redis::start(&[]);
    redis.ask_line("LPUSH weir:list x").await;
    let sidecar = Running::before(&redis, &[]).await;
    let unknown = sidecar.post(&add("weir:a", 1)).await;
    assert!(unknown.starts_with("-NOSCRIPT "), "{unknown}");
    assert_eq!(sidecar.post(&add_by_source("weir:a", 1)).await, sum(1, 1));

    let commands = [
        add("weir:a", 0),
        fail(
            "weir:a",
            "READONLY You can't write against a read only replica.",
        ),
        add("weir:list", 0),
        fail(
            "weir:a",
            "OOM command not allowed when used memory > 'maxmemory'.",
        ),
        fail("weir:a", "Alone"),
        fail("weir:a", "MOVED 1 127.0.0.1:1"),
        fail("weir:a", "TRYAGAIN \u{fc}"),
        add("weir:a", 0),
    ]
    .concat();
    let through = sidecar.post(&commands).await;
    assert_eq!(
        through,
        String::from_utf8(redis.ask(&commands).await).unwrap()
    );
    assert!(
        through.contains("WRONGTYPE") && through.contains("-OOM command"),
        "{through}"
    );
}

#[tokio::test]
async fn a_connection_serves_request_after_request() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &[]).await;
    sidecar.post(&add_by_source("weir:a", 1)).await;
    let mut client = sidecar.client().await;
    for total in 2..20 {
        assert_eq!(client.post(&add("weir:a", 1)).await, (200, sum(total, 1)));
    }
}

#[tokio::test]
async fn everyone_gets_their_own_replies() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &["--timeout-ms", "500"]).await;
    sidecar.post(&add_by_source("weir:any", 1)).await;
    let mut clients = JoinSet::new();
    for id in 1..=32 {
        let mut client = sidecar.client().await;
        clients.spawn(async move {
            let key = format!("weir:{id}");
            for round in 1..=50 {
                let commands = add(&key, id).repeat(2);
                let expected = sum((2 * round - 1) * id, id) + &sum(2 * round * id, id);
                assert_eq!(client.post(&commands).await, (200, expected));
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

#[tokio::test]
async fn a_refused_command_is_answered_in_its_place_and_not_run() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &[]).await;
    let commands = [
        resp("SET weir:a 100"),
        add_by_source("weir:a", 1),
        resp("EVAL return 1 weir:a"),
        add("other:a", 1),
        add("weir:a", 1),
        resp("FLUSHALL"),
    ]
    .concat();
    let expected = [
        "-ERR weir-sidecar: only EVALSHA, EVAL and reads of the policy are served\r\n",
        &sum(1, 1),
        "-ERR weir-sidecar: only the script of this version of Weir is served: run the same \
         version in the gateway and here\r\n",
        "-ERR weir-sidecar: every key must be a limit's, of this sidecar's namespace: --namespace here must \
         be store.namespace there\r\n",
        &sum(2, 1),
        "-ERR weir-sidecar: only EVALSHA, EVAL and reads of the policy are served\r\n",
    ]
    .concat();
    assert_eq!(sidecar.post(&commands).await, expected);
    assert_eq!(redis.ask_line("GET weir:a").await, "$1\r\n2\r\n");
}

#[tokio::test]
async fn a_request_of_refused_commands_only_needs_no_redis() {
    let sidecar = Running::with(&["--redis", "redis://127.0.0.1:1"]).await;
    let refused = "-ERR weir-sidecar: only EVALSHA, EVAL and reads of the policy are served\r\n";
    assert_eq!(sidecar.post(&resp("PING")).await, refused);
}

#[tokio::test]
async fn a_body_that_is_no_pipeline_runs_nothing() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &[]).await;
    let good = add_by_source("weir:a", 1);
    let table: &[(&[u8], &str)] = &[
        (b"", "the body holds no command\n"),
        (
            b"PING\r\n",
            "a RESP2 value must start with one of + - : $ *\n",
        ),
        (
            b"*1\r\n:1\r\n",
            "a command must be an array of bulk strings\n",
        ),
        (b"*2\r\n$4\r\nEVAL\r\n", "the last command has no end\n"),
        (
            b"*1\r\n$4\r\nPINGPONG\r\n",
            "a RESP2 line or bulk string must end in CR LF\n",
        ),
    ];
    for (defect, told) in table {
        let before: &[u8] = if defect.is_empty() { b"" } else { &good };
        let answer = sidecar
            .client()
            .await
            .post(&[before, defect].concat())
            .await;
        assert_eq!(answer, (400, told.to_string()));
    }
    let many = resp("PING").repeat(MAX_COMMANDS + 1);
    assert_eq!(sidecar.client().await.post(&many).await.0, 400);
    assert_eq!(redis.ask_line("EXISTS weir:a").await, ":0\r\n");
}

#[tokio::test]
async fn a_body_above_the_cap_is_refused() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &[]).await;

    let mut announced = sidecar.client().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: w\r\ncontent-length: {}\r\n\r\n",
        MAX_BODY + 1
    );
    announced.send(head.as_bytes()).await;
    assert_eq!(announced.response().await.0, 413);

    let mut chunked = sidecar.client().await;
    chunked
        .send(b"POST / HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let chunk = [&b"100000\r\n"[..], &[b'x'; 1 << 20], b"\r\n"].concat();
    for _ in 0..MAX_BODY >> 20 {
        chunked.send(&chunk).await;
    }
    chunked.send(b"1\r\nx\r\n").await;
    assert_eq!(chunked.response().await.0, 413);
}

#[tokio::test]
async fn any_split_of_a_request_gives_the_same() {
    let redis = Redis::start(&[]);
    let sidecar = Running::before(&redis, &[]).await;
    sidecar.post(&add_by_source("weir:any", 1)).await;
    let whole = request(&[add("weir:a", 0), add("weir:b", 0)].concat());
    let expected = (200, sum(0, 0).repeat(2));
    let mut client = sidecar.client().await;
    for size in [1, 2, 7, 50, whole.len()] {
        for piece in whole.chunks(size) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.response().await, expected, "pieces of {size}");
    }

    client
        .send(b"POST / HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for byte in add("weir:a", 0) {
        client.send(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']).await;
    }
    client.send(b"0\r\n\r\n").await;
    assert_eq!(client.response().await, (200, sum(0, 0)), "chunks");

    client.send(&whole.repeat(3)).await;
    for place in 0..3 {
        assert_eq!(client.response().await, expected, "pipelined, {place}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let sidecar = Running::with(&["--redis", "redis://127.0.0.1:1"]).await;
    for (line, status) in [
        ("GET / HTTP/1.1", 405),
        ("POST /healthz HTTP/1.1", 405),
        ("POST /x HTTP/1.1", 404),
        ("GET /metrics HTTP/1.1", 404),
    ] {
        let mut client = sidecar.client().await;
        client
            .send(format!("{line}\r\nhost: w\r\n\r\n").as_bytes())
            .await;
        let expected = (status, "POST / or GET /healthz\n".to_owned());
        assert_eq!(client.response().await, expected, "{line}");
    }
}

#[tokio::test]
async fn a_head_above_the_cap_is_refused() {
    let sidecar = Running::with(&["--redis", "redis://127.0.0.1:1"]).await;
    let mut client = sidecar.client().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: w\r\nx: {}\r\n\r\n",
        "x".repeat(64 << 10)
    );
    // It may answer and close before it has read all of it.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = client.stream.read_to_end(&mut answer).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        answer.escape_ascii()
    );
}
