use std::rc::Rc;

use super::super::{Action, Decision, Facts, Step, admit};
use super::*;
use crate::codec::namespace::Namespace;
use crate::decide::decision;
use crate::live::snapshot::{PolicySnapshot, Version};
use crate::policy::key;
use crate::policy::rollout::Counting;
use crate::quota::cost::Cost;
use crate::quota::model::Counters;
use crate::quota::operation::Retry;
use crate::request::subject::Subject;
use crate::store::fan_in::Outcome;
use crate::store::slot::Topology;
use crate::time::{Span, StoreInstant, WorkerInstant};
use crate::worker::config::{Config, LimiterConfig};

const POLICY: &str = r#"{"rules": [
    {"name": "leased", "pattern": "/leased*", "global_limit":
        {"type": "fixed_window", "limit": 100, "window": 3600,
         "lease": {"size": 10, "ttl_ms": 60000}}},
    {"name": "mixed", "pattern": "/leased/mixed", "global_limit":
        {"type": "fixed_window", "limit": 3, "window": 3600}},
    {"name": "slow", "pattern": "/leased/slow", "global_limit":
        {"type": "fixed_window", "limit": 50, "window": 3600,
         "slow_from": 0.01, "max_delay_ms": 1000, "lease": {"size": 10}}}
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

/// A worker, and a store that answers at once or is away.
struct Gateway {
    config: LimiterConfig,
    snapshot: Rc<PolicySnapshot>,
    memory: Memory,
    store: Option<Counters<Vec<u8>>>,
    /// Operations that the store was asked for.
    asked: usize,
}

impl Gateway {
    fn new() -> Gateway {
        let text = format!(
            r#"{{"role": "limiter", "identity": {{"trust": "never"}}, "policy": {POLICY}}}"#
        );
        let Ok(Config::Limiter(config)) = Config::parse(&text) else {
            panic!("{:?}", Config::parse(&text))
        };
        Gateway {
            snapshot: Rc::new(PolicySnapshot::configured(
                config.policy.clone(),
                Namespace::default(),
            )),
            memory: Memory::new(&config.store),
            config: *config,
            store: Some(Counters::default()),
            asked: 0,
        }
    }

    fn answer(&mut self, part: &ShardRequest) -> Outcome {
        let Some(store) = &mut self.store else {
            return Outcome::Failed;
        };
        let mut told = Vec::new();
        for (operation, checks) in part.check_request.operations() {
            let limit = |check: &Check| (check.key.clone(), check.terms.quota, check.cost);
            let limits: Vec<_> = checks.iter().map(limit).collect();
            told.push(store.run(operation.kind, &limits, StoreInstant(0)));
            self.asked += 1;
        }
        Outcome::Answered {
            now: StoreInstant(0),
            asked: WorkerInstant(0),
            told,
        }
    }

    /// As the shell does it.
    fn request(&mut self, path: &str) -> Decision {
        let head = [(":method", "GET"), (":path", path)];
        let head = head.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let sources = &self.config.sources;
        let admission = admit(&self.snapshot, sources, head.into_iter(), &Nobody);
        let Step::Ask(mut pending) = admission.step else {
            panic!("{:?}", admission.step)
        };
        if let Some(decision) = pending.recall(&mut self.memory, WorkerInstant(0)) {
            return decision;
        }
        let parts = pending.parts(Topology::Single);
        let bids = match parts.as_slice() {
            [] => Vec::new(),
            _ => pending.bids(&mut self.memory, WorkerInstant(0)),
        };
        for (number, part) in parts.iter().enumerate() {
            let outcome = self.answer(part);
            pending.receive(number, &outcome);
        }
        let decision = pending.conclude(&mut self.memory, || WorkerInstant(0));
        for bid in bids {
            let outcome = self.answer(bid.part());
            self.memory.leases.settle(bid, &outcome);
        }
        for part in &decision.refunds {
            self.answer(part);
        }
        decision
    }

    fn used(&mut self, rule: &str) -> u64 {
        let limits = self.snapshot.policy.limits();
        let (_, limit) = limits
            .into_iter()
            .find(|(_, limit)| limit.rule == rule)
            .unwrap();
        let nobody = Subject::Address(None);
        let namespace = &self.snapshot.namespace;
        let key = key::of(namespace, limit, Counting::Enforced, &nobody, None);
        let quota = limit.terms.quota;
        let limits = [(key, quota, crate::quota::cost::Cost::ONE)];
        let store = self.store.as_mut().unwrap();
        let told = store.run(
            crate::quota::operation::Kind::Peek,
            &limits,
            StoreInstant(0),
        );
        quota.capacity() - told.limits[0].remaining as u64
    }
}

fn source(decision: &Decision) -> decision::Source {
    decision.record.as_ref().unwrap().source
}

fn passes(decision: &Decision) -> bool {
    matches!(decision.action, Action::Pass(_))
}

#[test]
fn a_request_that_leases_cover_passes_without_asking() {
    let mut gateway = Gateway::new();
    let first = gateway.request("/leased");
    assert_eq!(
        (source(&first), gateway.asked),
        (decision::Source::Store, 2)
    );
    for left in (89..99).rev() {
        let decision = gateway.request("/leased");
        assert!(passes(&decision));
        assert_eq!(source(&decision), decision::Source::Leases);
        let shown = decision.record.unwrap().shown.unwrap();
        assert_eq!(shown.reading.remaining, left);
    }
    assert_eq!((gateway.asked, gateway.used("leased")), (2, 11));
    assert_eq!(source(&gateway.request("/leased")), decision::Source::Store);
}

#[test]
fn only_what_is_not_leased_is_asked_and_a_refusal_leaves_the_permit_in_the_lease() {
    let mut gateway = Gateway::new();
    gateway.request("/leased");
    for number in 0..5 {
        let before = gateway.asked;
        let decision = gateway.request("/leased/mixed");
        assert_eq!(passes(&decision), number < 3, "{number}");
        // The last is known to be out of quota.
        assert_eq!(gateway.asked - before, usize::from(number < 4), "{number}");
        assert!(decision.refunds.is_empty());
    }
    assert_eq!((gateway.used("leased"), gateway.used("mixed")), (11, 3));
    // Three of ten are spent: seven pass without the store.
    let before = gateway.asked;
    for _ in 0..7 {
        assert!(passes(&gateway.request("/leased")));
    }
    assert_eq!(gateway.asked, before);
}

#[test]
fn what_is_leased_is_spent_while_the_store_is_away_and_nothing_is_asked_for() {
    let mut gateway = Gateway::new();
    gateway.request("/leased");
    gateway.store = None;
    for _ in 0..10 {
        assert_eq!(
            source(&gateway.request("/leased")),
            decision::Source::Leases
        );
    }
    let degraded = gateway.request("/leased");
    assert!(matches!(source(&degraded), decision::Source::Failure(_)));
}

#[test]
fn whoever_leaves_while_held_back_leaves_the_permits_behind() {
    let mut gateway = Gateway::new();
    gateway.request("/leased/slow");
    let delayed = gateway.request("/leased/slow").delayed.unwrap();
    let stream = crate::local::timer_queue::StreamId(1);
    gateway.memory.delay(stream, WorkerInstant(0), &delayed);
    assert!(
        gateway
            .memory
            .leave(stream, *delayed, || WorkerInstant(0))
            .is_empty()
    );
    let before = gateway.asked;
    for _ in 0..10 {
        assert_eq!(
            source(&gateway.request("/leased/slow")),
            decision::Source::Leases
        );
    }
    assert_eq!(gateway.asked, before);
}

/// One that was asked in the same call may have been refused for what this worker leased.
#[test]
fn a_refusal_that_is_known_does_not_stand_in_the_way_of_a_lease() {
    let mut gateway = Gateway::new();
    gateway.request("/leased");
    let refused = Reading {
        remaining: 0,
        retry: Retry::After(Span::millis(60_000)),
        reset: Span::millis(60_000),
    };
    let limits = gateway.snapshot.policy.limits();
    let (_, limit) = limits
        .into_iter()
        .find(|(_, limit)| limit.rule == "leased")
        .unwrap();
    let check = Check {
        key: key::of(
            &gateway.snapshot.namespace,
            limit,
            Counting::Enforced,
            &Subject::Address(None),
            None,
        ),
        terms: limit.terms.clone(),
        cost: Cost::ONE,
    };
    let memory = &mut gateway.memory;
    memory.denials.learn(&check, refused, WorkerInstant(0));
    for _ in 0..10 {
        assert_eq!(
            source(&gateway.request("/leased")),
            decision::Source::Leases
        );
    }
    assert_eq!(
        source(&gateway.request("/leased")),
        decision::Source::Denials
    );
}

#[test]
fn another_policy_takes_nothing_over_from_the_leases_of_the_last() {
    let mut gateway = Gateway::new();
    gateway.request("/leased");
    let next = gateway
        .snapshot
        .followed_by(gateway.config.policy.clone(), Version(1));
    gateway.memory.enter(next.generation);
    for part in gateway.memory.leases.expire(WorkerInstant(0)) {
        gateway.answer(&part);
    }
    assert_eq!(gateway.used("leased"), 1);
    // One that began under the last policy neither spends nor asks for a lease.
    assert_eq!(source(&gateway.request("/leased")), decision::Source::Store);
    assert_eq!(gateway.used("leased"), 2);
    gateway.snapshot = Rc::new(next);
    gateway.request("/leased");
    assert_eq!(
        source(&gateway.request("/leased")),
        decision::Source::Leases
    );
}
