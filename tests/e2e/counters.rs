//! A count follows its limit: whatever an operator does to the list around it, and whatever tier the
//! caller comes with. What is another limit counts anew.

use std::time::Duration;

use serde_json::{Value, json};
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

use crate::live_policy::{follows, publish_in};
use crate::visitor::{Visitor, number, unique};
use crate::world::{SOON, World, now, wait_for_room, wait_until};
use crate::{Case, cases, keys};

pub const CASES: &[Case] = cases![
    a_limit_keeps_its_count_wherever_it_stands_in_its_list,
    a_limit_with_another_window_name_or_algorithm_counts_anew,
    a_trial_and_a_variant_keep_their_counts_too,
    what_is_leased_is_counted_once_across_an_edit,
    a_caller_of_two_tiers_has_one_quota,
    equal_limits_of_one_list_count_apart,
    two_environments_share_a_redis_and_nothing_else,
];

const DAY: u64 = 86_400;
/// Of the limit that a case is about; the guards beside it allow more.
const QUOTA: u64 = 5;

const ALGORITHMS: [&str; 4] = [
    "fixed_window",
    "sliding_window",
    "token_bucket",
    "leaky_bucket",
];
const SCOPES: [&str; 3] = ["global", "user", "ip"];

fn limit(algorithm: &str, limit: u64, window: u64) -> Value {
    json!({ "type": algorithm, "limit": limit, "window": window })
}

fn named(name: &str, mut limit: Value) -> Value {
    limit["name"] = name.into();
    limit
}

/// The limits of one algorithm that a rule has.
type List<'a> = dyn Fn(&str) -> Vec<Value> + 'a;

/// A rule for each algorithm and scope, whose limits `list` gives.
fn rules(list: impl Fn(&str) -> Vec<Value>) -> Value {
    let rule = |algorithm: &str, scope: &str| {
        let name = format!("{algorithm}-{scope}");
        let mut rule = json!({ "name": name, "pattern": format!("/{name}/*") });
        let limits = list(algorithm);
        match scope {
            "global" => rule["global_limit"] = limits.into(),
            "user" => rule["user_limits"] = json!({ "default": limits }),
            _ => rule["ip_limits"] = json!({ "default": limits }),
        }
        rule
    };
    let rules = ALGORITHMS
        .iter()
        .flat_map(|algorithm| SCOPES.iter().map(move |scope| rule(algorithm, scope)));
    json!({ "rules": rules.collect::<Vec<_>>() })
}

fn paths() -> impl Iterator<Item = String> {
    let scopes = |algorithm| {
        SCOPES
            .iter()
            .map(move |scope| format!("/{algorithm}-{scope}/x"))
    };
    ALGORITHMS.iter().flat_map(scopes)
}

/// A caller with the whole of a day before them.
fn visitor(gateway: &Gateway) -> Visitor {
    wait_for_room(Duration::from_secs(DAY), SOON);
    Visitor::of_tier(gateway, "free")
}

fn use_up(visitor: &Visitor, path: &str) {
    for request in 0..QUOTA {
        assert_eq!(visitor.get(path).status, 200, "{path} {request}");
    }
    is_refused(visitor, path, QUOTA);
}

/// By the limit of so many.
fn is_refused(visitor: &Visitor, path: &str, limit: u64) {
    let answer = visitor.get(path);
    let told = (answer.status, number(&answer, "x-ratelimit-limit"));
    assert_eq!(told, (429, limit), "{path} {answer:?}");
}

/// Removing a guard, putting one first or swapping two handed every caller a new day.
fn a_limit_keeps_its_count_wherever_it_stands_in_its_list(world: &World) {
    let stage = world.stage();
    let day = |algorithm: &str| limit(algorithm, QUOTA, DAY);
    let guards = |algorithm: &str| [limit(algorithm, 100, 1), limit(algorithm, 300, 60)];
    stage.publish(
        &rules(|algorithm| {
            let [first, second] = guards(algorithm);
            vec![first, second, day(algorithm)]
        })
        .to_string(),
    );
    let visitor = visitor(&stage.gateway);
    paths().for_each(|path| use_up(&visitor, &path));
    let edits: [(&str, &List<'_>); 4] = [
        ("one taken away", &|algorithm| {
            let [_, second] = guards(algorithm);
            vec![second, day(algorithm)]
        }),
        ("two swapped", &|algorithm| {
            let [_, second] = guards(algorithm);
            vec![day(algorithm), second]
        }),
        ("one put first", &|algorithm| {
            let [first, _] = guards(algorithm);
            vec![limit(algorithm, 200, 10), first, day(algorithm)]
        }),
        ("alone", &|algorithm| vec![day(algorithm)]),
    ];
    for (edit, list) in edits {
        stage.publish(&rules(list).to_string());
        for path in paths() {
            let answer = visitor.get(&path);
            let told = (answer.status, number(&answer, "x-ratelimit-limit"));
            assert_eq!(told, (429, QUOTA), "{edit}: {path} {answer:?}");
        }
    }
    // A limit that is raised lets its callers have the difference.
    let raised =
        |algorithm: &str| vec![limit(algorithm, 300, 60), limit(algorithm, QUOTA + 1, DAY)];
    stage.publish(&rules(raised).to_string());
    for path in paths() {
        let answer = visitor.get(&path);
        // Buckets begin full: a larger one holds one permit more.
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        is_refused(&visitor, &path, QUOTA + 1);
    }
}

fn a_limit_with_another_window_name_or_algorithm_counts_anew(world: &World) {
    let stage = world.stage();
    let rule = |limits: Value| {
        json!({ "rules": [
            { "name": "anew", "pattern": "/anew/*", "user_limits": { "default": limits } },
        ] })
        .to_string()
    };
    let day = || limit("fixed_window", QUOTA, DAY);
    stage.publish(&rule(day()));
    let visitor = visitor(&stage.gateway);
    use_up(&visitor, "/anew/x");
    for other in [
        limit("fixed_window", QUOTA, DAY / 2),
        named("daily", day()),
        named("quota", day()),
        limit("sliding_window", QUOTA, DAY),
        named("quota", limit("sliding_window", QUOTA, DAY)),
    ] {
        stage.publish(&rule(other));
        use_up(&visitor, "/anew/x");
    }
    // None of them forgot what another counted.
    for known in [day(), named("daily", day()), named("quota", day())] {
        stage.publish(&rule(known));
        is_refused(&visitor, "/anew/x", QUOTA);
    }
}

fn a_trial_and_a_variant_keep_their_counts_too(world: &World) {
    let stage = world.stage();
    let day = || limit("fixed_window", QUOTA, DAY);
    let guard = || limit("fixed_window", 100, 1);
    let policy = |limits: Value, varied: Value| {
        json!({
            "shadow_header": "x-shadow",
            "rules": [
                { "name": "tried", "pattern": "/tried/*", "mode": "shadow",
                  "user_limits": { "default": limits } },
                { "name": "varied", "pattern": "/varied/*", "user_limits": { "default": limits } },
            ],
            "experiments": [
                { "name": "shape", "variants": [
                    { "name": "more", "weight": 1,
                      "rules": { "varied": { "user_limits": { "default": varied } } } },
                    { "name": "control", "weight": 1 },
                ] },
            ],
        })
        .to_string()
    };
    stage.publish(&policy(json!([day()]), json!([day()])));
    let visitors: Vec<Visitor> = (0..8).map(|_| visitor(&stage.gateway)).collect();
    let is_tried = |visitor: &Visitor, told: &str| {
        let answer = visitor.get("/tried/x");
        let header = answer.header("x-shadow").unwrap_or_default();
        assert!(
            answer.status == 200 && header.starts_with(told),
            "{answer:?}"
        );
    };
    for visitor in &visitors {
        use_up(visitor, "/varied/x");
        (0..QUOTA).for_each(|_| is_tried(visitor, "tried=allowed"));
        is_tried(visitor, "tried=denied");
    }
    let edits = [
        (json!([guard(), day()]), json!([day()])),
        (json!([day()]), json!([guard(), day()])),
    ];
    for (own, varied) in edits {
        stage.publish(&policy(own, varied));
        for visitor in &visitors {
            is_refused(visitor, "/varied/x", QUOTA);
            is_tried(visitor, "tried=denied");
        }
    }
}

fn what_is_leased_is_counted_once_across_an_edit(world: &World) {
    const LEASED: u64 = 40;
    let stage = world.stage();
    let mut day = limit("fixed_window", LEASED, DAY);
    day["lease"] = json!({ "size": 4, "ttl_ms": 1000 });
    let policy = |limits: Value| {
        json!({ "rules": [
            { "name": "lent", "pattern": "/lent/*", "user_limits": { "default": limits } },
        ] })
        .to_string()
    };
    stage.publish(&policy(json!([day])));
    let visitor = visitor(&stage.gateway);
    let passes = || u64::from(visitor.apart(&stage.gateway).get("/lent/x").status == 200);
    let mut passed: u64 = (0..LEASED / 2).map(|_| passes()).sum();
    assert_eq!(passed, LEASED / 2);
    stage.publish(&policy(json!([limit("fixed_window", 1000, 1), day])));
    // Some wait in leases of other workers for a moment, and go back.
    deadline::poll(SOON, "the rest of the day", || {
        passed += passes();
        Ok((passed >= LEASED).then_some(()))
    })
    .unwrap();
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    assert_eq!(
        status["rate_limits"]["lent"]["limits"][1]["current_usage"],
        LEASED
    );
    assert_eq!((0..8).map(|_| passes()).sum::<u64>(), 0);
}

/// Five as `free`, one as `premium`, and five more as `free` passed.
fn a_caller_of_two_tiers_has_one_quota(world: &World) {
    let stage = world.stage();
    stage.publish(include_str!("tiers.json"));
    wait_for_room(Duration::from_secs(DAY), SOON);
    let caller = Visitor::anonymous(&stage.gateway).named(unique("both"));
    let (free, premium) = (caller.clone().tier("free"), caller.tier("premium"));
    let rules = ["day", "bucket", "line", "log", "plain", "named"];
    let paths = rules.map(|rule| format!("/{rule}/x"));
    for path in &paths {
        let passed = (0..=QUOTA).filter(|_| free.get(path).status == 200).count();
        assert_eq!(passed as u64, QUOTA, "{path}");
        assert_eq!(premium.get(path).status, 200, "{path}");
        assert_eq!(free.get(path).status, 429, "{path}");
    }
    // Longer than the shortest window: it takes nothing along when it ends.
    wait_until(now() + Duration::from_millis(1500));
    for path in &paths {
        assert_eq!(premium.get(path).status, 200, "{path}");
        assert_eq!(free.get(path).status, 429, "{path}");
    }
}

/// With one key for both, two requests passed where three should: each took twice.
fn equal_limits_of_one_list_count_apart(world: &World) {
    let stage = world.stage();
    let bucket = |limit: u64, burst: u64| json!({ "type": "token_bucket", "limit": limit, "window": 3600, "burst_limit": burst });
    let policy = json!({ "rules": [
        { "name": "pair", "pattern": "/pair/*", "user_limits": { "default": [
            limit("fixed_window", 10, DAY), limit("fixed_window", 3, DAY) ] } },
        { "name": "burst", "pattern": "/burst/*", "user_limits": { "default": [
            bucket(100, 10), bucket(50, 40) ] } },
    ] });
    stage.publish(&policy.to_string());
    let visitor = visitor(&stage.gateway);
    for (path, right) in [("/pair/x", 3), ("/burst/x", 10)] {
        let passed = (0..30).filter(|_| visitor.get(path).status == 200).count();
        assert_eq!(passed, right, "{path}");
    }
    let log = stage.gateway.log();
    let told = "rule pair: two limits of one list are a fixed_window of 86400 seconds";
    assert!(log.contains(told), "who wrote them is asked for names");
}

fn two_environments_share_a_redis_and_nothing_else(world: &World) {
    let redis = Redis::start().unwrap();
    let policy = |limits: u64| {
        json!({ "rules": [
            { "name": "plan", "pattern": "/plan/*",
              "global_limit": limit("fixed_window", 1000, DAY),
              "user_limits": { "default": limit("fixed_window", limits, DAY) } },
        ] })
        .to_string()
    };
    let gateway = |namespace: &str, limit: u64| {
        let gateway = world
            .gateway()
            .redis(&redis)
            .policy(Policy::Text(policy(limit)));
        let gateway = gateway.variable("POLICY_POLL_MS", "200");
        // One worker, so that what it follows all do.
        gateway.namespace(namespace).workers(1).start().unwrap()
    };
    let (production, staging) = (gateway("", 5), gateway("staging", 3));
    let visitor = visitor(&production);
    let elsewhere = visitor.apart(&staging);
    for (visitor, limit) in [(&visitor, 5), (&elsewhere, 3)] {
        let passed = (0..8)
            .filter(|_| visitor.get("/plan/x").status == 200)
            .count();
        assert_eq!(passed, limit);
    }
    let used = |visitor: &Visitor| {
        let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
        status["rate_limits"]["plan"]["limits"][0]["current_usage"].clone()
    };
    assert_eq!((used(&visitor), used(&elsewhere)), (json!(5), json!(3)));
    let starts: Vec<bool> = keys::all(&redis)
        .map(|(key, _)| key.starts_with("weir@staging:2:{"))
        .collect();
    assert_eq!(
        starts.iter().filter(|is_staging| **is_staging).count(),
        starts.len() / 2
    );

    // A push meant for staging replaced production's policy.
    let version = publish_in("staging", &redis, &policy(4));
    let follows_staging = || -> anyhow::Result<bool> {
        let told = staging.stat("wasmcustom.weir.policy.version.namespace.staging")?;
        Ok(told == Some(version))
    };
    let soon_follows_staging = || {
        deadline::poll(SOON, "staging to follow", || {
            Ok(follows_staging()?.then_some(()))
        })
        .unwrap();
    };
    soon_follows_staging();
    // A worker that has just started may not have looked yet, and tells nobody so.
    let passes = |visitor: &Visitor| {
        deadline::poll(SOON, "one request more", || {
            Ok((visitor.get("/plan/x").status == 200).then_some(()))
        })
        .unwrap();
    };
    passes(&elsewhere);
    is_refused(&elsewhere, "/plan/x", 4);
    // Nobody published anything for production, and it has had time to look.
    is_refused(&visitor, "/plan/x", 5);
    assert_eq!(
        production.stat("wasmcustom.weir.policy.version").unwrap(),
        Some(0)
    );
    let version = publish_in("", &redis, &policy(6));
    follows(&production, version);
    passes(&visitor);
    is_refused(&visitor, "/plan/x", 6);
    soon_follows_staging();
    is_refused(&elsewhere, "/plan/x", 4);
}
