//! What requests cost by what came of them: by the status of their response, by what other filters noted until
//! the stream ended, and by how it ended.

use super::super::fake_host::NoHeaders;
use super::super::{Flow, HeaderList, Host};
use super::{Happened, Process, Scene};
use crate::local::timer_queue::StreamId;
use crate::quota::limit::{Algorithm, Quota};
use crate::time::{Span, StoreInstant};

const KEY: &[u8] = b"weir:2:{u:ann}:r:user:fw300s";
const LIMIT: i64 = 1000;

/// How Envoy flags a stream whose client hung up, and one that the client reset.
const HUNG_UP: [u64; 2] = [1 << 14, 1 << 28];
/// The upstream broke off.
const UPSTREAM_RESET: u64 = 1 << 4;

fn policy(cost: &str) -> String {
    format!(
        r#"{{"rules": [{{"name": "r", "pattern": "/x", "cost": {cost}, "user_limits": {{"default":
            {{"type": "fixed_window", "limit": {LIMIT}, "window": 300}}}}}}]}}"#
    )
}

const LOGINS: &str = r#"{"response_status": {"401": 3, "403": 3}, "default": 0}"#;
const CALLS: &str = r#"{"grpc_status": {"UNAUTHENTICATED": 3}, "default": 0}"#;
const TOKENS: &str =
    r#"{"metadata": ["io.envoy.ai_gateway", "llm_total_token"], "default": 20, "max": 600}"#;

/// A response's head.
struct Head(&'static [(&'static str, &'static str)]);

impl HeaderList for Head {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }
}

impl Scene {
    fn used(&mut self) -> i64 {
        self.settle();
        let limit = LIMIT.unsigned_abs();
        let quota = Quota::try_new(Algorithm::FixedWindow, limit, 300, None).unwrap();
        let now = StoreInstant(self.host.wall_clock().0);
        LIMIT - self.redis.left(KEY, quota, now)
    }

    /// A request of Ann's that goes on.
    fn passes(&mut self) -> StreamId {
        let (stream, _) = self.request("ann");
        self.settle();
        stream
    }

    fn head(&mut self, stream: StreamId, status: &'static str) {
        let head: &[(&str, &str)] = match status {
            "401" => &[(":status", "401")],
            "403" => &[(":status", "403")],
            _ => &[(":status", "200")],
        };
        self.worker.response_headers(stream, || Head(head));
    }

    fn answered(&mut self) -> Vec<u16> {
        let happened = self.host.happened().into_iter();
        let answers = happened.filter_map(|(_, what)| match what {
            Happened::Answered(status) => Some(status),
            _ => None,
        });
        answers.collect()
    }
}

#[test]
fn only_failed_logins_count() {
    for transport in ["http", "stream"] {
        let mut scene = Scene::over(transport, &Process::default(), &policy(LOGINS));
        let mut used = Vec::new();
        for status in ["200", "401", "200", "403"] {
            let stream = scene.passes();
            scene.head(stream, status);
            scene.worker.stream_ended(stream);
            used.push(scene.used());
        }
        assert_eq!(used, [0, 3, 3, 6], "{transport}");
        assert_eq!(scene.host.inquiries(), 0, "the head told it all");
        assert!(scene.worker.streams.is_empty());
    }
}

#[test]
fn a_failed_call_is_known_by_its_head() {
    let mut scene = Scene::new(&policy(CALLS));
    let stream = scene.passes();
    let head = &[(":status", "200"), ("grpc-status", "16")];
    scene.worker.response_headers(stream, || Head(head));
    assert_eq!(scene.used(), 3);
    scene.worker.stream_ended(stream);

    let stream = scene.passes();
    scene.head(stream, "200");
    assert_eq!(scene.used(), 4, "held: its trailers may tell");
    scene.worker.stream_ended(stream);
    assert_eq!(scene.used(), 3);
}

#[test]
fn tokens_are_charged_when_the_stream_ends() {
    let mut scene = Scene::new(&policy(TOKENS));
    let stream = scene.passes();
    scene.head(stream, "200");
    assert_eq!(scene.used(), 20, "held");
    let path = ["io.envoy.ai_gateway", "llm_total_token"];
    scene.host.note_metadata(&path, &345.0f64.to_le_bytes());
    scene.worker.stream_ended(stream);
    assert_eq!(scene.used(), 345);
    assert!(scene.worker.streams.is_empty());
}

#[test]
fn an_answer_that_tells_nothing_costs_the_default_however_its_upstream_ended_it() {
    for flags in [0, UPSTREAM_RESET] {
        let mut scene = Scene::new(&policy(TOKENS));
        scene.host.end_with(flags);
        let stream = scene.passes();
        scene.head(stream, "200");
        scene.worker.stream_ended(stream);
        assert_eq!(scene.used(), 20, "{flags:b}");
    }
}

#[test]
fn who_hangs_up_before_it_is_known_pays_for_an_unfinished_stream() {
    for flags in HUNG_UP {
        let mut scene = Scene::new(&policy(TOKENS));
        scene.host.end_with(flags);
        let stream = scene.passes();
        scene.head(stream, "200");
        scene.worker.stream_ended(stream);
        assert_eq!(scene.used(), 600, "{flags:b}");
    }
    // Before the head there is nothing to know it by.
    for (cost, unfinished) in [(TOKENS, 600), (LOGINS, 3), (CALLS, 3)] {
        let mut scene = Scene::new(&policy(cost));
        let stream = scene.passes();
        scene.worker.stream_ended(stream);
        assert_eq!(scene.used(), unfinished, "{cost}");
    }
    // What is known is known.
    let mut scene = Scene::new(&policy(LOGINS));
    scene.host.end_with(HUNG_UP[0]);
    let stream = scene.passes();
    scene.head(stream, "200");
    scene.worker.stream_ended(stream);
    assert_eq!(scene.used(), 0);
}

#[test]
fn a_redirect_does_not_leave_its_stream_unfinished() {
    let mut scene = Scene::new(&policy(LOGINS));
    let first = scene.passes();
    scene.host.redirect_all();
    scene.worker.stream_ended(first);
    assert_eq!(scene.used(), 1, "held");
    let (second, flow) = scene.redirected("ann");
    assert_eq!(flow, Flow::Continue);
    scene.head(second, "401");
    scene.worker.stream_ended(second);
    assert_eq!(scene.used(), 3, "once, by the last status");
}

#[test]
fn a_refusal_of_weirs_own_counts_as_nothing() {
    let cost = r#"{"response_status": {"429": 400, "4xx": 400}, "default": 0}"#;
    let two = r#"{"name": "few", "pattern": "/x", "user_limits":
        {"default": {"type": "fixed_window", "limit": 1, "window": 60}}}, "#;
    let policy = policy(cost).replace(r#""rules": ["#, &format!(r#""rules": [{two}"#));
    let mut scene = Scene::new(&policy);
    let stream = scene.passes();
    scene.head(stream, "200");
    let refused = scene.passes();
    assert_eq!(scene.answered(), [429]);
    scene
        .worker
        .response_headers(refused, || Head(&[(":status", "429")]));
    scene.worker.stream_ended(refused);
    assert_eq!(scene.used(), 0);
}

#[test]
fn with_a_hold_of_nothing_nothing_is_taken_before() {
    let cost = r#"{"response_status": {"401": 3}, "default": 0, "hold": 0}"#;
    let mut scene = Scene::new(&policy(cost));
    let streams: Vec<StreamId> = (0..5).map(|_| scene.passes()).collect();
    assert_eq!(scene.used(), 0);
    for stream in &streams {
        scene.head(*stream, "401");
    }
    assert_eq!(scene.used(), 15);
}

/// They were refused for the whole window, and from memory, though no login had failed.
#[test]
fn who_is_refused_for_what_others_hold_may_come_again_soon() {
    let few = policy(r#"{"response_status": {"401": 1}, "default": 0}"#)
        .replace(r#""limit": 1000"#, r#""limit": 5"#);
    let mut scene = Scene::new(&few);
    let streams: Vec<StreamId> = (0..5).map(|_| scene.passes()).collect();
    scene.passes();
    assert_eq!(scene.answered(), [429]);
    assert_eq!(
        scene.host.last_answer_header("retry-after").as_deref(),
        Some("1")
    );
    for stream in streams {
        scene.head(stream, "200");
    }
    let stream = scene.passes();
    assert_eq!(scene.answered(), [0; 0], "it was not refused from memory");

    // Five that failed hold nothing: the wait is what it is.
    scene.head(stream, "401");
    for _ in 0..4 {
        let stream = scene.passes();
        scene.head(stream, "401");
    }
    scene.settle();
    scene.passes();
    assert_eq!(scene.answered(), [429]);
    let wait = scene.host.last_answer_header("retry-after").unwrap();
    assert!(wait.parse::<u64>().unwrap() > 1, "{wait}");
}

#[test]
fn a_debt_is_remembered() {
    let mut scene = Scene::new(&policy(TOKENS));
    for _ in 0..2 {
        let path = ["io.envoy.ai_gateway", "llm_total_token"];
        scene.host.note_metadata(&path, b"600");
        let stream = scene.passes();
        scene.head(stream, "200");
        scene.worker.stream_ended(stream);
        scene.settle();
    }
    scene.host.happened();
    scene.passes();
    assert_eq!(scene.answered(), [429]);
    scene.request("ann");
    assert!(scene.host.sent().is_empty(), "nobody asked");
    assert_eq!(scene.answered(), [429]);
}

/// The answer to the take was lost: what it took, and what becomes of the request, is kept in memory.
#[test]
fn without_an_answer_the_cost_is_kept_in_memory() {
    let mut scene = Scene::over("http", &Process::default(), &policy(TOKENS));
    let (stream, _) = scene.request("ann");
    scene.turn();
    scene.host.sent();
    for _ in 0..10 {
        scene.pass(Span::millis(10));
    }
    assert_eq!(scene.statuses(), [(stream, Happened::Resumed)]);
    scene.head(stream, "200");
    let path = ["io.envoy.ai_gateway", "llm_total_token"];
    scene.host.note_metadata(&path, b"1200");
    scene.worker.stream_ended(stream);
    // Never more than the most: 600 of a thousand.
    for expected in [vec![], vec![429]] {
        let (stream, _) = scene.request("ann");
        scene.turn();
        scene.host.sent();
        for _ in 0..10 {
            scene.pass(Span::millis(10));
        }
        assert_eq!(scene.answered(), expected);
        scene.head(stream, "200");
        scene.worker.stream_ended(stream);
    }
}

#[test]
fn nobody_asks_how_a_request_ended_whose_cost_is_known() {
    for cost in [
        "1",
        r#"{"response_header": "x-used", "default": 1, "max": 9}"#,
    ] {
        let mut scene = Scene::new(&policy(cost));
        let stream = scene.passes();
        scene.worker.response_headers(stream, || NoHeaders);
        scene.worker.stream_ended(stream);
        assert_eq!(scene.host.inquiries(), 0, "{cost}");
    }
}
