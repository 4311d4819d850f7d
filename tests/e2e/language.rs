//! Which requests a rule is for, and who is in which tier, as a published policy says it.

use serde_json::{Value, json};
use weir_lab::client::Answer;

use crate::visitor::{Visitor, number, tells_limits, unique};
use crate::world::World;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    a_rule_is_for_all_its_patterns_but_for_what_every_server_takes_for_an_exception,
    a_condition_reads_what_a_client_sends_whoever_it_is,
    the_operators_word_on_a_tier_is_live_until_it_ends,
    a_policy_on_trial_refuses_nobody_and_keeps_what_was_counted,
    a_rule_answers_in_its_own_words,
];

fn limit(limit: u64) -> Value {
    json!({ "default": { "type": "fixed_window", "limit": limit, "window": 86_400 } })
}

fn is_limited(answer: &Answer) -> bool {
    answer.status == 429 || tells_limits(answer)
}

fn a_rule_is_for_all_its_patterns_but_for_what_every_server_takes_for_an_exception(world: &World) {
    let stage = world.stage();
    let policy = json!({ "rules": [{
        "name": "several", "patterns": ["/one/*", "/two/*"], "except": ["/one/health*", "*.css"],
        "user_limits": limit(2),
    }] });
    stage.publish(&policy.to_string());
    let visitor = Visitor::of_tier(&stage.gateway, "free");
    let statuses = ["/one/x", "/two/x", "/one/y", "/two/y"].map(|path| visitor.get(path).status);
    assert_eq!(statuses, [200, 200, 429, 429], "they share a count");
    for path in ["/one/health", "/one/health/deep", "/two/a.css", "/three/x"] {
        assert!(!is_limited(&visitor.get(path)), "{path}");
    }
    for path in [
        "/one/HEALTH",
        "/one/health/..;/admin",
        "/one/health%2f..%2fadmin",
        "/one/admin;.css",
    ] {
        assert_eq!(visitor.get(path).status, 429, "{path}");
    }
}

fn a_condition_reads_what_a_client_sends_whoever_it_is(world: &World) {
    let stage = world.stage();
    let rule = |name: &str, condition: Value| {
        json!({
            "name": name, "pattern": format!("/{name}/*"), "when": [condition], "user_limits": limit(1),
        })
    };
    let policy = json!({ "rules": [
        rule("plan", json!({ "header": "x-plan", "in": ["free", "trial"] })),
        rule("unpaid", json!({ "header": "x-plan", "not": "paid" })),
        rule("export", json!({ "query": "export", "present": true })),
        rule("beta", json!({ "cookie": "beta", "is": "1" })),
        rule("robots", json!({ "header": "user-agent", "glob": "*bot*" })),
        rule("near", json!({ "part": "ip", "in": ["127.0.0.0/8"] })),
        rule("far", json!({ "part": "ip", "not": ["127.0.0.0/8"] })),
    ] });
    stage.publish(&policy.to_string());
    for visitor in [
        Visitor::anonymous(&stage.gateway),
        Visitor::distrusted(&stage.gateway),
    ] {
        let with = |name: &str, value: &str| visitor.clone().with(name, value);
        for (visitor, path, is_for) in [
            (with("x-plan", "trial"), "/plan/x", true),
            (with("x-plan", "paid"), "/plan/x", false),
            (visitor.clone(), "/plan/x", false),
            (with("x-plan", "paid"), "/unpaid/x", false),
            (visitor.clone(), "/unpaid/x", true),
            (visitor.clone(), "/export/x?a=1&export", true),
            (visitor.clone(), "/export/x?a=export", false),
            (with("cookie", "a=2; beta=1"), "/beta/x", true),
            (with("cookie", "a=2; beta=2"), "/beta/x", false),
            (with("user-agent", "a bot/1"), "/robots/x", true),
            (with("user-agent", "curl/8"), "/robots/x", false),
            (visitor.clone(), "/near/x", true),
            (visitor.clone(), "/far/x", false),
        ] {
            let answer = visitor.get(path);
            assert_eq!(is_limited(&answer), is_for, "{path}: {answer:?}");
        }
    }
}

fn the_operators_word_on_a_tier_is_live_until_it_ends(world: &World) {
    let stage = world.stage();
    let user = unique("customer");
    let visitor = Visitor::anonymous(&stage.gateway).named(&user).tier("free");
    let abuser = Visitor::anonymous(&stage.gateway);
    let publish = |tiers: Value| {
        let policy = json!({
            "tiers": tiers, "deny": { "tiers": ["penalty"] },
            "rules": [{ "name": "tiered", "pattern": "/*", "user_limits": {
                "vip": { "type": "fixed_window", "limit": 500, "window": 86_400 },
                "default": { "type": "fixed_window", "limit": 5, "window": 86_400 },
            } }],
        });
        stage.publish(&policy.to_string());
    };
    let limit = || number(&visitor.get("/x"), "x-ratelimit-limit");
    let vip = |until: &str| json!({ "tier": "vip", "users": [user], "until": until });
    publish(json!([]));
    assert_eq!((limit(), abuser.get("/x").status), (5, 200));
    publish(json!([
        vip("2999-12-31T23:59:59Z"), { "tier": "penalty", "networks": [abuser.address] },
    ]));
    assert_eq!((limit(), abuser.get("/x").status), (500, 403));
    let hidden = abuser.clone().named(unique("other")).tier("vip");
    assert_eq!(hidden.get("/x").status, 403, "an identity is no way out");
    publish(json!([vip("2000-01-01T00:00:00Z")]));
    assert_eq!((limit(), abuser.get("/x").status), (5, 200));
}

fn a_policy_on_trial_refuses_nobody_and_keeps_what_was_counted(world: &World) {
    let stage = world.stage();
    let publish = |mode: &str| {
        let policy = json!({ "mode": mode, "rules": [
            { "name": "held", "pattern": "/held/*", "user_limits": limit(1) },
        ] });
        stage.publish(&policy.to_string());
    };
    let visitor = Visitor::of_tier(&stage.gateway, "free");
    let twice = || [(); 2].map(|()| visitor.get("/held/x").status);
    publish("enforce");
    assert_eq!(twice(), [200, 429]);
    publish("shadow");
    assert_eq!(twice(), [200, 200]);
    publish("enforce");
    assert_eq!(twice(), [429, 429]);
}

fn a_rule_answers_in_its_own_words(world: &World) {
    let stage = world.stage();
    let policy = json!({ "rules": [{
        "name": "own", "pattern": "/own/*", "user_limits": limit(1),
        "respond": { "status": 503, "body": "<p>later</p>", "content_type": "text/html",
                     "headers": { "X-Support": "help@example.com" } },
    }] });
    stage.publish(&policy.to_string());
    let visitor = Visitor::of_tier(&stage.gateway, "free");
    assert_eq!(visitor.get("/own/x").status, 200);
    let answer = visitor.get("/own/x");
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (503, &b"<p>later</p>"[..])
    );
    for (name, value) in [
        ("content-type", "text/html"),
        ("x-support", "help@example.com"),
        ("cache-control", "no-store"),
        ("x-ratelimit-remaining", "0"),
    ] {
        assert_eq!(answer.header(name).as_deref(), Some(value), "{name}");
    }
    assert!(number(&answer, "retry-after") > 0);
}
