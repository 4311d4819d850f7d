//! What a script learns from the exit code. `--help` ends in the same table.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// The answer is no: a policy with mistakes, or with warnings under `--strict`, or one that refuses too
    /// much or fails a test, or one that differs from another; or there is none to
    /// recommend.
    No,
    /// Not all could be converted.
    Partly,
    /// It could not be done: a file that cannot be read, a Redis that is away.
    Failed,
}

/// clap ends the process with 2 by itself.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  the answer is no: the policy has mistakes, or warnings under --strict, or refuses more
     than --max-denied, or fails a test; two policies differ; there is too
     little to recommend anything
  2  the command line is wrong
  3  not everything was imported
  4  it could not be done: a file cannot be read, Redis is away or refuses";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Partly => 3,
            Exit::Failed => 4,
        })
    }
}
