//! Systems that take turns.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;

use crate::report::Row;
use crate::system::System;
use crate::turn::Turn;

/// Long enough for V8 to compile what is hot.
const SETTLE: Duration = Duration::from_millis(1500);

/// A system with what was measured of it.
pub struct Contestant {
    pub system: System,
    pub row: Row,
}

/// Systems in the order of their turns.
#[derive(Default)]
pub struct Rounds {
    contestants: Vec<Contestant>,
}

impl Rounds {
    /// Takes a system in; it has been asked until it was warm.
    pub fn enter(&mut self, mut system: System, connections: usize) -> Result<&mut Row> {
        let turn = Turn {
            connections,
            warm_up: Duration::ZERO,
            measured: SETTLE,
        };
        turn.settle(&mut system)?;
        let row = Row::new(&system.name, system.scenario);
        let place = self.contestants.len();
        self.contestants.push(Contestant { system, row });
        Ok(&mut self.contestants[place].row)
    }

    /// One that fails is out, with all that it had; the others go on without it. What failed comes back.
    pub fn run(&mut self, rounds: usize, turn: &Turn) -> Vec<(String, anyhow::Error)> {
        let mut failures = Vec::new();
        for round in 1..=rounds {
            self.contestants.retain_mut(|Contestant { system, row }| {
                progress(&format!("round {round} of {rounds}: {}", system.name));
                match turn.take(system) {
                    Ok(sample) => row.samples.push(sample),
                    Err(error) => failures.push((system.name.clone(), error)),
                }
                row.samples.len() == round
            });
        }
        progress("");
        failures
    }

    /// As [`run`](Self::run), where each is needed.
    pub fn run_all(&mut self, rounds: usize, turn: &Turn) -> Result<()> {
        self.run(rounds, turn)
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }

    /// What was measured; the systems end.
    pub fn into_rows(self) -> Vec<Row> {
        self.contestants
            .into_iter()
            .map(|contestant| contestant.row)
            .collect()
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
