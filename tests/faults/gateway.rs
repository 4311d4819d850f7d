//! What can go wrong with the gateway's own parts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use weir_cli::publication::{Note, Outcome, Shelf};
use weir_core::codec::namespace::Namespace;
use weir_lab::gateway::{Builder, Gateway, Store};
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;
use weir_lab::sidecar::Sidecar;
use weir_lab::{deadline, parts, place};

use crate::single::A_WHILE;
use crate::watch::{Counted, START, TIGHT, TIMEOUT_MS, Watch};
use crate::world::gateway;

pub type Case = fn(&str) -> Result<()>;

pub const CASES: &[(&str, Case)] = &[
    ("sidecar_is_killed_and_restarted", sidecar_killed),
    ("bridge_listener_is_missing", listener_missing),
    ("bridge_configuration_is_replaced", configuration_replaced),
    (
        "bridge_configuration_is_replaced_and_the_published_policy_lost",
        published_policy_lost,
    ),
];

fn sidecar_killed(name: &str) -> Result<()> {
    let redis = Redis::start()?;
    let mut sidecar = Sidecar::start(&redis.url(), TIMEOUT_MS)?;
    // One that does not belong to the gateway, or it could not end before it.
    let gateway = gateway(Store::Bridge)
        .redis(&redis)
        .variable("STORE", "sidecar")
        .variable("SIDECAR_PORT", &sidecar.address().port().to_string())
        .start()?;
    let mut watch = Watch::start(name, &gateway)?;
    watch.go_on(A_WHILE);
    sidecar.process().kill();
    watch.degrades()?;
    sidecar.restart()?;
    watch.recovers()?;
    watch.ends(Counted::Throughout)?.opened()
}

fn listener_missing(name: &str) -> Result<()> {
    let redis = Redis::start()?;
    let gateway = changed(gateway(Store::Bridge), "missing-bridge")?
        .redis(&redis)
        .start()?;
    let watch = Watch::unready(name, &gateway)?;
    watch.degrades()?;
    watch.ends(Counted::UpTo(0))?.opened()
}

/// The limit is raised by half: what was used stays used.
fn configuration_replaced(name: &str) -> Result<()> {
    let redis = Redis::start()?;
    let scratch = Scratch::try_new("listeners")?;
    let listeners = scratch.file("listeners.yaml");
    let gateway = changed(gateway(Store::Bridge), "watched-listeners")?
        .variable("LISTENERS", &listeners.to_string_lossy())
        .redis(&redis)
        .start()?;
    let watch = Watch::start(name, &gateway)?;
    watch.go_on(2 * A_WHILE);
    let raised = TIGHT * 3 / 2;
    replace_limit(&gateway, &scratch, &listeners, raised)?;
    watch.go_on(3 * A_WHILE);
    let outcome = watch.ends(Counted::UpTo(raised))?;
    let admitted = outcome.admitted().into_values().map(|one| one.by_redis);
    let most = admitted.max().context("somebody was admitted")?;
    ensure!(most > TIGHT, "{most}: the new limit is not there");
    outcome.hardly_notices(|_| true)
}

/// Workers of the new configuration begin with what those of the old one run: Redis does not know it
/// any more, and nobody is held to the configuration's own limit for a moment.
fn published_policy_lost(_name: &str) -> Result<()> {
    let redis = Redis::start()?;
    let scratch = Scratch::try_new("listeners")?;
    let listeners = scratch.file("listeners.yaml");
    let gateway = changed(gateway(Store::Bridge), "watched-listeners")?
        .variable("LISTENERS", &listeners.to_string_lossy())
        .redis(&redis)
        .start()?;
    let published = TIGHT * 3 / 2;
    let policy = include_str!("policy.json").replacen(
        &format!("\"limit\": {TIGHT},"),
        &format!("\"limit\": {published},"),
        1,
    );
    let mut connection = redis.connection()?;
    let mut shelf = Shelf::new(&mut connection, &Namespace::default());
    let Outcome::Published { version: first } =
        shelf.publish(None, policy.as_bytes(), &Note::default())?
    else {
        bail!("somebody else published");
    };
    deadline::poll(START, "published policy", || {
        let version = |name: &str| gateway.stat(&format!("wasmcustom.weir.policy.{name}"));
        let followed =
            (version("version")?, version("newest_version")?) == (Some(first), Some(first));
        Ok(followed.then_some(()))
    })?;
    redis.command(&["DEL", "weir:policy"])?;
    replace_limit(&gateway, &scratch, &listeners, TIGHT + 1)?;
    let told = format!("user default sliding_window {}/3600s", TIGHT + 1);
    let mut after = 0;
    // Connections of its own for each request: the old listener's last answers are among them.
    deadline::poll(START, "answers of the new listener", || {
        let user = format!("user-{after}");
        let client = gateway.client();
        let request = client.get("/tight/x").header("X-User-ID", user);
        let limit = request.send()?.header("x-ratelimit-limit");
        ensure!(limit == Some(published.to_string()), "{limit:?} is told");
        after += usize::from(gateway.log().contains(&told));
        Ok((after > 200).then_some(()))
    })
}

/// Envoy is given a listener whose policy has another limit.
fn replace_limit(
    gateway: &Gateway,
    scratch: &Scratch,
    listeners: &Path,
    limit: usize,
) -> Result<()> {
    let before = fs::read_to_string(listeners)?;
    let after = before.replacen(
        &format!("\"limit\": {TIGHT},"),
        &format!("\"limit\": {limit},"),
        1,
    );
    ensure!(before != after, "there is no limit to change");
    let written = scratch.file("written.yaml");
    fs::write(&written, after)?;
    // Envoy looks where a file is moved to.
    fs::rename(written, listeners)?;
    deadline::poll(START, "listener in place", || {
        let modified = gateway.stat("listener_manager.listener_modified")?;
        Ok(modified.filter(|times| *times > 0).map(drop))
    })
}

/// Has Envoy run with its configuration changed.
fn changed(builder: Builder, change: &str) -> Result<Builder> {
    let script = place::project().join("tests/faults/changed_envoy.sh");
    Ok(builder
        .variable("ENVOY", &script.to_string_lossy())
        .variable("REAL_ENVOY", &parts::envoy()?.to_string_lossy())
        .variable("CHANGE", change))
}
