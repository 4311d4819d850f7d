//! Requests that cost more than one permit, and those whose cost is known when the response comes.

use weir_core::store::slot::Topology;

use crate::gateway::{Answer, Gateway};

/// `/x` at this cost, of 10 for each user and 1000 for all.
fn policy(cost: &str) -> String {
    format!(
        r#"{{"shadow_header": "x-shadow", "rules": [{{"name": "r", "pattern": "/x", "cost": {cost},
            "global_limit": {{"type": "sliding_window", "limit": 1000, "window": 60}},
            "user_limits": {{"default": {{"type": "fixed_window", "limit": 10, "window": 60}}}}}}]}}"#
    )
}

const BY_REQUEST: &str = r#"{"request_header": "X-Cost", "default": 2, "max": 20}"#;
const BY_RESPONSE: &str = r#"{"response_header": "X-Used", "default": 0, "max": 50}"#;

/// What is used of the user's limit and of everybody's.
fn used(gateway: &mut Gateway) -> (u64, u64) {
    let status = gateway.status("ann");
    let limits = status["rate_limits"]["r"]["limits"].as_array().unwrap();
    let used = |place: usize| limits[place]["current_usage"].as_u64().unwrap();
    (used(1), used(0))
}

#[test]
fn a_request_takes_its_cost_of_every_limit_of_its_rule() {
    for mut gateway in Gateway::of_each_topology(&policy("4")) {
        assert!(gateway.passes("ann", "/x"));
        assert!(gateway.passes("ann", "/x"));
        let refused = gateway.get("ann", "/x");
        assert_eq!(refused.status, 429);
        assert_eq!(refused.body["details"]["remaining"], 2);
        assert_eq!(used(&mut gateway), (8, 8));
    }
}

#[test]
fn rules_of_one_request_cost_each_their_own() {
    let policy = r#"{"rules": [
        {"name": "r", "pattern": "*", "cost": 3,
         "global_limit": {"type": "token_bucket", "limit": 1000, "window": 60},
         "user_limits": {"default": {"type": "fixed_window", "limit": 10, "window": 60}}},
        {"name": "cheap", "pattern": "*",
         "user_limits": {"default": {"type": "fixed_window", "limit": 2, "window": 60}}}]}"#;
    for mut gateway in Gateway::of_each_topology(policy) {
        let passed: Vec<bool> = (0..3).map(|_| gateway.passes("ann", "/x")).collect();
        assert_eq!(passed, [true, true, false]);
        assert_eq!(used(&mut gateway), (6, 6));
    }
}

#[test]
fn a_trusted_caller_says_what_a_request_costs() {
    let mut gateway = Gateway::new(Topology::Single, &policy(BY_REQUEST));
    let mut ask = |headers: &[(&str, &str)]| {
        let mut all = vec![(":path", "/x"), ("x-user-id", "ann")];
        all.extend(headers);
        let answer = gateway.request(&all);
        (answer.status, used(&mut gateway).0)
    };
    assert_eq!(ask(&[]), (200, 2));
    assert_eq!(ask(&[("x-cost", "")]), (200, 4));
    assert_eq!(ask(&[("x-cost", "3")]), (200, 7));
    assert_eq!(ask(&[("x-cost", "0")]), (200, 7));
    for unreadable in ["many", "-1", "1.5"] {
        assert_eq!(ask(&[("x-cost", unreadable)]), (400, 7));
    }
    assert_eq!(ask(&[("x-cost", "1"), ("x-cost", "1")]), (400, 7));
    assert_eq!(ask(&[("x-cost", "4")]), (429, 7));
    // Remembered is the refusal at that cost, and a smaller one still fits.
    assert_eq!(ask(&[("x-cost", "3")]), (200, 10));
}

#[test]
fn an_unreadable_cost_is_told_with_the_mend() {
    let mut gateway = Gateway::new(Topology::Single, &policy(BY_REQUEST));
    let answer = gateway.request(&[(":path", "/x"), ("x-cost", "1,5")]);
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.body["message"],
        "The header x-cost holds no cost; send it once, as a whole number."
    );
    // Where no rule asks for it nobody minds.
    assert_eq!(
        gateway
            .request(&[(":path", "/y"), ("x-cost", "1,5")])
            .status,
        200
    );
}

/// It was a 400, from a rule that refuses nobody.
#[test]
fn a_trial_takes_a_cost_that_it_cannot_read_for_the_default() {
    for mode in [r#""mode": "shadow","#, r#""enforce_percent": 0,"#] {
        let policy = policy(BY_REQUEST).replace("\"cost\"", &format!("{mode} \"cost\""));
        let mut gateway = Gateway::new(Topology::Single, &policy);
        for headers in [
            &[("x-cost", "many")][..],
            &[("x-cost", "1"), ("x-cost", "1")],
        ] {
            let mut all = vec![(":path", "/x"), ("x-user-id", "ann")];
            all.extend(headers);
            let answer = gateway.request(&all);
            assert_eq!(answer.status, 200, "{mode} {headers:?}");
            assert_eq!(answer.header("x-shadow"), Some("r=allowed"));
        }
        assert_eq!(used(&mut gateway), (4, 4), "{mode}");
    }
}

#[test]
fn what_a_stranger_says_of_costs_is_not_believed() {
    let mut gateway = Gateway::new(Topology::Single, &policy(BY_REQUEST));
    for says in ["1", "20", "many"] {
        let headers = [(":path", "/x"), ("x-cost", says)];
        assert_eq!(gateway.request_from("192.0.2.1", &headers).status, 200);
    }
    // The default each time.
    let key = "weir:2:{a:192.0.2.1}:r:user:fw60s".to_string();
    assert!(gateway.store.asked.contains(&key));
    assert_eq!(used(&mut gateway).1, 6);
}

#[test]
fn a_cost_beyond_the_most_is_the_most_and_what_no_limit_holds_never_passes() {
    let mut gateway = Gateway::new(Topology::Single, &policy(BY_REQUEST));
    let headers = [(":path", "/x"), ("x-user-id", "ann"), ("x-cost", "99999")];
    for _ in 0..2 {
        let answer = gateway.request(&headers);
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.body["details"]["never"], true);
    }
    assert!(gateway.passes("ann", "/x"));
    let larger = policy(BY_REQUEST).replace("\"limit\": 10,", "\"limit\": 22,");
    gateway.adopts(&larger);
    assert_eq!(gateway.request(&headers).status, 200);
    assert_eq!(used(&mut gateway).0, 22);
}

#[test]
fn what_a_response_says_is_charged_and_a_debt_is_paid_before_anything_passes() {
    for mut gateway in Gateway::of_each_topology(&policy(BY_RESPONSE)) {
        let first = gateway.get("ann", "/x");
        assert_eq!(first.status, 200);
        assert_eq!(used(&mut gateway), (1, 1), "held until it is known");
        gateway.responds(first, Some("7"));
        assert_eq!(used(&mut gateway), (7, 7));
        let second = gateway.get("ann", "/x");
        gateway.responds(second, Some("45"));
        assert_eq!(used(&mut gateway), (52, 52));
        assert!(!gateway.passes("ann", "/x"));
        // Of the next window nothing is owed: a fixed window forgets.
        gateway.now.0 += 60_000_000;
        assert!(gateway.passes("ann", "/x"));
    }
}

#[test]
fn a_debt_to_a_bucket_is_paid_by_time() {
    let policy = policy(BY_RESPONSE).replace("fixed_window", "token_bucket");
    let mut gateway = Gateway::new(Topology::Single, &policy);
    let answer = gateway.get("ann", "/x");
    gateway.responds(answer, Some("15"));
    let refused = gateway.get("ann", "/x");
    // Five owed and one wanted, at 10 a minute.
    assert_eq!(refused.header("retry-after"), Some("36"));
    assert_eq!(refused.body["details"]["remaining"], 0);
    gateway.now.0 += 35_000_000;
    assert!(!gateway.passes("ann", "/x"));
    gateway.now.0 += 1_000_000;
    assert!(gateway.passes("ann", "/x"));
}

#[test]
fn a_response_that_costs_less_than_was_held_gives_the_rest_back() {
    for (default, says, cost) in [
        (0, Some("0"), 0),
        (0, None, 0),
        (0, Some("1"), 1),
        (0, Some("lots"), 0),
        (6, Some("2"), 2),
        (6, Some("0"), 0),
        (6, None, 6),
        (6, Some("6.5"), 6),
        (6, Some("51"), 50),
    ] {
        let by_response =
            format!(r#"{{"response_header": "x-used", "default": {default}, "max": 50}}"#);
        for mut gateway in Gateway::of_each_topology(&policy(&by_response)) {
            let answer = gateway.get("ann", "/x");
            gateway.responds(answer, says);
            assert_eq!(used(&mut gateway), (cost, cost), "{default} {says:?}");
        }
    }
}

#[test]
fn a_request_that_is_refused_is_charged_for_nothing() {
    let mut gateway = Gateway::new(Topology::Single, &policy(BY_RESPONSE));
    let answer = gateway.get("ann", "/x");
    gateway.responds(answer, Some("10"));
    assert!(gateway.get("ann", "/x").settlement.is_none());
    assert_eq!(used(&mut gateway), (10, 10));
}

#[test]
fn a_rule_on_trial_is_charged_on_trial() {
    let policy = policy(BY_RESPONSE).replace(
        r#""pattern": "/x","#,
        r#""pattern": "/x", "mode": "shadow","#,
    );
    for mut gateway in Gateway::of_each_topology(&policy) {
        let answer = gateway.get("ann", "/x");
        gateway.responds(answer, Some("30"));
        assert_eq!(used(&mut gateway), (30, 30));
        let answer = gateway.get("ann", "/x");
        assert_eq!(answer.status, 200);
        assert!(answer.header("x-shadow").unwrap().starts_with("r=denied"));
        // It would not have been served, and so have cost nothing.
        assert!(answer.settlement.is_none());
        assert_eq!(used(&mut gateway), (30, 30));
        let keys = |asked: &[String]| {
            asked
                .iter()
                .all(|key| key.ends_with(":shadow") || key.contains("}::"))
        };
        assert!(keys(&gateway.store.asked), "{:?}", gateway.store.asked);
    }
}

#[test]
fn of_two_rules_each_is_charged_what_it_is_due() {
    let policy = r#"{"rules": [
        {"name": "count", "pattern": "*",
         "user_limits": {"default": {"type": "fixed_window", "limit": 5, "window": 60}}},
        {"name": "r", "pattern": "*", "cost": {"response_header": "x-used", "default": 0, "max": 50},
         "global_limit": {"type": "fixed_window", "limit": 1000, "window": 60},
         "user_limits": {"default": {"type": "fixed_window", "limit": 100, "window": 60}}},
        {"name": "tried", "pattern": "*", "mode": "shadow",
         "user_limits": {"default": {"type": "fixed_window", "limit": 5, "window": 60}}}]}"#;
    for mut gateway in Gateway::of_each_topology(policy) {
        let answer = gateway.get("ann", "/x");
        gateway.responds(answer, Some("20"));
        assert_eq!(used(&mut gateway), (20, 20));
        let status = gateway.status("ann");
        for rule in ["count", "tried"] {
            assert_eq!(status["rate_limits"][rule]["current_usage"], 1, "{rule}");
        }
    }
}

#[test]
fn without_the_store_a_worker_charges_what_it_keeps_itself() {
    let mut gateway = Gateway::new(Topology::Single, &policy(BY_RESPONSE));
    gateway.store.lost = Some("");
    let answer = gateway.get("ann", "/x");
    assert_eq!(answer.status, 200);
    gateway.responds(answer, Some("25"));
    assert!(!gateway.passes("ann", "/x"));
    gateway.now.0 += 60_000_000;
    assert!(gateway.passes("ann", "/x"));
}

#[test]
fn a_share_is_large_enough_for_one_request_at_its_cost() {
    let policy = policy("8");
    let store = r#""store": {"workers": 100}, "#;
    let mut gateway = Gateway::with_store(Topology::Single, store, &policy);
    gateway.store.lost = Some("");
    assert!(gateway.passes("ann", "/x"));
    assert!(!gateway.passes("ann", "/x"));
}

#[test]
fn a_trial_beside_a_rule_in_force_is_charged_for_itself() {
    let policy = r#"{"rules": [
        {"name": "count", "pattern": "*",
         "user_limits": {"default": {"type": "fixed_window", "limit": 5, "window": 60}}},
        {"name": "r", "pattern": "*", "mode": "shadow",
         "cost": {"response_header": "x-used", "default": 0, "max": 50},
         "global_limit": {"type": "fixed_window", "limit": 1000, "window": 60},
         "user_limits": {"default": {"type": "fixed_window", "limit": 100, "window": 60}}}]}"#;
    for mut gateway in Gateway::of_each_topology(policy) {
        let answer = gateway.get("ann", "/x");
        gateway.responds(answer, Some("20"));
        assert_eq!(used(&mut gateway), (20, 20));
        let status = gateway.status("ann");
        assert_eq!(status["rate_limits"]["count"]["current_usage"], 1);
    }
}

/// What an answer tells of the limit that is shown: what remains, and seconds to its reset.
fn told(answer: &Answer) -> (u64, u64) {
    let number = |name: &str| answer.header(name).unwrap().parse().unwrap();
    (number("x-ratelimit-remaining"), number("x-ratelimit-reset"))
}

/// It told what remained before: 99, 39 and 9.
#[test]
fn what_remains_falls_by_what_the_response_cost_and_never_below_nothing() {
    for algorithm in ALGORITHMS {
        let policy = format!(
            r#"{{"rules": [{{"name": "r", "pattern": "/x",
                "cost": {{"response_header": "X-Used", "default": 1, "max": 1000}},
                "user_limits": {{"default": {{"type": "{algorithm}", "limit": 100, "window": 1000}}}}}}]}}"#
        );
        for mut gateway in Gateway::of_each_topology(&policy) {
            for (cost, left) in [("60", 40), ("0", 40), ("30", 10), ("50", 0)] {
                let answer = gateway.get("ann", "/x");
                let answer = gateway.responds(answer, Some(cost));
                assert_eq!(told(&answer).0, left, "{algorithm} {cost}");
            }
            assert_eq!(gateway.get("ann", "/x").status, 429);
        }
    }
}

const ALGORITHMS: [&str; 4] = [
    "fixed_window",
    "sliding_window",
    "token_bucket",
    "leaky_bucket",
];

#[test]
fn what_a_response_tells_is_what_the_store_tells_afterwards() {
    for algorithm in ALGORITHMS {
        let policy = policy(BY_RESPONSE).replace("fixed_window", algorithm);
        for mut gateway in Gateway::of_each_topology(&policy) {
            for cost in ["0", "3", "1", "0", "5"] {
                gateway.now.0 += 100_000;
                let answer = gateway.get("ann", "/x");
                let answer = gateway.responds(answer, Some(cost));
                let status = gateway.status("ann");
                let own = &status["rate_limits"]["r"]["limits"][1];
                let number = |name: &str| own[name].as_u64().unwrap();
                let expected = (number("remaining"), number("reset"));
                assert_eq!(told(&answer), expected, "{algorithm} {cost} {own}");
            }
        }
    }
}

/// As a cost that a request states twice, it cannot be read.
#[test]
fn a_cost_that_a_response_states_twice_is_the_default() {
    let policy = policy(r#"{"response_header": "x-used", "default": 3, "max": 50}"#);
    for mut gateway in Gateway::of_each_topology(&policy) {
        let answer = gateway.get("ann", "/x");
        let answer = gateway.responds_with(answer, &["1", "9"]);
        assert_eq!((told(&answer).0, used(&mut gateway)), (7, (3, 3)));
    }
}

#[test]
fn a_response_shows_and_warns_of_the_limit_that_its_cost_leaves_least_of() {
    let policy = r#"{"rules": [
        {"name": "count", "pattern": "*",
         "user_limits": {"default": {"type": "fixed_window", "limit": 7, "window": 60}}},
        {"name": "r", "pattern": "*", "cost": {"response_header": "x-used", "default": 0, "max": 50},
         "user_limits": {"default": {"type": "fixed_window", "limit": 10, "window": 60,
                                     "warn_at": 0.5}}}]}"#;
    for mut gateway in Gateway::of_each_topology(policy) {
        let mut responds = |cost| {
            let answer = gateway.get("ann", "/x");
            let answer = gateway.responds(answer, Some(cost));
            let limit = answer.header("x-ratelimit-limit").unwrap().to_owned();
            let warning = answer.header("x-ratelimit-warning").map(str::to_owned);
            (limit, told(&answer).0, warning)
        };
        let of = |limit: &str, left, warning: Option<&str>| {
            (limit.to_owned(), left, warning.map(str::to_owned))
        };
        assert_eq!(responds("0"), of("7", 6, None));
        assert_eq!(responds("4"), of("7", 5, None));
        let warning = r#""r";scope=user;used=0.8"#;
        assert_eq!(responds("4"), of("10", 2, Some(warning)));
        // Held, it was used so far too.
        assert_eq!(responds("0"), of("10", 2, Some(warning)));
    }
}

#[test]
fn without_the_store_the_balance_of_the_workers_own_count_is_told() {
    let mut gateway = Gateway::new(Topology::Single, &policy(BY_RESPONSE));
    gateway.store.lost = Some("");
    for (cost, left) in [("4", 6), ("0", 6), ("9", 0)] {
        let answer = gateway.get("ann", "/x");
        let answer = gateway.responds(answer, Some(cost));
        assert_eq!(told(&answer).0, left, "{cost}");
        assert!(answer.header("x-weir-degraded").is_some());
    }
}
