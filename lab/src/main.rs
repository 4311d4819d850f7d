//! `weir-lab run`: Weir on this machine, for `make run`; `outage` and `recovery` are asked of one that
//! runs. `weir-lab prepare`: all that the tests need, so that they begin at once.

mod bell;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use weir_lab::{artifact, parts};

use crate::bell::Wish;

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
    /// End the Redis of the demo that runs; the demo goes on
    Outage(Demo),
    /// Start the Redis of the demo again, empty
    Recovery(Demo),
    /// Build the filter, the sidecar and weirctl
    Build,
    /// Build, and install Envoy and a Redis
    Prepare,
}

/// Which demo, where several run.
#[derive(Args)]
struct Demo {
    /// The port of its Redis
    #[arg(long, env = "REDIS_PORT", default_value_t = 16_379)]
    redis_port: u16,
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
        Task::Outage(demo) => ask(demo, Wish::Outage),
        Task::Recovery(demo) => ask(demo, Wish::Recovery),
        Task::Build => {
            build()?;
            println!("tool:    {}", artifact::policy_tool()?.display());
            Ok(())
        }
        Task::Prepare => {
            println!("Envoy:   {}", parts::envoy()?.display());
            println!("Redis:   {}", parts::redis_server()?.display());
            build()
        }
    }
}

fn ask(demo: &Demo, wish: Wish) -> Result<()> {
    println!("{}", bell::ask(demo.redis_port, wish)?);
    Ok(())
}

fn build() -> Result<()> {
    println!("filter:  {}", artifact::wasm()?.display());
    println!("sidecar: {}", artifact::sidecar()?.display());
    Ok(())
}
