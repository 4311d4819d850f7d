//! The status call: it looks and takes nothing.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use weir_lab::client::Answer;

use crate::{
    Case, cases, keys,
    visitor::{Visitor, number, remaining, tells_limits, unique},
    world::{World, now, wait_for_room},
};

pub const CASES: &[Case] = cases![
    usage_is_what_was_used_and_asking_takes_nothing,
    the_answer_has_these_fields,
    every_spelling_of_the_path_is_the_status_call,
    other_methods_are_requests_like_any_other,
    polling_has_a_limit_of_its_own,
    nobody_has_no_status,
    an_api_key_has_a_status,
    others_are_for_operators_only,
    an_id_of_any_bytes_can_be_asked_about,
];

const PATH: &str = "/api/v1/rate-limits/status";
const SECRET: &str = "only-operators-know-this";

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("content-type").as_deref(),
        Some("application/json")
    );
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    answer.json().unwrap()
}

fn used(status: &Value, rule: &str) -> u64 {
    status["rate_limits"][rule]["current_usage"]
        .as_u64()
        .unwrap_or_else(|| panic!("{rule}: {status}"))
}

fn usage_is_what_was_used_and_asking_takes_nothing(world: &World) {
    let gateway = world.reference();
    let id = unique("asker");
    let visitor = Visitor::anonymous(gateway).named(&id);
    for (path, times) in [
        ("media/upload", 2),
        ("auth/login", 3),
        ("search", 7),
        ("items", 4),
    ] {
        for _ in 0..times {
            assert_eq!(visitor.get(format!("/api/v1/{path}")).status, 200);
        }
    }
    let own = [format!("u:{id}"), format!("a:{}", visitor.address)];
    let own = own.each_ref().map(String::as_str);
    let counters = || {
        let mut counters = keys::of(world.redis(), &own);
        counters.retain(|key, _| !key.contains("}::"));
        counters
            .into_iter()
            .map(|(key, held)| (key, held.value))
            .collect::<Vec<_>>()
    };
    let before = counters();
    for _ in 0..3 {
        let status = ok(&visitor.get(PATH));
        assert_eq!(used(&status, "upload_api"), 2);
        // No limit for a free user here: the address's is told.
        assert_eq!(used(&status, "auth_api"), 3);
        // One leaks every second.
        assert!((1..=7).contains(&used(&status, "search_api")), "{status}");
        assert_eq!(used(&status, "general_api"), 16);
        assert_eq!(status["rate_limits"]["general_api"]["remaining"], 84);
    }
    assert_eq!(counters(), before);
    assert_eq!(remaining(&visitor.get("/api/v1/items")), 83);
    // From elsewhere the user's usage is the same, and the address's is not.
    let status = ok(&visitor.elsewhere(gateway).get(PATH));
    assert_eq!(
        (used(&status, "general_api"), used(&status, "auth_api")),
        (17, 0)
    );
}

fn the_answer_has_these_fields(world: &World) {
    let visitor = Visitor::anonymous(world.reference()).named("Ann: {a} \"b\"");
    let visitor = visitor.tier("enterprise");
    visitor.get("/api/v1/media/upload");
    let status = ok(&visitor.get(PATH));
    assert_eq!(
        (&status["user_id"], &status["user_tier"]),
        (&json!("Ann: {a} \"b\""), &json!("enterprise"))
    );
    let fields = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let set =
        |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&n| n.to_owned()).collect() };
    assert_eq!(
        fields(&status),
        set(&[
            "user_id",
            "user_tier",
            "rate_limits",
            "policy_version",
            "timestamp"
        ])
    );
    let rules = set(&["auth_api", "upload_api", "search_api", "general_api"]);
    assert_eq!(fields(&status["rate_limits"]), rules);
    for rule in rules {
        for field in [
            "limit",
            "window",
            "current_usage",
            "remaining",
            "retry_after",
            "reset",
        ] {
            assert!(
                status["rate_limits"][&rule][field].is_u64(),
                "{rule} {field}: {status}"
            );
        }
    }
    let upload = &status["rate_limits"]["upload_api"];
    let numbers = ["limit", "window", "type", "retry_after"].map(|field| upload[field].clone());
    assert_eq!(
        numbers,
        [json!(1000), json!(3600), json!("token_bucket"), json!(0)]
    );
    let clock = now().as_secs();
    let told = status["timestamp"].as_u64().unwrap();
    assert!(told.abs_diff(clock) <= 2, "{told} at {clock}");
}

fn every_spelling_of_the_path_is_the_status_call(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    for path in [
        "//api/v1/rate-limits/status",
        "/api/v1/x/../rate-limits/status",
        "/api//../v1/rate-limits/status",
        "/api/v1/rate-limits/%73tatus",
        "/api/v1\\rate-limits/status",
        "/api/v1/rate-limits/status?x=1",
    ] {
        assert!(ok(&visitor.get(path))["rate_limits"].is_object(), "{path}");
    }
}

fn other_methods_are_requests_like_any_other(world: &World) {
    let visitor = Visitor::of_tier(world.reference(), "free");
    for (method, path) in [("POST", PATH), ("GET", "/api/v1/rate-limits/status/")] {
        let answer = visitor.request(method, path).send().unwrap();
        assert!(
            answer.status == 200 && tells_limits(&answer),
            "{method} {path}: {answer:?}"
        );
    }
}

fn polling_has_a_limit_of_its_own(world: &World) {
    wait_for_room(Duration::from_secs(60), Duration::from_secs(5));
    let visitor = Visitor::of_tier(world.reference(), "free");
    visitor.get("/api/v1/items");
    for _ in 0..60 {
        assert_eq!(used(&ok(&visitor.get(PATH)), "general_api"), 1);
    }
    let answer = visitor.get(PATH);
    assert_eq!(answer.status, 429);
    assert!(
        (1..=60).contains(&number(&answer, "retry-after")),
        "{answer:?}"
    );
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    // It is the caller's own, and no request's.
    assert_eq!(remaining(&visitor.get("/api/v1/items")), 98);
    assert_eq!(
        Visitor::of_tier(world.reference(), "free").get(PATH).status,
        200
    );
}

fn nobody_has_no_status(world: &World) {
    let visitor = Visitor::anonymous(world.reference());
    for visitor in [
        visitor.clone(),
        visitor.clone().named(""),
        visitor.tier("premium"),
    ] {
        let answer = visitor.get(PATH);
        assert_eq!(
            (answer.status, answer.json().unwrap()["error"].clone()),
            (400, json!("No identity"))
        );
    }
}

fn an_api_key_has_a_status(world: &World) {
    let visitor = Visitor::anonymous(world.reference()).with("X-API-Key", unique("key"));
    visitor.get("/api/v1/items");
    assert_eq!(used(&ok(&visitor.get(PATH)), "general_api"), 1);
}

fn others_are_for_operators_only(world: &World) {
    let gateway = world.workshop();
    let id = unique("a: b");
    let other = Visitor::anonymous(gateway).named(&id).tier("premium");
    for _ in 0..3 {
        other.get("/identity/x");
    }
    let about = format!(
        "{PATH}?user_id={}&user_tier=premium",
        id.replace(": ", "%3A+")
    );
    let visitor = || Visitor::of_tier(gateway, "free");
    let anonymous = || Visitor::anonymous(gateway);

    for refused in [
        visitor(),
        visitor().with("X-Operator", "a guess"),
        visitor().with("X-Operator", ""),
        visitor().with("X-Operator", format!("{SECRET}x")),
        anonymous(),
        Visitor::distrusted(gateway).named("x").tier("operators"),
    ] {
        assert_eq!(refused.get(&about).status, 403);
    }
    for operator in [
        Visitor::of_tier(gateway, "operators"),
        visitor().with("X-Operator", SECRET),
        anonymous().with("X-Operator", SECRET),
    ] {
        let status = ok(&operator.get(&about));
        assert_eq!(
            (&status["user_id"], &status["user_tier"]),
            (&json!(id), &json!("premium"))
        );
        let identity = &status["rate_limits"]["identity"];
        assert_eq!(
            (&identity["limit"], &identity["current_usage"]),
            (&json!(500), &json!(3))
        );
    }
    // One may ask about oneself by name, but not as of another tier.
    let own = format!("{PATH}?user_id={}", id.replace(": ", "%3A%20"));
    assert_eq!(other.get(&own).status, 200);
    assert_eq!(other.get(format!("{own}&user_tier=premium")).status, 200);
    assert_eq!(other.get(format!("{PATH}?user_tier=free")).status, 403);
    assert_eq!(remaining(&other.get("/identity/x")), 496);
}

fn an_id_of_any_bytes_can_be_asked_about(world: &World) {
    for (id, told) in [
        (&b"a b:{c}"[..], "a b:{c}"),
        (b"\"\\", "\"\\"),
        ("é".as_bytes(), "é"),
        // What JSON cannot hold is escaped.
        (b"a\xff", "a%FF"),
    ] {
        let visitor = Visitor::anonymous(world.reference()).named(id);
        assert_eq!(ok(&visitor.get(PATH))["user_id"], told);
    }
}
