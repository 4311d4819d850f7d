//! `make bench-quick`: whether a change moved anything, in under two minutes. With the filter of
//! before the change beside the new one, both take turns, and their ratio in the same round says more
//! than two runs could.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    envoy,
    rounds::{Contestant, Rounds, progress},
    scenario::{Algorithm, Limits, Scenario},
    series::Spread,
    system::Weir,
    turn::Turn,
    upstream::Upstream,
};

#[derive(Clone, Debug)]
pub struct Settings {
    pub rounds: usize,
    pub connections: usize,
    pub measured: Duration,
    /// An older filter.
    pub base: Option<PathBuf>,
}

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
    rounds.enter(envoy::plain(&upstream)?, settings.connections)?;
    rounds.enter(envoy::noop(&upstream)?, settings.connections)?;
    for (name, limits, _) in lines {
        progress(&format!("starting Weir: {name}"));
        let weir = Weir::new(&format!("Weir, {name}"), limits);
        rounds.enter(weir.start(&upstream)?, settings.connections)?;
        if let Some(base) = &settings.base {
            let mut weir = Weir::new(&format!("base, {name}"), limits);
            weir.wasm = Some(base.clone());
            rounds.enter(weir.start(&upstream)?, settings.connections)?;
        }
    }
    let turn = Turn {
        connections: settings.connections,
        warm_up: WARM_UP,
        measured: settings.measured,
    };
    rounds.run(settings.rounds, &turn)?;

    let goals = lines.map(|(name, _, goal)| (format!("Weir, {name}"), goal));
    show(&rounds, &goals)?;
    if settings.base.is_some() {
        println!();
        for (name, _, _) in lines {
            compare(&rounds, name)?;
        }
    }
    Ok(())
}

fn show(rounds: &Rounds, goals: &[(String, f64)]) -> Result<()> {
    let plain = rounds.contestants.first().context("plain Envoy runs")?;
    println!(
        "{:<30} {:>16} {:>7} {:>18} {:>7} {:>8} {:>8} {:>8}   by process, µs",
        "CPU of a request", "µs", "added", "× plain", "goal", "req/s", "p50 µs", "p99 µs"
    );
    for contestant in &rounds.contestants {
        let name = &contestant.system.name;
        let goal = goals
            .iter()
            .find(|(of, _)| of == name)
            .map(|(_, goal)| *goal);
        let median = |of: fn(&crate::turn::Sample) -> f64| {
            contestant.spread(of).map_or(0.0, |spread| spread.median)
        };
        let (Some(cost), Some(added), Some(ratio)) = (
            contestant.spread(|sample| sample.cost_us()),
            contestant.added(plain),
            contestant.ratio(plain),
        ) else {
            bail!("{name} was not measured");
        };
        println!(
            "{name:<30} {:>16} {:>7.1} {:>18} {:>7} {:>8.0} {:>8.0} {:>8.0}   {}",
            spread(cost, 1),
            added.median,
            spread(ratio, 2),
            goal.map_or(String::new(), |goal| {
                let met = if ratio.median <= goal { "✓" } else { " " };
                format!("{goal:.2} {met}")
            }),
            median(|sample| sample.per_second()),
            median(|sample| sample.p50_us),
            median(|sample| sample.p99_us),
            by_process(contestant),
        );
    }
    Ok(())
}

fn by_process(contestant: &Contestant) -> String {
    let names = contestant
        .system
        .processes
        .iter()
        .map(|counted| &counted.name);
    let parts = names.map(|name| {
        let of = |sample: &crate::turn::Sample| {
            sample.cpu_us.get(name).copied().unwrap_or_default() / sample.requests as f64
        };
        let median = contestant.spread(of).map_or(0.0, |spread| spread.median);
        format!("{name} {median:.1}")
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn compare(rounds: &Rounds, name: &str) -> Result<()> {
    let find = |name: String| rounds.find(&name).context(name);
    let new = find(format!("Weir, {name}"))?;
    let base = find(format!("base, {name}"))?;
    let ratio = new.ratio(base).context("no rounds")?;
    println!(
        "{name:<30} new / base {:>18}   {}",
        spread(ratio, 3),
        verdict(ratio)
    );
    Ok(())
}

/// What moved is seen in every round.
fn verdict(ratio: Spread) -> &'static str {
    if ratio.max < 1.0 {
        "cheaper in every round"
    } else if ratio.min > 1.0 {
        "dearer in every round"
    } else {
        "no difference that every round shows"
    }
}

fn spread(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
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
        assert_eq!(verdict(of(0.9, 0.99)), "cheaper in every round");
        assert_eq!(verdict(of(1.01, 1.2)), "dearer in every round");
        assert_eq!(
            verdict(of(0.9, 1.1)),
            "no difference that every round shows"
        );
    }
}
