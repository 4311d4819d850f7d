//! What happens while Redis is away, and when it is back.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use redis::cmd;
use serde_json::json;
use weir_lab::client::Answer;
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

use crate::configuration::{WATCHED, notices};
use crate::crowd::{Timed, rush, timed, traffic};
use crate::visitor::{Visitor, number, remaining, tells_limits, unique};
use crate::world::{Fragile, SOON, World, at_home};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    limits_go_on_after_the_scripts_are_forgotten,
    limits_begin_anew_after_redis_is_emptied,
    a_redis_emptied_under_traffic_costs_nobody_an_answer,
    a_redis_restarted_under_traffic_costs_nobody_an_answer,
    a_redis_that_is_gone_lets_pass_or_refuses_as_each_limit_says,
    a_redis_that_hangs_holds_nobody_beyond_the_timeout,
    answers_that_come_late_are_told_to_nobody_else,
    a_crowd_that_waits_while_redis_hangs_harms_nobody,
    a_key_of_another_type_spoils_only_its_caller,
    a_command_that_the_user_of_redis_lacks_is_named,
    a_redis_that_evicts_is_told_of_at_the_start,
    clients_that_hang_up_harm_nobody,
    clients_that_hang_up_while_redis_hangs_harm_nobody,
];

pub const CASES_OF_THE_SIDECAR: &[Case] =
    cases![a_sidecar_that_hangs_holds_nobody_beyond_the_timeout];

/// Longer than by default: no pause of a busy machine is taken for a Redis that hangs.
pub const TIMEOUT: Duration = Duration::from_millis(1000);
/// How exactly a deadline is kept, and what a loopback request takes.
const TOLERANCE: Duration = Duration::from_millis(50);

fn limits_go_on_after_the_scripts_are_forgotten(world: &World) {
    let fragile = world.fragile();
    let visitor = counted(&fragile);
    for left in (0..5).rev() {
        fragile.redis.command(&["SCRIPT", "FLUSH"]).unwrap();
        assert_eq!(remaining(&visitor.get("/open/x")), 999_994 + left);
    }
    assert_unharmed(&fragile);
}

fn limits_begin_anew_after_redis_is_emptied(world: &World) {
    let fragile = world.fragile();
    let visitor = counted(&fragile);
    fragile.redis.command(&["FLUSHALL"]).unwrap();
    assert_eq!(remaining(&visitor.get("/open/x")), 999_999);
    assert_eq!(remaining(&visitor.get("/open/x")), 999_998);
    assert_unharmed(&fragile);
}

fn a_redis_emptied_under_traffic_costs_nobody_an_answer(world: &World) {
    let fragile = world.fragile();
    let visitor = counted(&fragile);
    let answers = traffic(&fragile.gateway, &visitor, "/closed/x", 8, || {
        for _ in 0..30 {
            fragile.redis.command(&["FLUSHALL"]).unwrap();
            fragile.redis.command(&["SCRIPT", "FLUSH"]).unwrap();
            deadline::poll(SOON, "counter", || {
                let keys: u64 = cmd("DBSIZE").query(&mut fragile.redis.connection()?)?;
                Ok((keys > 0).then_some(()))
            })
            .unwrap();
        }
    });
    // A limit of 1000 that refuses what it cannot check: a 503 is a request that was not counted.
    assert!(
        answers
            .iter()
            .all(|timed| matches!(timed.answer.status, 200 | 429)),
        "{}",
        tally(&answers)
    );
    assert_unharmed(&fragile);
}

fn a_redis_restarted_under_traffic_costs_nobody_an_answer(world: &World) {
    let mut fragile = world.fragile();
    let visitor = counted(&fragile);
    let Fragile { gateway, redis } = &mut *fragile;
    let answers = traffic(gateway, &visitor, "/open/x", 8, || {
        for _ in 0..3 {
            redis.restart().unwrap();
            recovers(gateway, &visitor, "/open/x");
        }
    });
    assert!(
        answers.iter().all(|timed| timed.answer.status == 200),
        "{}",
        tally(&answers)
    );
    let counted = answers
        .iter()
        .filter(|timed| tells_limits(&timed.answer))
        .count();
    assert!(counted > 0, "{}", tally(&answers));
    assert_unharmed(&fragile);
}

fn a_redis_that_is_gone_lets_pass_or_refuses_as_each_limit_says(world: &World) {
    let mut fragile = world.fragile();
    let visitor = counted(&fragile);
    fragile.redis.stop();
    assert_unasked(&visitor);
    fragile.redis.restart().unwrap();
    recovers(&fragile.gateway, &visitor, "/closed/x");
    assert_unharmed(&fragile);
}

fn a_redis_that_hangs_holds_nobody_beyond_the_timeout(world: &World) {
    let fragile = world.fragile();
    let visitor = counted(&fragile);
    fragile.redis.pause().unwrap();
    assert_nobody_is_held(&fragile, &visitor);
    fragile.redis.resume().unwrap();
    recovers(&fragile.gateway, &visitor, "/closed/x");
    recovers(&fragile.gateway, &visitor, "/open/x");
    assert_unharmed(&fragile);
}

fn answers_that_come_late_are_told_to_nobody_else(world: &World) {
    let fragile = world.fragile();
    let (gateway, visitor) = (&fragile.gateway, counted(&fragile));
    fragile.redis.pause().unwrap();
    rush(8, |_| {
        let answer = visitor.apart(gateway).get("/open/x");
        assert_eq!((answer.status, tells_limits(&answer)), (200, false));
    });
    fragile.redis.resume().unwrap();
    recovers(gateway, &visitor, "/open/x");
    rush(8, |_| {
        let visitor = Visitor::of_tier(gateway, "free");
        for used in 1..=20 {
            assert_eq!(remaining(&visitor.get("/open/x")), 1_000_000 - used);
            assert_eq!(remaining(&visitor.get("/closed/x")), 1000 - used);
        }
    });
    assert_unharmed(&fragile);
}

/// When the worker stops asking, all who wait are refused at once, and the proxy answers each of them
/// inside the answer before.
fn a_crowd_that_waits_while_redis_hangs_harms_nobody(world: &World) {
    let fragile = world.fragile();
    let (gateway, visitor) = (&fragile.gateway, counted(&fragile));
    fragile.redis.pause().unwrap();
    let refused = rush(800, |_| {
        let visitor = visitor.apart(gateway);
        (0..4).all(|_| visitor.get("/closed/x").status == 503)
    });
    fragile.redis.resume().unwrap();
    assert_eq!(refused, [true; 800]);
    recovers(gateway, &visitor, "/closed/x");
    assert_unharmed(&fragile);
}

fn a_command_that_the_user_of_redis_lacks_is_named(world: &World) {
    let redis = Redis::start().unwrap();
    let gateway = at_home(world.gateway(), &redis).start().unwrap();
    let visitor = Visitor::of_tier(&gateway, "free");
    recovers(&gateway, &visitor, "/api/v1/items");
    redis.command(&["ACL", "SETUSER", "weir", "-mget"]).unwrap();
    let told = "Redis's user may not use MGET: ACL SETUSER … +mget";
    deadline::poll(SOON, "the command in the log", || {
        assert_eq!(visitor.get("/api/v1/items").status, 200);
        Ok(gateway.log().contains(told).then_some(()))
    })
    .unwrap();
    redis.command(&["ACL", "SETUSER", "weir", "+mget"]).unwrap();
    recovers(&gateway, &visitor, "/api/v1/items");
}

fn a_redis_that_evicts_is_told_of_at_the_start(world: &World) {
    let flags = ["--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"];
    let redis = Redis::start_with(&flags).unwrap();
    let policy = Policy::Text(WATCHED.to_owned());
    let gateway = world.gateway().redis(&redis).policy(policy);
    let gateway = gateway.start().unwrap();
    let told = "this Redis evicts keys when its memory is full (maxmemory-policy volatile-ttl)";
    deadline::poll(SOON, "word of it in the log", || {
        let log = match gateway.sidecar() {
            None => gateway.log(),
            Some(sidecar) => sidecar.process().log(),
        };
        Ok(log.contains(told).then_some(()))
    })
    .unwrap();
    if gateway.sidecar().is_none() {
        let notices = notices(&gateway);
        assert!(
            notices.iter().any(|notice| notice.contains(told)),
            "{notices:?}"
        );
        assert_eq!(gateway.log().matches(told).count(), 1, "told once");
    }
}

/// It has deadlines of its own; without it only the filter's are left.
fn a_sidecar_that_hangs_holds_nobody_beyond_the_timeout(world: &World) {
    let fragile = world.fragile();
    let visitor = counted(&fragile);
    let sidecar = fragile.gateway.sidecar().unwrap();
    sidecar.pause().unwrap();
    assert_nobody_is_held(&fragile, &visitor);
    sidecar.resume().unwrap();
    recovers(&fragile.gateway, &visitor, "/closed/x");
    assert_unharmed(&fragile);
}

/// What is slow beside, where Redis is not asked, is the machine's own slowness.
fn assert_nobody_is_held(fragile: &Fragile, visitor: &Visitor) {
    let gateway = &fragile.gateway;
    let mut answers = Vec::new();
    let beside = traffic(gateway, visitor, "/web", 2, || {
        let asked = rush(16, |client| {
            let visitor = visitor.apart(gateway);
            let (path, status) = [("/open/x", 200), ("/closed/x", 503)][client % 2];
            let answers: Vec<_> = (0..6).map(|_| timed(|| visitor.get(path))).collect();
            let as_configured = answers.iter().all(|timed| timed.answer.status == status);
            assert!(as_configured, "{}", tally(&answers));
            answers
        });
        answers = asked.concat();
    });
    let slowness = beside
        .iter()
        .map(|timed| timed.took)
        .max()
        .unwrap_or_default();
    let most = TIMEOUT + TOLERANCE + slowness;
    let late = answers.iter().filter(|timed| timed.took > most).count();
    // A wait by design would be everybody's.
    assert!(
        late * 20 <= answers.len(),
        "{late} after {most:?}: {}",
        tally(&answers)
    );
    assert_unasked(visitor);
}

fn a_key_of_another_type_spoils_only_its_caller(world: &World) {
    let fragile = world.fragile();
    let (gateway, redis) = (&fragile.gateway, &fragile.redis);
    let id = unique("spoilt");
    redis
        .command(&[
            "RPUSH",
            &format!("weir:2:{{u:{id}}}:open:user:fw2592000s"),
            "x",
        ])
        .unwrap();
    redis
        .command(&[
            "SET",
            &format!("weir:2:{{u:{id}}}:closed:user:sl3600s"),
            "x",
        ])
        .unwrap();
    let spoilt = Visitor::anonymous(gateway).named(&id);
    let others: Vec<_> = (0..15).map(|_| Visitor::of_tier(gateway, "free")).collect();
    rush(16, |client| match client {
        0 => {
            for _ in 0..20 {
                let open = spoilt.get("/open/x");
                assert_eq!((open.status, tells_limits(&open)), (200, false));
                assert_eq!(spoilt.get("/closed/x").status, 503);
            }
        }
        other => {
            let visitor = others[other - 1].apart(gateway);
            for used in 1..=20 {
                assert_eq!(remaining(&visitor.get("/open/x")), 1_000_000 - used);
                assert_eq!(remaining(&visitor.get("/closed/x")), 1000 - used);
            }
        }
    });
    assert_unharmed(&fragile);
}

fn clients_that_hang_up_harm_nobody(world: &World) {
    let gateway = world.workshop();
    let stayers: Vec<_> = (0..8)
        .map(|_| Visitor::of_tier(gateway, "premium"))
        .collect();
    let leaver = unique("leaver");
    rush(stayers.len() + 8, |client| match stayers.get(client) {
        Some(stayer) => {
            let stayer = stayer.apart(gateway);
            for used in 1..=60 {
                assert_eq!(remaining(&stayer.get("/identity/x")), 500 - used);
            }
        }
        None => (0..60).for_each(|_| ask_and_hang_up(gateway.address(), "/identity/x", &leaver)),
    });
    let log = gateway.log();
    assert!(
        !log.contains("[critical]") && !log.contains("[error]"),
        "{log}"
    );
}

fn clients_that_hang_up_while_redis_hangs_harm_nobody(world: &World) {
    let fragile = world.fragile();
    let visitor = counted(&fragile);
    fragile.redis.pause().unwrap();
    rush(16, |client| {
        if client % 2 == 0 {
            let visitor = visitor.apart(&fragile.gateway);
            (0..2).for_each(|_| assert_eq!(visitor.get("/open/x").status, 200));
        } else {
            let address = fragile.gateway.address();
            (0..20).for_each(|_| ask_and_hang_up(address, "/closed/x", "leaver"));
        }
    });
    fragile.redis.resume().unwrap();
    recovers(&fragile.gateway, &visitor, "/open/x");
    recovers(&fragile.gateway, &visitor, "/closed/x");
    assert_unharmed(&fragile);
}

/// Somebody who has one request counted, at a gateway all of whose workers count.
fn counted(fragile: &Fragile) -> Visitor {
    let gateway = &fragile.gateway;
    recovers(gateway, &Visitor::of_tier(gateway, "free"), "/open/x");
    let visitor = Visitor::of_tier(gateway, "free");
    assert_eq!(remaining(&visitor.get("/open/x")), 999_999);
    visitor
}

/// Requests are counted again, and soon, whichever worker a connection comes to.
pub fn recovers(gateway: &Gateway, visitor: &Visitor, path: &str) {
    /// All of them on one of two workers: once in 32,768.
    const CONNECTIONS: usize = 16;
    let is_counted = |answer: Answer| answer.status == 200 && tells_limits(&answer);
    deadline::poll(SOON, "counted answers", || {
        let counted = rush(CONNECTIONS, |_| {
            is_counted(visitor.apart(gateway).get(path))
        });
        Ok(counted.into_iter().all(|counted| counted).then_some(()))
    })
    .unwrap();
}

/// Redis is away, and each limit does as it says.
fn assert_unasked(visitor: &Visitor) {
    let open = visitor.get("/open/x");
    assert_eq!((open.status, tells_limits(&open)), (200, false));
    // One limit that refuses is enough.
    for path in ["/closed/x", "/mixed/x", "/api/v1/rate-limits/status"] {
        let refused = visitor.get(path);
        assert_eq!(
            (refused.status, number(&refused, "retry-after")),
            (503, 1),
            "{path}"
        );
        let body = json!({
            "error": "Rate limiter unavailable",
            "message": "The rate limit cannot be checked now.",
            "retry_after": 1,
        });
        assert_eq!(refused.json().unwrap(), body);
        assert_eq!(refused.header("cache-control").as_deref(), Some("no-store"));
    }
}

/// The same Envoy, and no VM of it was lost.
fn assert_unharmed(fragile: &Fragile) {
    assert!(fragile.redis.server().is_ok());
    assert_gateway_unharmed(&fragile.gateway);
}

pub fn assert_gateway_unharmed(gateway: &Gateway) {
    assert!(gateway.process().exited().is_none());
    let log = gateway.log();
    for trouble in [
        "[critical]",
        "panicked",
        "Function: proxy_on",
        "wasm_fail",
        "Plugin is missing",
    ] {
        assert!(!log.contains(trouble), "{trouble} in {log}");
    }
}

pub fn ask_and_hang_up(gateway: std::net::SocketAddr, path: &str, id: &str) {
    let mut stream = TcpStream::connect(gateway).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nx-user-id: {id}\r\n\r\n"
    )
    .unwrap();
}

/// How many had which status, counted or not, and the longest that any took.
fn tally(answers: &[Timed]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for timed in answers {
        let kind = (timed.answer.status, tells_limits(&timed.answer));
        *counts.entry(kind).or_insert(0) += 1;
    }
    let longest = answers.iter().map(|timed| timed.took).max();
    format!("(status, counted): how many {counts:?}, longest {longest:?}")
}
