//! End to end: the shipped wasm in a real Envoy, against a real Redis, over both ways to it.
//!
//! A case is a function that is given a [`world`]: one Redis and the gateways in front of it. Cases
//! share a world and keep apart by who they are: every [`visitor`] has an address and an id of its
//! own. Each case runs once in the world of the bridge and once in that of the sidecar.
//!
//! - [`model`] is an independent limiter, against which real traffic is held;
//! - [`crowd`] is many clients at once, [`grpc`] one that speaks HTTP/2;
//! - every other module is a subject, and its cases are claims about it.

mod access_log;
mod algorithms;
mod answers;
mod concurrency;
mod configuration;
mod consumption;
mod content_types;
mod costs;
mod counters;
mod crowd;
mod exemptions;
mod experiments;
mod failure;
mod grpc;
mod identity;
mod keyed;
mod keys;
mod language;
mod leases;
mod live_policy;
mod matching;
mod metrics;
mod model;
mod neighbours;
mod no_wall;
mod outcomes;
mod redirects;
mod rollout;
mod rules;
mod spoiled;
mod status;
mod transport;
mod visitor;
mod world;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Trial};
use weir_lab::gateway::Store;

use crate::world::World;

/// One claim, and the function that proves it.
pub struct Case {
    name: &'static str,
    prove: fn(&World),
}

/// Cases named as their functions are.
#[macro_export]
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        &[$($crate::Case { name: concat!(module_path!(), "::", stringify!($name)), prove: $name }),+]
    };
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let worlds = [Store::Bridge, Store::Sidecar].map(|way| Arc::new(World::new(way)));
    let trials = worlds.iter().flat_map(trials).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() {
        for log in worlds.iter().flat_map(|world| world.logs()) {
            eprintln!("a gateway's log is in {}", log.display());
        }
        // Not dropped, so that the logs stay; the processes end with this one.
        worlds.into_iter().for_each(std::mem::forget);
    }
    conclusion.exit_code()
}

fn trials(world: &Arc<World>) -> Vec<Trial> {
    let way = match world.way() {
        Store::Bridge => "bridge",
        Store::Sidecar => "sidecar",
    };
    // A configuration is read before there is any way to Redis, and what is counted is counted before
    // it; a sidecar can hang by itself. What takes longest comes first.
    let one_way: &[&[Case]] = match world.way() {
        Store::Bridge => &[
            configuration::CASES,
            metrics::CASES,
            neighbours::CASES,
            access_log::CASES,
            transport::CASES,
        ],
        Store::Sidecar => &[failure::CASES_OF_THE_SIDECAR],
    };
    let both_ways = [
        rules::CASES,
        matching::CASES,
        identity::CASES,
        consumption::CASES,
        algorithms::CASES,
        concurrency::CASES,
        answers::CASES,
        content_types::CASES,
        redirects::CASES,
        status::CASES,
        keyed::CASES,
        keys::CASES,
        language::CASES,
        no_wall::CASES,
        leases::CASES,
        exemptions::CASES,
        rollout::CASES,
        experiments::CASES,
        costs::CASES,
        outcomes::CASES,
        failure::CASES,
        spoiled::CASES,
        live_policy::CASES,
        counters::CASES,
    ];
    let cases = one_way.iter().copied().chain(both_ways).flatten();
    cases.map(|case| trial(way, case, world)).collect()
}

fn trial(way: &str, case: &'static Case, world: &Arc<World>) -> Trial {
    let claim = case.name.trim_start_matches("e2e::");
    let world = Arc::clone(world);
    Trial::test(format!("{way}::{claim}"), move || {
        (case.prove)(&world);
        Ok(())
    })
}
