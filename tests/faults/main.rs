//! Weir on its worst days: faults in real processes, under a steady load. Whatever happens, requests
//! are answered in time, limits hold within their bounds, and all is well again without a restart.
//! [`watch`] holds every case to that.

mod cluster;
mod gateway;
mod single;
mod watch;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use weir_lab::gateway::Store;

use crate::world::{Cluster, Shared, Single, World};

static BRIDGE: Shared<Single> = Shared::new(Store::Bridge);
static SIDECAR: Shared<Single> = Shared::new(Store::Sidecar);
static CLUSTER_BY_BRIDGE: Shared<Cluster> = Shared::new(Store::Bridge);
static CLUSTER_BY_SIDECAR: Shared<Cluster> = Shared::new(Store::Sidecar);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    both_ways(&mut trials, single::CASES, "", &BRIDGE, &SIDECAR);
    both_ways(
        &mut trials,
        cluster::CASES,
        "cluster_",
        &CLUSTER_BY_BRIDGE,
        &CLUSTER_BY_SIDECAR,
    );
    for (name, case) in gateway::CASES {
        trials.push(trial((*name).to_owned(), case));
    }
    // The scripts are held to it by the models test, whose clock is a script's.
    let skipped = Trial::test(
        "the_clock_of_redis_steps_back (no faketime on this machine)",
        || Ok(()),
    );
    trials.push(skipped.with_ignored_flag(true));
    let conclusion = libtest_mimic::run(&arguments, trials);
    BRIDGE.end();
    SIDECAR.end();
    CLUSTER_BY_BRIDGE.end();
    CLUSTER_BY_SIDECAR.end();
    conclusion.exit_code()
}

/// The two ways take turns, so that two cases at a time do not wait for each other.
fn both_ways<W: World + Send>(
    trials: &mut Vec<Trial>,
    cases: &'static [(&str, fn(&str, &mut W) -> Result<()>)],
    prefix: &str,
    bridge: &'static Shared<W>,
    sidecar: &'static Shared<W>,
) {
    for (name, case) in cases {
        for (way, world) in [("bridge", bridge), ("sidecar", sidecar)] {
            let run = move |name: &str| world.visit(|world| case(name, world));
            trials.push(trial(format!("{way}_{prefix}{name}"), run));
        }
    }
}

fn trial(name: String, run: impl FnOnce(&str) -> Result<()> + Send + 'static) -> Trial {
    let own = name.clone();
    Trial::test(name, move || {
        Ok(run(&own).map_err(|error| format!("{error:#}"))?)
    })
}
