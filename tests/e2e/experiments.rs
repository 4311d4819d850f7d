//! Variants of a rule's limits, each for a share of the callers.

use std::collections::BTreeMap;

use weir_lab::gateway::{Gateway, Policy};

use crate::visitor::{Visitor, number, unique};
use crate::world::World;
use crate::{Case, cases, keys};

pub const CASES: &[Case] = cases![
    each_caller_is_in_one_variant_and_held_to_its_limits,
    variants_share_no_counter_that_callers_share,
    a_caller_is_in_the_same_variant_at_every_gateway,
];

fn variant(visitor: &Visitor, experiment: &str) -> String {
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    status["variants"][experiment].as_str().unwrap().to_owned()
}

/// Somebody in each of so many variants.
fn one_of_each(gateway: &Gateway, experiment: &str, count: usize) -> BTreeMap<String, Visitor> {
    let mut found = BTreeMap::new();
    for _ in 0..200 {
        let visitor = Visitor::of_tier(gateway, "free");
        found.insert(variant(&visitor, experiment), visitor);
        if found.len() == count {
            return found;
        }
    }
    panic!("after 200 callers only {:?}", found.keys());
}

fn each_caller_is_in_one_variant_and_held_to_its_limits(world: &World) {
    let gateway = world.rollout();
    for (name, visitor) in one_of_each(gateway, "size", 3) {
        let limit = match name.as_str() {
            "small" => 1,
            "large" => 5,
            _ => 3,
        };
        for request in 0..limit + 3 {
            let answer = visitor.get("/compared/x");
            let expected = if request < limit { 200 } else { 429 };
            assert_eq!(answer.status, expected, "{name} {request}");
            assert_eq!(number(&answer, "x-ratelimit-limit"), limit, "{name}");
            let told = answer.header("x-weir-variant");
            assert_eq!(told, Some(format!("size={name}")), "{answer:?}");
        }
        assert_eq!(visitor.get("/few/x").header("x-weir-variant"), None);
    }
    let log = gateway.log();
    assert!(log.contains("experiment size: small 30, large 30, control 40"));
    assert!(log.contains("size:large user default fixed_window 5/2592000s"));
}

fn variants_share_no_counter_that_callers_share(world: &World) {
    let users = one_of_each(world.rollout(), "walls", 2);
    let used = |name: &str| {
        let status = users[name]
            .get("/api/v1/rate-limits/status")
            .json()
            .unwrap();
        let used = &status["rate_limits"]["apart"]["current_usage"];
        used.as_u64().unwrap_or_else(|| panic!("{status}"))
    };
    let counts = || (used("far"), used("near"));
    let (far, near) = counts();
    assert_eq!(users["far"].get("/apart/x").status, 200);
    assert_eq!(counts(), (far + 1, near));
    assert_eq!(users["near"].get("/apart/x").status, 200);
    assert_eq!(counts(), (far + 1, near + 1));
    let held = keys::of(world.redis(), &["g:apart"]);
    for key in ["", ":x:walls:far"] {
        assert!(held.contains_key(&format!("weir:2:{{g:apart}}:apart:all:fw2592000s{key}")));
    }
}

fn a_caller_is_in_the_same_variant_at_every_gateway(world: &World) {
    let policy = include_str!("rollout.json").to_owned();
    let other = world
        .gateway()
        .policy(Policy::Text(policy))
        .start()
        .unwrap();
    for _ in 0..30 {
        let id = unique("subject");
        let variants = [world.rollout(), &other]
            .map(|gateway| variant(&Visitor::anonymous(gateway).named(&id), "size"));
        assert_eq!(variants[0], variants[1], "{id}");
    }
}
