//! `make bench-quick`: whether a change moved anything, in under two minutes. With the filter of
//! before the change beside the new one, both take turns, and their ratio in the same round says more
//! than two runs could.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::report::Row;
use crate::rounds::{Rounds, progress};
use crate::scenario::{Algorithm, Limits, Scenario};
use crate::series::Spread;
use crate::system::Weir;
use crate::turn::Turn;
use crate::upstream::Upstream;
use crate::{envoy, table};

#[derive(Clone, Debug)]
pub struct Settings {
    pub rounds: usize,
    pub connections: usize,
    pub measured: Duration,
    /// An older filter.
    pub base: Option<PathBuf>,
}

const TELLING_ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(250);

pub fn run(settings: &Settings) -> Result<()> {
    if let Some(base) = &settings.base
        && !base.is_file()
    {
        bail!("BASE={}: there is no such file", base.display());
    }
    let upstream = Upstream::start()?;
    let allowed = |algorithm| Limits::new(algorithm, Scenario::Allowed);
    let lines = [
        (
            "fixed windows, allowed",
            allowed(Algorithm::FixedWindow),
            1.40,
        ),
        (
            "token buckets, allowed",
            allowed(Algorithm::TokenBucket),
            1.40,
        ),
        (
            "denied",
            Limits::new(Algorithm::FixedWindow, Scenario::Denied),
            0.50,
        ),
    ];
    let mut rounds = Rounds::default();
    progress("starting plain Envoy and a wasm filter that does nothing");
    rounds.enter(envoy::plain(&upstream, 1)?, settings.connections)?;
    rounds.enter(envoy::noop(&upstream)?, settings.connections)?;
    for (name, limits, goal) in lines {
        progress(&format!("starting Weir: {name}"));
        let weir = Weir::new(&format!("Weir, {name}"), limits);
        let row = rounds.enter(weir.start(&upstream)?, settings.connections)?;
        row.goal = Some(goal);
        if let Some(base) = &settings.base {
            let mut weir = Weir::new(&format!("base, {name}"), limits);
            weir.wasm = Some(base.clone());
            match weir.start(&upstream) {
                Ok(system) => {
                    rounds.enter(system, settings.connections)?;
                }
                // One of before a change to the configuration does not know it.
                Err(error) => println!("skipped: {}: {error:#}", weir.name),
            }
        }
    }
    let turn = Turn {
        connections: settings.connections,
        warm_up: WARM_UP,
        measured: settings.measured,
    };
    rounds.run_all(settings.rounds, &turn)?;

    let rows = rounds.into_rows();
    for scenario in [Scenario::Allowed, Scenario::Denied] {
        println!("{}", table::costs(&rows, scenario).text());
    }
    println!("{}", table::parts(&rows).text());
    if settings.base.is_some() {
        for (name, _, _) in lines {
            compare(&rows, name)?;
        }
    }
    Ok(())
}

fn compare(rows: &[Row], name: &str) -> Result<()> {
    let find = |name: String| rows.iter().find(|row| row.name == name);
    let new = find(format!("Weir, {name}"));
    let Some((new, base)) = new.zip(find(format!("base, {name}"))) else {
        return Ok(());
    };
    let ratio = new.ratio(base).context("no rounds")?;
    let told = table::spread(ratio, 3);
    println!(
        "{name:<24} new / base {told:>22}   {}",
        verdict(ratio, new.samples.len())
    );
    Ok(())
}

/// What moved is seen in every round. Of two that are the same one is cheaper in all of five rounds once
/// in sixteen times; in all of three, once in four.
fn verdict(ratio: Spread, rounds: usize) -> &'static str {
    if rounds < TELLING_ROUNDS {
        "too few rounds to tell"
    } else if ratio.max < 1.0 {
        "cheaper in every round"
    } else if ratio.min > 1.0 {
        "dearer in every round"
    } else {
        "no difference that every round shows"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_round_shows_is_a_difference() {
        let of = |min, max| Spread {
            median: 1.0,
            min,
            max,
        };
        assert_eq!(verdict(of(0.9, 0.99), 5), "cheaper in every round");
        assert_eq!(verdict(of(1.01, 1.2), 5), "dearer in every round");
        assert_eq!(
            verdict(of(0.9, 1.1), 5),
            "no difference that every round shows"
        );
        assert_eq!(verdict(of(0.9, 0.99), 3), "too few rounds to tell");
    }
}
