//! Permits that workers take in advance.

use std::time::{Duration, Instant};

use serde_json::Value;
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy, Topology};
use weir_lab::redis::Redis;
use weir_lab::redis_cluster::{RedisCluster, Replicas};

use crate::crowd::rush;
use crate::visitor::{Visitor, remaining};
use crate::world::{World, now};
use crate::{Case, cases, live_policy};

pub const CASES: &[Case] = cases![
    what_is_leased_passes_without_asking,
    auto_asks_ever_less_of_a_caller_who_keeps_calling,
    unused_permits_are_free_for_others_when_the_lease_is_over,
    a_request_refused_elsewhere_leaves_its_permit_in_the_lease,
    a_worker_spends_what_it_has_leased_while_redis_is_away,
    what_is_over_while_redis_is_away_goes_back_when_it_answers_again,
    no_window_is_exceeded_by_three_workers_with_leases,
    a_bucket_is_exceeded_by_no_more_than_what_is_out,
    a_cluster_has_leases_too,
    what_a_policy_no_longer_leases_goes_back,
];

const WINDOW: Duration = Duration::from_secs(2);
const LIMIT: usize = 100;
/// How long "brief" is leased for.
const BRIEF: Duration = Duration::from_secs(5);
/// What the three workers of both gateways may hold of a limit at once.
const OUT: usize = 3 * 10;

/// How many commands the store has been asked to run as scripts.
fn asked(redis: &Redis) -> u64 {
    redis.calls_of("evalsha").unwrap()
}

const POLICY: &str = include_str!("leases.json");

/// A gateway of one worker with a Redis of its own.
fn alone(world: &World) -> (Gateway, Redis) {
    let redis = Redis::start().unwrap();
    let gateway = world.gateway().redis(&redis).workers(1);
    let policy = Policy::Text(POLICY.to_owned());
    (gateway.policy(policy).start().unwrap(), redis)
}

fn what_is_leased_passes_without_asking(world: &World) {
    let (gateway, redis) = alone(world);
    let visitor = Visitor::of_tier(&gateway, "free");
    assert_eq!(remaining(&visitor.get("/kept")), 999);
    // The lease was asked for together with the request, and came with its answer.
    let before = asked(&redis);
    for left in (899..999).rev() {
        let answer = visitor.get("/kept");
        assert_eq!((answer.status, remaining(&answer)), (200, left));
    }
    assert_eq!(asked(&redis), before);
    let usage = usage(&visitor, "kept");
    assert_eq!(usage, 101, "what is leased is used");
    let before = asked(&redis);
    assert_eq!(remaining(&visitor.get("/kept")), 898);
    assert_eq!(asked(&redis), before + 1);
    // What the next lease holds is not told as used by the caller, but others cannot have it.
    assert_eq!(self::usage(&visitor, "kept"), 202);
    assert_eq!(remaining(&visitor.get("/kept")), 897);
}

fn usage(visitor: &Visitor, rule: &str) -> u64 {
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    let usage = &status["rate_limits"][rule]["current_usage"];
    usage.as_u64().unwrap_or_else(|| panic!("{status}"))
}

fn auto_asks_ever_less_of_a_caller_who_keeps_calling(world: &World) {
    let (gateway, redis) = alone(world);
    let visitor = Visitor::of_tier(&gateway, "free");
    let requests = |count: usize| {
        let before = asked(&redis);
        for _ in 0..count {
            assert_eq!(visitor.get("/auto").status, 200);
        }
        asked(&redis) - before
    };
    // Four, sixteen, and so on: the first few leases are soon used up.
    let (first, then) = (requests(100), requests(500));
    assert!((4..=8).contains(&first), "{first} for the first hundred");
    assert!(then <= 4, "{then} for the next five hundred");
}

fn unused_permits_are_free_for_others_when_the_lease_is_over(world: &World) {
    let [one, other] = world.leasing();
    for algorithm in ["fixed_window", "sliding_window", "token_bucket"] {
        let path = format!("/returned/{algorithm}");
        let visitor = Visitor::of_tier(one, "free");
        assert_eq!(visitor.get(&path).status, 200);
        let elsewhere = visitor.elsewhere(other);
        let soon = Duration::from_secs(5);
        // The other gateway may have refused it, and then does for a second.
        let mut passed = 0;
        deadline::poll(soon, "permits that come back", || {
            passed += usize::from(elsewhere.get(&path).status == 200);
            Ok((passed == 9).then_some(()))
        })
        .unwrap();
        assert_eq!(elsewhere.get(&path).status, 429, "{algorithm}");
        assert_eq!(visitor.get(&path).status, 429, "{algorithm}");
    }
}

/// Each of them is refused once by its own limit, after it had a permit of the lease.
fn a_request_refused_elsewhere_leaves_its_permit_in_the_lease(world: &World) {
    let (gateway, _redis) = alone(world);
    assert_permits_stay_in_the_lease(&gateway);
}

/// "mixed" has twenty-one permits, of which twenty are leased with the first request.
fn assert_permits_stay_in_the_lease(gateway: &Gateway) {
    let refused_by = |visitor: &Visitor| {
        let refused = visitor.get("/mixed");
        assert_eq!(refused.status, 429);
        refused.json().unwrap()["details"]["scope"].clone()
    };
    for number in 0..21 {
        let visitor = Visitor::of_tier(gateway, "free");
        assert_eq!(visitor.get("/mixed").status, 200, "{number}");
        // With the last of them the lease is used up.
        let scope = if number < 20 { "user" } else { "global" };
        assert_eq!(refused_by(&visitor), scope, "{number}");
    }
    assert_eq!(refused_by(&Visitor::of_tier(gateway, "free")), "global");
}

fn a_worker_spends_what_it_has_leased_while_redis_is_away(world: &World) {
    let (gateway, mut redis) = alone(world);
    let visitor = Visitor::of_tier(&gateway, "free");
    assert_eq!(visitor.get("/kept").status, 200);
    redis.stop();
    for _ in 0..100 {
        let answer = visitor.get("/kept");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-weir-degraded"), None);
    }
    let answer = visitor.get("/kept");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-weir-degraded").as_deref(), Some("deny"));
}

/// It was given back to nobody, and stayed counted to the end of the window.
fn what_is_over_while_redis_is_away_goes_back_when_it_answers_again(world: &World) {
    let (gateway, redis) = alone(world);
    let holders = [(); 20].map(|()| Visitor::of_tier(&gateway, "free"));
    for holder in &holders {
        assert_eq!(holder.get("/brief").status, 200);
    }
    let begun = Instant::now();
    redis.pause().unwrap();
    let soon = Duration::from_secs(10);
    let other = Visitor::of_tier(&gateway, "free");
    deadline::poll(soon, "a worker that asks no more", || {
        other.get("/kept");
        Ok(gateway.log().contains("not asked for now").then_some(()))
    })
    .unwrap();
    assert!(begun.elapsed() < BRIEF, "no lease was over before");
    deadline::poll(soon, "the end of the leases", || {
        Ok((begun.elapsed() > BRIEF + Duration::from_millis(500)).then_some(()))
    })
    .unwrap();
    redis.resume().unwrap();
    for holder in &holders {
        comes_back(holder, "brief");
    }
}

/// A request that passed: since when it was under way, and until when.
#[derive(Clone, Copy)]
struct Passed {
    sent: Duration,
    heard: Duration,
}

/// What passes at both gateways when many ask for this path at once.
fn press([one, other]: &[Gateway; 2], path: &str, time: Duration) -> Vec<Passed> {
    let passed = rush(12, |client| {
        let gateway = [one, other, other][client % 3];
        let visitor = Visitor::of_tier(gateway, "free");
        let begun = Instant::now();
        let mut passed = Vec::new();
        while begun.elapsed() < time {
            let sent = now();
            if visitor.get(path).status == 200 {
                passed.push(Passed { sent, heard: now() });
            }
        }
        passed
    });
    let mut passed = passed.concat();
    passed.sort_by_key(|passed| passed.sent);
    passed
}

/// The most that was wholly under way within `WINDOW` from any of these moments on.
fn most_from(passed: &[Passed], starts: impl Iterator<Item = Duration>) -> usize {
    let within = |start: Duration| {
        let own = |one: &&Passed| one.sent >= start && one.heard < start + WINDOW;
        passed.iter().filter(own).count()
    };
    starts.map(within).max().unwrap_or(0)
}

fn no_window_is_exceeded_by_three_workers_with_leases(world: &World) {
    for path in ["/swift/fixed", "/swift/sliding", "/swift/auto"] {
        assert_no_window_is_exceeded(world.leasing(), path);
    }
}

fn assert_no_window_is_exceeded(gateways: &[Gateway; 2], path: &str) {
    let passed = press(gateways, path, Duration::from_secs(7));
    let sent = passed.iter().map(|one| one.sent);
    let most = if path.ends_with("fixed") {
        let window = WINDOW.as_micros() as u64;
        let start = |at: Duration| at.as_micros() as u64 / window * window;
        most_from(&passed, sent.map(start).map(Duration::from_micros))
    } else {
        most_from(&passed, sent)
    };
    assert!(most <= LIMIT, "{path}: {most}");
    // And the leases are no reason to let few pass.
    assert!(most >= LIMIT - OUT, "{path}: {most}");
    let all = passed.len();
    assert!(all >= 2 * (LIMIT - OUT), "{path}: {all}");
}

fn a_bucket_is_exceeded_by_no_more_than_what_is_out(world: &World) {
    let passed = press(world.leasing(), "/swift/bucket", Duration::from_secs(5));
    let most = most_from(&passed, passed.iter().map(|one| one.sent));
    // A full bucket, and what flows in.
    assert!(most <= 2 * LIMIT + OUT, "{most}");
    assert!(most >= 2 * LIMIT - OUT, "{most}");
}

/// There a lease is asked for at one shard while the request may be refused at another.
fn a_cluster_has_leases_too(world: &World) {
    let cluster = RedisCluster::start(Replicas::None).unwrap();
    let gateways = [1, 2].map(|workers| {
        let gateway = world.gateway().redis(cluster.node(0)).workers(workers);
        let gateway = gateway.topology(Topology::Cluster);
        let policy = Policy::Text(POLICY.to_owned());
        gateway.policy(policy).start().unwrap()
    });
    assert_permits_stay_in_the_lease(&gateways[0]);
    for path in ["/swift/fixed", "/swift/sliding"] {
        assert_no_window_is_exceeded(&gateways, path);
    }
    // Of all three shards, what is not used comes back.
    let holders = [(); 12].map(|()| Visitor::of_tier(&gateways[0], "free"));
    for holder in &holders {
        assert_eq!(holder.get("/brief").status, 200);
    }
    for holder in &holders {
        comes_back(holder, "brief");
    }
}

/// The permits of a lease that was used once.
fn comes_back(holder: &Visitor, rule: &str) {
    deadline::poll(Duration::from_secs(10), "permits that come back", || {
        let status = holder.get("/api/v1/rate-limits/status").json()?;
        let usage = &status["rate_limits"][rule]["current_usage"];
        Ok((usage == 1).then_some(()))
    })
    .unwrap();
}

fn what_a_policy_no_longer_leases_goes_back(world: &World) {
    let redis = Redis::start().unwrap();
    let gateway = world.gateway().redis(&redis).workers(1);
    let gateway = gateway.policy(Policy::Text(POLICY.to_owned()));
    let gateway = gateway.variable("POLICY_POLL_MS", "200").start().unwrap();
    let holders = [(); 12].map(|()| Visitor::of_tier(&gateway, "free"));
    for holder in &holders {
        assert_eq!(holder.get("/kept").status, 200);
        assert_eq!(usage(holder, "kept"), 101);
    }
    let mut policy: Value = serde_json::from_str(POLICY).unwrap();
    for rule in policy["rules"].as_array_mut().unwrap() {
        for scope in ["global_limit", "user_limits"] {
            let limit = match scope {
                "global_limit" => rule.get_mut(scope),
                _ => rule
                    .get_mut(scope)
                    .and_then(|tiers| tiers.get_mut("default")),
            };
            limit.map(|limit| limit.as_object_mut().unwrap().remove("lease"));
        }
    }
    let version = live_policy::publish(&redis, &policy.to_string());
    live_policy::follows(&gateway, version);
    for holder in &holders {
        comes_back(holder, "kept");
    }
}
