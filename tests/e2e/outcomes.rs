//! Requests that cost what comes of them: failed logins, and the tokens of a model's answers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::{deadline, place};

use crate::visitor::{Visitor, number, unique};
use crate::world::{SOON, World, changed_configuration};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    only_failed_logins_count,
    tokens_of_whole_and_streamed_answers_count_over_two_gateways,
    whoever_overdraws_is_held_until_time_has_paid,
    whoever_hangs_up_before_the_last_event_pays_for_an_unfinished_answer,
];

/// What the status says is used of the caller's own limit.
fn used(visitor: &Visitor, rule: &str) -> u64 {
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    status["rate_limits"][rule]["current_usage"]
        .as_u64()
        .unwrap_or_else(|| panic!("{rule}: {status}"))
}

/// It is charged when the stream has ended, and nobody waits for that.
fn comes_to_use(visitor: &Visitor, rule: &str, expected: u64) {
    let is_so = || Ok((used(visitor, rule) == expected).then_some(()));
    deadline::poll(SOON, "charge", is_so)
        .unwrap_or_else(|_| panic!("{} of {rule}, not {expected}", used(visitor, rule)));
}

fn only_failed_logins_count(world: &World) {
    let policy = json!({ "rules": [{
        "name": "login", "pattern": "/login",
        "cost": { "response_status": { "401": 1, "403": 1, "5xx": 0 }, "default": 0 },
        "user_limits": { "default": { "type": "sliding_window", "limit": 3, "window": 3600 } }
    }] });
    let gateway = world.gateway().policy(Policy::Text(policy.to_string()));
    let gateway = gateway.start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    let login = |status: &str| {
        visitor
            .clone()
            .with("x-answer-status", status)
            .get("/login")
    };
    for (status, failures) in [("200", 0), ("401", 1), ("200", 1), ("503", 1), ("403", 2)] {
        assert_eq!(login(status).status.to_string(), status);
        comes_to_use(&visitor, "login", failures);
    }
    assert_eq!(number(&login("401"), "x-ratelimit-remaining"), 0);
    comes_to_use(&visitor, "login", 3);
    let reached = gateway.upstream().requests();
    for _ in 0..3 {
        let refused = login("200");
        assert_eq!(refused.status, 429);
        assert!(number(&refused, "retry-after") > 3000, "{refused:?}");
    }
    assert_eq!(gateway.upstream().requests(), reached);
    comes_to_use(&visitor, "login", 3);
}

/// A gateway with the filters of `envoy/llm-tokens.yaml`, and so many tokens in so many seconds.
fn model(world: &World, limit: u64, window: u64) -> Gateway {
    let filters = fs::read_to_string(place::envoy().join("llm-tokens.yaml")).unwrap();
    let router = "          - name: envoy.filters.http.router\n";
    let filters: String = filters
        .lines()
        .map(|line| format!("          {line}\n"))
        .collect();
    let folder = changed_configuration("tokens", |file, text| match file {
        "gateway.yaml" => text.replace(router, &format!("{filters}{router}")),
        _ => text,
    });
    let policy = json!({ "rules": [{
        "name": "tokens", "pattern": "/v1/*",
        "cost": { "metadata": ["io.envoy.ai_gateway", "llm_total_token"],
                  "default": 20, "max": 3000, "unfinished": 2500 },
        "user_limits": { "default": { "type": "token_bucket", "limit": limit, "window": window } }
    }] });
    let gateway = world.gateway().configuration(folder.path());
    let gateway = gateway.policy(Policy::Text(policy.to_string()));
    gateway.start().unwrap()
}

/// A chat completion that uses so many tokens.
fn completion(visitor: &Visitor, accept: &str, tokens: &str) -> u16 {
    let request = visitor.request("POST", "/v1/chat/completions");
    let request = request.header("accept", accept);
    request
        .header("x-uses-tokens", tokens)
        .send()
        .unwrap()
        .status
}

const STREAMED: &str = "text/event-stream";
const WHOLE: &str = "application/json";

fn tokens_of_whole_and_streamed_answers_count_over_two_gateways(world: &World) {
    let gateways = [(); 2].map(|()| model(world, 100_000, 30 * 24 * 3600));
    let visitor = Visitor::of_tier(&gateways[0], "free");
    let elsewhere = visitor.elsewhere(&gateways[1]);
    let mut total = 0;
    for (number, accept) in [WHOLE, STREAMED, STREAMED, WHOLE].into_iter().enumerate() {
        let visitor = if number % 2 == 0 {
            &visitor
        } else {
            &elsewhere
        };
        assert_eq!(completion(visitor, accept, "345"), 200, "{accept}");
        total += 345;
        comes_to_use(visitor, "tokens", total);
    }
    // An answer that tells nothing.
    assert_eq!(visitor.get("/v1/models").status, 200);
    comes_to_use(&elsewhere, "tokens", total + 20);
    assert_eq!(completion(&visitor, STREAMED, "99999"), 200);
    comes_to_use(&elsewhere, "tokens", total + 20 + 3000);
}

fn whoever_overdraws_is_held_until_time_has_paid(world: &World) {
    let gateways = [(); 2].map(|()| model(world, 1000, 5));
    let visitor = Visitor::of_tier(&gateways[0], "free");
    let elsewhere = visitor.elsewhere(&gateways[1]);
    let begun = Instant::now();
    assert_eq!(completion(&visitor, STREAMED, "2000"), 200);
    // A thousand are owed, and twenty wanted: at 200 a second.
    let refused = || Ok((completion(&elsewhere, STREAMED, "1") == 429).then_some(()));
    deadline::poll(SOON, "refusal", refused).unwrap();
    let passes = || Ok((completion(&elsewhere, STREAMED, "1") == 200).then_some(()));
    deadline::poll(SOON, "end of the debt", passes).unwrap();
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(4_900), "{waited:?}");
}

fn whoever_hangs_up_before_the_last_event_pays_for_an_unfinished_answer(world: &World) {
    let gateway = model(world, 100_000, 30 * 24 * 3600);
    let id = unique("impatient");
    let visitor = Visitor::anonymous(&gateway).named(&id);
    let mut connection = TcpStream::connect(gateway.address()).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    let request = format!(
        "GET /v1/x HTTP/1.1\r\nhost: x\r\nx-user-id: {id}\r\naccept: {STREAMED}\r\n\
         x-answer-after-ms: 60000\r\nx-uses-tokens: 9\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut some = [0; 1024];
    while !seen.windows(6).any(|bytes| bytes == b"data: ") {
        let size = connection.read(&mut some).unwrap();
        assert_ne!(size, 0, "the answer ended");
        seen.extend_from_slice(&some[..size]);
    }
    assert_eq!(used(&visitor, "tokens"), 20, "held");
    drop(connection);
    comes_to_use(&visitor, "tokens", 2500);
}
