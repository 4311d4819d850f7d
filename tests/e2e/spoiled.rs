//! What one caller asks, or what stands under one caller's key, is nobody else's trouble.

use redis::{Value, cmd};
use serde_json::json;
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

use crate::crowd::rush;
use crate::failure::{assert_gateway_unharmed, recovers};
use crate::visitor::{Visitor, remaining, tells_limits, unique};
use crate::world::{SOON, World};
use crate::{Case, cases, keys};

pub const CASES: &[Case] = cases![
    one_callers_status_over_a_thousand_limits_is_told_and_harms_nobody,
    a_crowd_that_meets_twenty_rules_is_decided_by_redis,
    a_state_out_of_range_spoils_only_its_caller,
    a_replica_is_shut_until_it_takes,
];

const STATUS: &str = "/api/v1/rate-limits/status";

/// A gateway of one worker, where all who come at once share calls.
fn gateway(world: &World, redis: &Redis, policy: &serde_json::Value) -> Gateway {
    let gateway = world.gateway().redis(redis).workers(1);
    let gateway = gateway.policy(Policy::Text(policy.to_string()));
    gateway.start().unwrap()
}

/// Of Weir's statistics.
fn stat(gateway: &Gateway, name: &str) -> u64 {
    let known = gateway.stat(&format!("wasmcustom.weir.{name}")).unwrap();
    known.unwrap_or_else(|| panic!("Envoy knows no {name}"))
}

fn open_lanes(gateway: &Gateway) -> u64 {
    stat(gateway, "breaker.open_lanes")
}

/// The worker has not once given Redis up, once its statistics tell of calls.
fn assert_asked(gateway: &Gateway) {
    deadline::poll(SOON, "calls", || {
        Ok((stat(gateway, "store.calls_total") > 0).then_some(()))
    })
    .unwrap();
    let failures = stat(gateway, "store.failures_total");
    assert_eq!((failures, stat(gateway, "breaker.opened_total")), (0, 0));
    assert_gateway_unharmed(gateway);
}

fn one_callers_status_over_a_thousand_limits_is_told_and_harms_nobody(world: &World) {
    let redis = Redis::start().unwrap();
    let of_rule = |number: usize| {
        json!({
            "name": format!("r{number}"),
            "pattern": format!("/api/v1/r{number}/*"),
            "global_limit": {"type": "token_bucket", "limit": 1_000_000, "window": 60},
            "user_limits": {"default": {"type": "sliding_window", "limit": 100, "window": 3600}},
        })
    };
    let mut rules: Vec<_> = (0..500).map(of_rule).collect();
    rules.push(json!({
        "name": "plain",
        "pattern": "/plain/*",
        "user_limits": {"default": {"type": "fixed_window", "limit": 1_000_000, "window": 2_592_000}},
    }));
    let gateway = gateway(world, &redis, &json!({"rules": rules}));
    let asker = Visitor::of_tier(&gateway, "free");
    assert_eq!(asker.get("/api/v1/r499/x").status, 200);
    let told = |asker: &Visitor| {
        let answer = asker.get(STATUS);
        assert_eq!(answer.status, 200, "{answer:?}");
        let status = answer.json().unwrap();
        let limits = status["rate_limits"].as_object().unwrap();
        assert_eq!(limits.len(), 501);
        for (rule, used) in [("r0", 0), ("r250", 0), ("r499", 1)] {
            assert_eq!(limits[rule]["current_usage"], json!(used), "{rule}");
        }
    };
    (0..12).for_each(|_| told(&asker));
    let others: Vec<_> = (0..8).map(|_| Visitor::of_tier(&gateway, "free")).collect();
    rush(12 + others.len(), |client| match others.get(client) {
        Some(other) => {
            let other = other.apart(&gateway);
            for used in 1..=50 {
                assert_eq!(remaining(&other.get("/plain/x")), 1_000_000 - used);
            }
        }
        None => told(&asker.apart(&gateway)),
    });
    assert_asked(&gateway);
}

fn a_crowd_that_meets_twenty_rules_is_decided_by_redis(world: &World) {
    const CROWD: usize = 64;
    let redis = Redis::start().unwrap();
    let of_rule = |number: usize| {
        json!({
            "name": format!("r{number}"),
            "pattern": "/*",
            "user_limits": {"default": [
                {"type": "sliding_window", "limit": 1000, "window": 3600},
                {"type": "token_bucket", "limit": 1000, "window": 2_592_000},
            ]},
        })
    };
    let rules: Vec<_> = (0..20).map(of_rule).collect();
    let gateway = gateway(world, &redis, &json!({"rules": rules}));
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| Visitor::of_tier(&gateway, "free"))
        .collect();
    rush(CROWD, |client| {
        let visitor = crowd[client].apart(&gateway);
        for used in 1..=4 {
            let answer = visitor.get("/x");
            assert!(tells_limits(&answer), "decided without Redis: {answer:?}");
            assert_eq!(remaining(&answer), 1000 - used);
        }
    });
    assert_asked(&gateway);
}

/// The bytes of a log: a head and one record.
fn log(numbers: [f64; 6]) -> Vec<u8> {
    numbers.into_iter().flat_map(f64::to_le_bytes).collect()
}

fn a_state_out_of_range_spoils_only_its_caller(world: &World) {
    let redis = Redis::start().unwrap();
    let mut connection = redis.connection().unwrap();
    let limit = |kind: &str| json!({"type": kind, "limit": 1000, "window": 2_592_000, "on_store_failure": "allow"});
    let rules = [
        "token_bucket",
        "leaky_bucket",
        "sliding_window",
        "fixed_window",
    ]
    .map(|kind| {
        json!({
            "name": kind,
            "pattern": format!("/{kind}/*"),
            "user_limits": {"default": limit(kind)},
        })
    });
    let gateway = gateway(world, &redis, &json!({"rules": rules}));
    let span = 2_592_000e6;
    let now = 1.9e15;
    let bucket: &[&[u8]] = &[
        b"99999999999999999999 1 10 60000",
        b"1 99999999999999999999 10 60000",
        b"1 1 1000 99999999999999999999",
    ];
    let logs = [
        log([span, 0.0, 0.0, now, 1e300, 1.0]),
        log([span, 0.0, 0.0, 1e300, 1e300, 1.0]),
        log([span, 0.0, 0.0, now, now, f64::INFINITY]),
        log([span, 0.0, 0.0, now, now, 1.5]),
    ];
    let logs: Vec<&[u8]> = logs.iter().map(Vec::as_slice).collect();
    let window: &[&[u8]] = &[b"9007199254740993 9999999999", b"1 99999999999999999999"];
    let other = Visitor::of_tier(&gateway, "free");
    let mut used = 0;
    for (rule, states) in [
        ("token_bucket", bucket),
        ("leaky_bucket", bucket),
        ("sliding_window", &logs),
        ("fixed_window", window),
    ] {
        for state in states {
            let id = unique("odd");
            let odd = Visitor::anonymous(&gateway).named(&id);
            assert!(tells_limits(&odd.get(format!("/{rule}/x"))));
            let own = keys::of(&redis, &[&format!("u:{id}")]);
            assert_eq!(own.len(), 1, "{own:?}");
            for key in own.keys() {
                let _: Value = cmd("SET")
                    .arg(key)
                    .arg(state)
                    .query(&mut connection)
                    .unwrap();
            }
            let case = format!("{rule} {}", state.escape_ascii());
            for _ in 0..12 {
                let answer = odd.get(format!("/{rule}/x"));
                assert_eq!(
                    (answer.status, tells_limits(&answer)),
                    (200, false),
                    "{case}"
                );
                used += 1;
                let answer = other.get("/fixed_window/x");
                assert_eq!(remaining(&answer), 1000 - used, "beside {case}");
            }
        }
    }
    assert_asked(&gateway);
}

/// It answers, but what answers is not what is wanted: the gauge says so until it takes again, be it
/// that nobody comes.
fn a_replica_is_shut_until_it_takes(world: &World) {
    let redis = Redis::start().unwrap();
    let rules = json!([{
        "name": "plain",
        "pattern": "/plain/*",
        "user_limits": {"default": {
            "type": "fixed_window", "limit": 1000, "window": 2_592_000, "on_store_failure": "allow",
        }},
    }]);
    let gateway = gateway(world, &redis, &json!({"rules": rules}));
    let visitor = Visitor::of_tier(&gateway, "free");
    assert!(tells_limits(&visitor.get("/plain/x")));
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let calls = || stat(&gateway, "store.calls_total");
    deadline::poll(SOON, "a shut lane", || {
        assert_eq!(visitor.get("/plain/x").status, 200);
        Ok((open_lanes(&gateway) == 1).then_some(()))
    })
    .unwrap();
    // It is looked at, and not thought well of.
    let before = calls();
    deadline::poll(SOON, "five looks", || {
        assert_eq!(open_lanes(&gateway), 1, "a replica takes nothing");
        Ok((calls() >= before + 5).then_some(()))
    })
    .unwrap();
    assert!(!gateway.log().contains("Redis is asked again"));
    redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    deadline::poll(SOON, "a lane that is used", || {
        Ok((open_lanes(&gateway) == 0).then_some(()))
    })
    .unwrap();
    recovers(&gateway, &visitor, "/plain/x");
    assert!(gateway.log().contains("Redis is asked again"));
    // A second later nothing of the looks is left.
    deadline::poll(SOON, "no probe", || {
        let probes = keys::all(&redis).filter(|(key, _)| key.ends_with("}:probe"));
        Ok((probes.count() == 0).then_some(()))
    })
    .unwrap();
    assert_gateway_unharmed(&gateway);
}
