//! What an access log of Envoy's finds of a decision.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;

use crate::visitor::{Visitor, number};
use crate::world::{SOON, World};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    each_request_has_a_line_that_tells_its_decision,
    without_an_access_log_nothing_is_left_for_one,
    what_weir_answers_is_told_from_what_the_upstream_does,
];

/// The lines of the log, each by the path that was asked for, once there are so many.
fn lines(log: &Path, count: usize) -> Vec<(String, Value)> {
    deadline::poll(SOON, "access log", || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Value> = lines.collect();
        Ok((lines.len() >= count).then_some(lines))
    })
    .unwrap()
    .into_iter()
    .map(|line| (line["path"].as_str().unwrap_or_default().to_owned(), line))
    .collect()
}

/// The fields of a decision.
fn decision(line: &Value) -> BTreeMap<String, String> {
    let told = line["weir"].as_str().unwrap_or_default();
    let fields = told.split(' ').filter_map(|field| field.split_once('='));
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn told(line: &Value, names: &[&str]) -> Vec<String> {
    let decision = decision(line);
    let value = |name: &&str| decision.get(*name).cloned().unwrap_or_default();
    names.iter().map(value).collect()
}

fn start(world: &World, redis: &Redis, policy: String) -> (Gateway, Scratch) {
    let scratch = Scratch::try_new("access-log").unwrap();
    let gateway = world.gateway().redis(redis).policy(Policy::Text(policy));
    let log = scratch.file("access.log");
    let gateway = gateway.variable("ACCESS_LOG", log.to_str().unwrap());
    (gateway.start().unwrap(), scratch)
}

fn each_request_has_a_line_that_tells_its_decision(world: &World) {
    let mut redis = Redis::start().unwrap();
    let (gateway, scratch) = start(world, &redis, include_str!("metrics.json").to_owned());
    let ann = Visitor::anonymous(&gateway).named("ann: x=y");
    for path in ["/hammered/first", "/hammered/second", "/hammered/third"] {
        ann.get(path);
    }
    let key = Visitor::anonymous(&gateway).with("X-API-Key", "k");
    key.get("/trial/x?a=b");
    let slow = Visitor::of_tier(&gateway, "free");
    for _ in 0..3 {
        assert_eq!(slow.get("/slow/x").status, 200);
    }
    Visitor::of_tier(&gateway, "free").get("/tried/x");
    Visitor::of_tier(&gateway, "free").get("/elsewhere");
    Visitor::anonymous(&gateway).named("banned").get("/blocked");
    redis.stop();
    let answer = Visitor::of_tier(&gateway, "free").get("/closed/x");
    assert_eq!((answer.status, number(&answer, "retry-after")), (503, 1));

    let lines = lines(&scratch.file("access.log"), 11);
    let of = |path: &str| {
        let own = lines.iter().rev().find(|(own, _)| own == path);
        &own.unwrap_or_else(|| panic!("{path} in {lines:?}")).1
    };
    let names = ["outcome", "source", "rule", "scope", "remaining", "subject"];
    for (path, status, expected) in [
        (
            "/hammered/first",
            200,
            [
                "allowed",
                "store",
                "hammered",
                "user",
                "0",
                "user:9627943d0fa8",
            ],
        ),
        (
            "/hammered/second",
            429,
            [
                "denied",
                "store",
                "hammered",
                "user",
                "0",
                "user:9627943d0fa8",
            ],
        ),
        ("/elsewhere", 200, ["unmatched", "", "", "", "", ""]),
        (
            "/blocked",
            403,
            ["blocked", "", "", "", "", "user:7b412527489f"],
        ),
    ] {
        let line = of(path);
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(told(line, &names), expected, "{line}");
    }
    let listed = told(of("/blocked"), &["list", "entry"]);
    assert_eq!(listed, ["deny.users", ""]);
    // The worker may know of the refusal.
    let third = of("/hammered/third");
    let source = &told(third, &["source"])[0];
    assert!(["cached", "store"].contains(&source.as_str()), "{third}");

    let waited: u64 = told(of("/hammered/first"), &["store_us"])[0]
        .parse()
        .unwrap();
    assert!((10..1_000_000).contains(&waited), "{waited}");
    let trial = told(of("/trial/x?a=b"), &["shadow_allowed", "subject"]);
    assert_eq!(trial, ["trial/user", "api_key:8254c329a928"]);
    let slow = told(of("/slow/x"), &["outcome", "warned"]);
    assert_eq!(slow, ["delayed", "slow/user"]);
    let delay: u64 = told(of("/slow/x"), &["delay_ms"])[0].parse().unwrap();
    assert!((1..=50).contains(&delay), "{delay}");
    let variant = &told(of("/tried/x"), &["variant"])[0];
    assert!(variant.starts_with("half.or.whole/"), "{variant}");
    let closed = told(of("/closed/x"), &["outcome", "source", "degraded"]);
    assert_eq!(closed, ["unavailable", "degraded", "deny"]);
}

fn without_an_access_log_nothing_is_left_for_one(world: &World) {
    let scratch = Scratch::try_new("access-log").unwrap();
    let log = scratch.file("access.log");
    // The log is on, and the filter is told that it is off.
    let gateway = world.gateway().variable("DECISIONS", "false");
    let gateway = gateway.variable("ACCESS_LOG", log.to_str().unwrap());
    let gateway = gateway.start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    assert_eq!(visitor.get("/api/v1/items").status, 200);
    let lines = lines(&log, 1);
    assert_eq!(lines[0].1["weir"], Value::Null, "{lines:?}");
}

fn what_weir_answers_is_told_from_what_the_upstream_does(world: &World) {
    let mut redis = Redis::start().unwrap();
    let window = 2_592_000;
    let fixed = |limit| json!({ "type": "fixed_window", "limit": limit, "window": window });
    let mut closed = fixed(9);
    closed["on_store_failure"] = "deny".into();
    let policy = json!({
        "status": {
            "limit": 2, "window": window,
            "operator_header": { "name": "X-Operator", "value": "only-operators-know-this" },
        },
        "deny": { "users": ["banned"] },
        "rules": [
            { "name": "once", "pattern": "/once/*", "user_limits": { "default": fixed(1) } },
            { "name": "costly", "pattern": "/costly/*", "user_limits": { "default": fixed(9) },
              "cost": { "request_header": "X-Cost", "default": 1, "max": 9 } },
            { "name": "closed", "pattern": "/closed/*", "user_limits": { "default": closed } },
        ],
    });
    let (gateway, scratch) = start(world, &redis, policy.to_string());
    let visitor = || Visitor::of_tier(&gateway, "free");
    let operator = Visitor::anonymous(&gateway).with("X-Operator", "only-operators-know-this");
    let nobody = Visitor::anonymous(&gateway);
    let (once, asker) = (visitor(), visitor());
    let status = |query: &str| format!("/api/v1/rate-limits/status{query}");
    let script = [
        (once.clone(), "/once/1".to_owned(), 200, "via_upstream"),
        (once, "/once/2".to_owned(), 429, "weir_denied{once}"),
        (
            visitor().with("x-answer-status", "429"),
            "/once/3".to_owned(),
            429,
            "via_upstream",
        ),
        (
            nobody.clone().named("banned"),
            "/banned".to_owned(),
            403,
            "weir_blocked",
        ),
        (
            visitor().named("two"),
            "/once/4".to_owned(),
            400,
            "weir_repeated_header{x-user-id}",
        ),
        (
            visitor().with("X-Cost", "much"),
            "/costly/1".to_owned(),
            400,
            "weir_unreadable_cost{x-cost}",
        ),
        (asker.clone(), status(""), 200, "weir_status"),
        (asker.clone(), status("?"), 200, "weir_status"),
        (asker.clone(), status("?&"), 429, "weir_status_denied"),
        (
            asker.clone(),
            status("?user_id=x"),
            403,
            "weir_operators_only",
        ),
        (nobody.clone(), status("?&&"), 400, "weir_no_identity"),
        (nobody.clone(), status("?b"), 400, "weir_bad_query"),
        (
            nobody.clone().with("X-Operator", "a guess"),
            status("?user_id=y"),
            403,
            "weir_wrong_secret",
        ),
        (
            nobody.clone().with("content-type", "application/grpc"),
            status("?c"),
            200,
            "weir_not_in_grpc",
        ),
        (operator.clone(), status("/gateway"), 200, "weir_gateway"),
        (operator, status("/page"), 200, "weir_page"),
        (asker, status("/gateway?"), 403, "weir_operators_only"),
    ];
    for (visitor, path, status, details) in &script {
        assert_eq!(visitor.get(path).status, *status, "{details}");
    }
    redis.stop();
    let closed = ("/closed/1".to_owned(), 503, "weir_unavailable");
    assert_eq!(visitor().get(&closed.0).status, closed.1);

    let lines = lines(&scratch.file("access.log"), script.len() + 1);
    let asked = script
        .into_iter()
        .map(|(_, path, status, details)| (path, status, details));
    for (path, status, details) in asked.chain([closed]) {
        let (_, line) = lines.iter().find(|(own, _)| *own == path).unwrap();
        assert_eq!(
            (&line["status"], &line["details"]),
            (&json!(status), &json!(details))
        );
    }
}
