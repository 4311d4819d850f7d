//! Callers whom no limit is for, and callers whom nothing is for.

use serde_json::json;
use weir_lab::client::Answer;

use crate::visitor::{Visitor, tells_limits, unique};
use crate::world::World;
use crate::{Case, cases, grpc, keys};

pub const CASES: &[Case] = cases![
    whoever_is_allowed_meets_no_limit_and_is_counted_nowhere,
    whoever_is_denied_is_refused_everywhere,
    deny_wins_over_allow,
    lists_go_by_whom_the_gateway_believes,
    a_denied_grpc_caller_is_told_in_its_language,
    the_status_tells_that_a_caller_is_listed,
];

const STATUS: &str = "/api/v1/rate-limits/status";

/// The limit is 2.
const MANY: usize = 6;

fn hold_blocked(answer: &Answer) {
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    let body = answer.json().unwrap();
    assert_eq!(
        (&body["error"], &body["message"]),
        (
            &json!("Forbidden"),
            &json!("This caller is not served here.")
        )
    );
}

fn whoever_is_allowed_meets_no_limit_and_is_counted_nowhere(world: &World) {
    let gateway = world.rollout();
    let anonymous = || Visitor::anonymous(gateway);
    for (visitor, subject) in [
        (anonymous().named("on-the-house"), "u:on-the-house"),
        (anonymous().named("clerk").tier("staff"), "u:clerk"),
        (anonymous().moved_to("127.90.1.1"), "a:127.90.1.1"),
        (
            anonymous().with("X-API-Key", "a-key-on-the-house"),
            "k:35914c33bc07b5b39ba1ea7185ddac9490b2cc5fae77a1af9011fb4a06999a16",
        ),
        (
            anonymous()
                .named("guest")
                .with("X-API-Key", "a-key-on-the-house"),
            "u:guest",
        ),
    ] {
        for _ in 0..MANY {
            let answer = visitor.get("/few/x");
            assert!(
                answer.status == 200 && !tells_limits(&answer),
                "{subject}: {answer:?}"
            );
        }
        let own = [subject, &format!("a:{}", visitor.address)];
        assert!(keys::of(world.redis(), &own).is_empty(), "{subject}");
    }
    let visitor = Visitor::of_tier(gateway, "free");
    let passed = (0..MANY).filter(|_| visitor.get("/few/x").status == 200);
    assert_eq!(passed.count(), 2, "whoever is on no list is limited");
}

fn whoever_is_denied_is_refused_everywhere(world: &World) {
    let gateway = world.rollout();
    let anonymous = || Visitor::anonymous(gateway);
    for visitor in [
        anonymous().named("banned"),
        anonymous().named(unique("pupil")).tier("expelled"),
        anonymous().moved_to("127.91.2.3"),
        anonymous().named(unique("ann")).moved_to("127.91.2.4"),
        anonymous().with("X-API-Key", "a-stolen-key"),
        anonymous()
            .named(unique("thief"))
            .with("X-API-Key", "a-stolen-key"),
    ] {
        for path in ["/few/x", "/no/rule/is/here", STATUS] {
            hold_blocked(&visitor.get(path));
        }
        let own = [format!("a:{}", visitor.address)];
        assert!(keys::of(world.redis(), &[&own[0]]).is_empty());
    }
}

fn deny_wins_over_allow(world: &World) {
    let gateway = world.rollout();
    let anonymous = || Visitor::anonymous(gateway);
    hold_blocked(&anonymous().moved_to("127.90.66.6").get("/few/x"));
    hold_blocked(
        &anonymous()
            .named("banned")
            .moved_to("127.90.1.2")
            .get("/few/x"),
    );
}

fn lists_go_by_whom_the_gateway_believes(world: &World) {
    let gateway = world.rollout();
    let distrusted = Visitor::distrusted(gateway);
    let claims = [
        distrusted.clone().named("on-the-house"),
        distrusted.clone().named("x").tier("staff"),
        distrusted.clone().with("X-API-Key", "a-key-on-the-house"),
    ];
    let passed = (0..MANY).filter(|i| claims[i % 3].get("/few/x").status == 200);
    assert_eq!(passed.count(), 2);
    // Nor is anybody shut out for what a stranger says.
    let stranger = Visitor::distrusted(gateway).named("banned");
    assert_eq!(stranger.get("/few/x").status, 200);
}

fn a_denied_grpc_caller_is_told_in_its_language(world: &World) {
    let address = world.rollout().address();
    let grpc_type = ("content-type", "application/grpc");
    let called = grpc::call(address, "/few/Call", &[grpc_type, ("x-user-id", "banned")]).unwrap();
    assert_eq!(called.http_status, 200);
    let told = ["grpc-status", "grpc-message"].map(|name| called.metadata[name].clone());
    assert_eq!(told, ["7", "This caller is not served here."]);
}

fn the_status_tells_that_a_caller_is_listed(world: &World) {
    let gateway = world.rollout();
    let status = |visitor: &Visitor, query: &str| {
        let answer = visitor.get(format!("{STATUS}{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().unwrap()["listed"].clone()
    };
    let house = Visitor::anonymous(gateway).named("on-the-house");
    assert_eq!(status(&house, ""), "allow");
    let operator = Visitor::of_tier(gateway, "operators");
    assert_eq!(status(&operator, ""), json!(null));
    assert_eq!(status(&operator, "?user_id=banned"), "deny");
    assert_eq!(status(&operator, "?user_id=x&user_tier=staff"), "allow");
}
