//! The gateway, its store and what it answers.

use std::rc::Rc;

use weir_core::decide::answer::Headers;
use weir_core::decide::decision::Record;
use weir_core::decide::limiter::{self, Action, Decision, Facts, Memory, Settlement, Step};
use weir_core::live::snapshot::PolicySnapshot;
use weir_core::policy::tariff::Tariff;
use weir_core::quota::model::Counters;
use weir_core::store::check::ShardRequest;
use weir_core::store::fan_in::Outcome;
use weir_core::store::slot::Topology;
use weir_core::time::{StoreInstant, WorkerInstant};
use weir_core::worker::config::{Config, LimiterConfig};

pub struct Gateway {
    config: LimiterConfig,
    snapshot: Rc<PolicySnapshot>,
    memory: Memory,
    topology: Topology,
    pub store: Store,
    pub now: WorkerInstant,
}

#[derive(Default)]
pub struct Store {
    counters: Counters<Vec<u8>>,
    /// Whoever asks about a key with this in it gets no answer.
    pub lost: Option<&'static str>,
    /// The keys that were asked about, in order.
    pub asked: Vec<String>,
}

/// What a client and an operator see.
#[derive(Debug)]
pub struct Answer {
    /// 200 where the request went on.
    pub status: u16,
    pub headers: Headers,
    pub body: serde_json::Value,
    pub record: Option<Record>,
    pub settlement: Option<Settlement>,
}

/// A client at this address, which is the peer's too.
struct At(&'static str);

impl Facts for At {
    fn source_address(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
    fn direct_peer(&self, _filter_state: &str) -> Option<Vec<u8>> {
        Some(self.0.as_bytes().to_vec())
    }
    fn claim(&self, _path: &[String]) -> Option<Vec<u8>> {
        None
    }
}

impl Gateway {
    pub fn new(topology: Topology, policy: &str) -> Gateway {
        Gateway::with_store(topology, "", policy)
    }

    /// `store` is a field of the configuration, with the comma after it.
    pub fn with_store(topology: Topology, store: &str, policy: &str) -> Gateway {
        let text = format!(
            r#"{{"role": "limiter", {store} "identity": {{"trust": ["127.0.0.0/8"]}}, "policy": {policy}}}"#
        );
        let Ok(Config::Limiter(config)) = Config::parse(&text) else {
            panic!("{:?}", Config::parse(&text))
        };
        Gateway {
            snapshot: Rc::new(PolicySnapshot::configured(
                config.policy.clone(),
                config.store.namespace.clone(),
            )),
            memory: Memory::new(&config.store),
            config: *config,
            topology,
            store: Store::default(),
            now: WorkerInstant(1_800_000_000_000_000),
        }
    }

    /// Both ways that Redis can be spread.
    pub fn of_each_topology(policy: &str) -> [Gateway; 2] {
        [Topology::Single, Topology::Cluster].map(|topology| Gateway::new(topology, policy))
    }

    /// Another policy over the same store.
    pub fn adopts(&mut self, policy: &str) {
        let store = std::mem::take(&mut self.store);
        *self = Gateway {
            store,
            ..Gateway::new(self.topology, policy)
        };
    }

    pub fn get(&mut self, user: &str, path: &str) -> Answer {
        self.request(&[(":path", path), ("x-user-id", user)])
    }

    /// From a peer whose headers are believed.
    pub fn request(&mut self, headers: &[(&str, &str)]) -> Answer {
        self.request_from("127.0.0.1", headers)
    }

    pub fn request_from(&mut self, peer: &'static str, headers: &[(&str, &str)]) -> Answer {
        let headers = [(":method", "GET")].iter().chain(headers);
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let sources = &self.config.sources;
        let admission = limiter::admit(&self.snapshot, sources, headers, &At(peer));
        let mut pending = match admission.step {
            Step::Pass | Step::Exempt(_) => return Answer::passed(),
            Step::Block(answer, ..) | Step::Respond(answer, _) => return Answer::of(answer, None),
            Step::Report(_) | Step::Page(_) => panic!("no operator asks here"),
            Step::Ask(pending) => pending,
        };
        if let Some(decision) = pending.recall(&mut self.memory, self.now) {
            return self.end(decision);
        }
        let parts = pending.parts(self.topology);
        for (number, part) in parts.iter().enumerate() {
            let outcome = self.store.answer(part, self.now);
            let is_last = pending.receive(number, &outcome);
            assert_eq!(is_last, number + 1 == parts.len());
        }
        let now = self.now;
        let decision = pending.conclude(&mut self.memory, || now);
        self.end(decision)
    }

    fn end(&mut self, decision: Decision) -> Answer {
        for part in &decision.refunds {
            self.store.answer(part, self.now);
        }
        match decision.action {
            Action::Pass(headers) => Answer {
                headers,
                record: decision.record,
                settlement: decision.settlement,
                ..Answer::passed()
            },
            Action::Respond(answer, _) => Answer::of(answer, decision.record),
        }
    }

    /// The response to a request that passed says this of its cost; nothing where there is none. The
    /// answer as the client reads it.
    pub fn responds(&mut self, answer: Answer, says: Option<&str>) -> Answer {
        self.responds_with(answer, says.as_slice())
    }

    /// The same of a response that has the header so often.
    pub fn responds_with(&mut self, mut answer: Answer, says: &[&str]) -> Answer {
        let mut settlement = answer.settlement.take().expect("a bill");
        let said = says.iter().map(|says| ("x-used", *says));
        let said = [("content-type", "text/plain")].into_iter().chain(said);
        let said = said.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let now = self.now;
        let cost = |tariff: &Tariff| tariff.at_response(said.clone());
        let headers = &mut answer.headers;
        let parts = self.memory.settle(&mut settlement, cost, headers, || now);
        for part in parts {
            self.store.answer(&part, now);
        }
        answer
    }

    pub fn passes(&mut self, user: &str, path: &str) -> bool {
        let answer = self.get(user, path);
        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
        answer.status == 200
    }

    pub fn status(&mut self, user: &str) -> serde_json::Value {
        let answer = self.get(user, "/api/v1/rate-limits/status");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }
}

impl Store {
    /// Runs a part as the script would.
    pub fn answer(&mut self, part: &ShardRequest, now: WorkerInstant) -> Outcome {
        let keys = part.check_request.checks().iter().map(|check| &check.key);
        let keys: Vec<String> = keys
            .map(|key| String::from_utf8(key.clone()).unwrap())
            .collect();
        let is_lost = |lost| keys.iter().any(|key| key.contains(lost));
        let failed = self.lost.is_some_and(is_lost);
        self.asked.extend(keys);
        if failed {
            return Outcome::Failed;
        }
        let told = part.check_request.operations().map(|(operation, checks)| {
            let limits: Vec<_> = checks
                .iter()
                .map(|check| (check.key.clone(), check.terms.quota, check.cost))
                .collect();
            assert!(!limits.is_empty(), "the script takes no empty operation");
            self.counters
                .run(operation.kind, &limits, StoreInstant(now.0))
        });
        Outcome::Answered {
            now: StoreInstant(now.0),
            asked: now,
            told: told.collect(),
        }
    }
}

impl Answer {
    fn passed() -> Answer {
        Answer {
            status: 200,
            headers: Headers::new(),
            body: serde_json::Value::Null,
            record: None,
            settlement: None,
        }
    }

    fn of(answer: weir_core::decide::answer::Answer, record: Option<Record>) -> Answer {
        Answer {
            status: answer.status,
            headers: answer.headers,
            body: serde_json::from_slice(&answer.body).unwrap(),
            record,
            settlement: None,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(own, _)| own == name)?;
        Some(&header.1)
    }
}
