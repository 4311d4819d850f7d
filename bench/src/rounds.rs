//! Systems that take turns, and what they are compared by.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Result;

use crate::{
    series::Spread,
    system::System,
    turn::{Sample, Turn},
};

/// Long enough for V8 to compile what is hot.
const SETTLE: Duration = Duration::from_millis(1500);

/// A system with what was measured of it, one sample a round.
pub struct Contestant {
    pub system: System,
    pub samples: Vec<Sample>,
}

/// Systems in the order of their turns.
#[derive(Default)]
pub struct Rounds {
    pub contestants: Vec<Contestant>,
}

impl Rounds {
    /// Takes a system in; it has been asked until it was warm.
    pub fn enter(&mut self, system: System, connections: usize) -> Result<()> {
        let turn = Turn {
            connections,
            warm_up: Duration::ZERO,
            measured: SETTLE,
        };
        turn.settle(&system)?;
        let samples = Vec::new();
        self.contestants.push(Contestant { system, samples });
        Ok(())
    }

    pub fn run(&mut self, rounds: usize, turn: &Turn) -> Result<()> {
        for round in 1..=rounds {
            for contestant in &mut self.contestants {
                progress(&format!(
                    "round {round} of {rounds}: {}",
                    contestant.system.name
                ));
                contestant.samples.push(turn.take(&mut contestant.system)?);
            }
        }
        progress("");
        Ok(())
    }

    pub fn find(&self, name: &str) -> Option<&Contestant> {
        self.contestants
            .iter()
            .find(|contestant| contestant.system.name == name)
    }
}

impl Contestant {
    pub fn spread(&self, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(of))
    }

    /// Its cost as a multiple of another's in the same round.
    pub fn ratio(&self, other: &Contestant) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(own, other)| own.cost_us() / other.cost_us()))
    }

    /// What it costs above another in the same round, in µs.
    pub fn added(&self, other: &Contestant) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(own, other)| own.cost_us() - other.cost_us()))
    }
}

/// A line that the next one takes the place of; nothing where nobody watches.
pub fn progress(line: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{line}");
        let _ = stderr.flush();
    }
}
