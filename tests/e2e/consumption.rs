//! All or nothing: what a request takes, and that a refused one takes nothing.

use std::collections::BTreeMap;

use crate::keys::{self, Held};
use crate::visitor::{Visitor, number, remaining, unique};
use crate::world::World;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    a_request_that_a_later_rule_refuses_consumes_nothing,
    a_request_that_an_earlier_rule_refuses_consumes_nothing,
    a_request_that_its_address_is_refused_consumes_nothing,
    a_list_of_limits_holds_as_its_tightest,
    the_first_limit_that_fails_is_told_and_the_longest_wait,
];

fn a_request_that_a_later_rule_refuses_consumes_nothing(world: &World) {
    consumes_nothing_once_refused(world, "tight_last", "/pair/tight-last/x");
}

fn a_request_that_an_earlier_rule_refuses_consumes_nothing(world: &World) {
    consumes_nothing_once_refused(world, "tight_first", "/pair/tight-first/x");
}

/// Three requests pass; the rule `pair` has counters of every scope and algorithm beside.
fn consumes_nothing_once_refused(world: &World, tight: &str, path: &str) {
    let id = unique("pair");
    let visitor = Visitor::anonymous(world.workshop()).named(&id);
    let own = [format!("u:{id}"), format!("a:{}", visitor.address)];
    let own = own.each_ref().map(String::as_str);
    for left in [2, 1, 0] {
        assert_eq!(remaining(&visitor.get(path)), left);
    }
    let before = values(keys::of(world.redis(), &own));
    assert_eq!(before.len(), 4, "{before:?}");
    for _ in 0..5 {
        let answer = visitor.get(path);
        assert_eq!(answer.status, 429);
        assert_eq!(answer.json().unwrap()["details"]["rule"], tight);
    }
    assert_eq!(values(keys::of(world.redis(), &own)), before);

    // The status says the same, and so does the next request that passes.
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    let limits = status["rate_limits"]["pair"]["limits"]
        .as_array()
        .unwrap()
        .clone();
    let own = limits.iter().filter(|limit| limit["scope"] != "global");
    let used: Vec<_> = own
        .map(|limit| limit["current_usage"].as_u64().unwrap())
        .collect();
    assert_eq!(used, [3, 3, 3], "{limits:?}");
    assert_eq!(remaining(&visitor.get("/pair/x")), 50 - 4);
}

fn a_request_that_its_address_is_refused_consumes_nothing(world: &World) {
    let gateway = world.reference();
    let id = unique("mover");
    let visitor = Visitor::anonymous(gateway).named(&id).tier("premium");
    for _ in 0..200 {
        assert_eq!(visitor.get("/api/v1/items").status, 200);
    }
    let own = format!("u:{id}");
    let before = values(keys::of(world.redis(), &[&own]));
    for _ in 0..3 {
        let answer = visitor.get("/api/v1/items");
        assert_eq!(answer.json().unwrap()["details"]["scope"], "ip");
    }
    assert_eq!(values(keys::of(world.redis(), &[&own])), before);
    // Elsewhere the same user goes on: 200 requests were counted, not 203.
    let elsewhere = visitor.elsewhere(gateway);
    assert_eq!(remaining(&elsewhere.get("/api/v1/items")), 199);
    let status = elsewhere.get("/api/v1/rate-limits/status").json().unwrap();
    assert_eq!(status["rate_limits"]["general_api"]["current_usage"], 201);
}

fn a_list_of_limits_holds_as_its_tightest(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    for left in (0..5).rev() {
        let answer = visitor.get("/list/x");
        let shown = (
            answer.status,
            number(&answer, "x-ratelimit-limit"),
            remaining(&answer),
        );
        assert_eq!(shown, (200, 5, left));
    }
    let details = visitor.get("/list/x").json().unwrap()["details"].clone();
    assert_eq!(
        (&details["limit"], &details["window"]),
        (&5.into(), &86_400.into())
    );
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    let limits = status["rate_limits"]["list"]["limits"].as_array().unwrap();
    let used: Vec<_> = limits
        .iter()
        .map(|limit| limit["current_usage"].as_u64())
        .collect();
    assert_eq!(used, [Some(5); 3]);
}

fn the_first_limit_that_fails_is_told_and_the_longest_wait(world: &World) {
    let visitor = Visitor::of_tier(world.workshop(), "free");
    for _ in 0..2 {
        assert_eq!(visitor.get("/waits/x").status, 200);
    }
    let answer = visitor.get("/waits/x");
    let body = answer.json().unwrap();
    assert_eq!(
        (answer.status, &body["details"]["window"]),
        (429, &600.into())
    );
    let (own, whole) = (
        &body["details"]["retry_after"],
        number(&answer, "retry-after"),
    );
    assert!((590..=600).contains(&own.as_u64().unwrap()), "{body}");
    assert!((3590..=3600).contains(&whole), "{answer:?}");
    assert_eq!(body["retry_after"], whole);
}

/// Without when they end: that is told to the millisecond, and read a little apart.
fn values(held: BTreeMap<String, Held>) -> BTreeMap<String, String> {
    held.into_iter()
        .map(|(key, held)| (key, held.value))
        .collect()
}
