//! weirctl: judges, compares and publishes policies. `commands` has one module for each verb.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_cli::commands::run("weirctl")
}
