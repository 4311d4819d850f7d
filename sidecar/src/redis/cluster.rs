//! Redis Cluster: each command goes to the node that owns its slot. MOVED and ASK say that a
//! command did not run, so it is sent where they point; nothing else is ever sent again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weir_core::codec::resp::{Reader, Replies, Token, command};
use weir_core::store::slot::{SLOTS, Slot};

use super::address::Address;
use super::dial::Dial;
use super::node::{NoReply, Node};
use super::{Reply, ask_node};
use crate::screen::CheckRequest;

/// How often one command follows a redirection: a slot that moves twice at once is the most that
/// a sane cluster does.
const REDIRECTIONS: usize = 3;

/// The map of slots is read this often even if nothing tells of a change.
const REFRESH: Duration = Duration::from_secs(15);

/// And at most this often.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// How long a node may take to tell its map of slots.
const MAP_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Cluster {
    dial: Arc<Dial>,
    seeds: Vec<Address>,
    map: Mutex<Map>,
    /// Something told that the map is out of date.
    stale: Notify,
}

struct Map {
    /// Every node that is connected to.
    nodes: HashMap<Address, Arc<Node>>,
    /// By slot; none while no node has told the map.
    owners: Vec<Option<Arc<Node>>>,
}

/// A contiguous range of slots and who owns it.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: Slot,
    last: Slot,
    owner: Address,
}

/// A command on its way.
struct Journey {
    /// Its place among the check requests.
    place: usize,
    check_request: CheckRequest,
    asking: Asking,
}

/// Whether ASKING goes before the command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    Yes,
}

/// Where Redis points a command to.
#[derive(Debug, PartialEq, Eq)]
struct Redirection {
    to: Address,
    lasting: Lasting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    /// MOVED: the slot has another owner.
    Moved,
    /// ASK: only this command goes elsewhere.
    Ask,
}

impl Cluster {
    /// Learns the map in the background, and keeps it fresh while the cluster is held.
    pub fn spawn(seeds: Vec<Address>, dial: Arc<Dial>) -> Arc<Cluster> {
        let cluster = Arc::new(Cluster {
            dial,
            seeds,
            map: Mutex::new(Map {
                nodes: HashMap::new(),
                owners: vec![None; SLOTS.into()],
            }),
            stale: Notify::new(),
        });
        tokio::spawn(keep_fresh(Arc::downgrade(&cluster)));
        cluster
    }

    pub async fn ask(&self, check_requests: Vec<CheckRequest>, deadline: Instant) -> Vec<Reply> {
        let unknown = || Err(NoReply::Unreachable("no node owns the key's slot".into()));
        let mut replies: Vec<Reply> = check_requests.iter().map(|_| unknown()).collect();
        let start = |(place, check_request)| Journey {
            place,
            check_request,
            asking: Asking::No,
        };
        let mut groups = self.by_owner(check_requests.into_iter().enumerate().map(start));
        for _ in 0..=REDIRECTIONS {
            let mut asked = JoinSet::new();
            for (_, (node, journeys)) in groups.drain() {
                asked.spawn(travel(node, journeys, deadline));
            }
            while let Some(group) = asked.join_next().await {
                // A task that only awaits replies neither panics nor is aborted.
                let Ok((node, arrivals)) = group else {
                    continue;
                };
                for (mut journey, reply) in arrivals {
                    if let Err(NoReply::Unreachable(_)) = &reply {
                        self.stale.notify_one();
                    }
                    let redirection = reply
                        .as_deref()
                        .ok()
                        .and_then(|reply| redirection(reply, &node.address));
                    if let Some(slot) = replies.get_mut(journey.place) {
                        *slot = reply;
                    }
                    let Some(Redirection { to, lasting }) = redirection else {
                        continue;
                    };
                    let next = self.node(to);
                    journey.asking = match lasting {
                        Lasting::Moved => {
                            self.set_owner(journey.check_request.slot, &next);
                            self.stale.notify_one();
                            Asking::No
                        }
                        Lasting::Ask => Asking::Yes,
                    };
                    groups
                        .entry(next.address.clone())
                        .or_insert_with(|| (next, Vec::new()))
                        .1
                        .push(journey);
                }
            }
            if groups.is_empty() {
                break;
            }
        }
        replies
    }

    /// The first owner of a slot that has not answered a PING lately; a seed if none is known.
    pub fn silent(&self) -> Option<Address> {
        let map = self.map();
        let mut last: Option<&Arc<Node>> = None;
        for owner in &map.owners {
            let Some(owner) = owner else {
                return self.seeds.first().cloned();
            };
            if last.is_some_and(|last| Arc::ptr_eq(last, owner)) {
                continue;
            }
            if !owner.is_alive() {
                return Some(owner.address.clone());
            }
            last = Some(owner);
        }
        None
    }

    /// Leaves out what has no owner.
    fn by_owner(
        &self,
        journeys: impl Iterator<Item = Journey>,
    ) -> HashMap<Address, (Arc<Node>, Vec<Journey>)> {
        let map = self.map();
        let mut groups: HashMap<Address, (Arc<Node>, Vec<Journey>)> = HashMap::new();
        for journey in journeys {
            match map.owners.get(usize::from(journey.check_request.slot.0)) {
                Some(Some(owner)) => groups
                    .entry(owner.address.clone())
                    .or_insert_with(|| (owner.clone(), Vec::new()))
                    .1
                    .push(journey),
                _ => self.stale.notify_one(),
            }
        }
        groups
    }

    fn node(&self, address: Address) -> Arc<Node> {
        let mut map = self.map();
        let spawn = || Arc::new(Node::spawn(address.clone(), self.dial.clone()));
        map.nodes
            .entry(address.clone())
            .or_insert_with(spawn)
            .clone()
    }

    fn set_owner(&self, slot: Slot, node: &Arc<Node>) {
        if let Some(owner) = self.map().owners.get_mut(usize::from(slot.0)) {
            *owner = Some(node.clone());
        }
    }

    /// Takes the map from the first node that tells it.
    async fn refresh(&self) -> Result<()> {
        let known: Vec<Address> = self.map().nodes.keys().cloned().collect();
        let mut failure = None;
        for address in known.iter().chain(&self.seeds) {
            match self.ranges_of(address).await {
                Ok(ranges) => {
                    self.adopt(ranges);
                    return Ok(());
                }
                Err(error) => failure = Some(error.context(address.to_string())),
            }
        }
        Err(failure.context("no node is known")?)
    }

    async fn ranges_of(&self, address: &Address) -> Result<Vec<Range>> {
        let mut check_request = Vec::new();
        let args: [&[u8]; 2] = [b"CLUSTER", b"SLOTS"];
        command(&mut check_request, args.into_iter());
        let node = self.node(address.clone());
        let deadline = Instant::now() + MAP_TIMEOUT;
        match ask_node(&node, vec![check_request.into()], deadline)
            .await
            .pop()
        {
            Some(Ok(reply)) => ranges(&reply, address),
            Some(Err(NoReply::Unreachable(reason))) => bail!("{reason}"),
            _ => bail!("CLUSTER SLOTS was not answered within {MAP_TIMEOUT:?}"),
        }
    }

    /// Connects to every owner, and lets go of nodes that own nothing.
    fn adopt(&self, ranges: Vec<Range>) {
        let mut owners = vec![None; SLOTS.into()];
        for Range { first, last, owner } in ranges {
            let node = self.node(owner);
            let slots = usize::from(first.0)..=usize::from(last.0);
            owners[slots].fill(Some(node));
        }
        let mut map = self.map();
        map.owners = owners;
        let Map { nodes, owners } = &mut *map;
        let mut owning: HashMap<Address, Arc<Node>> = HashMap::new();
        for owner in owners.iter().flatten() {
            if !owning.contains_key(&owner.address) {
                owning.insert(owner.address.clone(), owner.clone());
            }
        }
        *nodes = owning;
    }

    /// Nothing panics while it holds this lock, and it is held across no await.
    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep_fresh(cluster: std::sync::Weak<Cluster>) {
    let mut told: Option<String> = None;
    loop {
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        let failure = cluster
            .refresh()
            .await
            .err()
            .map(|error| format!("{error:#}"));
        if failure != told {
            match &failure {
                Some(failure) => eprintln!("weir-sidecar: no map of the cluster: {failure}"),
                None => eprintln!("weir-sidecar: the map of the cluster is known again"),
            }
            told = failure;
        }
        sleep(REFRESH_PAUSE).await;
        if told.is_none() {
            let _ = timeout(REFRESH, cluster.stale.notified()).await;
        }
    }
}

/// Asks one node for its part; the replies come back with their commands.
async fn travel(
    node: Arc<Node>,
    journeys: Vec<Journey>,
    deadline: Instant,
) -> (Arc<Node>, Vec<(Journey, Reply)>) {
    const ASKING: Bytes = Bytes::from_static(b"*1\r\n$6\r\nASKING\r\n");
    let mut commands = Vec::with_capacity(journeys.len());
    for journey in &journeys {
        if journey.asking == Asking::Yes {
            commands.push(ASKING);
        }
        commands.push(journey.check_request.command.clone());
    }
    let mut replies = ask_node(&node, commands, deadline).await.into_iter();
    let arrivals = journeys
        .into_iter()
        .filter_map(|journey| {
            if journey.asking == Asking::Yes {
                replies.next();
            }
            Some((journey, replies.next()?))
        })
        .collect();
    (node, arrivals)
}

/// Reads `-MOVED 3999 127.0.0.1:6381` or `-ASK …`; no host means that of the node that says it.
fn redirection(reply: &[u8], from: &Address) -> Option<Redirection> {
    let (lasting, rest) = match reply.strip_prefix(b"-MOVED ") {
        Some(rest) => (Lasting::Moved, rest),
        None => (Lasting::Ask, reply.strip_prefix(b"-ASK ")?),
    };
    let rest = std::str::from_utf8(rest).ok()?.trim_end();
    let (_slot, to) = rest.split_once(' ')?;
    let (host, port) = to.rsplit_once(':')?;
    Some(Redirection {
        to: Address {
            host: host_or(host, from),
            port: port.parse().ok()?,
        },
        lasting,
    })
}

fn host_or(host: &str, from: &Address) -> String {
    match host.is_empty() {
        true => from.host.clone(),
        false => host.to_owned(),
    }
}

/// Reads the reply to CLUSTER SLOTS: of each range its ends, its primary, and what is of no use.
fn ranges(reply: &[u8], from: &Address) -> Result<Vec<Range>> {
    let mut reader = Reader::new(reply);
    let count = match reader.token()? {
        Some(Token::Array(Some(count))) => count,
        Some(Token::Error(text)) => bail!("{}", String::from_utf8_lossy(text)),
        _ => bail!("CLUSTER SLOTS answered no array"),
    };
    (0..count)
        .map(|_| {
            range(&mut reader, from)
                .context("CLUSTER SLOTS answered something that is no range of slots")
        })
        .collect()
}

fn range(reader: &mut Reader<'_>, from: &Address) -> Option<Range> {
    let fields = array(reader)?;
    let (first, last) = (slot_number(reader)?, slot_number(reader)?);
    let node_fields = array(reader)?;
    let host = match reader.token().ok()?? {
        Token::Bulk(host) => host_or(std::str::from_utf8(host.unwrap_or_default()).ok()?, from),
        _ => return None,
    };
    let Token::Integer(port) = reader.token().ok()?? else {
        return None;
    };
    skip(reader, node_fields.checked_sub(2)?)?;
    skip(reader, fields.checked_sub(3)?)?;
    let owner = Address {
        host,
        port: port.try_into().ok()?,
    };
    Some(Range { first, last, owner })
}

fn array(reader: &mut Reader<'_>) -> Option<u32> {
    match reader.token().ok()?? {
        Token::Array(count) => count,
        _ => None,
    }
}

fn slot_number(reader: &mut Reader<'_>) -> Option<Slot> {
    match reader.token().ok()?? {
        Token::Integer(slot) => u16::try_from(slot)
            .ok()
            .filter(|slot| *slot < SLOTS)
            .map(Slot),
        _ => None,
    }
}

fn skip(reader: &mut Reader<'_>, values: u32) -> Option<()> {
    for _ in 0..values {
        let end = Replies::new().push_one(reader.rest()).ok()??;
        *reader = Reader::new(reader.rest().get(end..)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn redirections_are_read() {
        let from = address("here", 1);
        let moved = |host, port| {
            Some(Redirection {
                to: address(host, port),
                lasting: Lasting::Moved,
            })
        };
        let table: &[(&[u8], Option<Redirection>)] = &[
            (b"-MOVED 3999 10.0.0.1:6381\r\n", moved("10.0.0.1", 6381)),
            (b"-MOVED 3999 ::1:6381\r\n", moved("::1", 6381)),
            (b"-MOVED 3999 :6381\r\n", moved("here", 6381)),
            (
                b"-ASK 3999 h:2\r\n",
                Some(Redirection {
                    to: address("h", 2),
                    lasting: Lasting::Ask,
                }),
            ),
            (b"-MOVED 3999\r\n", None),
            (b"-MOVED 3999 h:x\r\n", None),
            (b"-ERR MOVED 1 h:1\r\n", None),
            (b":1\r\n", None),
        ];
        for (reply, expected) in table {
            assert_eq!(
                redirection(reply, &from),
                *expected,
                "{}",
                reply.escape_ascii()
            );
        }
    }

    #[test]
    fn the_map_of_slots_is_read_whatever_else_a_node_tells() {
        // As Redis 7 writes it: id and metadata after the port, then a replica.
        let node = |host: &str, port: u16| {
            format!("*4\r\n{host}\r\n:{port}\r\n$2\r\nid\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n")
        };
        let reply = format!(
            "*2\r\n*4\r\n:0\r\n:99\r\n{}{}*3\r\n:100\r\n:16383\r\n{}",
            node("$1\r\nh", 7001),
            node("$1\r\nh", 7002),
            node("$-1", 7003),
        );
        let expected =
            [(0, 99, "h", 7001), (100, 16383, "here", 7003)].map(|(first, last, host, port)| {
                Range {
                    first: Slot(first),
                    last: Slot(last),
                    owner: address(host, port),
                }
            });
        assert_eq!(
            ranges(reply.as_bytes(), &address("here", 1)).unwrap(),
            expected
        );
    }

    #[test]
    fn what_is_no_map_of_slots_is_refused() {
        for reply in [
            "-ERR This instance has cluster support disabled\r\n",
            ":1\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nh\r\n:1\r\n",
            "*1\r\n*3\r\n:-1\r\n:5\r\n*2\r\n$1\r\nh\r\n:1\r\n",
            "*1\r\n*2\r\n:0\r\n:5\r\n",
            "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\nh\r\n:70000\r\n",
        ] {
            assert!(
                ranges(reply.as_bytes(), &address("here", 1)).is_err(),
                "{reply:?}"
            );
        }
    }
}
