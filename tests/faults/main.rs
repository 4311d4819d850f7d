//! Weir on its worst days: faults in real processes, under a steady load. Whatever happens, requests
//! are answered in time, limits hold within their bounds, and all is well again without a restart.
//! [`watch`] holds every case to that.

mod cluster;
mod gateway;
mod single;
mod watch;
mod window;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use weir_lab::gateway::Store;

use crate::watch::Disturbed;
use crate::world::{Cluster, Shared, Single, World};

static BRIDGE: Shared<Single> = Shared::new(Store::Bridge);
static SIDECAR: Shared<Single> = Shared::new(Store::Sidecar);
static CLUSTER_BY_BRIDGE: Shared<Cluster> = Shared::new(Store::Bridge);
static CLUSTER_BY_SIDECAR: Shared<Cluster> = Shared::new(Store::Sidecar);

type Case<W> = fn(&str, &mut W) -> Result<()>;

/// How often a case is tried on a machine that is too busy to judge it.
const ATTEMPTS: u32 = 3;
/// Cases that `make test` runs too: one of each kind.
const QUICK: [&str; 12] = [
    "redis_is_killed_and_restarted_empty",
    "redis_hangs_and_goes_on",
    "redis_is_killed_within_a_window",
    "redis_hangs_within_a_window",
    "a_replica_is_promoted",
    "a_primary_is_demoted_behind_its_address",
    "the_password_changes",
    "what_is_refused_is_given_back_on_every_shard",
    "slots_move",
    "a_primary_fails_over",
    "sidecar_is_killed_and_restarted",
    "bridge_configuration_is_replaced",
];

/// The others are ignored unless asked for, as `make test-faults` does.
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
    for (name, case) in window::CASES {
        for (way, store) in [("bridge", Store::Bridge), ("sidecar", Store::Sidecar)] {
            trials.push(trial(format!("{way}_{name}"), move |name| {
                case(name, store)
            }));
        }
    }
    if !arguments.list {
        // The models test holds the scripts to it, whose clock is a script there.
        eprintln!("SKIPPED: the clock of a real Redis stepping back, which takes faketime");
    }
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
    cases: &'static [(&'static str, Case<W>)],
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

fn trial(name: String, run: impl Fn(&str) -> Result<()> + Send + 'static) -> Trial {
    let is_quick = QUICK.iter().any(|quick| name.ends_with(quick));
    let own = name.clone();
    Trial::test(name, move || {
        for attempt in 1..=ATTEMPTS {
            match run(&format!("{own}-{attempt}")) {
                Ok(()) => return Ok(()),
                Err(error) if error.is::<Disturbed>() => {
                    eprintln!("{own}: the machine is too busy to judge: {error:#}");
                }
                Err(error) => return Err(format!("{error:#}").into()),
            }
        }
        eprintln!("NOT PROVEN: {own}, for the machine was busy {ATTEMPTS} times");
        Ok(())
    })
    .with_ignored_flag(!is_quick)
}
