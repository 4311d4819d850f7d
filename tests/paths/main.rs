//! Paths that are written to deceive, through a real Envoy: what it routes as P must meet Weir's
//! rules for P, however it was sent.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use weir_core::request::path::normalise;
use weir_core::request::reading;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

const PATHS: usize = 600;

/// The pieces that paths are made of: each means something to somebody on the way.
const PIECES: [&str; 44] = [
    "/",
    "/",
    "/",
    "//",
    "/./",
    "/../",
    "/..",
    "/.",
    ".",
    "..",
    "...",
    "api",
    "v1",
    "auth",
    "login",
    "/api/v1/auth/",
    "/api/",
    "%61pi",
    "%2e",
    "%2E%2e",
    "%2F",
    "%2f",
    "%5C",
    "\\",
    "%",
    "%%32e",
    "%2%65",
    "%252e",
    "%25",
    "%00",
    "%7e",
    "~",
    "%c3%a9",
    "%ff",
    ";",
    "..;x",
    "%2e%2e;",
    "?",
    "?q=/../",
    "\"",
    "|",
    "A",
    "%41",
    "%3f",
];

/// The limits tell the rules apart: an answer shows the one with the fewest requests left.
const AUTH_LIMIT: u64 = 1_000_000;
const API_LIMIT: u64 = 2_000_000;

fn policy() -> Policy {
    let rule = |name, pattern, limit| {
        json!({
            "name": name, "pattern": pattern,
            "global_limit": { "type": "fixed_window", "limit": limit, "window": 86_400 },
        })
    };
    let rules = json!({ "rules": [
        rule("auth", "/api/v1/auth/*", AUTH_LIMIT),
        rule("api", "/api/*", API_LIMIT),
    ] });
    Policy::Text(rules.to_string())
}

/// The tightest limit for a path that Envoy routes by, in any way in which a server may read it.
fn expected_limit(path: &[u8]) -> Option<u64> {
    let mut readings = reading::others(path);
    readings.push(path.to_vec());
    let of = |reading: &Vec<u8>| {
        let directory = [reading.as_slice(), b"/"].concat();
        if directory.starts_with(b"/api/v1/auth/") {
            Some(AUTH_LIMIT)
        } else if directory.starts_with(b"/api/") {
            Some(API_LIMIT)
        } else {
            None
        }
    };
    readings.iter().filter_map(of).min()
}

/// As shipped, Envoy unescapes these before all else.
fn unescape_slashes(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let path = path.replace("%2F", "/").replace("%2f", "/");
    path.replace("%5C", "\\").replace("%5c", "\\") + query
}

#[test]
fn what_envoy_routes_meets_the_rules_for_it() {
    let redis = Redis::start().unwrap();
    let gateway = Gateway::builder()
        .redis(&redis)
        .policy(policy())
        .timeout_ms(1000)
        .start()
        .unwrap();
    let client = gateway.client();
    let (mut routed, mut limited, mut wrong) = (0, 0, Vec::new());
    for target in targets() {
        let answer = client.get(&target).send().unwrap();
        if answer.status != 200 {
            assert_eq!(answer.status, 400, "{target}");
            continue;
        }
        let seen = answer.json().unwrap()["path"].as_str().unwrap().to_owned();
        let seen = seen.split('?').next().unwrap_or_default();
        let limit = answer
            .header("x-ratelimit-limit")
            .map(|limit| limit.parse().unwrap());
        if limit != expected_limit(seen.as_bytes()) {
            wrong.push(format!("{target}: routed as {seen}, limited by {limit:?}"));
        }
        let again = normalise(seen.as_bytes());
        if again != seen.as_bytes() && !is_only_slashes(seen) {
            wrong.push(format!("{target}: {seen} became {}", again.escape_ascii()));
        }
        let unescaped = unescape_slashes(&target);
        let own = normalise(unescaped.as_bytes());
        if own != seen.as_bytes() && !is_only_slashes(seen) && !has_parameters_on_dots(&unescaped) {
            wrong.push(format!(
                "{target}: {seen} for Envoy, {}",
                own.escape_ascii()
            ));
        }
        routed += 1;
        limited += usize::from(limit.is_some());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        routed > PATHS / 2 && limited > PATHS / 10,
        "{routed} {limited}"
    );
}

/// The same ones in each run.
fn targets() -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let start = prop::sample::select(vec!["/", "/api/", "/api/v1/auth/"]);
    let pieces = prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..9);
    let targets = (start, pieces).prop_map(|(start, pieces)| start.to_owned() + &pieces.concat());
    let new = |_| targets.new_tree(&mut runner).unwrap().current();
    (0..PATHS).map(new).collect()
}

/// Envoy merges these into two slashes and not one; no rule is written for that.
fn is_only_slashes(path: &str) -> bool {
    path.bytes().all(|byte| byte == b'/')
}

/// `/..;x/` is `/../` for an Envoy of 1.40 and a plain segment for one of 1.36. Both write to Weir
/// what they made of it.
fn has_parameters_on_dots(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.split('/')
        .any(|segment| segment.starts_with(".;") || segment.starts_with("..;"))
}
