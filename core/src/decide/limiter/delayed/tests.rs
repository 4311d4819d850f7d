use std::rc::Rc;

use super::super::{Facts, Step, admit};
use super::*;
use crate::codec::namespace::Namespace;
use crate::live::snapshot::PolicySnapshot;
use crate::local::timer_queue::MOST;
use crate::quota::operation::{Kind, OperationReply, Verdict as Said};
use crate::store::slot::Topology;
use crate::worker::config::{Config, LimiterConfig};

/// Half a second between two turns, and at most two wait.
const POLICY: &str = r#"{"delay_header": "x-delay", "rules": [
    {"name": "line", "pattern": "/line", "global_limit":
        {"type": "leaky_bucket", "limit": 2, "window": 1, "shape": true, "max_wait_ms": 1000}},
    {"name": "slow", "pattern": "/slow*", "global_limit":
        {"type": "fixed_window", "limit": 4, "window": 60, "warn_at": 0.7,
         "slow_from": 0.5, "max_delay_ms": 300}},
    {"name": "both", "pattern": "/slow-line", "global_limit":
        {"type": "leaky_bucket", "limit": 2, "window": 1, "shape": true, "max_wait_ms": 1000}}
]}"#;

struct Nobody;

impl Facts for Nobody {
    fn source_address(&self) -> Vec<u8> {
        Vec::new()
    }
    fn direct_peer(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
    fn claim(&self, _: &[String]) -> Option<Vec<u8>> {
        None
    }
}

fn config() -> LimiterConfig {
    let text =
        format!(r#"{{"role": "limiter", "identity": {{"trust": "never"}}, "policy": {POLICY}}}"#);
    let Config::Limiter(config) = Config::parse(&text).unwrap() else {
        panic!()
    };
    *config
}

fn memory() -> Memory {
    Memory::new(&config().store)
}

/// A request to this path, of whose limits the store tells so much left and so long a reset; it
/// knows nothing of those about whom it fails.
fn ask(memory: &mut Memory, path: &str, readings: Option<&[(i64, u64)]>) -> Decision {
    let mut pending = pending(path);
    assert!(pending.receive(0, &told(readings)));
    pending.conclude(memory, || WorkerInstant(1_000_000))
}

fn pending(path: &str) -> Box<Pending> {
    let LimiterConfig {
        sources, policy, ..
    } = config();
    let snapshot = Rc::new(PolicySnapshot::configured(policy, Namespace::default()));
    let head = [(":method", "GET"), (":path", path)];
    let head = head.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let Step::Ask(mut pending) = admit(&snapshot, &sources, head.into_iter(), &Nobody).step else {
        panic!()
    };
    assert_eq!(pending.parts(Topology::Single).len(), 1);
    pending
}

fn told(readings: Option<&[(i64, u64)]>) -> Outcome {
    readings.map_or(Outcome::Failed, |readings| {
        let limits = readings.iter().map(|&(remaining, reset)| Reading {
            remaining,
            retry: Retry::Now,
            reset: Span::millis(reset),
        });
        Outcome::Answered {
            now: StoreInstant(7),
            asked: WorkerInstant(0),
            told: vec![OperationReply {
                verdict: Said::Passed,
                limits: limits.collect(),
            }],
        }
    })
}

fn header(decision: &Decision, wanted: &str) -> Option<String> {
    let headers = match &decision.action {
        Action::Pass(headers) => headers,
        Action::Respond(answer, _) => &answer.headers,
    };
    let header = headers.iter().find(|(name, _)| name == wanted);
    header.map(|(_, value)| value.clone())
}

fn outcome(decision: &Decision) -> decision::Outcome {
    decision.record.as_ref().unwrap().outcome
}

#[test]
fn whoever_nears_a_limit_is_warned_and_slowed_and_both_are_recorded() {
    let mut memory = self::memory();
    for (left, warning, delay) in [
        (2, None, None),
        (1, Some("0.75"), Some("150")),
        (0, Some("1.0"), Some("300")),
    ] {
        let decision = ask(&mut memory, "/slow", Some(&[(left, 60_000)]));
        let warning = warning.map(|used| format!("\"slow\";scope=global;used={used}"));
        assert_eq!(header(&decision, "x-ratelimit-warning"), warning);
        assert_eq!(header(&decision, "x-delay").as_deref(), delay);
        let record = decision.record.as_ref().unwrap();
        assert_eq!(record.warned.len(), usize::from(warning.is_some()));
        assert_eq!(record.delay.as_millis().to_string(), delay.unwrap_or("0"));
        let delayed = record.outcome == decision::Outcome::Delayed;
        assert_eq!(delayed, delay.is_some());
        assert_eq!(decision.delayed.is_some(), delay.is_some());
        assert!(decision.refunds.is_empty());
    }
}

#[test]
fn a_request_goes_on_when_its_turn_comes() {
    let mut memory = self::memory();
    let first = ask(&mut memory, "/line", Some(&[(2, 500)]));
    assert!(first.delayed.is_none());
    assert_eq!(outcome(&first), decision::Outcome::Allowed);
    let second = ask(&mut memory, "/line", Some(&[(1, 990)]));
    let delayed = second.delayed.unwrap();
    memory.delay(StreamId(2), WorkerInstant(5_000), &delayed);
    assert_eq!(memory.delays.next(), Some(WorkerInstant(495_000)));
    assert_eq!(memory.delays.pop(WorkerInstant(495_000)), Some(StreamId(2)));
    let refunds = memory.leave(StreamId(2), *delayed, || WorkerInstant(0));
    assert!(refunds.is_empty(), "what went on is not given back");
}

#[test]
fn whoever_leaves_while_waiting_gives_back_what_was_taken() {
    let mut memory = self::memory();
    let delayed = ask(&mut memory, "/line", Some(&[(1, 1000)]))
        .delayed
        .unwrap();
    memory.delay(StreamId(2), WorkerInstant(0), &delayed);
    let refunds = memory.leave(StreamId(2), *delayed, || WorkerInstant(0));
    let kinds: Vec<_> = refunds
        .iter()
        .flat_map(|part| part.check_request.operations())
        .map(|(operation, _)| operation.kind)
        .collect();
    assert_eq!(
        kinds,
        [Kind::Refund {
            receipt: StoreInstant(7)
        }]
    );
    assert_eq!(memory.delays.next(), None);
}

/// A turn that came to nobody held up the queue.
#[test]
fn whoever_leaves_before_the_turn_is_told_leaves_none_behind() {
    let mut memory = self::memory();
    for (path, refunds) in [("/line", 1), ("/slow", 0), ("/slow-line", 1)] {
        memory.abandon(StreamId(5), pending(path));
        let outcome = told(Some(&[(1, 1000), (1, 1000)]));
        let all = memory.receive_abandoned(StreamId(5), 0, &outcome);
        assert_eq!(all.len(), refunds, "{path}");
        assert!(memory.abandoned.is_empty());
        let again = memory.receive_abandoned(StreamId(5), 0, &outcome);
        assert!(again.is_empty());
    }
}

/// Moving up in a queue must not carry a request past what another limit asks of it.
#[test]
fn the_longest_delay_counts_and_a_line_moves_up_no_further_than_the_others_allow() {
    let mut memory = self::memory();
    let both = |memory: &mut Memory, reset| {
        let readings = [(0, 60_000), (1, reset)];
        ask(memory, "/slow-line", Some(&readings)).delayed.unwrap()
    };
    assert_eq!(both(&mut memory, 700).wait, Span::millis(300));
    for (stream, reset) in [(1, 900), (2, 1400), (3, 1900)] {
        let delayed = both(&mut memory, reset);
        memory.delay(StreamId(stream), WorkerInstant(0), &delayed);
    }
    let delayed = both(&mut memory, 600);
    memory.delay(StreamId(4), WorkerInstant(0), &delayed);
    let delayed = both(&mut memory, 900);
    memory.leave(StreamId(1), *delayed, || WorkerInstant(0));
    let mut order = Vec::new();
    while let Some(due) = memory.delays.next() {
        order.push((due.0, memory.delays.pop(due).unwrap().0));
    }
    assert_eq!(order, [(300_000, 4), (400_000, 2), (900_000, 3)]);
}

#[test]
fn with_too_many_waiting_a_turn_is_refused_and_a_slow_request_goes_on() {
    let mut memory = self::memory();
    let anybody = |number: u32| Subject::User(number.to_be_bytes().to_vec());
    for stream in 0..MOST as u32 {
        let caller = anybody(stream);
        memory
            .delays
            .delay(StreamId(stream), caller, WorkerInstant(1), None);
    }
    let slow = ask(&mut memory, "/slow", Some(&[(0, 60_000)]));
    assert!(slow.delayed.is_none());
    assert_eq!(outcome(&slow), decision::Outcome::Allowed);
    assert_eq!(header(&slow, "x-delay"), None);
    assert!(slow.record.as_ref().unwrap().is_crowded);
    let turn = ask(&mut memory, "/line", Some(&[(0, 1500)]));
    assert_eq!(outcome(&turn), decision::Outcome::Denied);
    assert!(turn.record.as_ref().unwrap().is_crowded);
    assert_eq!(header(&turn, "retry-after").as_deref(), Some("1"));
    assert_eq!(header(&turn, "x-ratelimit-remaining").as_deref(), Some("0"));
    assert_eq!(turn.refunds.len(), 1);
    let both = ask(&mut memory, "/slow-line", Some(&[(0, 60_000), (1, 600)]));
    assert_eq!(outcome(&both), decision::Outcome::Denied);
}

#[test]
fn without_the_store_a_worker_keeps_the_turns_itself_and_gives_back_to_itself() {
    let mut memory = self::memory();
    let mut queue = || ask(&mut memory, "/line", None);
    let (first, second, third, fourth) = (queue(), queue(), queue(), queue());
    assert!(first.delayed.is_none());
    let waits = [&second, &third].map(|decision| decision.delayed.as_ref().unwrap().wait);
    assert_eq!(waits, [Span::millis(500), Span::millis(1000)]);
    assert_eq!(outcome(&fourth), decision::Outcome::Denied);
    let delayed = third.delayed.unwrap();
    memory.delay(StreamId(3), WorkerInstant(0), &delayed);
    let refunds = memory.leave(StreamId(3), *delayed, || WorkerInstant(1_000_000));
    assert!(refunds.is_empty());
    let again = ask(&mut memory, "/line", None);
    assert_eq!(again.delayed.unwrap().wait, Span::millis(1000));
}
