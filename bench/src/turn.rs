//! One system's turn in one round: a while of load, and what it cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cpu;
use crate::crowd::{Crowd, Dialogue};
use crate::rounds::progress;
use crate::series::percentile;
use crate::store::Traffic;
use crate::system::System;

/// A machine with other work may hold a gateway up for longer than its timeout.
const ATTEMPTS: usize = 3;

/// How long a turn takes, and how many ask in it.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub connections: usize,
    /// Asked before anything is measured: connections are made, caches fill.
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What was measured in one turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub requests: u64,
    pub seconds: f64,
    /// Processor time by process, in µs.
    pub cpu_us: BTreeMap<String, f64>,
    /// Processor time of this program, which is in none of the sums: who asked, and who answered
    /// behind the gateway.
    pub generator_us: f64,
    pub upstream_us: f64,
    /// Processor time of all else on the machine, the kernel's own work included.
    pub others_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub redis: Option<Traffic>,
}

impl Turn {
    /// Takes it. An answer that is not what the scenario expects spoils it, because whoever answers
    /// otherwise did other work. Then it is taken again, and fails at the third time.
    pub fn take(&self, system: &mut System) -> Result<Sample> {
        let mut callers = system.callers.clone();
        let sample = self.take_with(system, &mut callers);
        system.callers = callers;
        sample
    }

    /// Takes it for nothing: the wasm is compiled for speed, callers out of quota use what they had.
    pub fn settle(&self, system: &mut System) -> Result<()> {
        Crowd::open(system.address, self.connections)
            .and_then(|mut crowd| crowd.run(&mut system.callers, self.warm_up + self.measured))
            .with_context(|| system.name.clone())?;
        Ok(())
    }

    pub fn take_with(&self, system: &mut System, dialogue: &mut impl Dialogue) -> Result<Sample> {
        let mut sample = self.measure(system, dialogue);
        for _ in 1..ATTEMPTS {
            if let Err(error) = &sample {
                progress("");
                println!("once more: {}: {error:#}", system.name);
                sample = self.measure(system, dialogue);
            }
        }
        sample.with_context(|| system.name.clone())
    }

    fn measure(&self, system: &mut System, dialogue: &mut impl Dialogue) -> Result<Sample> {
        let mut crowd = Crowd::open(system.address, self.connections)?;
        crowd.run(dialogue, self.warm_up)?;
        let redis = look(system)?;
        let before = Times::now(system)?;
        let start = Instant::now();
        let mut tally = crowd.run(dialogue, self.measured)?;
        let seconds = start.elapsed().as_secs_f64();
        let after = Times::now(system)?;
        let redis = match (redis, look(system)?) {
            (Some(before), Some(after)) => Some(after.since(&before)),
            _ => None,
        };
        if tally.unexpected > 0 {
            bail!(
                "{} of {} answers were not the {} that is measured; the first was: {}",
                tally.unexpected,
                tally.latencies.len(),
                system.scenario.status(),
                tally
                    .example
                    .unwrap_or_default()
                    .trim()
                    .replace("\r\n", ", ")
            );
        }
        tally.latencies.sort_unstable();
        let micros = |thousandths| f64::from(percentile(&tally.latencies, thousandths)) / 10.0;
        let cpu_us = before.processes.iter().map(|(name, before)| {
            let after = after.processes.get(name).copied().unwrap_or_default();
            (name.clone(), micros_of(after.saturating_sub(*before)))
        });
        let cpu_us: BTreeMap<String, f64> = cpu_us.collect();
        let generator = after.generator.saturating_sub(before.generator);
        let whole = after.program.saturating_sub(before.program);
        let machine = micros_of(after.machine.saturating_sub(before.machine));
        Ok(Sample {
            requests: tally.latencies.len() as u64,
            seconds,
            others_us: (machine - micros_of(whole) - cpu_us.values().sum::<f64>()).max(0.0),
            cpu_us,
            generator_us: micros_of(generator),
            upstream_us: micros_of(whole.saturating_sub(generator)),
            p50_us: micros(500),
            p99_us: micros(990),
            p999_us: micros(999),
            redis,
        })
    }
}

/// What has been used up to a moment.
struct Times {
    processes: BTreeMap<String, Duration>,
    generator: Duration,
    program: Duration,
    machine: Duration,
}

impl Times {
    fn now(system: &System) -> Result<Self> {
        let mut processes = BTreeMap::<String, Duration>::new();
        for counted in &system.processes {
            for process in cpu::family(counted.pid)? {
                *processes.entry(counted.name.clone()).or_default() += cpu::time(process.pid)?;
            }
        }
        if let Some(gone) = system
            .processes
            .iter()
            .find(|counted| !processes.contains_key(&counted.name))
        {
            bail!("{} has ended", gone.name);
        }
        Ok(Self {
            processes,
            generator: cpu::own_thread()?,
            program: cpu::own_process()?,
            machine: cpu::machine()?,
        })
    }
}

fn look(system: &mut System) -> Result<Option<Traffic>> {
    system
        .observer
        .as_mut()
        .map(|observer| observer.traffic())
        .transpose()
}

fn micros_of(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

impl Sample {
    /// Processor time of all its processes for one request, in µs.
    pub fn cost_us(&self) -> f64 {
        self.cpu_us.values().sum::<f64>() / self.requests as f64
    }

    /// How many cores were busy with something else.
    pub fn others(&self) -> f64 {
        self.others_us / self.seconds / 1e6
    }

    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}
