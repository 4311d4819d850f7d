//! `make bench`: every system in turns, then one thing at a time: how the cost grows, what a quiet
//! gateway adds, what is held in memory.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use weir_lab::gateway::Store;
use weir_lab::redis::Redis;
use weir_lab::{artifact, place};

use crate::crowd::{Callers, Crowd};
use crate::machine::{self, Machine};
use crate::peer::{self, Peer};
use crate::report::{LATENCY_GOAL, Point, Report, Row, Skipped, Stored, Sweep, Worker};
use crate::rounds::{Rounds, progress};
use crate::scenario::{Algorithm, Limits, PATH, Scenario};
use crate::script::Script;
use crate::system::{System, Weir};
use crate::turn::Turn;
use crate::upstream::Upstream;
use crate::{cpu, envoy};

#[derive(Clone, Debug)]
pub struct Settings {
    pub rounds: usize,
    pub connections: usize,
    pub measured: Duration,
    /// No more callers than these, where callers are swept over: Redis must know them all first.
    pub most_callers: u64,
    /// Folders of descriptors besides the project's own.
    pub peers: Vec<PathBuf>,
}

/// Of each turn, before it is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// Sweeps compare Weir with itself, which spreads less than systems do.
const FEWER_ROUNDS: usize = 2;
const LEAST_ROUNDS: usize = 3;

const RULES: [u64; 4] = [1, 10, 100, 1000];
const CALLERS: [u64; 6] = [10, 100, 1000, 10_000, 100_000, 1_000_000];
const CONNECTIONS: [u64; 4] = [32, 100, 320, 1000];
/// Callers for the memory of Redis, and what each asks beyond its first request.
const STORED_CALLERS: u64 = 20_000;
const MORE_REQUESTS: u64 = 4;
/// How many workers each further one's memory is measured over.
const MANY_WORKERS: usize = 4;
/// What all others are compared with.
const PLAIN: &str = "plain Envoy";
/// Enough that a crowd that only fills Redis keeps it busy.
const FILLING_CONNECTIONS: usize = 256;

const ALLOWED_GOAL: f64 = 1.40;
const SLIDING_GOAL: f64 = 1.60;
const LEASES_GOAL: f64 = 1.28;
const DENIED_GOAL: f64 = 0.50;

type Measure<T> = fn(&mut Bench) -> Result<T>;

const SWEEPS: &[(&str, Measure<Sweep>)] = &[
    ("rules", Bench::rules),
    ("callers", Bench::callers),
    ("connections", Bench::connections),
];

struct Bench {
    settings: Settings,
    upstream: Upstream,
    skipped: Vec<Skipped>,
}

pub fn run(settings: &Settings) -> Result<Report> {
    let start = Instant::now();
    let machine = Machine::this()?;
    // All is built before anything is measured.
    artifact::wasm_of("weir-bench-noop")?;
    artifact::sidecar()?;
    let mut versions = machine::versions()?;
    let mut bench = Bench {
        settings: settings.clone(),
        upstream: Upstream::start()?,
        skipped: Vec::new(),
    };
    let peers = bench.peers()?;
    for peer in &peers {
        if let Some(version) = peer.version()? {
            versions.insert(peer.descriptor.name.clone(), version);
        }
    }
    say("systems side by side");
    let rows = bench.systems(&peers)?;
    let mut sweeps = Vec::new();
    for (name, measure) in SWEEPS {
        say(name);
        sweeps.extend(bench.part(name, *measure));
    }
    say("one connection");
    let latency = bench
        .part("one connection", Bench::latency)
        .unwrap_or_default();
    say("memory");
    let workers = bench
        .part("memory of workers", Bench::workers)
        .unwrap_or_default();
    let stored = bench
        .part("memory of Redis", Bench::stored)
        .unwrap_or_default();
    Ok(Report {
        date: today()?,
        machine,
        versions,
        rounds: settings.rounds,
        sweep_rounds: bench.sweep_rounds(),
        connections: settings.connections,
        measured_ms: u64::try_from(settings.measured.as_millis())?,
        took_seconds: start.elapsed().as_secs(),
        rows,
        skipped: bench.skipped,
        sweeps,
        latency,
        workers,
        stored,
    })
}

impl Bench {
    fn turn(&self, connections: usize) -> Turn {
        Turn {
            connections,
            warm_up: WARM_UP,
            measured: self.settings.measured,
        }
    }

    fn sweep_rounds(&self) -> usize {
        let fewer = self.settings.rounds.saturating_sub(FEWER_ROUNDS);
        fewer.max(LEAST_ROUNDS).min(self.settings.rounds)
    }

    /// Says aloud that something is missing from the run.
    fn skip(&mut self, name: &str, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        progress("");
        println!("skipped: {name}: {reason}");
        self.skipped.push(Skipped {
            name: name.to_owned(),
            reason,
        });
    }

    /// A part of the run that the others can do without.
    fn part<T>(&mut self, name: &str, measure: Measure<T>) -> Option<T> {
        match measure(self) {
            Ok(measured) => Some(measured),
            Err(error) => {
                self.skip(name, &error);
                None
            }
        }
    }

    /// Those that can be had on this machine.
    fn peers(&mut self) -> Result<Vec<Peer>> {
        let mut all = Peer::all(&place::project().join("bench/peers"))?;
        for folder in &self.settings.peers {
            all.extend(Peer::all(folder)?);
        }
        let mut here = Vec::new();
        for peer in all {
            progress(&format!("preparing {}", peer.descriptor.name));
            match peer.prepare() {
                Ok(()) => here.push(peer),
                Err(error) => self.skip(&peer.descriptor.name.clone(), &error),
            }
        }
        Ok(here)
    }

    fn systems(&mut self, peers: &[Peer]) -> Result<Vec<Row>> {
        let connections = self.settings.connections;
        let mut rounds = Rounds::default();
        let starting = |name: &str| progress(&format!("starting {name}"));

        // Without plain Envoy there is nothing to compare with.
        starting(PLAIN);
        rounds.enter(envoy::plain(&self.upstream, 1)?, connections)?;
        starting("a wasm filter that does nothing");
        let row = rounds.enter(envoy::noop(&self.upstream)?, connections)?;
        "what any wasm filter costs".clone_into(&mut row.note);
        for scenario in [Scenario::Allowed, Scenario::Denied] {
            let name = peer::name("Envoy local_ratelimit", scenario);
            let limits = Limits::new(Algorithm::TokenBucket, scenario);
            starting(&name);
            match envoy::local_ratelimit(&name, limits, &self.upstream) {
                Ok(system) => {
                    let row = rounds.enter(system, connections)?;
                    "each process counts for itself".clone_into(&mut row.note);
                }
                Err(error) => self.skip(&name, &error),
            }
        }
        for (weir, goal) in weirs() {
            starting(&weir.name);
            match weir.start(&self.upstream) {
                Ok(system) => rounds.enter(system, connections)?.goal = goal,
                Err(error) => self.skip(&weir.name, &error),
            }
        }
        for peer in peers {
            for &scenario in &peer.descriptor.scenarios {
                let name = peer::name(&peer.descriptor.name, scenario);
                starting(&name);
                match peer.start(scenario, &self.upstream) {
                    Ok(system) => {
                        let row = rounds.enter(system, connections)?;
                        row.baseline.clone_from(&peer.descriptor.baseline);
                        row.note.clone_from(&peer.descriptor.note);
                    }
                    Err(error) => self.skip(&name, &error),
                }
            }
        }
        for (name, error) in rounds.run(self.settings.rounds, &self.turn(connections)) {
            if name == PLAIN {
                return Err(error);
            }
            self.skip(&name, &error);
        }
        Ok(rounds.into_rows())
    }

    /// Of all these rules one applies.
    fn rules(&mut self) -> Result<Sweep> {
        let mut rounds = Rounds::default();
        for rules in RULES {
            let mut weir = Weir::new(
                &format!("Weir, {rules} rules"),
                allowed(Algorithm::FixedWindow),
            );
            weir.rules = usize::try_from(rules)?;
            progress(&format!("starting {}", weir.name));
            rounds.enter(weir.start(&self.upstream)?, self.settings.connections)?;
        }
        rounds.run_all(self.sweep_rounds(), &self.turn(self.settings.connections))?;
        Ok(sweep("rules", &RULES, rounds.into_rows(), None))
    }

    /// Each number of callers has a Redis of its own, which knows them all before it is measured.
    fn callers(&mut self) -> Result<Sweep> {
        let mut rounds = Rounds::default();
        let most = self.settings.most_callers.max(CALLERS[0]);
        let swept: Vec<u64> = CALLERS
            .into_iter()
            .filter(|&callers| callers <= most)
            .collect();
        for &callers in &swept {
            let mut weir = Weir::new(
                &format!("Weir, {callers} callers"),
                allowed(Algorithm::FixedWindow),
            );
            weir.callers = callers;
            progress(&format!(
                "starting {}, and letting each ask once",
                weir.name
            ));
            let mut system = weir.start(&self.upstream)?;
            fill(&mut system, callers)?;
            rounds.enter(system, self.settings.connections)?;
        }
        rounds.run_all(self.sweep_rounds(), &self.turn(self.settings.connections))?;
        Ok(sweep("callers", &swept, rounds.into_rows(), None))
    }

    fn connections(&mut self) -> Result<Sweep> {
        progress("starting plain Envoy and Weir");
        let mut plain = envoy::plain(&self.upstream, 1)?;
        let mut weir = Weir::new("Weir", allowed(Algorithm::FixedWindow)).start(&self.upstream)?;
        let mut rows = CONNECTIONS.map(|connections| {
            let row = |name: &str| {
                Row::new(
                    &format!("{name}, {connections} connections"),
                    Scenario::Allowed,
                )
            };
            (row("Weir"), row(PLAIN))
        });
        let settle = Turn {
            connections: self.settings.connections,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(2),
        };
        settle.settle(&mut plain)?;
        settle.settle(&mut weir)?;
        for round in 1..=self.sweep_rounds() {
            for (&connections, (of_weir, of_plain)) in CONNECTIONS.iter().zip(&mut rows) {
                progress(&format!("round {round}: {connections} connections"));
                let turn = self.turn(usize::try_from(connections)?);
                of_plain.samples.push(turn.take(&mut plain)?);
                of_weir.samples.push(turn.take(&mut weir)?);
            }
        }
        let (weir, plain) = rows.into_iter().unzip();
        Ok(sweep("connections", &CONNECTIONS, weir, Some(plain)))
    }

    /// One connection: nothing waits, nothing is shared.
    fn latency(&mut self) -> Result<Vec<Row>> {
        progress("starting plain Envoy, Weir, and a Redis proxy");
        let limits = allowed(Algorithm::FixedWindow);
        let redis = Redis::start()?;
        let mut script = Script::catch(&limits, &redis)?;
        let mut bare = envoy::redis_proxy(redis)?;
        let mut plain = envoy::plain(&self.upstream, 1)?;
        let mut noop = envoy::noop(&self.upstream)?;
        let mut weir = Weir::new("Weir, fixed windows", limits).start(&self.upstream)?;
        let mut sidecar = by_sidecar().start(&self.upstream)?;
        let mut rows = [&plain, &bare, &noop, &weir, &sidecar]
            .map(|system| Row::new(&system.name, Scenario::Allowed));
        // The sidecar is a hop more; the goal is about the way that is the default.
        rows[3].goal = Some(LATENCY_GOAL);
        let settle = Turn {
            connections: self.settings.connections,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
        };
        for system in [&mut plain, &mut noop, &mut weir, &mut sidecar] {
            settle.settle(system)?;
        }
        let turn = self.turn(1);
        for round in 1..=self.sweep_rounds() {
            progress(&format!("round {round}: one connection"));
            let [of_plain, of_bare, of_noop, of_weir, of_sidecar] = &mut rows;
            of_plain.samples.push(turn.take(&mut plain)?);
            of_bare
                .samples
                .push(turn.take_with(&mut bare, &mut script)?);
            of_noop.samples.push(turn.take(&mut noop)?);
            of_weir.samples.push(turn.take(&mut weir)?);
            of_sidecar.samples.push(turn.take(&mut sidecar)?);
        }
        Ok(rows.into())
    }

    fn workers(&mut self) -> Result<Vec<Worker>> {
        let weir = |workers| {
            let mut weir = Weir::new("Weir", allowed(Algorithm::FixedWindow));
            weir.workers = workers;
            weir.start(&self.upstream)
        };
        let plain = |workers| envoy::plain(&self.upstream, workers);
        Ok(vec![worker(PLAIN, plain)?, worker("Weir", weir)?])
    }

    /// Callers with a limit each, and no other limits beside it.
    fn stored(&mut self) -> Result<Vec<Stored>> {
        let algorithms = [
            Algorithm::FixedWindow,
            Algorithm::TokenBucket,
            Algorithm::SlidingWindow,
        ];
        algorithms
            .into_iter()
            .map(|algorithm| self.stored_by(algorithm))
            .collect()
    }

    fn stored_by(&self, algorithm: Algorithm) -> Result<Stored> {
        let name = format!("Weir, {}", algorithm.name());
        progress(&format!("filling {name}"));
        let mut limits = allowed(algorithm);
        // Nothing expires while it is weighed.
        (limits.limit, limits.user_limit, limits.window_seconds) = (1000, 1000, 86_400);
        let mut policy = limits.policy(1, None);
        if let Some(rule) = policy["rules"][0].as_object_mut() {
            rule.remove("global_limit");
            rule.remove("ip_limits");
        }
        let mut system = Weir::new(&name, limits).start_with(&policy, &self.upstream)?;
        let mut look = || {
            let observer = system.observer.as_mut().context("Weir has a Redis")?;
            Ok::<_, anyhow::Error>((observer.memory()?, observer.keys()?))
        };
        let (before, keys_before) = look()?;
        // One crowd for both, so that connections weigh nothing.
        let mut callers = Callers::new(PATH, STORED_CALLERS, 200);
        let mut crowd = Crowd::open(system.address, FILLING_CONNECTIONS)?;
        crowd.run_requests(&mut callers, STORED_CALLERS)?;
        let (first, keys) = look()?;
        crowd.run_requests(&mut callers, STORED_CALLERS * MORE_REQUESTS)?;
        let (more, _) = look()?;
        Ok(Stored {
            algorithm: algorithm.name().to_owned(),
            callers: STORED_CALLERS,
            keys: keys - keys_before,
            first_bytes: first.saturating_sub(before),
            more_requests: MORE_REQUESTS,
            more_bytes: more.saturating_sub(first),
        })
    }
}

/// Weir in all its ways, each with its goal.
fn weirs() -> Vec<(Weir, Option<f64>)> {
    let denied = |algorithm| Limits::new(algorithm, Scenario::Denied);
    let mut leases = Weir::new(
        "Weir with leases, fixed windows",
        allowed(Algorithm::FixedWindow),
    );
    leases.lease = Some(json!({ "size": "auto" }));
    let with = |name: &str, limits, goal| (Weir::new(name, limits), goal);
    let (fixed, bucket, sliding) = (
        Algorithm::FixedWindow,
        Algorithm::TokenBucket,
        Algorithm::SlidingWindow,
    );
    vec![
        with("Weir, fixed windows", allowed(fixed), Some(ALLOWED_GOAL)),
        with("Weir, token buckets", allowed(bucket), Some(ALLOWED_GOAL)),
        with("Weir, sliding logs", allowed(sliding), Some(SLIDING_GOAL)),
        (by_sidecar(), None),
        (leases, Some(LEASES_GOAL)),
        with(
            "Weir, fixed windows, denied",
            denied(fixed),
            Some(DENIED_GOAL),
        ),
        with(
            "Weir, token buckets, denied",
            denied(bucket),
            Some(DENIED_GOAL),
        ),
        with(
            "Weir, sliding logs, denied",
            denied(sliding),
            Some(DENIED_GOAL),
        ),
    ]
}

fn by_sidecar() -> Weir {
    let mut weir = Weir::new(
        "Weir by sidecar, fixed windows",
        allowed(Algorithm::FixedWindow),
    );
    weir.store = Store::Sidecar;
    weir
}

fn allowed(algorithm: Algorithm) -> Limits {
    Limits::new(algorithm, Scenario::Allowed)
}

/// Lets every caller ask once, so that Redis knows them all.
fn fill(system: &mut System, callers: u64) -> Result<()> {
    let connections = FILLING_CONNECTIONS.min(usize::try_from(callers)?);
    let mut crowd = Crowd::open(system.address, connections)?;
    crowd.run_requests(&mut system.callers, callers)?;
    Ok(())
}

fn worker(name: &str, start: impl Fn(usize) -> Result<System>) -> Result<Worker> {
    progress(&format!("weighing {name}"));
    let (few_bytes, many_bytes) = (weigh(start(1)?)?, weigh(start(MANY_WORKERS)?)?);
    Ok(Worker {
        name: name.to_owned(),
        few: 1,
        few_bytes,
        many: MANY_WORKERS,
        many_bytes,
    })
}

/// What an Envoy holds after some load.
fn weigh(mut system: System) -> Result<u64> {
    let load = Turn {
        connections: FILLING_CONNECTIONS,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(1),
    };
    load.settle(&mut system)?;
    let envoy = system.processes.first().context("a system has processes")?;
    cpu::resident(envoy.pid)
}

fn sweep(of: &str, at: &[u64], weir: Vec<Row>, plain: Option<Vec<Row>>) -> Sweep {
    let mut plain = plain.into_iter().flatten();
    let points = at.iter().zip(weir).map(|(&at, weir)| Point {
        at,
        weir,
        plain: plain.next(),
    });
    Sweep {
        of: of.to_owned(),
        points: points.collect(),
    }
}

fn say(what: &str) {
    progress("");
    println!("== {what}");
}

fn today() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%F"])
        .output()
        .context("cannot run date")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
