//! A Redis Cluster on loopback ports: three primaries, each with a replica if so wanted.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::Value;

use crate::deadline;
use crate::redis::Redis;

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
/// Gossip takes a second or two, an election a few.
const AGREE: Duration = Duration::from_secs(30);
/// A node that is silent for so long is voted out. Shorter than this, and a busy machine does it.
const NODE_TIMEOUT_MS: &str = "1000";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replicas {
    None,
    OneEach,
}

#[derive(Debug)]
pub struct RedisCluster {
    /// The first three begin as primaries, and the replica of each is three further on.
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts it and waits until every node agrees that it is whole.
    pub fn start(replicas: Replicas) -> Result<Self> {
        let count = match replicas {
            Replicas::None => PRIMARIES,
            Replicas::OneEach => 2 * PRIMARIES,
        };
        let arguments = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            NODE_TIMEOUT_MS,
            // The shards that are left go on.
            "--cluster-require-full-coverage",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let nodes = (0..count)
            .map(|_| Redis::start_with(&arguments))
            .collect::<Result<_>>()?;
        let cluster = Self { nodes };
        cluster.introduce()?;
        cluster.agree(|info| info.contains("cluster_state:ok"))?;
        if replicas == Replicas::OneEach {
            cluster.replicate()?;
        }
        Ok(cluster)
    }

    fn introduce(&self) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            // Distinct from the start, or the nodes first argue about them.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for (number, node) in self.nodes.iter().take(PRIMARIES).enumerate() {
            let slots = SLOTS * number / PRIMARIES..SLOTS * (number + 1) / PRIMARIES;
            let mut words = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            words.extend(slots.map(|slot| slot.to_string()));
            node.command(&words)?;
        }
        let first = self.nodes.first().context("a cluster has nodes")?;
        for node in &self.nodes[1..] {
            let port = node.port().to_string();
            first.command(&["CLUSTER", "MEET", "127.0.0.1", &port])?;
        }
        Ok(())
    }

    fn replicate(&self) -> Result<()> {
        for (primary, replica) in self.nodes.iter().zip(&self.nodes[PRIMARIES..]) {
            replica.command(&["CLUSTER", "REPLICATE", &id(primary)?])?;
        }
        for replica in &self.nodes[PRIMARIES..] {
            replica.in_sync()?;
        }
        // Whoever asks any node hears of the replicas.
        deadline::poll(AGREE, "word of the replicas", || {
            let mut known = self.nodes.iter().map(|node| {
                let nodes = text(&node.command(&["CLUSTER", "NODES"])?)?;
                Ok(
                    nodes.matches(" slave ").count() + nodes.matches(",slave ").count()
                        == PRIMARIES,
                )
            });
            let all = known.try_fold(true, |all, one: Result<bool>| {
                Ok::<_, anyhow::Error>(all && one?)
            })?;
            Ok(all.then_some(()))
        })
    }

    /// Waits until every node that runs has `said` this in its CLUSTER INFO, and knows all nodes.
    fn agree(&self, said: impl Fn(&str) -> bool) -> Result<()> {
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        deadline::poll(AGREE, "agreement in the cluster", || {
            for node in self.nodes.iter().filter(|node| node.server().is_ok()) {
                let info = text(&node.command(&["CLUSTER", "INFO"])?)?;
                if !said(&info) || !info.contains(&known) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    pub fn node(&self, number: usize) -> &Redis {
        &self.nodes[number]
    }

    pub fn node_mut(&mut self, number: usize) -> &mut Redis {
        &mut self.nodes[number]
    }

    /// The number of the node that owns a key's slot, as the nodes that run see it.
    pub fn owner(&self, key: &str) -> Result<usize> {
        let slot = usize::try_from(slot(self.alive()?, key)?)?;
        for (number, node) in self.nodes.iter().enumerate() {
            if node.server().is_ok() && owns(node, slot)? {
                return Ok(number);
            }
        }
        bail!("nobody owns slot {slot}")
    }

    /// The slots that a node owns.
    pub fn slots(&self, number: usize) -> Result<Vec<RangeInclusive<usize>>> {
        slots(&self.nodes[number])
    }

    /// The replica of a primary.
    pub fn replica(&self, primary: usize) -> Result<usize> {
        let primary = id(&self.nodes[primary])?;
        for (number, node) in self.nodes.iter().enumerate() {
            let own = own_line(node)?;
            if own.contains("myself,slave") && own.contains(&primary) {
                return Ok(number);
            }
        }
        bail!("nobody is a replica of {primary}")
    }

    /// Waits until another node than this owns a key's slot; its number.
    pub fn failed_over(&self, key: &str, from: usize) -> Result<usize> {
        deadline::poll(AGREE, "new owner", || {
            Ok(self.owner(key).ok().filter(|owner| *owner != from))
        })
    }

    /// Begins to move a key's slot: keys that the old owner has not are asked of the new one.
    pub fn begin_move(&self, key: &str, to: usize) -> Result<Move> {
        let slot = slot(self.alive()?, key)?;
        let from = self.owner(key)?;
        let setslot = |node: &Redis, how: &str, other: &Redis| {
            node.command(&["CLUSTER", "SETSLOT", &slot.to_string(), how, &id(other)?])
        };
        setslot(&self.nodes[to], "IMPORTING", &self.nodes[from])?;
        setslot(&self.nodes[from], "MIGRATING", &self.nodes[to])?;
        Ok(Move { slot, from, to })
    }

    /// Moves the keys of the slot and gives it away.
    pub fn finish_move(&self, Move { slot, from, to }: Move) -> Result<()> {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let slot = slot.to_string();
        let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"])?;
        for key in redis::from_redis_value::<Vec<String>>(keys)? {
            let port = to.port().to_string();
            from.command(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"])?;
        }
        let owner = id(to)?;
        // The new owner first: were it to fail now, the old one would still point at it. Gossip tells
        // the others.
        for node in [to, from] {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &owner])?;
        }
        Ok(())
    }

    fn alive(&self) -> Result<&Redis> {
        let mut alive = self.nodes.iter().filter(|node| node.server().is_ok());
        alive.next().context("no node of the cluster runs")
    }
}

/// A slot that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    slot: u64,
    from: usize,
    to: usize,
}

fn id(node: &Redis) -> Result<String> {
    text(&node.command(&["CLUSTER", "MYID"])?)
}

fn slot(node: &Redis, key: &str) -> Result<u64> {
    Ok(redis::from_redis_value(
        node.command(&["CLUSTER", "KEYSLOT", key])?,
    )?)
}

fn owns(node: &Redis, slot: usize) -> Result<bool> {
    Ok(slots(node)?.iter().any(|range| range.contains(&slot)))
}

/// Reads `… myself,master - 0 0 1 connected 0-5460 5462 [5461->-…]`.
fn slots(node: &Redis) -> Result<Vec<RangeInclusive<usize>>> {
    let own = own_line(node)?;
    if !own.contains("myself,master") {
        return Ok(Vec::new());
    }
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    Ok(own.split(' ').skip(8).filter_map(range).collect())
}

fn own_line(node: &Redis) -> Result<String> {
    let nodes = text(&node.command(&["CLUSTER", "NODES"])?)?;
    let mut lines = nodes.lines();
    let own = lines.find(|line| line.contains("myself"));
    Ok(own.context("a node knows itself")?.to_owned())
}

fn text(value: &Value) -> Result<String> {
    Ok(redis::from_redis_value(value.clone())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_moves_a_slot_and_survives_a_primary() {
        let mut cluster = RedisCluster::start(Replicas::OneEach).unwrap();
        let owner = cluster.owner("key").unwrap();
        cluster.node(owner).command(&["SET", "key", "1"]).unwrap();
        let to = (owner + 1) % PRIMARIES;
        let begun = cluster.begin_move("key", to).unwrap();
        cluster.finish_move(begun).unwrap();
        assert_eq!(cluster.owner("key").unwrap(), to);
        cluster.node_mut(to).stop();
        let heir = cluster.failed_over("key", to).unwrap();
        assert_eq!(heir, to + PRIMARIES);
    }
}
