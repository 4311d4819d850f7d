//! `weir-lab run`: Weir on this machine, for `make run`. `weir-lab prepare`: all that the tests
//! need, so that they begin at once.

mod rules;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use weir_lab::{artifact, parts};

#[derive(Parser)]
#[command(
    name = "weir-lab",
    about = "Starts and stops the real parts around Weir"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the filter, start Redis, an upstream and Envoy, and serve until Ctrl-C
    Run(run::Settings),
    /// Build the filter and the sidecar
    Build,
    /// Build, and install Envoy and a Redis
    Prepare,
}

fn main() -> ExitCode {
    // Printed here, since Rust's own way adds a backtrace that helps nobody who starts a demonstration.
    match perform(&Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: &Task) -> Result<()> {
    match task {
        Task::Run(settings) => run::run(settings),
        Task::Build => build(),
        Task::Prepare => {
            println!("Envoy:   {}", parts::envoy()?.display());
            println!("Redis:   {}", parts::redis_server()?.display());
            build()
        }
    }
}

fn build() -> Result<()> {
    println!("filter:  {}", artifact::wasm()?.display());
    println!("sidecar: {}", artifact::sidecar()?.display());
    Ok(())
}
