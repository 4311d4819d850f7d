//! `weir-bench quick`: what a change moved, in under two minutes.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use weir_bench::{quick, scale};

#[derive(Parser)]
#[command(name = "weir-bench", about = "Measures what a request costs")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Plain Envoy, a wasm filter that does nothing, and Weir; an older filter beside it
    Quick {
        #[arg(long, env = "ROUNDS", default_value_t = 5)]
        rounds: usize,
        #[arg(long, env = "CONNECTIONS", default_value_t = 32)]
        connections: usize,
        /// How long each turn is measured
        #[arg(long, env = "SPAN_MS", default_value_t = 1200)]
        span_ms: u64,
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
    match task {
        Task::Quick {
            rounds,
            connections,
            span_ms,
            base,
        } => quick::run(&quick::Settings {
            rounds,
            connections,
            measured: Duration::from_millis(span_ms),
            base: base.filter(|base| !base.as_os_str().is_empty()),
        }),
        Task::Scale { redraw } => scale::run(match redraw {
            true => scale::From::Before,
            false => scale::From::Measuring,
        }),
    }
}
