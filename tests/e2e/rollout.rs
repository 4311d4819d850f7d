//! Rules on trial beside rules in force.

use serde_json::json;
use weir_lab::gateway::{Gateway, Policy, Topology};
use weir_lab::redis_cluster::{RedisCluster, Replicas};

use crate::visitor::{Visitor, remaining, tells_limits, unique};
use crate::world::World;
use crate::{Case, cases, keys};

pub const CASES: &[Case] = cases![
    a_rule_on_trial_refuses_nobody_and_says_what_it_would_have_done,
    a_trial_beside_a_rule_in_force_disturbs_it_in_nothing,
    a_percentage_is_held_to_a_rule_and_is_the_same_at_every_gateway,
    a_rule_that_is_off_counts_nothing,
    the_status_and_the_log_tell_how_far_a_rule_is_in_force,
    over_a_cluster_a_trial_counts_all_or_nothing,
    a_trial_without_redis_is_no_degraded_request,
];

const HEADER: &str = "x-weir-shadow";

fn a_rule_on_trial_refuses_nobody_and_says_what_it_would_have_done(world: &World) {
    let visitor = Visitor::of_tier(world.rollout(), "free");
    for request in 0..5 {
        let answer = visitor.get("/trial/alone");
        assert!(answer.status == 200 && !tells_limits(&answer), "{answer:?}");
        let told = answer.header(HEADER).unwrap();
        if request < 2 {
            assert_eq!(told, "trial=allowed");
        } else {
            let wait = told.strip_prefix("trial=denied;scope=user;retry_after=");
            let wait: u64 = wait.and_then(|wait| wait.parse().ok()).expect(&told);
            assert!((1..=3600).contains(&wait), "{told}");
        }
    }
    assert_eq!(visitor.get("/few/x").header(HEADER), None);
}

fn a_trial_beside_a_rule_in_force_disturbs_it_in_nothing(world: &World) {
    let id = unique("tried");
    let visitor = Visitor::anonymous(world.rollout()).named(&id);
    for left in (0..4).rev() {
        assert_eq!(remaining(&visitor.get("/trial/beside")), left);
    }
    for _ in 0..3 {
        let answer = visitor.get("/trial/beside");
        assert_eq!(answer.status, 429);
        assert_eq!(answer.json().unwrap()["details"]["rule"], "in_force");
    }
    let own = format!("u:{id}");
    let held = keys::of(world.redis(), &[&own]);
    let names: Vec<&str> = held.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            format!("weir:2:{{{own}}}:in_force:user:fw2592000s"),
            format!("weir:2:{{{own}}}:trial:user:sl3600s:shadow"),
        ]
    );
    // A trial's log has an entry for each request that it would have let pass, and no more.
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    let limits = status["rate_limits"]["trial"]["limits"].as_array().unwrap();
    let user = limits.iter().find(|limit| limit["scope"] == "user");
    assert_eq!(user.unwrap()["current_usage"], 2, "{status}");
}

fn a_percentage_is_held_to_a_rule_and_is_the_same_at_every_gateway(world: &World) {
    let first = world.rollout();
    let policy =
        include_str!("rollout.json").replace("\"enforce_percent\": 30", "\"enforce_percent\": 60");
    let second = world
        .gateway()
        .policy(Policy::Text(policy))
        .start()
        .unwrap();
    let ids: Vec<String> = (0..100).map(|_| unique("sample")).collect();
    let held = |gateway: &Gateway| -> Vec<bool> {
        let visitors = ids.iter().map(|id| Visitor::anonymous(gateway).named(id));
        visitors
            .map(|visitor| {
                let answers = [visitor.get("/partly/x"), visitor.get("/partly/x")];
                answers[1].status == 429
            })
            .collect()
    };
    let at_first = held(first);
    let count = at_first.iter().filter(|held| **held).count();
    assert!((10..=50).contains(&count), "{count} of 100 at 30 %");
    assert_eq!(held(first), at_first, "another time");
    let at_second = held(&second);
    let grown = at_second.iter().filter(|held| **held).count();
    assert!((40..=80).contains(&grown), "{grown} of 100 at 60 %");
    assert!(at_first.iter().zip(&at_second).all(|(was, is)| is >= was));
}

fn a_rule_that_is_off_counts_nothing(world: &World) {
    let id = unique("free-rider");
    let visitor = Visitor::anonymous(world.rollout()).named(&id);
    for _ in 0..3 {
        let answer = visitor.get("/off/x");
        assert!(answer.status == 200 && !tells_limits(&answer));
        assert_eq!(answer.header(HEADER), None);
    }
    assert!(keys::of(world.redis(), &[&format!("u:{id}")]).is_empty());
}

fn the_status_and_the_log_tell_how_far_a_rule_is_in_force(world: &World) {
    let gateway = world.rollout();
    let visitor = Visitor::of_tier(gateway, "free");
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    let rules = &status["rate_limits"];
    assert_eq!(rules["trial"]["mode"], "shadow");
    assert_eq!(rules["in_force"]["mode"], json!(null));
    assert_eq!(rules["off"], json!(null));
    let log = gateway.log();
    for line in [
        "rule trial pattern /trial/* priority 100 mode shadow: ",
        "rule partly pattern /partly/* priority 100 enforce_percent 30: ",
        "rule off pattern /off/* priority 100 mode off: ",
    ] {
        assert!(log.contains(line), "{line}");
    }
}

fn a_trial_without_redis_is_no_degraded_request(world: &World) {
    let mut fragile = world.fragile();
    let visitor = Visitor::of_tier(&fragile.gateway, "free");
    assert_eq!(
        visitor.get("/tried/x").header(HEADER).as_deref(),
        Some("tried=allowed")
    );
    fragile.redis.stop();
    for _ in 0..6 {
        let answer = visitor.get("/tried/x");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-weir-degraded"), None);
        assert_eq!(answer.header(HEADER).as_deref(), Some("tried=unknown"));
    }
}

/// The trial's counters live in two slots: one may take where the other refuses.
fn over_a_cluster_a_trial_counts_all_or_nothing(world: &World) {
    let cluster = RedisCluster::start(Replicas::None).unwrap();
    let policy = include_str!("rollout.json").to_owned();
    let gateway = world.gateway().policy(Policy::Text(policy));
    let gateway = gateway.redis(cluster.node(0)).topology(Topology::Cluster);
    let gateway = gateway.start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    // A second refusal would come from memory, where no trial is asked.
    for request in 0..5 {
        let answer = visitor.get("/trial/beside");
        assert_eq!(answer.status, if request < 4 { 200 } else { 429 });
        let denied = answer
            .header(HEADER)
            .unwrap()
            .contains("=denied;scope=user");
        assert_eq!(denied, request >= 2, "{answer:?}");
    }
    let used = || {
        let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
        let limits = status["rate_limits"]["trial"]["limits"]
            .as_array()
            .unwrap()
            .clone();
        let used = |limit: &serde_json::Value| limit["current_usage"].as_u64().unwrap();
        limits.iter().map(used).collect::<Vec<u64>>()
    };
    // What was taken where another part refused is given back without anybody waiting for it.
    weir_lab::deadline::poll(crate::world::SOON, "refund", || {
        Ok((used() == [2, 2]).then_some(()))
    })
    .unwrap_or_else(|_| panic!("{:?}", used()));
}
