//! What an operator types: a module for each verb, which reads its arguments and tells its results. How
//! policies are judged, compared and kept is the business of the modules beside this one.

mod check;
mod completion;
mod diff;
mod explain;
mod history;
mod import;
mod install;
mod publish;
mod push;
mod recommend;
mod rollback;
mod schema;
mod show;
mod simulate;
mod test;
mod withdraw;

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::console::{Console, Output};
use crate::exit::{self, Exit};

/// From yesterday's traffic to tomorrow's policy.
///
/// Judges policies, says what a change would do, and publishes them: a policy that is published in Redis
/// takes the place of the one in the gateways' configuration, within their policy_poll_ms (2 seconds
/// unless they say otherwise), without a restart.
#[derive(Parser)]
#[command(version, after_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// A table for people, or JSON for scripts
    #[arg(long, global = true, value_enum, default_value = "table")]
    output: Output,
    /// Whether to colour; auto colours on a terminal where NO_COLOR is not set
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    color: ColorChoice,
}

#[derive(Subcommand)]
enum Verb {
    Check(check::Check),
    Push(push::Push),
    Rollback(rollback::Rollback),
    Withdraw(withdraw::Withdraw),
    Show(show::Show),
    History(history::History),
    Explain(explain::Explain),
    Diff(diff::Diff),
    Test(test::Test),
    Simulate(simulate::Simulate),
    Recommend(recommend::Recommend),
    Import(import::Import),
    Install(Box<install::Install>),
    Schema(schema::Schema),
    Completion(completion::Completion),
}

/// The whole of a run, under the name that it was called by.
pub fn run(program: &'static str) -> ExitCode {
    let mut command = Arguments::command().name(program).bin_name(program);
    for verb in command.clone().get_subcommands() {
        let name = verb.get_name().to_owned();
        command = command.mut_subcommand(name, |verb| verb.after_help(exit::HELP));
    }
    let matches = command.clone().get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.format(&mut command).exit(),
    };
    colour(arguments.color);
    let mut console = Console::new(arguments.output);
    // Told here, since Rust's own way adds a backtrace that helps no operator.
    match arguments.verb.run(&mut console, command) {
        Ok(exit) => exit.into(),
        // Whoever reads the output has read enough.
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            console.error(&words(&error));
            Exit::Failed.into()
        }
    }
}

impl Verb {
    fn run(self, console: &mut Console, command: clap::Command) -> Result<Exit> {
        match self {
            Verb::Check(verb) => verb.run(console),
            Verb::Push(verb) => verb.run(console),
            Verb::Rollback(verb) => verb.run(console),
            Verb::Withdraw(verb) => verb.run(console),
            Verb::Show(verb) => verb.run(console),
            Verb::History(verb) => verb.run(console),
            Verb::Explain(verb) => verb.run(console),
            Verb::Diff(verb) => verb.run(console),
            Verb::Test(verb) => verb.run(console),
            Verb::Simulate(verb) => verb.run(console),
            Verb::Recommend(verb) => verb.run(console),
            Verb::Import(verb) => verb.run(console),
            Verb::Install(verb) => verb.run(console),
            Verb::Schema(verb) => verb.run(console),
            Verb::Completion(verb) => verb.run(console, command),
        }
    }
}

fn colour(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// What went wrong, and why. Some errors say so themselves already.
fn words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        match told.as_str() {
            "" => cause,
            told if told.contains(&cause) => told.to_owned(),
            told => format!("{told}: {cause}"),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
