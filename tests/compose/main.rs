//! docker-compose.yml, really brought up: over both ways to Redis, with the Docker and the compose
//! tool of this machine. Where one of them is missing, the cases are skipped, aloud.
//!
//! - [`docker`] is the tools: which are here, and how they are called;
//! - [`stand_in`] makes the images that are not here, from programs that are;
//! - [`stack`] is one project of compose's, gone when dropped.

mod docker;
mod stack;
mod stand_in;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use libtest_mimic::{Arguments, Trial};
use weir_lab::gateway::Store;

use crate::docker::Docker;
use crate::stack::Stack;
use crate::stand_in::StandIns;

const NAMES: [(&str, Store); 2] = [
    ("the_stack_limits_through_envoy", Store::Bridge),
    ("the_stack_limits_through_the_sidecar", Store::Sidecar),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two stacks at a time would only wait for the same processors.
    arguments.test_threads = Some(1);
    let stand_ins = Arc::new(StandIns::default());
    let trials = match Docker::find() {
        Ok(docker) => trials(&docker, &stand_ins),
        Err(reason) => {
            println!("skipped: docker-compose.yml was not brought up: {reason:#}");
            let skipped = |name: &str| Trial::test(name, || Ok(())).with_ignored_flag(true);
            NAMES.iter().map(|(name, _)| skipped(name)).collect()
        }
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    stand_ins.remove();
    conclusion.exit_code()
}

fn trials(docker: &Docker, stand_ins: &Arc<StandIns>) -> Vec<Trial> {
    let trial = |(name, store)| {
        let (docker, stand_ins) = (docker.clone(), Arc::clone(stand_ins));
        Trial::test(name, move || {
            // An error's whole story; by itself it would be told without its causes.
            prove(docker, &stand_ins, store).map_err(|error| format!("{error:#}").into())
        })
    };
    NAMES.into_iter().map(trial).collect()
}

fn prove(docker: Docker, stand_ins: &StandIns, store: Store) -> Result<()> {
    let stack = Stack::try_new(docker.clone(), store)?;
    for image in stack.images()? {
        if let Err(reason) = stand_ins.bring(&docker, &image) {
            println!("skipped: there is no image {image}, and none can stand in: {reason:#}");
            return Ok(());
        }
    }
    let proven = stack
        .up()
        .and_then(|()| stack.wait_healthy())
        .and_then(|()| confined(&stack))
        .and_then(|()| limits(&stack));
    proven.map_err(|error| anyhow!("{error:#}\n{}", stack.logs()))
}

/// No container runs as root, and no port is reached from another machine.
fn confined(stack: &Stack) -> Result<()> {
    for container in stack.containers()? {
        let user = container["Config"]["User"].as_str().unwrap_or_default();
        ensure!(
            !matches!(user, "" | "root" | "0"),
            "a container runs as root: {}",
            container["Name"]
        );
        let ports = container["NetworkSettings"]["Ports"].as_object();
        let published = ports.into_iter().flat_map(|ports| ports.values());
        for binding in published.filter_map(|ports| ports.as_array()).flatten() {
            ensure!(
                binding["HostIp"] == "127.0.0.1",
                "published beyond this machine: {binding}"
            );
        }
    }
    Ok(())
}

/// Limits hold to the request, and identity headers from the host are believed.
fn limits(stack: &Stack) -> Result<()> {
    let client = stack.client();
    let upload = client
        .get("/api/v1/media/upload")
        .header("X-User-ID", "alice")
        .header("X-User-Tier", "premium")
        .send()?;
    let remaining = upload.header("x-ratelimit-remaining");
    ensure!(
        (upload.status, remaining.as_deref()) == (200, Some("19")),
        "the first of 20 uploads: {upload:?}"
    );

    for _ in 0..5 {
        let answer = client.get("/api/v1/auth/login").send()?;
        ensure!(answer.status == 200, "one of five logins: {answer:?}");
        ensure!(
            answer.text().contains("upstream"),
            "not the upstream's: {answer:?}"
        );
    }
    let answer = client.get("/api/v1/auth/login").send()?;
    ensure!(answer.status == 429, "the sixth login: {answer:?}");
    for (name, value) in [
        ("x-ratelimit-limit", "5"),
        ("x-ratelimit-remaining", "0"),
        ("x-envoy-ratelimited", "true"),
    ] {
        let found = answer.header(name);
        ensure!(found.as_deref() == Some(value), "{name}: {answer:?}");
    }
    for name in ["retry-after", "x-ratelimit-reset"] {
        let seconds = answer.header(name).and_then(|value| value.parse().ok());
        ensure!(
            seconds.is_some_and(|seconds: u64| (1..=300).contains(&seconds)),
            "{name}: {answer:?}"
        );
    }
    ensure!(
        answer.json()?["details"]["rule"] == "auth_api",
        "the body: {answer:?}"
    );
    Ok(())
}
