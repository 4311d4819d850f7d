//! Redis behind the sidecar: one node, or a cluster of them. It takes commands that were screened
//! and gives one reply for each, Redis's own or an error that says why there is none.

pub mod address;
pub mod cluster;
pub mod dial;
pub mod node;

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::screen::CheckRequest;
use address::Address;
use cluster::Cluster;
use dial::Dial;
use node::{NoReply, Node};

/// How Redis runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    Single(Address),
    /// Any of the cluster's nodes; they know the others.
    Cluster(Vec<Address>),
}

pub enum Redis {
    Single(Node),
    Cluster(Arc<Cluster>),
}

/// One reply as Redis wrote it, or why there is none.
pub type Reply = Result<Bytes, NoReply>;

impl Redis {
    /// Connects in the background; a Redis that is not there yet is tried again and again.
    pub fn spawn(topology: Topology, dial: Arc<Dial>) -> Redis {
        match topology {
            Topology::Single(address) => Redis::Single(Node::spawn(address, dial)),
            Topology::Cluster(seeds) => Redis::Cluster(Cluster::spawn(seeds, dial)),
        }
    }

    /// One reply for each check request, in order, at the deadline at the latest.
    pub async fn ask(&self, check_requests: Vec<CheckRequest>, deadline: Instant) -> Vec<Reply> {
        match self {
            Redis::Single(node) => {
                let commands = check_requests
                    .into_iter()
                    .map(|check_request| check_request.command);
                ask_node(node, commands.collect(), deadline).await
            }
            Redis::Cluster(cluster) => cluster.ask(check_requests, deadline).await,
        }
    }

    /// The first node that has not answered a PING lately.
    pub fn silent(&self) -> Option<Address> {
        match self {
            Redis::Single(node) => (!node.is_alive()).then(|| node.address.clone()),
            Redis::Cluster(cluster) => cluster.silent(),
        }
    }
}

async fn ask_node(node: &Node, commands: Vec<Bytes>, deadline: Instant) -> Vec<Reply> {
    let count = commands.len();
    if count == 0 {
        return Vec::new();
    }
    match node.ask(commands, deadline).await {
        Ok(replies) => replies.into_iter().map(Ok).collect(),
        Err(silence) => vec![Err(silence); count],
    }
}
