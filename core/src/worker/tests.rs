//! The event loop, moved by hand: what a worker does at which event, and in which order.

mod costs;
mod outages;

use super::config::{Config, LimiterConfig};
use super::fake_host::{FakeHost, FakeRedis, From, Happened, NoHeaders, Process};
use super::{Flow, Host, Worker};
use crate::local::timer_queue::StreamId;
use crate::store::call::CallId;
use crate::store::links::LinkId;
use crate::time::{Span, StoreInstant};

const ONE_RULE: &str = r#"{"rules": [{"name": "api", "pattern": "/*", "user_limits":
    {"default": {"type": "fixed_window", "limit": 2, "window": 60}}}]}"#;

/// A worker, its proxy and its Redis.
struct Scene {
    host: FakeHost,
    worker: Worker<FakeHost>,
    redis: FakeRedis,
    streams: u32,
    is_http: bool,
}

fn config(transport: &str, policy: &str) -> LimiterConfig {
    let store = format!(
        r#""store": {{"transport": "{transport}", "policy_poll_ms": 1000, "timeout_ms": 50}}"#
    );
    let text = format!(
        r#"{{"role": "limiter", {store}, "identity": {{"trust": "always"}}, "policy": {policy}}}"#
    );
    match Config::parse(&text) {
        Ok(Config::Limiter(config)) => *config,
        other => panic!("{other:?}"),
    }
}

impl Scene {
    fn new(policy: &str) -> Scene {
        Scene::in_process(&Process::default(), policy)
    }

    fn in_process(process: &Process, policy: &str) -> Scene {
        Scene::over("stream", process, policy)
    }

    fn over(transport: &str, process: &Process, policy: &str) -> Scene {
        let host = FakeHost::of(process);
        Scene {
            is_http: transport == "http",
            worker: Worker::new(host.clone(), config(transport, policy), "0123456789abcdef"),
            host,
            redis: FakeRedis::default(),
            streams: 0,
        }
    }

    /// A request of this user, and what became of it at once.
    fn request(&mut self, user: &str) -> (StreamId, Flow) {
        self.request_with(user, ("accept", "*/*"))
    }

    /// One that says that the proxy redirected it.
    fn redirected(&mut self, user: &str) -> (StreamId, Flow) {
        self.request_with(user, ("x-envoy-original-url", "http://a.example/y"))
    }

    fn request_with(&mut self, user: &str, header: (&str, &str)) -> (StreamId, Flow) {
        self.request_for("/x", user, header)
    }

    fn request_for(&mut self, path: &str, user: &str, header: (&str, &str)) -> (StreamId, Flow) {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let headers = [
            (":method", "GET"),
            (":path", path),
            (":authority", "a.example"),
            ("x-user-id", user),
            header,
        ];
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.host.in_request(true);
        let flow = self
            .worker
            .request_headers(stream, headers.into_iter(), &From("127.0.0.1"));
        self.host.in_request(false);
        (stream, flow)
    }

    /// The turn comes, if one was asked for.
    fn turn(&mut self) {
        if self.host.was_woken() {
            self.worker.turn();
        }
    }

    /// Redis answers all that has left.
    fn answer(&mut self) -> usize {
        let sent = self.host.sent();
        for (link, body) in &sent {
            let reply = self
                .redis
                .answer(body, StoreInstant(self.host.wall_clock().0));
            match self.is_http {
                true => self.worker.call_answered(CallId(link.0), Ok(&reply)),
                false => self.worker.link_received(*link, reply),
            }
        }
        sent.len()
    }

    /// Turns and answers until nothing is under way.
    fn settle(&mut self) {
        loop {
            self.turn();
            if self.answer() == 0 {
                break;
            }
        }
    }

    /// Time passes, tick by tick.
    fn pass(&mut self, time: Span) {
        let mut left = time.as_millis();
        while left > 0 {
            let period = self.host.period().as_millis();
            let step = if period == 0 { left } else { period.min(left) };
            self.host.advance(Span::millis(step));
            left -= step;
            if period > 0 {
                self.worker.tick();
            }
        }
    }

    fn statuses(&self) -> Vec<(StreamId, Happened)> {
        let told = |(_, what): &(StreamId, Happened)| {
            matches!(what, Happened::Resumed | Happened::Answered(_))
        };
        self.host.happened().into_iter().filter(told).collect()
    }
}

#[test]
fn a_request_waits_for_its_turn_and_goes_on_with_the_answer() {
    let mut scene = Scene::new(ONE_RULE);
    let (first, flow) = scene.request("ann");
    assert_eq!(flow, Flow::Pause);
    assert!(scene.host.sent().is_empty(), "others may come in this turn");
    let (second, _) = scene.request("bob");
    scene.turn();
    assert_eq!(scene.answer(), 1, "one call for both");
    let went_on = [first, second].map(|stream| (stream, Happened::Resumed));
    assert_eq!(scene.statuses(), went_on);

    scene.worker.response_headers(first, || NoHeaders);
    let told: Vec<_> = scene.host.happened();
    assert!(
        told.contains(&(
            first,
            Happened::Told("x-ratelimit-remaining".into(), "1".into())
        )),
        "{told:?}"
    );
    scene.worker.response_headers(first, || NoHeaders);
    assert!(scene.host.happened().is_empty(), "once");
}

#[test]
fn who_is_out_of_quota_is_answered_and_then_from_memory() {
    let mut scene = Scene::new(ONE_RULE);
    for _ in 0..3 {
        scene.request("ann");
        scene.settle();
    }
    let happened: Vec<Happened> = scene.statuses().into_iter().map(|(_, what)| what).collect();
    assert_eq!(
        happened,
        [
            Happened::Resumed,
            Happened::Resumed,
            Happened::Answered(429)
        ]
    );
    scene.request("ann");
    assert!(!scene.host.was_woken() && scene.host.sent().is_empty());
    assert_eq!(scene.statuses().len(), 1, "at once");
}

#[test]
fn a_lone_request_sends_its_call_itself_where_a_link_is_open() {
    let mut scene = Scene::new(ONE_RULE);
    scene.request("ann");
    scene.settle();
    scene.request("bob");
    assert!(!scene.host.was_woken());
    assert_eq!(scene.answer(), 1, "it did not wait for a turn");

    // A link that was closed at the other end must not be opened anew by a request.
    let links: Vec<LinkId> = (1..9).map(LinkId).collect();
    links
        .into_iter()
        .for_each(|link| scene.worker.link_closed(link));
    scene.request("eve");
    assert_eq!(scene.host.sent().len(), 0);
    assert!(scene.host.was_woken());
    scene.worker.turn();
    assert_eq!(scene.answer(), 1);
}

#[test]
fn a_call_without_an_answer_is_late_and_its_link_is_closed() {
    let mut scene = Scene::new(ONE_RULE);
    let (stream, _) = scene.request("ann");
    scene.turn();
    let sent = scene.host.sent();
    assert_eq!((sent.len(), scene.host.open_links()), (1, 1));
    scene.pass(Span::millis(49));
    assert_eq!(scene.statuses(), []);
    scene.pass(Span::millis(20));
    assert_eq!(scene.statuses(), [(stream, Happened::Resumed)], "locally");
    assert_eq!(scene.host.open_links(), 0);

    // The answer comes after all, on a link that nobody knows any more.
    let (link, body) = &sent[0];
    let reply = scene
        .redis
        .answer(body, StoreInstant(scene.host.wall_clock().0));
    scene.worker.link_received(*link, reply);
    assert_eq!(scene.statuses(), []);
}

#[test]
fn no_event_tells_more_requests_than_there_is_room_for() {
    let mut scene = Scene::new(ONE_RULE);
    for user in 0..200 {
        scene.request(&user.to_string());
    }
    let mut told = Vec::new();
    for _ in 0..1_000 {
        scene.turn();
        told.push(scene.statuses().len());
        scene.host.advance(scene.host.period());
        scene.worker.tick();
        told.push(scene.statuses().len());
        if told.iter().sum::<usize>() == 200 {
            break;
        }
    }
    assert_eq!(told.iter().sum::<usize>(), 200, "nobody is forgotten");
    assert_eq!(told.iter().max(), Some(&64));
}

#[test]
fn a_client_that_left_is_not_told_and_harms_nobody() {
    let mut scene = Scene::new(ONE_RULE);
    let (gone, _) = scene.request("ann");
    let (stays, _) = scene.request("bob");
    scene.turn();
    scene.worker.stream_ended(gone);
    scene.answer();
    assert_eq!(scene.statuses(), [(stays, Happened::Resumed)]);
    assert!(scene.worker.streams.len() <= 1);
    scene.worker.stream_ended(stays);
    assert!(scene.worker.streams.is_empty());
}

const SLOWED: &str = r#"{"rules": [{"name": "api", "pattern": "/*", "user_limits":
    {"default": {"type": "fixed_window", "limit": 10, "window": 60,
     "slow_from": 0.1, "max_delay_ms": 900}}}]}"#;

#[test]
fn a_delayed_request_goes_on_at_its_tick_and_one_that_leaves_gives_back() {
    let mut scene = Scene::new(SLOWED);
    let remaining = |scene: &mut Scene, stream| {
        scene.worker.response_headers(stream, || NoHeaders);
        let told = scene.host.happened().into_iter();
        told.filter_map(|(_, what)| match what {
            Happened::Told(name, value) if name == "x-ratelimit-remaining" => Some(value),
            _ => None,
        })
        .next()
    };
    let (first, _) = scene.request("ann");
    scene.settle();
    assert_eq!(remaining(&mut scene, first).as_deref(), Some("9"));

    // Two of ten: a ninth of the way from the first to all, so a hundred ms.
    let (second, _) = scene.request("ann");
    scene.settle();
    assert_eq!(scene.statuses(), []);
    scene.pass(Span::millis(99));
    assert_eq!(scene.statuses(), []);
    scene.pass(Span::millis(2));
    assert_eq!(scene.statuses(), [(second, Happened::Resumed)]);
    assert_eq!(remaining(&mut scene, second).as_deref(), Some("8"));

    let (third, _) = scene.request("ann");
    scene.settle();
    scene.worker.stream_ended(third);
    scene.settle();
    let (fourth, _) = scene.request("ann");
    scene.settle();
    scene.pass(Span::millis(300));
    assert_eq!(remaining(&mut scene, fourth).as_deref(), Some("7"));
}

#[test]
fn a_published_policy_comes_into_force_for_new_requests_and_for_later_workers() {
    let process = Process::default();
    let mut scene = Scene::in_process(&process, ONE_RULE);
    let ten = ONE_RULE.replace("\"limit\": 2", "\"limit\": 10");
    scene.redis.policy = Some((7, ten));
    scene.request("ann");
    scene.settle();
    for _ in 0..20 {
        scene.pass(Span::millis(100));
        scene.settle();
    }
    let log = scene.host.logged();
    assert!(
        log.iter()
            .any(|line| line.contains("policy version 7 is in force")),
        "{log:?}"
    );
    assert_eq!(scene.worker.policy.in_force().version.0, 7);
    assert_eq!(scene.host.metric("weir.policy.version"), 7);

    // One that starts now has not asked Redis, and begins with it.
    let later = Scene::in_process(&process, ONE_RULE);
    assert_eq!(later.worker.policy.in_force().version.0, 7);
    assert!(
        !later
            .host
            .logged()
            .iter()
            .any(|line| line.contains("in force")),
        "told once for the process"
    );
}

#[test]
fn what_was_leased_under_a_policy_goes_back_when_it_ends() {
    let leased = ONE_RULE.replace(
        "\"limit\": 2",
        "\"lease\": {\"size\": 50, \"ttl_ms\": 5000}, \"limit\": 100",
    );
    let mut scene = Scene::new(&leased);
    scene.request("ann");
    scene.settle();
    scene.request("ann");
    assert_eq!(scene.statuses().len(), 1, "the first, which had to ask");
    assert!(
        scene.host.sent().is_empty(),
        "the second was covered by the lease"
    );

    scene.redis.policy = Some((1, ONE_RULE.replace("\"limit\": 2", "\"limit\": 100")));
    for _ in 0..30 {
        scene.pass(Span::millis(100));
        scene.settle();
    }
    let (third, _) = scene.request("ann");
    scene.settle();
    scene.host.happened();
    scene.worker.response_headers(third, || NoHeaders);
    let told = scene.host.happened();
    assert!(
        told.contains(&(
            third,
            Happened::Told("x-ratelimit-remaining".into(), "97".into())
        )),
        "{told:?}"
    );
}

#[test]
fn a_worker_that_goes_takes_its_lanes_and_its_version_along() {
    let mut scene = Scene::new(ONE_RULE);
    for user in ["ann", "bob", "eve"] {
        scene.request(user);
        scene.turn();
        scene.host.sent();
        scene.pass(Span::millis(120));
    }
    scene.pass(Span::millis(1100));
    assert_eq!(scene.host.metric("weir.breaker.open_lanes"), 1);
    scene.worker.retire();
    assert_eq!(scene.host.metric("weir.breaker.open_lanes"), 0);
}

#[test]
fn an_idle_worker_stops_ticking_but_for_the_policy() {
    let mut scene = Scene::new(ONE_RULE);
    scene.request("ann");
    scene.settle();
    scene.pass(Span::millis(20));
    scene.settle();
    assert_eq!(scene.host.period(), Span::millis(10));
    for _ in 0..40 {
        scene.pass(Span::millis(100));
        scene.settle();
    }
    assert!(
        scene.host.period().as_millis() > 100,
        "{:?}",
        scene.host.period()
    );
}

const CHARGED: &str = r#"{"rules": [{"name": "api", "pattern": "/*",
    "user_limits": {"default": {"type": "fixed_window", "limit": 10, "window": 60}}}]}"#;

#[test]
fn a_request_that_the_proxy_redirects_counts_once() {
    let mut scene = Scene::new(CHARGED);
    let (first, _) = scene.request("ann");
    scene.settle();
    scene.host.redirect_all();
    scene.worker.stream_ended(first);

    let (second, flow) = scene.redirected("ann");
    assert_eq!(flow, Flow::Continue, "nothing is left to be asked");
    scene.host.happened();
    scene.worker.response_headers(second, || NoHeaders);
    let told = scene.host.happened();
    assert!(
        told.contains(&(
            second,
            Happened::Told("x-ratelimit-remaining".into(), "9".into())
        )),
        "{told:?}"
    );
    // Anybody can say that they were redirected.
    let (_, flow) = scene.redirected("ann");
    assert_eq!(flow, Flow::Pause);
}

/// A status call so large that it is asked in parts found nobody waiting, and left in its own name.
#[test]
fn no_call_leaves_in_the_name_of_a_request() {
    let rule = |number: usize| {
        let limit = r#"{"type": "fixed_window", "limit": 2, "window": 60}"#;
        format!(
            r#"{{"name": "r{number}", "pattern": "/{number}", "user_limits": {{"default": {limit}}}}}"#
        )
    };
    let rules: Vec<String> = (0..600).map(rule).collect();
    let policy = format!(r#"{{"rules": [{}]}}"#, rules.join(", "));
    for transport in ["http", "stream"] {
        let mut scene = Scene::over(transport, &Process::default(), &policy);
        for user in ["ann", "bob"] {
            scene.request_for("/1", user, ("accept", "*/*"));
            scene.settle();
        }
        scene.host.happened();
        if transport == "stream" {
            (1..99).for_each(|link| scene.worker.link_closed(LinkId(link)));
        }
        let status = "/api/v1/rate-limits/status";
        let (stream, _) = scene.request_for(status, "ann", ("accept", "*/*"));
        for _ in 0..20 {
            scene.settle();
            scene.pass(Span::millis(1));
        }
        let answered = (stream, Happened::Answered(200));
        assert_eq!(scene.statuses(), [answered], "{transport}");
    }
}

#[test]
fn who_has_patience_is_told_when_its_answer_is_lost() {
    let rules: Vec<String> = (0..600)
        .map(|number| ONE_RULE_OF.replace('#', &number.to_string()))
        .collect();
    let policy = format!(r#"{{"rules": [{}]}}"#, rules.join(", "));
    let mut scene = Scene::over("http", &Process::default(), &policy);
    let status = "/api/v1/rate-limits/status";
    let (stream, _) = scene.request_for(status, "ann", ("accept", "*/*"));
    for _ in 0..100 {
        scene.turn();
        scene.host.sent();
        scene.pass(Span::millis(10));
    }
    let told = scene.statuses();
    assert_eq!(told, [(stream, Happened::Answered(503))]);
}

const ONE_RULE_OF: &str = r#"{"name": "r#", "pattern": "/#", "user_limits":
    {"default": {"type": "fixed_window", "limit": 2, "window": 60}}}"#;

/// Whoever had the secret went on to send it, and it reached the upstream.
#[test]
fn a_policy_that_names_no_operators_keeps_those_of_the_configuration() {
    let configured = ONE_RULE.replace(
        r#"{"rules""#,
        r#"{"status": {"operator_header": {"name": "x-ops", "value": "0123456789abcdef"}}, "rules""#,
    );
    let mut scene = Scene::new(&configured);
    scene.redis.policy = Some((7, ONE_RULE.to_string()));
    for _ in 0..20 {
        scene.pass(Span::millis(100));
        scene.settle();
    }
    assert_eq!(scene.worker.policy.in_force().version.0, 7);
    let (stream, _) = scene.request_with("ann", ("x-ops", "0123456789abcdef"));
    let removed = (stream, Happened::Removed("x-ops".into()));
    assert!(scene.host.happened().contains(&removed));
}
