//! Weir on its worst days: faults in real processes, under a steady load. Whatever happens, requests
//! are answered in time, limits hold within their bounds, and all is well again without a restart.
//! [`watch`] holds every case to that.

mod single;
mod watch;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use weir_lab::gateway::Store;

use crate::world::{Shared, Single};

static BRIDGE: Shared<Single> = Shared::new(Store::Bridge);
static SIDECAR: Shared<Single> = Shared::new(Store::Sidecar);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (name, case) in single::CASES {
        for (way, world) in [("bridge", &BRIDGE), ("sidecar", &SIDECAR)] {
            let name = format!("{way}_{name}");
            let run = {
                let name = name.clone();
                move || {
                    Ok(world
                        .visit(|world| case(&name, world))
                        .map_err(|error| format!("{error:#}"))?)
                }
            };
            trials.push(Trial::test(name, run));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    BRIDGE.end();
    SIDECAR.end();
    conclusion.exit_code()
}
