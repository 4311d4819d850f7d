//! The status call: it looks and takes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use weir_lab::client::Answer;

use crate::visitor::{Visitor, number, remaining, tells_limits, unique};
use crate::world::{World, now, wait_for_room};
use crate::{Case, cases, keys};

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
    what_an_operator_is_told_by_assumption_is_said_to_be,
    addresses_and_keys_can_be_asked_about_by_operators_alone,
    a_call_that_cannot_be_understood_says_what_can,
    rules_come_in_the_order_in_which_they_apply,
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
        assert_eq!(used(&status, "auth_api"), 3);
        // One leaks every second.
        assert!((1..=7).contains(&used(&status, "search_api")), "{status}");
        assert_eq!(used(&status, "general_api"), 16);
        assert_eq!(status["rate_limits"]["general_api"]["remaining"], 84);
    }
    assert_eq!(counters(), before);
    assert_eq!(remaining(&visitor.get("/api/v1/items")), 83);
    // From elsewhere the user's usage is the same.
    let status = ok(&visitor.elsewhere(gateway).get(PATH));
    assert_eq!(
        (used(&status, "general_api"), used(&status, "auth_api")),
        (17, 3)
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
        "/api/v1/rate-limits/status?",
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

/// The tier is not known to a gateway that is asked about somebody: `free` was told of everybody.
fn what_an_operator_is_told_by_assumption_is_said_to_be(world: &World) {
    let gateway = world.workshop();
    let id = unique("paying");
    let paying = Visitor::anonymous(gateway).named(&id).tier("premium");
    for _ in 0..3 {
        paying.get("/identity/x");
    }
    let operator = Visitor::anonymous(gateway).with("X-Operator", SECRET);
    let status = ok(&operator.get(format!("{PATH}?user_id={id}")));
    assert_eq!(
        (&status["user_tier"], &status["assumed"]),
        (&json!("free"), &json!(["user_tier"]))
    );
    let premium = &status["other_tiers"]["premium"]["identity"];
    assert_eq!(
        (&premium["limit"], &premium["current_usage"]),
        (&json!(500), &json!(3)),
        "{status}"
    );
    // Of no rule that they have not used.
    let used = status["other_tiers"].as_object().unwrap().values();
    for rules in used {
        let rules = rules.as_object().unwrap();
        assert!(rules.keys().all(|rule| rule == "identity"), "{status}");
    }
    let notes = status["notes"].to_string();
    assert!(notes.contains("Pass user_tier"), "{notes}");
    assert!(notes.contains("pass address"), "{notes}");
    let known = ok(&operator.get(format!("{PATH}?user_id={id}&user_tier=premium")));
    for field in ["assumed", "other_tiers"] {
        assert_eq!(known[field], Value::Null, "{known}");
    }
    assert_eq!(known["rate_limits"]["identity"]["current_usage"], 3);
    // Who asks about themselves is told nothing but what is so.
    let own = ok(&paying.get(PATH));
    for field in ["assumed", "other_tiers", "notes"] {
        assert_eq!(own[field], Value::Null, "{own}");
    }
}

fn addresses_and_keys_can_be_asked_about_by_operators_alone(world: &World) {
    let gateway = world.workshop();
    let operator = || Visitor::anonymous(gateway).with("X-Operator", SECRET);
    let nobody = Visitor::anonymous(gateway);
    let key = unique("key");
    let holder = Visitor::anonymous(gateway).with("X-API-Key", &key);
    let hash = weir_core::request::subject::hex_digest(key.as_bytes());
    for _ in 0..2 {
        nobody.get("/identity/x");
        holder.get("/identity/x");
    }
    let of_address = format!("{PATH}?address={}", nobody.address);
    let of_key = format!("{PATH}?api_key_sha256={hash}");
    let status = ok(&operator().get(&of_address));
    assert_eq!(
        (&status["user_id"], &status["user_tier"]),
        (&json!(nobody.address), &json!("anonymous"))
    );
    assert_eq!(
        status["rate_limits"]["identity"]["current_usage"], 2,
        "{status}"
    );
    let status = ok(&operator().get(&of_key));
    assert_eq!(status["user_id"], format!("api-key:{}", &hash[..12]));
    assert_eq!(
        status["rate_limits"]["identity"]["current_usage"], 2,
        "{status}"
    );
    for refused in [
        Visitor::of_tier(gateway, "free"),
        Visitor::anonymous(gateway).moved_to(&nobody.address),
    ] {
        for path in [&of_address, &of_key] {
            assert_eq!(refused.get(path).status, 403, "{path}");
        }
    }
    assert_eq!(
        ok(&holder.get(&of_key))["rate_limits"]["identity"]["current_usage"],
        2
    );
    assert_eq!(Visitor::anonymous(gateway).get(PATH).status, 400);
}

fn a_call_that_cannot_be_understood_says_what_can(world: &World) {
    let gateway = world.workshop();
    let operator = Visitor::anonymous(gateway).with("X-Operator", SECRET);
    for (query, told) in [
        (
            "user_id=ann&tier=pro",
            "the parameters are user_id, user_tier, api_key_sha256, address.",
        ),
        ("user_id=ann&path=/identity/x", "\"path\" is no parameter"),
        ("user_id=", "user_id is empty"),
        ("ip=192.0.2.7", "\"ip\" is no parameter"),
        ("api_key_sha256=8254c329a928", "64 digits"),
        (
            "",
            "Say about whom: pass user_id, api_key_sha256 or address.",
        ),
    ] {
        let answer = operator.get(format!("{PATH}?{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let body = answer.json().unwrap();
        assert_eq!(body["error"], "Bad query");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(told), "{query}: {message}");
    }
}

fn rules_come_in_the_order_in_which_they_apply(world: &World) {
    let answer = Visitor::of_tier(world.reference(), "free").get(PATH);
    let text = answer.text();
    // By priority; of these the alphabet would put the second first.
    let order = ["auth_api", "upload_api", "search_api", "general_api"];
    let places = order.map(|rule| text.find(&format!("\"{rule}\":")).unwrap());
    assert!(places.is_sorted(), "{places:?} in {text}");
}
