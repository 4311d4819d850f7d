//! A policy that is published in Redis: every gateway follows without a restart, a lost request or a
//! wrong count, and keeps what is in force whatever else is found there.

use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::{Value, json};
use weir_cli::publication::{Note, Outcome, Shelf};
use weir_core::codec::namespace::Namespace;
use weir_core::live::poller::MOST_DOCUMENT;
use weir_lab::client::Answer;
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy, Topology};
use weir_lab::redis::Redis;
use weir_lab::redis_cluster::{RedisCluster, Replicas};

use crate::crowd::{rush, traffic};
use crate::visitor::{Visitor, number};
use crate::world::{SOON, World, at_home, wait_for_room};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    a_limit_raised_under_traffic_admits_exactly_the_rest,
    a_refused_caller_passes_as_soon_as_the_limit_is_raised,
    what_is_no_policy_is_refused_once_and_changes_nothing,
    a_rollback_brings_the_previous_policy_back,
    a_policy_that_is_deleted_stays_in_force_until_it_is_withdrawn,
    a_redis_that_lost_everything_changes_no_limit,
    a_redis_that_is_away_changes_no_limit,
    an_idle_gateway_follows_and_begins_with_what_is_published,
    the_longest_document_is_adopted_and_a_longer_one_refused,
    a_gateway_that_is_told_not_to_look_does_not,
    a_cluster_is_followed_too,
];

const POLL: Duration = Duration::from_millis(200);
/// What a change may take beyond that: a machine that is busy with other tests.
const MARGIN: Duration = Duration::from_secs(4);
const DAY: Duration = Duration::from_secs(86_400);

/// A gateway whose configuration allows 10 a day, and the Redis where policies are published.
pub struct Stage {
    pub gateway: Gateway,
    redis: Redis,
}

impl Stage {
    pub fn new(world: &World) -> Self {
        let redis = Redis::start().unwrap();
        let gateway = gateway(world, &redis);
        Self { gateway, redis }
    }

    /// Publishes, and waits until all workers follow; the version.
    pub fn publish(&self, document: &str) -> u64 {
        let mut version = publish(&self.redis, document);
        // In a Redis that was emptied within this second it may be the number of the one in force.
        while self.stat("version") == version {
            version = publish(&self.redis, document);
        }
        follows(&self.gateway, version);
        version
    }

    fn stat(&self, name: &str) -> u64 {
        let name = format!("wasmcustom.weir.policy.{name}");
        self.gateway.stat(&name).unwrap().unwrap_or_default()
    }
}

fn gateway(world: &World, redis: &Redis) -> Gateway {
    let poll = POLL.as_millis().to_string();
    let gateway = at_home(world.gateway(), redis).policy(Policy::Text(limit(10)));
    gateway.variable("POLICY_POLL_MS", &poll).start().unwrap()
}

/// A policy of one limit.
fn limit(limit: u64) -> String {
    policy(limit).to_string()
}

fn policy(limit: u64) -> Value {
    let quota = json!({ "type": "fixed_window", "limit": limit, "window": DAY.as_secs() });
    json!({ "rules": [
        { "name": "live", "pattern": "/live/*", "user_limits": { "default": quota } },
    ] })
}

/// As an operator does it.
pub fn publish(redis: &Redis, document: &str) -> u64 {
    publish_in("", redis, document)
}

/// The same in an environment of several.
pub fn publish_in(namespace: &str, redis: &Redis, document: &str) -> u64 {
    let mut redis = redis.connection().unwrap();
    let mut shelf = Shelf::new(&mut redis, &namespace.parse().unwrap());
    let current = shelf.current().unwrap();
    let published = shelf
        .publish(current.as_ref(), document.as_bytes(), &Note::default())
        .unwrap();
    let Outcome::Published { version } = published else {
        panic!("{published:?}")
    };
    version
}

/// Past everybody who would look at it first.
fn write(redis: &Redis, version: &str, document: &str) {
    let fields = [("version", version), ("policy", document)];
    let mut redis = redis.connection().unwrap();
    redis
        .hset_multiple::<_, _, _, ()>("weir:policy", &fields)
        .unwrap();
}

/// Waits until workers have asked so often what is published.
fn wait_for_looks(redis: &Redis, looks: u64) {
    let end = redis.calls_of("hmget").unwrap() + looks;
    deadline::poll(SOON, "looks at what is published", || {
        Ok((redis.calls_of("hmget")? >= end).then_some(()))
    })
    .unwrap();
}

/// Calls of a gateway that have ended: late for Envoy on their way to Redis, or answered by a sidecar,
/// which notices itself that Redis is late.
fn ended_calls(gateway: &Gateway) -> u64 {
    let stats = "/stats?filter=upstream_rq_(timeout|completed)$";
    let stats = gateway.admin().get(stats).send().unwrap().text();
    let own = stats
        .lines()
        .filter(|line| line.starts_with("cluster.weir_"));
    let ended = own.filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok());
    ended.sum()
}

pub fn follows(gateway: &Gateway, version: u64) {
    deadline::poll(POLL + MARGIN, "change of the policy", || {
        let is_told = |name: &str| -> anyhow::Result<bool> {
            let told = gateway.stat(&format!("wasmcustom.weir.policy.{name}"))?;
            Ok(told == Some(version))
        };
        Ok((is_told("version")? && is_told("newest_version")?).then_some(()))
    })
    .unwrap();
}

/// A caller with the whole of a window before them.
fn visitor(gateway: &Gateway) -> Visitor {
    wait_for_room(DAY, SOON);
    Visitor::of_tier(gateway, "free")
}

/// The limit that a new caller is told, by each worker.
fn limit_told(gateway: &Gateway) -> u64 {
    let visitor = visitor(gateway);
    let told = rush(8, |_| {
        number(&visitor.apart(gateway).get("/live/x"), "x-ratelimit-limit")
    });
    assert!(told.iter().all(|limit| *limit == told[0]), "{told:?}");
    told[0]
}

fn version_told(gateway: &Gateway) -> u64 {
    let status = visitor(gateway).get("/api/v1/rate-limits/status");
    status.json().unwrap()["policy_version"].as_u64().unwrap()
}

fn a_limit_raised_under_traffic_admits_exactly_the_rest(world: &World) {
    let stage = world.stage();
    let gateway = &stage.gateway;
    stage.publish(&limit(100));
    let visitor = visitor(gateway);
    let is_refused = |path: &str| visitor.apart(gateway).get(path).status == 429;
    let used_up = || {
        deadline::poll(SOON, "end of the quota", || {
            let all = rush(8, |_| is_refused("/live/x"));
            Ok(all.into_iter().all(|refused| refused).then_some(()))
        })
        .unwrap();
    };
    let answers = traffic(gateway, &visitor, "/live/x", 8, || {
        used_up();
        let start = Instant::now();
        stage.publish(&limit(200));
        let took = start.elapsed();
        assert!(took < POLL + MARGIN, "{took:?}");
        used_up();
    });
    let count = |status: u16| {
        let of_status = answers.iter().filter(|timed| timed.answer.status == status);
        of_status.count()
    };
    // Whoever looked whether it was used up may have had some of it.
    let status = visitor.get("/api/v1/rate-limits/status").json().unwrap();
    assert_eq!(status["rate_limits"]["live"]["current_usage"], 200);
    assert!(count(200) <= 200 && count(200) > 100, "{}", count(200));
    assert_eq!(count(200) + count(429), answers.len(), "no answer was lost");
    let mut told: Vec<(u64, u64)> = answers
        .iter()
        .filter(|timed| timed.answer.status == 200)
        .map(|timed| {
            let told = |header| number(&timed.answer, header);
            (told("x-ratelimit-limit"), told("x-ratelimit-remaining"))
        })
        .collect();
    let passed = told.len();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), passed, "each saw another number left");
}

fn a_refused_caller_passes_as_soon_as_the_limit_is_raised(world: &World) {
    let stage = world.stage();
    let gateway = &stage.gateway;
    stage.publish(&limit(5));
    let visitor = visitor(gateway);
    // Refused again and again, so that each worker knows it from memory.
    let answers = traffic(gateway, &visitor, "/live/x", 8, || {
        deadline::poll(SOON, "refusal", || {
            Ok((visitor.apart(gateway).get("/live/x").status == 429).then_some(()))
        })
        .unwrap();
        stage.publish(&limit(1_000_000));
        let passed = rush(16, |_| visitor.apart(gateway).get("/live/x").status);
        assert_eq!(passed, [200; 16]);
    });
    assert!(answers.iter().any(|timed| timed.answer.status == 429));
}

fn what_is_no_policy_is_refused_once_and_changes_nothing(world: &World) {
    let stage = world.stage();
    let version = stage.publish(&limit(33));
    let before = stage.stat("rejected_total");
    let next = version + 1;
    for (refused, (version, document, reason)) in [
        (
            next.to_string(),
            limit(7).replace("\"limit\"", "\"limits\""),
            "policy.rules[0].user_limits.default",
        ),
        (
            (next + 1).to_string(),
            "{".to_owned(),
            "policy: is not JSON",
        ),
        (
            "new".to_owned(),
            limit(7),
            "weir:policy version: is \"new\"",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        write(&stage.redis, &version, &document);
        let refusals = before + refused as u64 + 1;
        deadline::poll(POLL + MARGIN, "refusal", || {
            Ok((stage.stat("rejected_total") == refusals).then_some(()))
        })
        .unwrap();
        let log = stage.gateway.log();
        let told = format!("policy version {version} is refused");
        let told: Vec<&str> = log.lines().filter(|line| line.contains(&told)).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(reason), "{told:?}");
    }
    // A key of another kind was in the log alone, and no alert told of it.
    stage.redis.command(&["DEL", "weir:policy"]).unwrap();
    stage.redis.command(&["SET", "weir:policy", "x"]).unwrap();
    deadline::poll(POLL + MARGIN, "refusal of a key of another kind", || {
        Ok((stage.stat("rejected_total") == before + 4).then_some(()))
    })
    .unwrap();
    // Every worker has looked by then, and twice: their pauses differ by less than half.
    wait_for_looks(&stage.redis, 8);
    assert_eq!(stage.stat("rejected_total"), before + 4);
    // Alone, this case may come before Envoy's main thread is known not to be a worker.
    follows(&stage.gateway, version);
    assert_eq!(limit_told(&stage.gateway), 33);
    stage.redis.command(&["DEL", "weir:policy"]).unwrap();
    write(&stage.redis, &version.to_string(), &limit(33));
}

fn a_rollback_brings_the_previous_policy_back(world: &World) {
    let stage = world.stage();
    stage.publish(&limit(40));
    let mistake = stage.publish(&limit(4));
    assert_eq!(limit_told(&stage.gateway), 4);
    let mut redis = stage.redis.connection().unwrap();
    let previous = Shelf::new(&mut redis, &Namespace::default())
        .history()
        .unwrap();
    let document = String::from_utf8(previous[0].document.clone()).unwrap();
    assert_eq!(stage.publish(&document), mistake + 1);
    assert_eq!(limit_told(&stage.gateway), 40);
    assert_eq!(version_told(&stage.gateway), mistake + 1);
}

fn a_policy_that_is_deleted_stays_in_force_until_it_is_withdrawn(world: &World) {
    let stage = world.stage();
    let version = stage.publish(&limit(50));
    stage.redis.command(&["DEL", "weir:policy"]).unwrap();
    let gone = || format!("no policy is published any more; version {version} stays in force");
    deadline::poll(POLL + MARGIN, "word of it", || {
        Ok(stage.gateway.log().contains(&gone()).then_some(()))
    })
    .unwrap();
    assert_eq!(limit_told(&stage.gateway), 50);
    assert_eq!(version_told(&stage.gateway), version);
    stage.publish(&limit(51));
    let withdrawn = stage.publish("\"configured\"");
    assert_eq!(limit_told(&stage.gateway), 10);
    assert_eq!(version_told(&stage.gateway), withdrawn);
}

fn a_redis_that_lost_everything_changes_no_limit(world: &World) {
    let mut stage = world.stage();
    let version = stage.publish(&limit(60));
    stage.redis.restart().unwrap();
    deadline::poll(SOON, "look at the empty Redis", || {
        let log = stage.gateway.log();
        let told = format!("no policy is published any more; version {version} stays");
        Ok(log.contains(&told).then_some(()))
    })
    .unwrap();
    let visitor = visitor(&stage.gateway);
    deadline::poll(SOON, "counted answers", || {
        let answers = rush(8, |_| visitor.apart(&stage.gateway).get("/live/x"));
        let is_counted = |answer: &Answer| {
            answer.header("x-weir-degraded").is_none()
                && answer.header("x-ratelimit-limit").as_deref() == Some("60")
        };
        Ok(answers.iter().all(is_counted).then_some(()))
    })
    .unwrap();
    // A number that was given before is given to no other.
    let mut given = vec![version];
    for limit_now in [61, 62] {
        let next = deadline::poll(SOON, "number that is new", || {
            stage.redis.command(&["FLUSHALL"])?;
            let next = publish(&stage.redis, &limit(limit_now));
            // Cases before this one may have published more than once a second, and so be ahead of time.
            Ok(given.iter().all(|before| *before < next).then_some(next))
        })
        .unwrap();
        given.push(next);
        deadline::poll(POLL + MARGIN, "version of the emptied Redis", || {
            let answers = rush(8, |_| visitor.apart(&stage.gateway).get("/live/x"));
            let told = |answer: &Answer| number(answer, "x-ratelimit-limit");
            Ok(answers
                .iter()
                .all(|answer| told(answer) == limit_now)
                .then_some(()))
        })
        .unwrap();
    }
}

fn a_redis_that_is_away_changes_no_limit(world: &World) {
    let mut stage = world.stage();
    let version = stage.publish(&limit(70));
    let opened = stage
        .gateway
        .stat("wasmcustom.weir.breaker.opened_total")
        .unwrap();
    stage.redis.pause().unwrap();
    // Nobody calls, so nothing but looks fails.
    let before = ended_calls(&stage.gateway);
    deadline::poll(SOON, "looks that fail", || {
        Ok((ended_calls(&stage.gateway) >= before + 4).then_some(()))
    })
    .unwrap();
    stage.redis.resume().unwrap();
    let after = stage
        .gateway
        .stat("wasmcustom.weir.breaker.opened_total")
        .unwrap();
    assert!(opened.is_some());
    assert_eq!(after, opened, "a look that fails is no failed check");
    assert_eq!(limit_told(&stage.gateway), 70);
    stage.redis.stop();
    let answer = visitor(&stage.gateway).get("/live/x");
    let told = |header: &str| answer.header(header);
    assert_eq!(told("x-weir-degraded").as_deref(), Some("local"));
    assert_eq!(stage.stat("version"), version);
    stage.redis.restart().unwrap();
}

fn an_idle_gateway_follows_and_begins_with_what_is_published(world: &World) {
    let stage = world.stage();
    let version = stage.publish(&limit(80));
    let other = gateway(world, &stage.redis);
    follows(&other, version);
    // A worker that has not told its version yet may have the configuration's for a moment.
    deadline::poll(POLL + MARGIN, "limit of what is published", || {
        let told = Visitor::of_tier(&other, "free").get("/live/x");
        Ok((number(&told, "x-ratelimit-limit") == 80).then_some(()))
    })
    .unwrap();
    // Four workers take longer for these than one without requests ticks for those that it had.
    wait_for_looks(&stage.redis, 40);
    let version = stage.publish(&limit(81));
    follows(&other, version);
    assert_eq!(limit_told(&other), 81);
}

fn the_longest_document_is_adopted_and_a_longer_one_refused(world: &World) {
    let stage = world.stage();
    let padded = |limit: u64, length: usize| {
        let document = policy(limit).to_string();
        format!("{document}{}", " ".repeat(length - document.len()))
    };
    let version = stage.publish(&padded(90, MOST_DOCUMENT));
    assert_eq!(limit_told(&stage.gateway), 90);
    let before = stage.stat("rejected_total");
    for length in [MOST_DOCUMENT + 1, 2 << 20] {
        write(
            &stage.redis,
            &format!("1{version}{length}"),
            &padded(9, length),
        );
        let told = format!("has {length} bytes; at most 524288 are read from Redis");
        deadline::poll(POLL + MARGIN, "refusal", || {
            Ok(stage.gateway.log().contains(&told).then_some(()))
        })
        .unwrap();
    }
    assert_eq!(stage.stat("rejected_total"), before + 2);
    assert_eq!(limit_told(&stage.gateway), 90);
    write(&stage.redis, &version.to_string(), &limit(90));
}

fn a_gateway_that_is_told_not_to_look_does_not(world: &World) {
    let stage = world.stage();
    let version = stage.publish(&limit(100));
    let policy = Policy::Text(limit(10));
    let builder = world.gateway().redis(&stage.redis).policy(policy);
    let other = builder.variable("POLICY_POLL_MS", "0").start().unwrap();
    let looking = gateway(world, &stage.redis);
    follows(&looking, version);
    assert_eq!(limit_told(&other), 10);
    assert_eq!(version_told(&other), 0);
}

fn a_cluster_is_followed_too(world: &World) {
    let cluster = RedisCluster::start(Replicas::None).unwrap();
    let poll = POLL.as_millis().to_string();
    let builder = world
        .gateway()
        .redis(cluster.node(0))
        .topology(Topology::Cluster);
    let builder = builder.policy(Policy::Text(limit(10)));
    let gateway = builder.variable("POLICY_POLL_MS", &poll).start().unwrap();
    let owner = cluster.owner("weir:policy").unwrap();
    let version = publish(cluster.node(owner), &limit(110));
    deadline::poll(SOON, "change of the policy", || {
        let told = gateway.stat("wasmcustom.weir.policy.version")?;
        Ok((told == Some(version)).then_some(()))
    })
    .unwrap();
    follows(&gateway, version);
    assert_eq!(limit_told(&gateway), 110);
}
