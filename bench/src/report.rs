//! All that a run has found: what is written to `docs/benchmarks.json`, and what every table and plot
//! is drawn from. Samples are kept as they were taken; what they say is worked out here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::scenario::Scenario;
use crate::series::Spread;
use crate::table;
use crate::turn::Sample;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub date: String,
    pub machine: Machine,
    pub versions: BTreeMap<String, String>,
    pub rounds: usize,
    pub sweep_rounds: usize,
    pub connections: usize,
    pub measured_ms: u64,
    pub took_seconds: u64,
    /// Plain Envoy is the first.
    pub rows: Vec<Row>,
    pub skipped: Vec<Skipped>,
    pub sweeps: Vec<Sweep>,
    /// At one connection: plain Envoy, and the others by their names.
    pub latency: Vec<Row>,
    pub workers: Vec<Worker>,
    pub stored: Vec<Stored>,
}

/// A system with one sample for each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub scenario: Scenario,
    /// The most that it is meant to cost, as a multiple of plain Envoy.
    pub goal: Option<f64>,
    /// What it adds its limits to, where that is not plain Envoy.
    pub baseline: Option<String>,
    pub note: String,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    pub name: String,
    pub reason: String,
}

/// One number grows and nothing else changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// What grows.
    pub of: String,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub at: u64,
    pub weir: Row,
    /// Plain Envoy at the same point, where the point changes its cost too.
    pub plain: Option<Row>,
}

/// What Envoy holds in memory, by how many workers it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worker {
    pub name: String,
    pub few: usize,
    pub few_bytes: u64,
    pub many: usize,
    pub many_bytes: u64,
}

/// What Redis holds for callers who each have one limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    pub algorithm: String,
    pub callers: u64,
    pub keys: u64,
    /// After one request of each caller.
    pub first_bytes: u64,
    /// How many more requests each has made then.
    pub more_requests: u64,
    pub more_bytes: u64,
}

/// By how much the cost may grow and still be called flat.
pub const FLAT: f64 = 1.10;
/// The most that a check may add to a request on a quiet gateway, as a multiple of the bare script.
pub const LATENCY_GOAL: f64 = 1.5;
/// So many cores at other work, and times are not what they would be.
pub const BUSY_CORES: f64 = 0.2;
/// What latency is compared with.
pub const BARE: &str = "EVALSHA through redis_proxy";

/// One goal and what came of it.
#[derive(Clone, Debug)]
pub struct Goal {
    pub what: String,
    pub most: f64,
    pub measured: Spread,
}

// === impl Row ===

impl Row {
    pub fn new(name: &str, scenario: Scenario) -> Self {
        Self {
            name: name.to_owned(),
            scenario,
            goal: None,
            baseline: None,
            note: String::new(),
            samples: Vec::new(),
        }
    }

    pub fn spread(&self, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(of))
    }

    /// The median of something, 0 of nothing.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.spread(of).map_or(0.0, |spread| spread.median)
    }

    /// Its cost as a multiple of another's in the same round.
    pub fn ratio(&self, other: &Row) -> Option<Spread> {
        self.beside(other, |own, other| own.cost_us() / other.cost_us())
    }

    /// What it costs above another in the same round, in µs.
    pub fn added(&self, other: &Row) -> Option<Spread> {
        self.beside(other, |own, other| own.cost_us() - other.cost_us())
    }

    pub fn beside(&self, other: &Row, of: impl Fn(&Sample, &Sample) -> f64) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(own, other)| of(own, other)))
    }

    /// Time by process for one request, in µs.
    pub fn by_process(&self) -> Vec<(String, f64)> {
        let Some(first) = self.samples.first() else {
            return Vec::new();
        };
        let of = |name: &String| {
            self.median(|sample| {
                sample.cpu_us.get(name).copied().unwrap_or_default() / sample.requests as f64
            })
        };
        first
            .cpu_us
            .keys()
            .map(|name| (name.clone(), of(name)))
            .collect()
    }

    /// Calls of a command in Redis for one request; of all but the looks if none is named.
    pub fn commands(&self, name: Option<&str>) -> Option<f64> {
        let counted = |sample: &Sample| {
            let commands = &sample.redis.as_ref()?.commands;
            let of_name = |(command, _): &(&String, &u64)| name.is_none_or(|name| name == *command);
            let calls: u64 = commands
                .iter()
                .filter(of_name)
                .map(|(_, calls)| calls)
                .sum();
            Some(calls as f64 / sample.requests as f64)
        };
        let counts: Option<Vec<f64>> = self.samples.iter().map(counted).collect();
        Some(Spread::of(counts?)?.median)
    }

    /// Bytes to Redis and back for one request.
    pub fn bytes(&self) -> Option<(f64, f64)> {
        self.samples.first()?.redis.as_ref()?;
        let of = |bytes: fn(&crate::store::Traffic) -> u64| {
            self.median(|sample| {
                sample.redis.as_ref().map_or(0, bytes) as f64 / sample.requests as f64
            })
        };
        Some((
            of(|traffic| traffic.bytes_in),
            of(|traffic| traffic.bytes_out),
        ))
    }
}

// === impl Sweep ===

impl Sweep {
    /// What a point costs, as a multiple of the first point's in the same round. Where plain Envoy is
    /// measured beside it, costs are multiples of its.
    pub fn relative(&self, point: &Point) -> Option<Spread> {
        let first = self.points.first()?;
        let rounds = point.weir.samples.len().min(first.weir.samples.len());
        Spread::of((0..rounds).filter_map(|round| Some(point.cost(round)? / first.cost(round)?)))
    }

    /// The dearest of its points after the first. One that is cheaper is nobody's worry.
    pub fn growth(&self) -> Option<Spread> {
        let later = self.points.iter().skip(1);
        let relative = later.filter_map(|point| self.relative(point));
        relative.max_by(|one, other| one.median.total_cmp(&other.median))
    }
}

impl Point {
    fn cost(&self, round: usize) -> Option<f64> {
        let weir = self.weir.samples.get(round)?.cost_us();
        match &self.plain {
            None => Some(weir),
            Some(plain) => Some(weir / plain.samples.get(round)?.cost_us()),
        }
    }
}

// === impl Report ===

impl Report {
    pub fn plain(&self) -> Option<&Row> {
        self.rows.first()
    }

    /// How many cores were busy with something else, over all turns of all systems.
    pub fn others(&self) -> Option<Spread> {
        let samples = self.rows.iter().flat_map(|row| &row.samples);
        Spread::of(samples.map(Sample::others))
    }

    pub fn goals(&self) -> Vec<Goal> {
        let of_row = |row: &Row| {
            Some(Goal {
                what: format!("{}: CPU of a request, × plain Envoy", row.name),
                most: row.goal?,
                measured: row.ratio(self.plain()?)?,
            })
        };
        let mut goals: Vec<Goal> = self.rows.iter().filter_map(of_row).collect();
        let latency = |row: &Row| {
            let measured = self.latency_added(row)?;
            row.goal.map(|most| Goal {
                what: format!("{}: p50 added at one connection, × bare EVALSHA", row.name),
                most,
                measured,
            })
        };
        goals.extend(self.latency.iter().filter_map(latency));
        let sweep = |sweep: &Sweep| {
            let (first, last) = (sweep.points.first()?, sweep.points.last()?);
            Some(Goal {
                what: format!(
                    "from {} to {} {}: the dearest, × the first",
                    table::thousands(first.at),
                    table::thousands(last.at),
                    sweep.of
                ),
                most: FLAT,
                measured: sweep.growth()?,
            })
        };
        goals.extend(self.sweeps.iter().filter_map(sweep));
        goals
    }

    /// What a row adds to plain Envoy's p50, as a multiple of the bare script's.
    pub fn latency_added(&self, row: &Row) -> Option<Spread> {
        let plain = self.latency.first()?;
        let bare = self.latency.iter().find(|row| row.name == BARE)?;
        let rounds = row
            .samples
            .len()
            .min(plain.samples.len())
            .min(bare.samples.len());
        let of = |round: usize| {
            (row.samples[round].p50_us - plain.samples[round].p50_us) / bare.samples[round].p50_us
        };
        Spread::of((0..rounds).map(of))
    }
}

impl Goal {
    pub fn is_met(&self) -> bool {
        self.measured.median <= self.most
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::store::Traffic;

    /// A round of 100 requests at these costs in µs: Envoy's and, where there is one, Redis's.
    pub fn sample(envoy: f64, redis: Option<f64>, p50_us: f64) -> Sample {
        let mut cpu_us = BTreeMap::from([("Envoy".to_owned(), envoy * 100.0)]);
        cpu_us.extend(redis.map(|redis| ("Redis".to_owned(), redis * 100.0)));
        Sample {
            requests: 100,
            seconds: 0.01,
            cpu_us,
            generator_us: 0.0,
            upstream_us: 0.0,
            others_us: 1000.0,
            p50_us,
            p99_us: p50_us * 2.0,
            p999_us: p50_us * 3.0,
            redis: redis.map(|_| Traffic {
                commands: BTreeMap::from([("evalsha".to_owned(), 10), ("get".to_owned(), 300)]),
                bytes_in: 1000,
                bytes_out: 500,
            }),
        }
    }

    pub fn row(name: &str, scenario: Scenario, samples: impl IntoIterator<Item = Sample>) -> Row {
        let mut row = Row::new(name, scenario);
        row.samples = samples.into_iter().collect();
        row
    }

    pub fn report() -> Report {
        let plain = |cost| sample(cost, None, 50.0);
        let mut weir = row(
            "Weir, fixed windows",
            Scenario::Allowed,
            [
                sample(40.0, Some(16.0), 110.0),
                sample(50.0, Some(20.0), 110.0),
            ],
        );
        weir.goal = Some(1.40);
        let mut denied = row("Weir, denied", Scenario::Denied, [plain(30.0), plain(30.0)]);
        denied.goal = Some(0.5);
        let mut quiet = weir.clone();
        quiet.goal = Some(LATENCY_GOAL);
        let point = |at, cost| Point {
            at,
            weir: row("Weir", Scenario::Allowed, [plain(cost)]),
            plain: None,
        };
        Report {
            date: "2026-01-01".to_owned(),
            machine: Machine {
                processor: "A Processor".to_owned(),
                cores: 2,
                memory_gib: 4,
                kernel: "Linux 6".to_owned(),
            },
            versions: BTreeMap::from([("Envoy".to_owned(), "1.40.0".to_owned())]),
            rounds: 2,
            sweep_rounds: 1,
            connections: 32,
            measured_ms: 10,
            took_seconds: 61,
            rows: vec![
                row("plain Envoy", Scenario::Allowed, [plain(40.0), plain(50.0)]),
                weir,
                denied,
            ],
            skipped: vec![Skipped {
                name: "other".to_owned(),
                reason: "there is none".to_owned(),
            }],
            sweeps: vec![Sweep {
                of: "rules".to_owned(),
                points: vec![point(1, 50.0), point(10, 51.0), point(100, 60.0)],
            }],
            latency: vec![
                row("plain Envoy", Scenario::Allowed, [plain(1.0), plain(1.0)]),
                row(
                    BARE,
                    Scenario::Allowed,
                    [sample(1.0, None, 40.0), sample(1.0, None, 60.0)],
                ),
                quiet,
            ],
            workers: vec![Worker {
                name: "Weir".to_owned(),
                few: 1,
                few_bytes: 50 << 20,
                many: 4,
                many_bytes: 80 << 20,
            }],
            stored: vec![Stored {
                algorithm: "fixed_window".to_owned(),
                callers: 1000,
                keys: 1000,
                first_bytes: 120_000,
                more_requests: 4,
                more_bytes: 0,
            }],
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let report = report();
        let (plain, weir) = (report.plain().unwrap(), &report.rows[1]);
        assert_eq!(
            weir.ratio(plain),
            Some(Spread {
                median: 1.4,
                min: 1.4,
                max: 1.4
            })
        );
        assert_eq!(weir.added(plain).unwrap().median, 18.0);
        assert_eq!(
            weir.by_process(),
            [("Envoy".to_owned(), 45.0), ("Redis".to_owned(), 18.0)]
        );
    }

    #[test]
    fn what_redis_did_is_told_for_one_request() {
        let report = report();
        let weir = &report.rows[1];
        assert_eq!(weir.commands(Some("evalsha")), Some(0.1));
        assert_eq!(weir.commands(None), Some(3.1));
        assert_eq!(weir.bytes(), Some((10.0, 5.0)));
        let plain = report.plain().unwrap();
        assert_eq!((plain.commands(None), plain.bytes()), (None, None));
    }

    #[test]
    fn every_goal_is_told_with_what_came_of_it() {
        let goals = report().goals();
        let told: Vec<_> = goals
            .iter()
            .map(|goal| ((goal.measured.median * 100.0).round(), goal.is_met()))
            .collect();
        // Allowed, denied, latency (60 above plain, of 40 and of 60), 60 over 50.
        assert_eq!(
            told,
            [(140.0, true), (68.0, false), (125.0, true), (120.0, false)]
        );
    }

    #[test]
    fn a_report_is_the_same_after_it_was_written() {
        let text = serde_json::to_string(&report()).unwrap();
        let again: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}
