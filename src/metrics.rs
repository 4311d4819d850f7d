//! The way to the store as operators see it, in Envoy's own statistics: `wasmcustom.weir.…`. They
//! belong to the whole process, so each worker adds what has changed since it last told.

use std::cell::Cell;

use weir_core::batch::Health;
use weir_core::verdict::Degraded;

use crate::host::{self, MetricId, MetricKind};

/// One worker's part in the statistics.
pub struct Metrics {
    calls: Metric,
    failures: Metric,
    opened: Metric,
    open_lanes: Metric,
    allow: Metric,
    local: Metric,
    deny: Metric,
    /// What this worker has told.
    told: Cell<Health>,
}

struct Metric(Option<MetricId>);

impl Metrics {
    pub fn define() -> Metrics {
        let counter = |name| Metric(host::define_metric(MetricKind::Counter, name));
        let gauge = |name| Metric(host::define_metric(MetricKind::Gauge, name));
        Metrics {
            calls: counter("weir.store.calls"),
            failures: counter("weir.store.failures"),
            opened: counter("weir.breaker.opened"),
            open_lanes: gauge("weir.breaker.open_lanes"),
            allow: counter("weir.degraded.allow"),
            local: counter("weir.degraded.local"),
            deny: counter("weir.degraded.deny"),
            told: Cell::default(),
        }
    }

    /// Where this worker's way to the store stands now.
    pub fn tell(&self, health: Health) {
        let told = self.told.replace(health);
        self.calls.grow(told.calls, health.calls);
        self.failures.grow(told.failures, health.failures);
        self.opened.grow(told.opened, health.opened);
        self.open_lanes.add(lanes(health) - lanes(told));
    }

    /// A request was decided without the store.
    pub fn degraded(&self, how: Degraded) {
        let metric = match how {
            Degraded::Allow => &self.allow,
            Degraded::Local => &self.local,
            Degraded::Deny => &self.deny,
        };
        metric.add(1);
    }

    /// This worker goes, and its lanes with it.
    pub fn leave(&self) {
        self.tell(Health {
            open: 0,
            ..self.told.get()
        });
    }
}

impl Metric {
    fn grow(&self, before: u64, after: u64) {
        self.add(i64::try_from(after.saturating_sub(before)).unwrap_or(i64::MAX));
    }

    fn add(&self, change: i64) {
        if let Self(Some(metric)) = self
            && change != 0
        {
            host::add_to_metric(*metric, change);
        }
    }
}

fn lanes(health: Health) -> i64 {
    i64::try_from(health.open).unwrap_or(i64::MAX)
}
