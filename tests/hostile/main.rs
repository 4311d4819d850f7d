//! Requests that are written to be somebody else, somewhere else or nobody at all, through a real
//! Envoy.

mod waiting;

use std::fs;

use serde_json::{Value, json};
use weir_lab::client::Answer;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;
use weir_lab::sidecar::Sidecar;

const OPERATOR: &str = "an operator's own secret";

fn gateway(redis: &Redis) -> Gateway {
    let limit = |limit: u64| json!({ "type": "fixed_window", "limit": limit, "window": 86_400 });
    let policy = json!({
        "rules": [
            { "name": "host", "pattern": "/host", "hosts": ["api.example.com"], "global_limit": limit(1000) },
            { "name": "once", "pattern": "/once/*", "user_limits": { "default": limit(1) } },
            { "name": "api", "pattern": "/api/*", "user_limits": { "default": limit(500) } },
        ],
        "status": { "operator_header": { "name": "X-Operator", "value": OPERATOR } },
    });
    Gateway::builder()
        .redis(redis)
        .policy(Policy::Text(policy.to_string()))
        .timeout_ms(1000)
        .start()
        .unwrap()
}

/// Whether a sidecar that asks for this secret served a gateway that sends that one.
fn is_served(redis: &Redis, asked: &str, sent: &str) -> bool {
    let scratch = Scratch::try_new("secret").unwrap();
    let file = scratch.file("secret");
    fs::write(&file, asked).unwrap();
    let url = redis.url();
    let arguments = ["--redis", &url, "--secret-file", file.to_str().unwrap()];
    let sidecar = Sidecar::start_with(&arguments, 50, None).unwrap();
    let gateway = Gateway::builder()
        .redis(redis)
        .variable("STORE", "sidecar")
        .variable("SIDECAR_HOST", "127.0.0.1")
        .variable("SIDECAR_PORT", &sidecar.address().port().to_string())
        .variable("STORE_SECRET", sent)
        .timeout_ms(1000)
        .start()
        .unwrap();
    let answer = gateway.client().get("/api/v1/x").send().unwrap();
    assert_eq!(answer.status, 200);
    assert!(!gateway.log().contains(sent));
    answer.header("x-weir-degraded").is_none()
}

#[test]
fn a_sidecar_that_asks_for_a_secret_serves_who_knows_it() {
    let redis = Redis::start().unwrap();
    let secret = "between gateway and sidecar";
    assert!(is_served(&redis, secret, secret));
    assert!(!is_served(&redis, secret, "a guess at that secret"));
}

fn upstream_saw(answer: &Answer, header: &str) -> Vec<Value> {
    let told = answer.json().unwrap();
    let headers = told["headers"].as_array().unwrap();
    let same = headers.iter().filter(|pair| pair[0] == header);
    same.map(|pair| pair[1].clone()).collect()
}

#[test]
fn hostile_requests_gain_nothing() {
    let redis = Redis::start().unwrap();
    let gateway = gateway(&redis);
    a_rule_for_a_host_is_for_every_spelling_of_it(&gateway);
    a_refusal_is_never_a_success(&gateway);
    spellings_of_a_header_are_one_caller(&gateway);
    a_body_waits_for_the_verdict_and_arrives_whole(&gateway);
    the_status_call_is_one_path_and_one_method(&gateway);
    the_operators_secret_stays_with_weir(&gateway);
    an_api_key_is_told_to_the_upstream_and_nobody_else(&gateway, &redis);
    other_methods_are_requests_too(&gateway);
}

fn a_rule_for_a_host_is_for_every_spelling_of_it(gateway: &Gateway) {
    for host in [
        "api.example.com",
        "API.Example.COM",
        "api.example.com:80",
        "api.example.com.",
        "api.example.com.:8080",
        "api.example.com:http",
        "ann@api.example.com",
        "ann:secret@api.example.com",
    ] {
        let answer = gateway.client().get("/host").header("host", host).send();
        let limit = answer.unwrap().header("x-ratelimit-limit");
        assert_eq!(limit.as_deref(), Some("1000"), "{host}");
    }
    // The host in an absolute target is the one that counts.
    for (target, host, limited) in [
        ("http://api.example.com/host", "other", true),
        ("http://other/host", "api.example.com", false),
    ] {
        let answer = gateway.client().get(target).header("host", host).send();
        let limit = answer.unwrap().header("x-ratelimit-limit");
        assert_eq!(limit.is_some(), limited, "{target}");
    }
}

fn a_refusal_is_never_a_success(gateway: &Gateway) {
    for (number, content_type) in [
        "text/plain",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc;x",
        "application/grpc, text/plain",
        "APPLICATION/GRPC",
    ]
    .iter()
    .enumerate()
    {
        let ask = || {
            let request = gateway
                .client()
                .post("/once/grpc", "x")
                .header("x-user-id", format!("grpc{number}"))
                .header("content-type", content_type)
                .send();
            request.unwrap().status
        };
        assert_eq!([ask(), ask()], [200, 429], "{content_type}");
    }
}

fn spellings_of_a_header_are_one_caller(gateway: &Gateway) {
    let ask = |name: &str, id: &str| {
        let answer = gateway.client().get("/once/header").header(name, id).send();
        answer.unwrap().status
    };
    assert_eq!(ask("x-user-id", "bob"), 200);
    for (name, id) in [
        ("X-USER-ID", "bob"),
        ("x-User-Id", "   bob \t "),
        ("x-user-id", "\tbob"),
    ] {
        assert_eq!(ask(name, id), 429, "{name}: {id:?}");
    }
    // Envoy would fold a repeated header of some names into one with commas; that is one id too.
    assert_eq!(ask("x-user-id", "bob,carol"), 200);
    assert_eq!(ask("x-user-id", "bob, carol"), 200);
    assert_eq!(ask("x-user-id", "bob,carol"), 429);
    // Of a folded line Envoy makes one value, the same for Weir and for the upstream.
    let client = gateway.client();
    let folded = client
        .get("/once/header")
        .header("x-user-id", "bob\r\n dave");
    let seen = upstream_saw(&folded.send().unwrap(), "x-user-id");
    assert_eq!(seen.len(), 1);
    assert_eq!(ask("x-user-id", seen[0].as_str().unwrap()), 429, "{seen:?}");
    // A space before the colon is refused by Envoy itself.
    assert_eq!(ask("x-user-id ", "bob"), 400);
}

fn a_body_waits_for_the_verdict_and_arrives_whole(gateway: &Gateway) {
    let client = gateway.client();
    // Above what Envoy buffers for a connection, 1 MiB.
    let body = vec![b'x'; 5 << 20];
    let request = client
        .post("/once/body", &body)
        .header("x-user-id", "heavy");
    assert_eq!(
        request.send().unwrap().json().unwrap()["body_bytes"],
        body.len()
    );
    let before = gateway.upstream().requests();
    let refused = client
        .post("/once/body", b"small")
        .header("x-user-id", "heavy");
    assert_eq!(refused.send().unwrap().status, 429);
    let chunked = client
        .post("/once/body", "3\r\nabc\r\n0\r\nx-user-id: light\r\n\r\n")
        .header("transfer-encoding", "chunked")
        .header("content-length", "0");
    // Both framings at once are how requests are smuggled.
    assert_eq!(
        chunked.header("x-user-id", "heavy").send().unwrap().status,
        400
    );
    assert_eq!(gateway.upstream().requests(), before);
}

fn the_status_call_is_one_path_and_one_method(gateway: &Gateway) {
    let ask = |method: &str, target: &str| {
        let client = gateway.client();
        let request = client.request(method, target).header("x-user-id", "ann");
        request.send().unwrap()
    };
    for target in [
        "/api/v1/rate-limits/status",
        "/api/v1/rate-limits/%73tatus",
        "/api//v1/./rate-limits/x/../status",
        "/api/v1/rate-limits/status?user_id=%61nn",
    ] {
        assert_eq!(
            ask("GET", target).json().unwrap()["user_id"],
            "ann",
            "{target}"
        );
    }
    for (query, status) in [
        ("user_id=ann&user_id=bob", 400),
        ("user_id=bob&user_id=ann", 400),
        ("%75ser_id=bob", 403),
        ("user_id=ann;user_id=bob", 403),
        ("user_id=ann%26user_id=bob", 403),
        ("address=127.0.0.1", 403),
        ("user%00_id=ann", 400),
    ] {
        let target = format!("/api/v1/rate-limits/status?{query}");
        let answer = ask("GET", &target);
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    for (method, target) in [
        ("HEAD", "/api/v1/rate-limits/status"),
        ("OPTIONS", "/api/v1/rate-limits/status"),
        ("GET", "/api/v1/rate-limits/status/"),
        ("GET", "/api/v1/rate-limits/STATUS"),
        ("GET", "/api/v1/rate-limits%252Fstatus"),
    ] {
        let answer = ask(method, target);
        let limit = answer.header("x-ratelimit-limit");
        assert_eq!(
            limit.as_deref(),
            Some("500"),
            "{method} {target} is limited like others"
        );
    }
}

fn the_operators_secret_stays_with_weir(gateway: &Gateway) {
    let client = gateway.client();
    for path in ["/api/x", "/without/a/rule"] {
        let request = client.get(path).header("X-Operator", OPERATOR);
        assert!(
            upstream_saw(&request.send().unwrap(), "x-operator").is_empty(),
            "{path}"
        );
        // However often, and whatever comes with it: an upstream that shows what it gets must not
        // tell either whether a guess was right.
        for sent in [
            vec![OPERATOR, OPERATOR],
            vec!["x", OPERATOR],
            vec![OPERATOR, "x", ""],
            vec!["a guess"],
        ] {
            let request = client.get(path);
            let request = sent.iter().fold(request, |request, value| {
                request.header("X-Operator", value)
            });
            let saw = upstream_saw(&request.send().unwrap(), "x-operator");
            assert!(saw.is_empty(), "{path} {sent:?}: {saw:?}");
        }
    }
    let status = client
        .get("/api/v1/rate-limits/status?user_id=ann")
        .header("X-Operator", OPERATOR);
    assert_eq!(status.send().unwrap().json().unwrap()["user_id"], "ann");
    assert!(!gateway.log().contains(OPERATOR));
}

fn an_api_key_is_told_to_the_upstream_and_nobody_else(gateway: &Gateway, redis: &Redis) {
    const KEY: &str = "sk-live-4f9a1c77e2d0";
    let client = gateway.client();
    let ask = |path| client.get(path).header("X-API-Key", KEY).send().unwrap();
    let (passed, refused) = (ask("/once/key"), ask("/once/key"));
    assert_eq!(upstream_saw(&passed, "x-api-key"), [KEY]);
    assert_eq!(refused.status, 429);
    let status = ask("/api/v1/rate-limits/status");
    let keys = format!("{:?}", redis.command(&["KEYS", "*"]).unwrap());
    assert!(keys.contains("{k:"), "{keys}");
    let told = [
        format!("{:?}", passed.headers),
        format!("{:?} {}", refused.headers, refused.text()),
        format!("{:?} {}", status.headers, status.text()),
        gateway.log(),
        gateway.admin().get("/stats").send().unwrap().text(),
        keys,
    ];
    for text in told {
        assert!(!text.contains(KEY), "{text}");
    }
}

fn other_methods_are_requests_too(gateway: &Gateway) {
    let ask = |method: &str, path: &str, upgrade: &str| {
        let client = gateway.client();
        let request = client
            .request(method, path)
            .header("x-user-id", format!("{method}{upgrade}"));
        let request = match upgrade {
            "" => request,
            upgrade => request
                .header("connection", "upgrade")
                .header("upgrade", upgrade),
        };
        request.send().unwrap().status
    };
    for method in ["HEAD", "OPTIONS", "DELETE", "PATCH", "PURGE", "TRACE"] {
        assert_eq!(
            [ask(method, "/once/m", ""), ask(method, "/once/m", "")],
            [200, 429]
        );
    }
    // Not configured in this gateway, and so refused by Envoy whatever Weir says.
    assert_eq!(ask("GET", "/once/ws", "websocket"), 403);
    assert!((400..500).contains(&ask("CONNECT", "example.com:443", "")));
    // And it is still there.
    assert_eq!(ask("GET", "/once/after", ""), 200);
}
