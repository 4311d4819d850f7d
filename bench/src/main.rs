//! `weir-bench full` writes `docs/benchmarks.md`, `redraw` writes it again from the same results,
//! `quick` shows in a minute what a change moved, and `scale` says what fleets need.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use weir_bench::{document, full, quick, report::Report, scale, scenario::Scenario, table};
use weir_lab::place;

#[derive(Parser)]
#[command(name = "weir-bench", about = "Measures what a request costs")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Every system, how costs grow, latency and memory; writes the document
    Full {
        #[command(flatten)]
        load: Load<7, 2000>,
        /// No more callers than these, where callers are swept over
        #[arg(long, env = "MOST_CALLERS", default_value_t = 1_000_000)]
        most_callers: u64,
        /// Folders of descriptors of other systems
        #[arg(long, env = "PEERS", value_delimiter = ':')]
        peers: Vec<PathBuf>,
        /// Where the document goes
        #[arg(long, env = "DOCS", default_value_os_t = docs())]
        docs: PathBuf,
    },
    /// Write the document again from its raw results
    Redraw {
        #[arg(long, env = "DOCS", default_value_os_t = docs())]
        docs: PathBuf,
    },
    /// Plain Envoy, a wasm filter that does nothing, and Weir; an older filter beside it
    Quick {
        #[command(flatten)]
        load: Load<5, 1200>,
        /// An older weir.wasm to compare with
        #[arg(long, env = "BASE")]
        base: Option<PathBuf>,
    },
    /// What fleets need, from what a script call costs: the tables of docs/scale.md
    Scale {
        /// Draw the tables from what was measured before
        #[arg(long)]
        redraw: bool,
    },
}

/// How much is asked, and for how long; each task has its own defaults.
#[derive(Args)]
struct Load<const ROUNDS: usize, const SPAN_MS: u64> {
    /// How often each system has its turn
    #[arg(long, env = "ROUNDS", default_value_t = at_least_one(ROUNDS))]
    rounds: NonZeroUsize,
    #[arg(long, env = "CONNECTIONS", default_value_t = at_least_one(32))]
    connections: NonZeroUsize,
    /// How long each turn is measured
    #[arg(long, env = "SPAN_MS", default_value_t = SPAN_MS)]
    span_ms: u64,
}

fn main() -> ExitCode {
    // Printed here, since Rust's own way adds a backtrace that helps nobody who measures.
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let given = |path: &PathBuf| !path.as_os_str().is_empty();
    match task {
        Task::Full {
            load,
            most_callers,
            peers,
            docs,
        } => {
            let report = full::run(&full::Settings {
                rounds: load.rounds.get(),
                connections: load.connections.get(),
                measured: Duration::from_millis(load.span_ms),
                most_callers,
                peers: peers.into_iter().filter(given).collect(),
            })?;
            document::keep(&report, &docs)?;
            document::draw(&report, &docs)?;
            show(&report);
            println!("written: {}/benchmarks.md", docs.display());
            Ok(())
        }
        Task::Redraw { docs } => {
            let report = document::read(&docs)?;
            document::draw(&report, &docs)
        }
        Task::Quick { load, base } => quick::run(&quick::Settings {
            rounds: load.rounds.get(),
            connections: load.connections.get(),
            measured: Duration::from_millis(load.span_ms),
            base: base.filter(given),
        }),
        Task::Scale { redraw } => scale::run(match redraw {
            true => scale::From::Before,
            false => scale::From::Measuring,
        }),
    }
}

fn show(report: &Report) {
    let tables = [
        table::costs(&report.rows, Scenario::Allowed),
        table::costs(&report.rows, Scenario::Denied),
        table::parts(&report.rows),
        table::latency(report),
    ];
    let sweeps = (0..report.sweeps.len()).map(|place| table::sweep(report, place));
    let rest = [
        table::workers(report),
        table::stored(report),
        table::goals(report),
    ];
    for table in tables.into_iter().chain(sweeps).chain(rest) {
        println!("\n{}", table.text());
    }
    for skipped in &report.skipped {
        println!("skipped: {}: {}", skipped.name, skipped.reason);
    }
}

fn at_least_one(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

fn docs() -> PathBuf {
    place::project().join("docs")
}
