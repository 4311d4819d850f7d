//! One thing that is measured: a gateway with all that it needs, as the processes that are counted.

use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;
use weir_lab::gateway::{Gateway, Policy, Store};
use weir_lab::process::Process;
use weir_lab::redis::Redis;

use crate::crowd::Callers;
use crate::scenario::{Limits, PATH, Scenario};
use crate::store::Observer;
use crate::upstream::Upstream;

/// Longer than a busy machine makes a check wait: a check that times out is decided in memory, and
/// measures something else.
const TIMEOUT_MS: u64 = 500;

/// A running one. Everything that it started ends with it.
pub struct System {
    pub name: String,
    pub address: SocketAddr,
    pub scenario: Scenario,
    /// Who asks; the next turn goes on where the last one ended.
    pub callers: Callers,
    /// Each with all that it starts.
    pub processes: Vec<Counted>,
    pub observer: Option<Observer>,
    _parts: Box<dyn Any>,
}

/// A process whose time counts, by the name that is shown.
#[derive(Clone, Debug)]
pub struct Counted {
    pub name: String,
    pub pid: u32,
}

/// A gateway with Weir in it.
#[derive(Clone, Debug)]
pub struct Weir {
    pub name: String,
    pub limits: Limits,
    pub store: Store,
    pub lease: Option<Value>,
    pub rules: usize,
    pub callers: u64,
    pub workers: usize,
    /// Another filter than the one that is built.
    pub wasm: Option<PathBuf>,
}

// === impl System ===

impl System {
    pub fn new(
        name: &str,
        address: SocketAddr,
        scenario: Scenario,
        processes: Vec<Counted>,
        redis: Option<&Redis>,
    ) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            address,
            scenario,
            callers: Callers::new(PATH, scenario.callers(), scenario.status()),
            processes,
            observer: redis.map(Observer::new).transpose()?,
            _parts: Box::new(()),
        })
    }

    /// Keeps what it consists of, to be dropped with it.
    pub fn holding(mut self, parts: impl Any) -> Self {
        self._parts = Box::new(parts);
        self
    }
}

// === impl Counted ===

impl Counted {
    pub fn new(name: &str, process: &Process) -> Self {
        Self {
            name: name.to_owned(),
            pid: process.pid(),
        }
    }
}

// === impl Weir ===

impl Weir {
    pub fn new(name: &str, limits: Limits) -> Self {
        Self {
            name: name.to_owned(),
            limits,
            store: Store::Bridge,
            lease: None,
            rules: 1,
            callers: limits.scenario.callers(),
            workers: 1,
            wasm: None,
        }
    }

    /// Fails with the filter's own words where it refuses the policy.
    pub fn start(&self, upstream: &Upstream) -> Result<System> {
        let policy = self.limits.policy(self.rules, self.lease.as_ref());
        self.start_with(&policy, upstream)
    }

    /// With a policy that is not the usual one for these limits.
    pub fn start_with(&self, policy: &Value, upstream: &Upstream) -> Result<System> {
        let redis = Redis::start()?;
        let mut gateway = Gateway::builder()
            .store(self.store)
            .redis(&redis)
            .policy(Policy::Text(policy.to_string()))
            .timeout_ms(TIMEOUT_MS)
            .workers(self.workers)
            .variable("UPSTREAM_HOST", &upstream.address().ip().to_string())
            .variable("UPSTREAM_PORT", &upstream.address().port().to_string());
        if let Some(wasm) = &self.wasm {
            gateway = gateway.wasm(wasm);
        }
        let gateway = gateway.start()?;
        let mut processes = vec![
            Counted::new("Envoy", gateway.process()),
            Counted::new("Redis", redis.server()?),
        ];
        if let Some(sidecar) = gateway.sidecar() {
            processes.push(Counted::new("sidecar", sidecar.process()));
        }
        let (name, address) = (&self.name, gateway.address());
        let mut system = System::new(name, address, self.limits.scenario, processes, Some(&redis))?;
        system.callers = Callers::new(PATH, self.callers, self.limits.scenario.status());
        // In the order they end: a gateway before what it talks to.
        Ok(system.holding((gateway, redis)))
    }
}
