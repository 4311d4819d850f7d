//! What can go wrong with a Redis Cluster.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use weir_core::store::slot::{Lane, Topology};
use weir_lab::deadline;
use weir_lab::load::Sample;

use crate::single::A_WHILE;
use crate::watch::{Counted, Disturbed, MARK, Watch};
use crate::world::Cluster;

pub type Case = fn(&str, &mut Cluster) -> Result<()>;

pub const CASES: &[(&str, Case)] = &[
    ("what_is_refused_is_given_back_on_every_shard", give_back),
    ("slots_move", slots_move),
    ("a_primary_fails_over", fail_over),
    ("a_shard_is_gone", shard_gone),
];

fn key(user: &str) -> String {
    format!("weir:2:{{u:{user}}}:tight:user:sl3600s")
}

/// Ten callers overdraw their own limits; none of what they were refused counts globally.
fn give_back(name: &str, world: &mut Cluster) -> Result<()> {
    let client = world.gateway.client();
    let ask = |caller: u32| -> Result<u16> {
        let user = format!("{name}-{caller}");
        let answer = client.get("/shared/x").header("X-User-ID", user).send()?;
        match answer.header(MARK) {
            None => Ok(answer.status),
            Some(_) => Err(Disturbed::new("Redis was not asked").into()),
        }
    };
    for caller in 0..10 {
        for expected in [200, 200, 429] {
            ensure!(ask(caller)? == expected, "caller {caller}: not {expected}");
        }
    }
    // What is given back comes a little later. Whoever is refused until then takes nothing either.
    for caller in 10..20 {
        for _ in 0..2 {
            deadline::poll(A_WHILE, "permit of those that were given back", || {
                Ok((ask(caller)? == 200).then_some(()))
            })?;
        }
    }
    ensure!(ask(99)? == 429, "40 are all that the global limit has");
    Ok(())
}

fn slots_move(name: &str, world: &mut Cluster) -> Result<()> {
    let moving = key(&format!("{name}-0"));
    let from = world.redis.owner(&moving)?;
    let others = (1..100).map(|user| world.redis.owner(&key(&format!("{name}-{user}"))));
    let others = others.collect::<Result<Vec<usize>>>()?;
    let to = others
        .into_iter()
        .find(|owner| *owner != from)
        .context("another shard")?;
    let watch = Watch::start(name, &world.gateway)?;
    let begun = world.redis.begin_move(&moving, to)?;
    watch.go_on(A_WHILE);
    world.redis.finish_move(begun)?;
    watch.go_on(A_WHILE);
    let outcome = watch.ends(Counted::Throughout)?;
    world
        .redis
        .finish_move(world.redis.begin_move(&moving, from)?)?;
    outcome.hardly_notices(|_| true)
}

fn fail_over(name: &str, world: &mut Cluster) -> Result<()> {
    let key = key(&format!("{name}-0"));
    let owner = world.redis.owner(&key)?;
    let mut watch = Watch::start(name, &world.gateway)?;
    world.redis.node_mut(owner).stop();
    watch.degrades()?;
    world.redis.failed_over(&key, owner)?;
    watch.recovers()?;
    watch.go_on(A_WHILE);
    let outcome = watch.ends(Counted::ByReplica);
    world.redis.node_mut(owner).restart()?;
    world.redis.node(owner).in_sync()?;
    outcome?.opened()
}

fn shard_gone(name: &str, world: &mut Cluster) -> Result<()> {
    let gone = world.redis.owner(&key(&format!("{name}-0")))?;
    let replica = world.redis.replica(gone)?;
    let lanes = lanes_of(world, gone)?;
    let elsewhere = |sample: &Sample| {
        let (_, lane) = Topology::Cluster.place(key(&sample.user).as_bytes());
        !lanes.contains(&lane)
    };
    let mut watch = Watch::start(name, &world.gateway)?;
    world.redis.node_mut(replica).stop();
    world.redis.node_mut(gone).stop();
    watch.degrades()?;
    world.redis.node_mut(gone).restart()?;
    world.redis.node_mut(replica).restart()?;
    watch.recovers()?;
    let outcome = watch.ends(Counted::Afresh)?;
    outcome.hardly_notices(elsewhere)?;
    outcome.opened()
}

/// The lanes that a node's slots are asked through.
fn lanes_of(world: &Cluster, node: usize) -> Result<BTreeSet<Lane>> {
    let slots = world.redis.slots(node)?;
    // Enough keys to meet every slot's neighbourhood.
    let places = (0..10_000).map(|number| Topology::Cluster.place(number.to_string().as_bytes()));
    let own = places.filter(|(slot, _)| slots.iter().any(|range| range.contains(&slot.0.into())));
    Ok(own.map(|(_, lane)| lane).collect())
}
