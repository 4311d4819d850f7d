//! Rules in shadow mode, and rules that are enforced for some.

use weir_core::store::slot::Topology;

use crate::gateway::Gateway;

/// `/x` meets a rule that is enforced, of 5, and one in shadow mode, of 2 for each user and 100 for all.
const BESIDE: &str = r#"{"shadow_header": "X-Shadow", "rules": [
    {"name": "old", "pattern": "/x",
     "user_limits": {"default": {"type": "fixed_window", "limit": 5, "window": 60}}},
    {"name": "new", "pattern": "/x", "mode": "shadow", "priority": 1,
     "global_limit": {"type": "fixed_window", "limit": 100, "window": 60},
     "user_limits": {"default": {"type": "fixed_window", "limit": 2, "window": 60}}}]}"#;

/// The rule that is asked about at `/x` alone.
fn alone(fields: &str) -> String {
    format!(
        r#"{{"shadow_header": "x-shadow", "rules": [{{"name": "new", "pattern": "/x", {fields}
            "user_limits": {{"default": {{"type": "fixed_window", "limit": 2, "window": 60}}}}}}]}}"#
    )
}

fn used(gateway: &mut Gateway, rule: &str, scope: &str) -> u64 {
    let status = gateway.status("ann");
    let limits = status["rate_limits"][rule]["limits"].as_array().unwrap();
    let of_scope = limits.iter().find(|limit| limit["scope"] == scope).unwrap();
    of_scope["current_usage"].as_u64().unwrap()
}

#[test]
fn a_rule_on_trial_refuses_nobody_and_tells_what_it_would_have_done() {
    for mut gateway in Gateway::of_each_topology(BESIDE) {
        let told: Vec<(u16, String)> = (0..6)
            .map(|_| gateway.get("ann", "/x"))
            .map(|answer| {
                (
                    answer.status,
                    answer.header("x-shadow").unwrap().to_string(),
                )
            })
            .collect();
        let denied = "new=denied;scope=user;retry_after=60";
        let expected = [
            (200, "new=allowed"),
            (200, "new=allowed"),
            (200, denied),
            (200, denied),
            (200, denied),
            (429, denied),
        ];
        assert_eq!(
            told,
            expected.map(|(status, told)| (status, told.to_string()))
        );
    }
}

#[test]
fn what_a_trial_would_have_refused_it_does_not_count_in_any_of_its_limits() {
    for mut gateway in Gateway::of_each_topology(BESIDE) {
        for _ in 0..5 {
            gateway.get("ann", "/x");
        }
        assert_eq!(used(&mut gateway, "new", "user"), 2);
        assert_eq!(used(&mut gateway, "new", "global"), 2);
        assert_eq!(used(&mut gateway, "old", "user"), 5);
    }
}

#[test]
fn a_request_that_is_refused_counts_in_no_trial() {
    let policy = BESIDE.replace("\"limit\": 5", "\"limit\": 1");
    for mut gateway in Gateway::of_each_topology(&policy) {
        assert!(gateway.passes("ann", "/x"));
        for _ in 0..3 {
            assert!(!gateway.passes("ann", "/x"));
        }
        assert_eq!(used(&mut gateway, "new", "user"), 1);
        assert_eq!(used(&mut gateway, "new", "global"), 1);
        assert_eq!(used(&mut gateway, "old", "user"), 1);
    }
}

#[test]
fn a_refusal_on_trial_is_not_remembered_as_one() {
    let mut gateway = Gateway::new(Topology::Single, &alone(r#""mode": "shadow","#));
    for _ in 0..5 {
        assert!(gateway.passes("ann", "/x"));
    }
    gateway.adopts(&alone(""));
    let passed: Vec<bool> = (0..3).map(|_| gateway.passes("ann", "/x")).collect();
    // Enforced, it begins from what was enforced: nothing.
    assert_eq!(passed, [true, true, false]);
    // And the trial's count is as it was.
    gateway.adopts(&alone(r#""mode": "shadow","#));
    assert_eq!(used(&mut gateway, "new", "user"), 2);
}

#[test]
fn what_is_enforced_is_refused_from_memory_whatever_is_on_trial_beside_it() {
    let policy = BESIDE.replace("\"limit\": 5", "\"limit\": 1");
    for mut gateway in Gateway::of_each_topology(&policy) {
        gateway.get("ann", "/x");
        gateway.get("ann", "/x");
        gateway.store.asked.clear();
        assert!(!gateway.passes("ann", "/x"));
        assert!(gateway.store.asked.is_empty(), "{:?}", gateway.store.asked);
    }
}

#[test]
fn a_rule_that_is_off_is_not_there() {
    let mut gateway = Gateway::new(Topology::Single, &alone(r#""mode": "off","#));
    for _ in 0..5 {
        let answer = gateway.get("ann", "/x");
        assert_eq!(answer.status, 200);
        assert!(answer.headers.is_empty(), "{answer:?}");
    }
    assert!(gateway.store.asked.is_empty());
    assert!(gateway.status("ann")["rate_limits"]["new"].is_null());
}

#[test]
fn a_store_that_fails_makes_no_trial_a_degraded_request() {
    let mut gateway = Gateway::new(Topology::Single, &alone(r#""mode": "shadow","#));
    gateway.store.lost = Some("");
    let deny = BESIDE.replace(
        "\"limit\": 2,",
        "\"limit\": 2, \"on_store_failure\": \"deny\",",
    );
    for policy in [alone(r#""mode": "shadow","#), deny] {
        gateway.adopts(&policy);
        let answer = gateway.get("ann", "/x");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-shadow"), Some("new=unknown"));
        let record = answer.record.unwrap();
        assert!(record.shadow_denied.is_empty() && record.shadow_passed.is_empty());
        let enforced = policy.contains("old");
        assert_eq!(record.degraded().is_some(), enforced);
        let mark = answer
            .headers
            .iter()
            .any(|(name, _)| name == "x-weir-degraded");
        assert_eq!(mark, enforced);
    }
}

#[test]
fn a_trial_of_which_a_part_is_unknown_is_unknown() {
    let mut gateway = Gateway::new(Topology::Cluster, BESIDE);
    gateway.store.lost = Some("{g:new}");
    let answer = gateway.get("ann", "/x");
    assert_eq!(answer.header("x-shadow"), Some("new=unknown"));
    assert_eq!(answer.record.unwrap().degraded(), None);
}

#[test]
fn a_record_names_the_limits_that_decided_a_trial() {
    let mut gateway = Gateway::new(Topology::Single, BESIDE);
    let mut sides = (0..3).map(|_| {
        let record = gateway.get("ann", "/x").record.unwrap();
        (record.shadow_passed.len(), record.shadow_denied.len())
    });
    assert!(sides.by_ref().eq([(1, 0), (1, 0), (0, 1)]));
}

#[test]
fn a_percentage_enforces_for_the_same_callers_every_time() {
    let enforced = |percent: &str| -> Vec<usize> {
        let policy = alone(&format!(r#""enforce_percent": {percent},"#));
        let mut gateway = Gateway::new(Topology::Single, &policy);
        let third = |gateway: &mut Gateway, user: &str| {
            (0..3).map(|_| gateway.passes(user, "/x")).last().unwrap()
        };
        let users = (0..400).map(|i| (i, format!("user{i}")));
        users
            .filter(|(_, user)| !third(&mut gateway, user))
            .map(|(i, _)| i)
            .collect()
    };
    let quarter = enforced("25");
    assert!((60..140).contains(&quarter.len()), "{}", quarter.len());
    assert_eq!(enforced("25"), quarter, "at another gateway");
    let half = enforced("50.5");
    assert!(quarter.iter().all(|user| half.contains(user)));
    assert!(half.len() > quarter.len());
    assert!(enforced("0").is_empty());
    assert_eq!(enforced("100").len(), 400);
}

#[test]
fn callers_on_trial_and_callers_held_to_a_rule_count_apart() {
    let policy = r#"{"rules": [{"name": "r", "pattern": "/x", "enforce_percent": 50,
        "global_limit": {"type": "fixed_window", "limit": 10, "window": 60}}]}"#;
    let mut gateway = Gateway::new(Topology::Single, policy);
    let passed = (0..200)
        .filter(|i| gateway.passes(&format!("user{i}"), "/x"))
        .count();
    // Ten who are held to it, and all who are not.
    assert!((60..160).contains(&passed), "{passed}");
    let key = "weir:2:{g:r}:r:all:fw60s";
    assert!(gateway.store.asked.iter().any(|asked| asked == key));
    let shadow = format!("{key}:shadow");
    assert!(gateway.store.asked.contains(&shadow));
}

#[test]
fn the_status_marks_what_is_on_trial() {
    let mut gateway = Gateway::new(Topology::Single, BESIDE);
    let status = gateway.status("ann");
    assert_eq!(status["rate_limits"]["new"]["mode"], "shadow");
    assert!(status["rate_limits"]["old"]["mode"].is_null());
}

/// The script refuses an operation without limits, and so did the status of whoever had none.
#[test]
fn whoever_no_limit_is_for_has_a_status() {
    let policy = r#"{"rules": [{"name": "r", "pattern": "/x", "user_limits":
        {"premium": {"type": "fixed_window", "limit": 10, "window": 60}}}]}"#;
    let mut gateway = Gateway::new(Topology::Single, policy);
    assert_eq!(gateway.status("ann")["rate_limits"], serde_json::json!({}));
}
