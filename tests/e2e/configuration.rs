//! What Envoy says of a policy when it starts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use weir_lab::{
    gateway::{self, Policy},
    place,
};

use crate::{Case, cases, crowd::rush, visitor::Visitor, world::World};

pub const CASES: &[Case] = cases![
    every_defect_is_refused_with_its_message,
    the_rules_are_told_once_whatever_the_number_of_workers,
];

fn every_defect_is_refused_with_its_message(world: &World) {
    let defects = defects();
    assert!(defects.len() > 30, "{} defects", defects.len());
    let next = AtomicUsize::new(0);
    // Envoy spends two seconds of a processor on compiling before it asks for the configuration.
    let wrong = rush(2, |_| {
        let own = std::iter::from_fn(|| defects.get(next.fetch_add(1, Ordering::Relaxed)));
        own.filter_map(|defect| misjudged(world, defect))
            .collect::<Vec<_>>()
    });
    assert_eq!(wrong.concat(), Vec::<String>::new());
}

/// The policies that nobody should be able to start Envoy with.
fn defects() -> Vec<PathBuf> {
    let folder = fs::read_dir(place::project().join("tests/config")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect()
}

/// What is wrong with the refusal of this policy, if anything is.
fn misjudged(world: &World, policy: &Path) -> Option<String> {
    let message = fs::read_to_string(policy.with_extension("txt")).unwrap();
    // Where in its configuration Envoy quotes what is no JSON depends on what stands around it.
    let expected = message
        .trim_end()
        .split(" at line ")
        .next()
        .unwrap_or_default();
    let gateway = world
        .gateway()
        .workers(1)
        .policy(Policy::File(policy.to_owned()));
    let told = match gateway.start_expecting_refusal() {
        Ok(log) => gateway::refusal(&log).unwrap_or(log),
        Err(error) => error.to_string(),
    };
    let is_told = told
        .strip_prefix("weir: ")
        .is_some_and(|told| told.starts_with(expected));
    (!is_told).then(|| {
        format!(
            "{}\n  told     {told}\n  expected {expected}",
            policy.display()
        )
    })
}

fn the_rules_are_told_once_whatever_the_number_of_workers(world: &World) {
    let gateway = world.gateway().workers(4).start().unwrap();
    // Once it serves, every worker has its configuration.
    assert_eq!(
        Visitor::anonymous(&gateway).get("/api/v1/items").status,
        200
    );
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("[info]"));
    let told: Vec<_> = told
        .filter_map(|line| Some(line.split_once("weir: rule ")?.1))
        .collect();
    assert_eq!(
        told,
        [
            "auth_api pattern /api/v1/auth/* priority 10: user anonymous fixed_window 5/300s, \
             ip default sliding_window 20/3600s",
            "upload_api pattern /api/v1/media/upload priority 50: \
             user free token_bucket 10/3600s burst 5, \
             user premium token_bucket 100/3600s burst 20, \
             user enterprise token_bucket 1000/3600s burst 100",
            "search_api pattern /api/v1/search priority 70: user free leaky_bucket 60/60s, \
             user premium leaky_bucket 300/60s, ip default leaky_bucket 100/60s",
            "general_api pattern /api/v1/* priority 100: global sliding_window 50000/60s, \
             user free sliding_window 100/3600s, user premium sliding_window 1000/3600s, \
             user enterprise sliding_window 10000/3600s, ip default sliding_window 200/3600s",
        ]
    );
}
