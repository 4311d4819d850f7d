//! Requests that Envoy sends on by itself: internal redirects, and copies to a mirror.

use serde_json::{Value, json};
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};

use crate::visitor::{Visitor, remaining};
use crate::world::{SOON, World, changed_configuration};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    a_redirected_request_counts_once_for_each_rule,
    what_a_redirected_request_costs_its_last_response_says,
    a_client_that_says_it_was_redirected_counts,
    a_mirrored_request_counts_once,
];

fn fixed(limit: u64) -> Value {
    json!({ "type": "fixed_window", "limit": limit, "window": 2_592_000 })
}

fn start(world: &World, route: &str, rules: &Value) -> Gateway {
    let folder = changed_configuration("redirects", |_, text| {
        text.replace("route: { cluster: upstream }", route)
    });
    let gateway = world.gateway().configuration(folder.path()).workers(1);
    let policy = json!({ "rules": rules }).to_string();
    gateway.policy(Policy::Text(policy)).start().unwrap()
}

const REDIRECT: &str =
    "route: { cluster: upstream, internal_redirect_policy: { max_internal_redirects: 2 } }";

/// Whoever asks for anything is redirected to that path, until Envoy has done so twice.
fn redirected(gateway: &Gateway, to: &str) -> Visitor {
    let visitor = Visitor::of_tier(gateway, "free").with("x-answer-status", "302");
    let location = format!("http://{}{to}", gateway.address());
    visitor.with("x-answer-location", location)
}

fn a_redirected_request_counts_once_for_each_rule(world: &World) {
    let rules = json!([
        { "name": "all", "pattern": "/*", "user_limits": { "default": fixed(100) } },
        { "name": "tried", "pattern": "/*", "mode": "shadow",
          "user_limits": { "default": fixed(1) } },
        { "name": "scarce", "pattern": "/scarce", "user_limits": { "default": fixed(2) } },
    ]);
    let gateway = start(world, REDIRECT, &rules);
    let visitor = redirected(&gateway, "/to");
    for number in 1..=3 {
        let answer = visitor.get("/from");
        assert_eq!((answer.status, remaining(&answer)), (302, 100 - number));
        assert_eq!(gateway.upstream().requests(), 3 * number);
    }
    // It meets a limit that it had not met before, and is refused there.
    let scarce = redirected(&gateway, "/scarce");
    for (status, left) in [(302, 1), (302, 0), (429, 0)] {
        let answer = scarce.get("/from");
        assert_eq!((answer.status, remaining(&answer)), (status, left));
    }
    let answer = redirected(&gateway, "/to").get("/scarce");
    assert_eq!((answer.status, remaining(&answer)), (302, 1));
    // A request that was redirected twice is one decision; the one that was refused at its second stop
    // is two.
    let told = |outcome: &str| {
        let name = format!("wasmcustom.weir.decisions_total.outcome.{outcome}");
        gateway.stat(&name).unwrap().unwrap_or(0)
    };
    deadline::poll(SOON, "decisions", || {
        let all = ["allowed", "denied", "unmatched"].map(told);
        Ok((all == [9, 1, 0]).then_some(()))
    })
    .unwrap_or_else(|_| panic!("{:?}", ["allowed", "denied", "unmatched"].map(told)));
}

fn what_a_redirected_request_costs_its_last_response_says(world: &World) {
    let rules = json!([
        { "name": "all", "pattern": "/*", "user_limits": { "default": fixed(100) },
          "cost": { "response_header": "X-Used", "default": 1, "max": 50 } },
    ]);
    let gateway = start(world, REDIRECT, &rules);
    let visitor = redirected(&gateway, "/to").with("x-answer-x-used", "20");
    for left in [80, 60] {
        let answer = visitor.get("/from");
        assert_eq!((answer.status, remaining(&answer)), (302, left));
        deadline::poll(SOON, "charge", || {
            let status = visitor.get("/api/v1/rate-limits/status").json()?;
            let used = &status["rate_limits"]["all"]["current_usage"];
            Ok((*used == 100 - left).then_some(()))
        })
        .unwrap();
    }
}

fn a_client_that_says_it_was_redirected_counts(world: &World) {
    let rules = json!([
        { "name": "all", "pattern": "/*", "user_limits": { "default": fixed(100) } },
    ]);
    let gateway = start(world, REDIRECT, &rules);
    let visitor = Visitor::of_tier(&gateway, "free");
    let visitor = visitor.with("x-envoy-original-url", "http://x/from");
    for left in [99, 98] {
        assert_eq!(remaining(&visitor.get("/to")), left);
    }
    // Nor does a redirect on the same connection speak for anybody else, or for a second request.
    let other = redirected(&gateway, "/to").over(&visitor);
    let visitor = visitor.over(&other);
    let answer = redirected(&gateway, "/to").over(&other).get("/from");
    assert_eq!((answer.status, remaining(&answer)), (302, 99));
    assert_eq!(remaining(&visitor.get("/to")), 97);
}

fn a_mirrored_request_counts_once(world: &World) {
    let mirror = "route: { cluster: upstream, request_mirror_policies: [{ cluster: upstream }] }";
    let rules = json!([
        { "name": "all", "pattern": "/*", "user_limits": { "default": fixed(100) } },
    ]);
    let gateway = start(world, mirror, &rules);
    let visitor = Visitor::of_tier(&gateway, "free");
    for number in 1..=3 {
        let answer = visitor.get("/x");
        assert_eq!((answer.status, remaining(&answer)), (200, 100 - number));
    }
    let requests = || Ok((gateway.upstream().requests() == 6).then_some(()));
    deadline::poll(SOON, "copies at the mirror", requests).unwrap();
    assert_eq!(remaining(&visitor.get("/x")), 96);
}
