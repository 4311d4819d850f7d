//! Variants of limits, each for a share of the callers.

use std::collections::BTreeMap;

use weir_core::store::slot::Topology;

use crate::gateway::Gateway;

/// `/x` has 2 for each user and 20 for each address; a third each get half of one, the double of the
/// other and a global limit besides, or what the rule says. Premium users have 9 in any variant.
fn policy(weights: [u32; 3]) -> String {
    let [half, double, control] = weights;
    format!(
        r#"{{"variant_header": "X-Variant",
        "rules": [
            {{"name": "r", "pattern": "/x",
              "user_limits": {{"default": {{"type": "fixed_window", "limit": 2, "window": 60}},
                               "premium": {{"type": "fixed_window", "limit": 9, "window": 60}}}},
              "ip_limits": {{"default": {{"type": "fixed_window", "limit": 20, "window": 60}}}}}},
            {{"name": "other", "pattern": "/other",
              "user_limits": {{"default": {{"type": "fixed_window", "limit": 2, "window": 60}}}}}}],
        "experiments": [{{"name": "size", "variants": [
            {{"name": "half", "weight": {half}, "rules": {{"r": {{
                "user_limits": {{"default": {{"type": "fixed_window", "limit": 1, "window": 60}}}}}}}}}},
            {{"name": "double", "weight": {double}, "rules": {{"r": {{
                "global_limit": {{"type": "fixed_window", "limit": 30, "window": 60}},
                "user_limits": {{"default": {{"type": "fixed_window", "limit": 4, "window": 60}}}},
                "ip_limits": {{"default": {{"type": "fixed_window", "limit": 25, "window": 60}}}}}}}}}},
            {{"name": "control", "weight": {control}}}]}}]}}"#
    )
}

fn variant(gateway: &mut Gateway, user: &str) -> String {
    let status = gateway.status(user);
    status["variants"]["size"].as_str().unwrap().to_string()
}

/// One user of each variant.
fn one_of_each(gateway: &mut Gateway) -> BTreeMap<String, String> {
    let users = (0..100).map(|i| format!("user{i}"));
    users.map(|user| (variant(gateway, &user), user)).collect()
}

#[test]
fn callers_are_spread_by_weight_and_stay_where_they_are() {
    let mut gateway = Gateway::new(Topology::Single, &policy([1, 2, 5]));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for i in 0..4000 {
        let user = format!("user{i}");
        let own = variant(&mut gateway, &user);
        assert_eq!(variant(&mut gateway, &user), own);
        *counts.entry(own).or_default() += 1;
    }
    for (name, expected) in [("half", 500), ("double", 1000), ("control", 2500)] {
        let count = counts[name];
        assert!(count.abs_diff(expected) < 120, "{count} in {name}");
    }
    // Where the sum of the weights stays, the first variant keeps its callers as it grows.
    let mut grown = Gateway::new(Topology::Single, &policy([3, 2, 3]));
    for i in 0..500 {
        let user = format!("user{i}");
        if variant(&mut gateway, &user) == "half" {
            assert_eq!(variant(&mut grown, &user), "half");
        }
    }
}

#[test]
fn each_variant_has_its_limits_and_keeps_what_it_does_not_name() {
    let mut gateway = Gateway::new(Topology::Single, &policy([1, 1, 1]));
    let users = one_of_each(&mut gateway);
    for (name, limit) in [("half", 1), ("double", 4), ("control", 2)] {
        let user = &users[name];
        let passed = (0..6).filter(|_| gateway.passes(user, "/x")).count();
        assert_eq!(passed, limit, "{name}");
        // Longer than a refusal is remembered.
        gateway.now.0 += 2_000_000;
        let premium = [
            (":path", "/x"),
            ("x-user-id", user),
            ("x-user-tier", "premium"),
        ];
        let answer = gateway.request(&premium);
        assert_eq!(answer.status, 200);
        let shown = answer.header("x-ratelimit-limit");
        assert_eq!(shown, Some("9"), "{name}");
    }
}

#[test]
fn a_user_takes_what_is_used_along_and_others_share_with_their_variant() {
    let mut gateway = Gateway::new(Topology::Single, &policy([1, 1, 1]));
    let users = one_of_each(&mut gateway);
    for user in users.values() {
        assert!(gateway.passes(user, "/x"));
    }
    let keys = |user: &str| {
        [
            format!("weir:2:{{u:{user}}}:r:user:fw60s"),
            "weir:2:{a:127.0.0.1}:r:ip:fw60s".to_string(),
            "weir:2:{g:r}:r:all:fw60s:x:size:double".to_string(),
            "weir:2:{a:127.0.0.1}:r:ip:fw60s:x:size:double".to_string(),
        ]
    };
    for (name, expected) in [
        ("half", vec![0, 1]),
        ("double", vec![2, 0, 3]),
        ("control", vec![0, 1]),
    ] {
        let user = &users[name];
        gateway.store.asked.clear();
        gateway.get(user, "/x");
        let all = keys(user);
        let expected: Vec<&String> = expected.into_iter().map(|key| &all[key]).collect();
        assert!(
            gateway.store.asked.iter().eq(expected),
            "{:?}",
            gateway.store.asked
        );
    }
    // The experiment ends: the user of the double has used two, and may use no third.
    let mut ended: serde_json::Value = serde_json::from_str(&policy([1, 1, 1])).unwrap();
    ended.as_object_mut().unwrap().remove("experiments");
    gateway.adopts(&ended.to_string());
    assert!(!gateway.passes(&users["double"], "/x"));
}

#[test]
fn a_caller_is_told_the_variant_where_it_counts() {
    let mut gateway = Gateway::new(Topology::Single, &policy([1, 1, 1]));
    for (name, user) in one_of_each(&mut gateway) {
        let told = format!("size={name}");
        let passed = gateway.get(&user, "/x");
        assert_eq!(passed.header("x-variant"), Some(told.as_str()));
        let place = ["half", "double", "control"]
            .iter()
            .position(|own| *own == name);
        let ids = passed.record.unwrap().variants;
        assert_eq!(
            ids.iter().map(|id| id.0 as usize).collect::<Vec<_>>(),
            [place.unwrap()]
        );
        // From the store, and from memory.
        let refused = (0..9)
            .map(|_| gateway.get(&user, "/x"))
            .filter(|answer| answer.status == 429);
        let refused: Vec<_> = refused.collect();
        assert!(refused.len() > 2);
        for answer in refused {
            assert_eq!(answer.header("x-variant"), Some(told.as_str()));
            assert_eq!(answer.record.unwrap().variants, ids);
        }
        let elsewhere = gateway.get(&user, "/other");
        assert_eq!(elsewhere.header("x-variant"), None);
        assert!(elsewhere.record.unwrap().variants.is_empty());
    }
}

#[test]
fn a_variant_of_a_rule_on_trial_is_on_trial() {
    let policy = policy([0, 1, 0]).replace(
        r#""pattern": "/x","#,
        r#""pattern": "/x", "mode": "shadow","#,
    );
    let mut gateway = Gateway::new(Topology::Single, &policy);
    for _ in 0..5 {
        assert!(gateway.passes("ann", "/x"));
    }
    let denied = gateway.get("ann", "/x").record.unwrap();
    assert_eq!((denied.shadow_denied.len(), denied.variants.len()), (1, 1));
    assert!(
        gateway
            .store
            .asked
            .contains(&"weir:2:{g:r}:r:all:fw60s:x:size:double:shadow".to_string())
    );
}

#[test]
fn of_two_experiments_each_draws_for_itself() {
    let limit =
        |limit: u32| format!(r#"{{"type": "fixed_window", "limit": {limit}, "window": 60}}"#);
    let rule = |name: &str| {
        format!(
            r#"{{"name": "{name}", "pattern": "*", "global_limit": {}}}"#,
            limit(9000)
        )
    };
    let experiment = |name: &str, rule: &str| {
        format!(
            r#"{{"name": "{name}", "variants": [{{"name": "a", "weight": 1}},
                {{"name": "b", "weight": 1, "rules": {{"{rule}": {{"global_limit": {}}}}}}}]}}"#,
            limit(8000)
        )
    };
    let policy = format!(
        r#"{{"rules": [{}, {}], "experiments": [{}, {}]}}"#,
        rule("one"),
        rule("two"),
        experiment("first", "one"),
        experiment("second", "two")
    );
    let mut gateway = Gateway::new(Topology::Single, &policy);
    let mut counts: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
    for i in 0..2000 {
        let variants = gateway
            .get(&format!("user{i}"), "/x")
            .record
            .unwrap()
            .variants;
        let ids = variants.iter().map(|id| id.0).collect();
        *counts.entry(ids).or_default() += 1;
    }
    let drawn: Vec<Vec<u32>> = counts.keys().cloned().collect();
    assert_eq!(drawn, [[0, 2], [0, 3], [1, 2], [1, 3]]);
    assert!(
        counts.values().all(|count| count.abs_diff(500) < 100),
        "{counts:?}"
    );
}
