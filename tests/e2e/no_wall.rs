//! What a limit does before it refuses: warnings, delays, and requests that wait for their turn.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::json;
use sfv::{BareItem, Item, List, ListEntry, Parser};
use weir_lab::client::Answer;
use weir_lab::deadline;
use weir_lab::gateway::{Gateway, Policy};
use weir_lab::redis::Redis;

use crate::crowd::{Timed, rush, timed};
use crate::failure::{self, assert_gateway_unharmed, recovers};
use crate::visitor::{Visitor, number, remaining, unique};
use crate::world::{Fragile, SOON, World, changed_configuration, now, wait_until};
use crate::{Case, cases, grpc};

pub const CASES: &[Case] = cases![
    a_caller_is_told_of_the_wall_before_it_comes,
    answers_come_later_the_nearer_the_limit_and_requests_arrive_whole,
    a_grpc_call_is_delayed_like_any_other,
    shaped_requests_leave_at_a_steady_rate_whatever_gateway_they_came_to,
    those_who_are_asked_about_in_one_call_leave_one_by_one,
    a_turn_too_far_away_is_refused_at_once,
    a_client_that_leaves_frees_its_place_and_those_behind_it_move_up,
    a_client_that_leaves_before_its_turn_is_known_holds_up_nobody,
    without_redis_requests_are_slowed_by_what_the_worker_knows,
    a_crowd_that_may_go_on_at_once_harms_nobody,
];

/// What a timer may be early by: turns are whole milliseconds of Redis's clock.
const EARLY: Duration = Duration::from_millis(2);
/// How late a request may reach the upstream: mostly what a busy machine adds.
const STRAY: Duration = Duration::from_millis(25);

fn a_caller_is_told_of_the_wall_before_it_comes(world: &World) {
    let [gateway, _] = world.eased();
    let visitor = Visitor::of_tier(gateway, "free");
    let answers: Vec<Answer> = (0..9).map(|_| visitor.get("/warned/x")).collect();
    let told: Vec<Option<String>> = answers.iter().map(warning).collect();
    let used = |share: &str| Some(format!("warned user {share}"));
    assert_eq!(told[..5], [const { None }; 5]);
    assert_eq!(told[5..8], [used("0.75"), used("0.875"), used("1")]);
    assert_eq!((answers[8].status, &told[8]), (429, &None));
}

/// What the proxy answers itself, it answers for each of them inside the answer before.
fn a_crowd_that_may_go_on_at_once_harms_nobody(world: &World) {
    const DELAY: Duration = Duration::from_secs(5);
    let folder = changed_configuration("answering", |_, text| {
        text.replace(
            "route: { cluster: upstream }",
            "direct_response: { status: 200 }",
        )
    });
    let limit = json!({
        "type": "token_bucket", "limit": 2, "window": 2_592_000,
        "slow_from": 0.5, "max_delay_ms": DELAY.as_millis(),
    });
    let rule = json!({
        "name": "slowed", "pattern": "/*", "user_limits": { "default": limit },
    });
    let gateway = world.gateway().workers(1).configuration(folder.path());
    let policy = Policy::Text(json!({ "rules": [rule] }).to_string());
    let gateway = gateway.policy(policy).start().unwrap();
    let stat = |name: &str| gateway.stat(&format!("http.gateway.{name}")).unwrap();
    let answers = thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            rush(800, |_| {
                let visitor = Visitor::of_tier(&gateway, "free");
                [(); 2].map(|()| visitor.get("/x").status)
            })
        });
        deadline::poll(SOON, "a crowd that waits", || {
            let first = stat("downstream_rq_2xx") >= Some(800);
            Ok((first && stat("downstream_rq_active") >= Some(800)).then_some(()))
        })
        .unwrap();
        gateway.process().pause().unwrap();
        wait_until(now() + DELAY);
        gateway.process().resume().unwrap();
        crowd.join().unwrap()
    });
    assert_eq!(answers, [[200; 2]; 800]);
    assert_gateway_unharmed(&gateway);
}

/// The only item of the warning: rule, scope and share.
fn warning(answer: &Answer) -> Option<String> {
    let value = answer.header("x-ratelimit-warning")?;
    let list: List = Parser::new(&value).parse().unwrap();
    let [ListEntry::Item(item)] = &list[..] else {
        panic!("{list:?}");
    };
    let (BareItem::String(rule), BareItem::Token(scope), BareItem::Decimal(used)) = (
        &item.bare_item,
        parameter(item, "scope"),
        parameter(item, "used"),
    ) else {
        panic!("{item:?}");
    };
    Some(format!(
        "{} {} {}",
        rule.as_str(),
        scope.as_str(),
        f64::from(*used)
    ))
}

fn parameter<'a>(item: &'a Item, name: &str) -> &'a BareItem {
    let mut parameters = item.params.iter();
    let (_, value) = parameters.find(|(key, _)| key.as_str() == name).unwrap();
    value
}

fn answers_come_later_the_nearer_the_limit_and_requests_arrive_whole(world: &World) {
    let [gateway, _] = world.eased();
    let visitor = Visitor::of_tier(gateway, "free");
    let post = || {
        let request = visitor.request("POST", "/slowed/x");
        request.body(vec![b'x'; 200_000]).send().unwrap()
    };
    let answers: Vec<Timed> = (0..6).map(|_| timed(post)).collect();
    let delays: Vec<u64> = answers.iter().map(|timed| delay(&timed.answer)).collect();
    assert_eq!(delays, [0, 0, 200, 400, 600, 0]);
    for (Timed { answer, took }, delay) in answers[..5].iter().zip(delays) {
        let delay = Duration::from_millis(delay);
        assert!(*took + EARLY >= delay, "{took:?}\n{answer:?}");
        assert_eq!(answer.json().unwrap()["body_bytes"], 200_000);
    }
    let left = answers.iter().map(|timed| remaining(&timed.answer));
    assert_eq!(
        left.collect::<Vec<_>>(),
        [4, 3, 2, 1, 0, 0],
        "as of the decision"
    );
    assert_eq!(answers[5].answer.status, 429);
}

/// How long the gateway says that it held the request back.
fn delay(answer: &Answer) -> u64 {
    let told = answer.header("x-delay-ms");
    told.map_or(0, |told| told.parse().unwrap())
}

fn a_grpc_call_is_delayed_like_any_other(world: &World) {
    let [gateway, _] = world.eased();
    let id = unique("grpc");
    let headers = [
        ("x-user-id", id.as_str()),
        ("content-type", "application/grpc"),
    ];
    let call = || grpc::call(gateway.address(), "/slowed/Call", &headers).unwrap();
    let calls: Vec<_> = (0..6).map(|_| call()).collect();
    let said = |name: &str| -> Vec<Option<&str>> {
        let values = calls.iter().map(|call| call.metadata.get(name));
        values.map(|value| value.map(String::as_str)).collect()
    };
    let delays = [None, None, Some("200"), Some("400"), Some("600"), None];
    assert_eq!(said("x-delay-ms"), delays);
    let refused = [None, None, None, None, None, Some("8")];
    assert_eq!(said("grpc-status"), refused);
}

/// Clients of two gateways with three workers, coming five times as fast as they may leave. The
/// upstreams tell when each request came. A machine that is busy with all the other cases brings some
/// of them late, and once in a while too many to tell.
fn shaped_requests_leave_at_a_steady_rate_whatever_gateway_they_came_to(world: &World) {
    let mut rounds = (0..5).map(|_| arrivals(world));
    let steady = rounds.find(|came| is_steady(came));
    let came = steady.expect("a steady rate, on a machine that keeps time");
    let changes = came.windows(2).filter(|pair| pair[0].1 != pair[1].1);
    assert!(changes.count() > 5, "the gateways mixed: {came:?}");
}

const INTERVAL: Duration = Duration::from_millis(100);

/// When each request reached an upstream, and which.
fn arrivals(world: &World) -> Vec<(Duration, usize)> {
    const CLIENTS: usize = 30;
    let gateways = world.eased();
    let start = now();
    let answers = rush(CLIENTS, |client| {
        let gateway = client % 2;
        let visitor = Visitor::anonymous(&gateways[gateway]);
        wait_until(start + INTERVAL / 5 * u32::try_from(client).unwrap());
        (gateway, visitor.get("/steady"))
    });
    let came = |(gateway, answer): &(usize, Answer)| {
        assert_eq!(answer.status, 200);
        let at_us = answer.json().unwrap()["at_us"].as_u64().unwrap();
        (Duration::from_micros(at_us), *gateway)
    };
    let mut came: Vec<(Duration, usize)> = answers.iter().map(came).collect();
    came.sort_unstable();
    came
}

/// Whether they came one interval apart, but for a few that were late. Where one came too early, all
/// before it are late by the measure of those after.
fn is_steady(came: &[(Duration, usize)]) -> bool {
    let turns = came.iter().zip(0..);
    let since = |((at, _), turn): (&(Duration, usize), u32)| *at - INTERVAL * turn;
    let mut since: Vec<Duration> = turns.map(since).collect();
    since.sort_unstable();
    let stray = since[since.len() * 3 / 4] - since[0];
    if stray > STRAY {
        eprintln!("a quarter strays by {stray:?}: {came:?}");
    }
    stray <= STRAY
}

/// While Redis stands still, all but the first gather.
fn those_who_are_asked_about_in_one_call_leave_one_by_one(world: &World) {
    const CLIENTS: usize = 12;
    let redis = Redis::start().unwrap();
    let limit = json!({
        "type": "leaky_bucket", "limit": 10, "window": 1, "shape": true, "max_wait_ms": 10_000,
    });
    let rule = json!({ "name": "crowded", "pattern": "/*", "user_limits": { "default": limit } });
    let gateway = world.gateway().workers(1).redis(&redis);
    let policy = Policy::Text(json!({ "rules": [rule] }).to_string());
    let gateway = gateway.policy(policy).start().unwrap();
    recovers(&gateway, &Visitor::of_tier(&gateway, "free"), "/x");
    let steady = (0..5).any(|_| {
        let visitor = Visitor::of_tier(&gateway, "free");
        redis.pause().unwrap();
        let mut came = thread::scope(|scope| {
            let crowd = scope.spawn(|| {
                rush(CLIENTS, |_| {
                    let answer = visitor.apart(&gateway).get("/x");
                    let at_us = answer.json().unwrap()["at_us"].as_u64().unwrap();
                    (Duration::from_micros(at_us), 0)
                })
            });
            deadline::poll(SOON, "crowd that waits for Redis", || {
                let waiting = gateway.stat("http.gateway.downstream_rq_active")?;
                Ok((waiting == Some(CLIENTS as u64)).then_some(()))
            })
            .unwrap();
            redis.resume().unwrap();
            crowd.join().unwrap()
        });
        came.sort_unstable();
        is_steady(&came)
    });
    assert!(steady, "a steady rate, on a machine that keeps time");
}

fn a_turn_too_far_away_is_refused_at_once(world: &World) {
    let [gateway, _] = world.eased();
    let visitor = Visitor::of_tier(gateway, "free");
    let answers = rush(6, |_| timed(|| visitor.apart(gateway).get("/queue/x")));
    let (passed, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|timed| timed.answer.status == 200);
    let mut delays: Vec<u64> = passed.iter().map(|timed| delay(&timed.answer)).collect();
    delays.sort_unstable();
    // Some milliseconds lie between the requests.
    assert!(
        matches!(delays[..], [0, 1500..=2000, 3500..=4000]),
        "{delays:?}"
    );
    for Timed { answer, took } in refused {
        assert_eq!((answer.status, delay(answer)), (429, 0), "{answer:?}");
        assert!(*took < Duration::from_millis(1500), "{took:?}");
        let retry = number(answer, "retry-after");
        assert!((1..=2).contains(&retry), "{answer:?}");
    }
}

/// At the gateway of one worker: those who wait at another keep the turn they have.
fn a_client_that_leaves_frees_its_place_and_those_behind_it_move_up(world: &World) {
    let [_, gateway] = world.eased();
    let id = unique("patient");
    let visitor = Visitor::anonymous(gateway).named(&id);
    let upstream = gateway.upstream().requests();
    assert_eq!(visitor.get("/queue/x").status, 200);
    let mut impatient = TcpStream::connect(gateway.address()).unwrap();
    let request = format!("GET /queue/x HTTP/1.1\r\nhost: gateway\r\nx-user-id: {id}\r\n\r\n");
    impatient.write_all(request.as_bytes()).unwrap();
    wait_for(gateway, &visitor, 2);
    thread::scope(|scope| {
        let behind = scope.spawn(|| timed(|| visitor.apart(gateway).get("/queue/x")));
        wait_for(gateway, &visitor, 3);
        assert_eq!(visitor.get("/queue/x").status, 429);
        drop(impatient);
        // The refusal is remembered for up to a second, and a place is free after another.
        let next = deadline::poll(SOON, "place in the line", || {
            let answer = visitor.get("/queue/x");
            Ok((answer.status == 200).then_some(answer))
        });
        let behind = behind.join().unwrap();
        let told = delay(&behind.answer);
        assert!(
            (3000..=4000).contains(&told),
            "{behind:?}",
            behind = behind.answer
        );
        let took = behind.took.as_millis();
        assert!(
            took < u128::from(told) - 1000,
            "it moved up: {took} ms of {told}"
        );
        let next = delay(&next.unwrap());
        assert!(
            (1000..=3500).contains(&next),
            "in the turn that was given up: {next}"
        );
    });
    assert!(gateway.upstream().requests() >= upstream + 3);
}

/// Until so many are counted in the line.
fn wait_for(gateway: &Gateway, visitor: &Visitor, used: u64) {
    deadline::poll(SOON, "place in the line", || {
        let status = visitor.apart(gateway).get("/api/v1/rate-limits/status");
        let usage = &status.json()?["rate_limits"]["queue"]["current_usage"];
        Ok((usage.as_u64() == Some(used)).then_some(()))
    })
    .unwrap();
}

/// Its turn would have been now, and the next a minute later.
fn a_client_that_leaves_before_its_turn_is_known_holds_up_nobody(world: &World) {
    let fragile = world.fragile();
    // What Redis takes longer to answer than the timeout stays counted.
    let line = (0..10).find_map(|_| {
        let (line, took) = leave_before_the_turn(&fragile);
        (took < failure::TIMEOUT / 2).then_some(line)
    });
    let key = line.expect("a machine that is quick enough once");
    deadline::poll(SOON / 2, "line with nobody in it", || {
        let there = fragile.redis.command(&["EXISTS", &key])?;
        Ok((there == redis::Value::Int(0)).then_some(()))
    })
    .unwrap();
}

/// Several clients, so that both workers ask; where their line is kept, and for how long Redis did
/// not answer.
fn leave_before_the_turn(fragile: &Fragile) -> (String, Duration) {
    const CLIENTS: u64 = 8;
    let Fragile { gateway, redis } = fragile;
    recovers(gateway, &Visitor::of_tier(gateway, "free"), "/closed/x");
    let gone = || -> anyhow::Result<u64> {
        let ended = gateway.stat("http.gateway.downstream_cx_destroy_remote_active_rq")?;
        Ok(ended.unwrap_or_default())
    };
    let before = gone().unwrap();
    let id = unique("leaver");
    let start = now();
    redis.pause().unwrap();
    (0..CLIENTS).for_each(|_| failure::ask_and_hang_up(gateway.address(), "/line/x", &id));
    let all_gone = || gone().map(|gone| (gone >= before + CLIENTS).then_some(()));
    deadline::poll(SOON, "clients to be gone", all_gone).unwrap();
    redis.resume().unwrap();
    recovers(gateway, &Visitor::of_tier(gateway, "free"), "/closed/x");
    (format!("weir:2:{{u:{id}}}:line:user:lb60s"), now() - start)
}

/// One of two workers keeps half of the limit: five of ten.
fn without_redis_requests_are_slowed_by_what_the_worker_knows(world: &World) {
    let mut fragile = world.fragile();
    fragile.redis.stop();
    let visitor = Visitor::of_tier(&fragile.gateway, "free");
    let answers: Vec<Timed> = (0..6)
        .map(|_| timed(|| visitor.get("/nearing/x")))
        .collect();
    let statuses = answers.iter().map(|timed| timed.answer.status);
    assert_eq!(statuses.collect::<Vec<_>>(), [200, 200, 200, 200, 200, 429]);
    let warned = answers.iter().map(|timed| warning(&timed.answer));
    let used = |share: &str| Some(format!("nearing user {share}"));
    let expected = [None, None, None, used("0.8"), used("1"), None];
    assert_eq!(warned.collect::<Vec<_>>(), expected);
    for (Timed { answer, took }, delay) in answers.iter().zip([0, 0, 100, 200, 300]) {
        assert!(*took + EARLY >= Duration::from_millis(delay), "{took:?}");
        assert_eq!(answer.header("x-weir-degraded").as_deref(), Some("local"));
    }
    fragile.redis.restart().unwrap();
    recovers(&fragile.gateway, &visitor, "/closed/x");
}
