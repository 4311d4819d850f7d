//! A Redis Cluster of three masters.

use weir_core::store::slot::Slot;

use crate::support::{Redis, Running, add, add_by_source, eventually, resp, sum};

struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    async fn start() -> Cluster {
        let mut nodes = Vec::new();
        for range in [0..=5460, 5461..=10922, 10923..=16383] {
            let node = Redis::start(&["--cluster-enabled", "yes"]);
            // Not ADDSLOTSRANGE, which Redis 6 does not know.
            let slots: String = range.map(|slot: u16| format!(" {slot}")).collect();
            let added = node.ask_line(&format!("CLUSTER ADDSLOTS{slots}")).await;
            assert_eq!(added, "+OK\r\n");
            nodes.push(node);
        }
        for (generation, node) in nodes.iter().enumerate() {
            node.ask_line(&format!("CLUSTER SET-CONFIG-EPOCH {}", generation + 1))
                .await;
        }
        for node in &nodes[1..] {
            nodes[0]
                .ask_line(&format!("CLUSTER MEET 127.0.0.1 {}", node.port))
                .await;
        }
        for node in &nodes {
            eventually("the nodes agree", async || {
                let info = node.ask_line("CLUSTER INFO").await;
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
            .await;
        }
        Cluster { nodes }
    }

    async fn id(&self, node: usize) -> String {
        let id = self.nodes[node].ask_line("CLUSTER MYID").await;
        id.lines().nth(1).unwrap().to_owned()
    }

    async fn all(&self, line: &str) {
        for node in &self.nodes {
            assert_eq!(node.ask_line(line).await, "+OK\r\n", "{line}");
        }
    }

    async fn sidecar(&self) -> Running {
        // One seed: the others it must find.
        let url = format!("redis://127.0.0.1:{}", self.nodes[0].port);
        let sidecar = Running::with(&["--cluster", "--redis", &url]).await;
        sidecar.is_healthy().await;
        sidecar
    }
}

#[tokio::test]
async fn commands_find_their_nodes_and_replies_their_places() {
    let cluster = Cluster::start().await;
    let sidecar = cluster.sidecar().await;
    let keys: Vec<String> = (0..60).map(|id| format!("weir:2:{{u:{id}}}:x")).collect();
    let owner = |key: &str| usize::from(Slot::of(key.as_bytes()).0) / 5461;
    assert!((0..3).all(|node| keys.iter().any(|key| owner(key).min(2) == node)));

    let first: Vec<u8> = keys.iter().flat_map(|key| add_by_source(key, 1)).collect();
    assert_eq!(sidecar.post(&first).await, sum(1, 1).repeat(60));
    let mut commands = Vec::new();
    let mut expected = String::new();
    for (id, key) in (0..).zip(&keys) {
        commands.extend(add(key, id));
        expected += &sum(id + 1, id);
    }
    commands.extend(resp("PING"));
    expected += "-ERR weir-sidecar: only EVALSHA, EVAL and reads of the policy are served\r\n";
    assert_eq!(sidecar.post(&commands).await, expected);
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_and_nothing_counts_twice() {
    let cluster = Cluster::start().await;
    let sidecar = cluster.sidecar().await;
    let key = "weir:2:{u:moving}:x";
    let (from, slot) = (
        usize::from(Slot::of(key.as_bytes()).0) / 5461,
        Slot::of(key.as_bytes()).0,
    );
    let (from, to) = (from.min(2), (from.min(2) + 1) % 3);
    assert_eq!(sidecar.post(&add_by_source(key, 1)).await, sum(1, 1));

    // While it migrates, a key that is not here any more is asked for there.
    let (from_id, to_id) = (cluster.id(from).await, cluster.id(to).await);
    let importing = format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}");
    assert_eq!(cluster.nodes[to].ask_line(&importing).await, "+OK\r\n");
    let migrating = format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}");
    assert_eq!(cluster.nodes[from].ask_line(&migrating).await, "+OK\r\n");
    let migrate = format!("MIGRATE 127.0.0.1 {} {key} 0 5000", cluster.nodes[to].port);
    assert_eq!(cluster.nodes[from].ask_line(&migrate).await, "+OK\r\n");
    let asked = String::from_utf8(cluster.nodes[from].ask(&add_by_source(key, 1)).await).unwrap();
    assert!(asked.starts_with("-ASK "), "{asked}");
    assert_eq!(sidecar.post(&add_by_source(key, 1)).await, sum(2, 1));
    assert_eq!(
        sidecar.post(&add_by_source(key, 1).repeat(2)).await,
        sum(3, 1) + &sum(4, 1)
    );

    // When it has moved, the old owner says so.
    cluster
        .all(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"))
        .await;
    let moved = String::from_utf8(cluster.nodes[from].ask(&add(key, 1)).await).unwrap();
    assert!(moved.starts_with("-MOVED "), "{moved}");
    for total in 5..8 {
        assert_eq!(sidecar.post(&add(key, 1)).await, sum(total, 1));
    }
}

#[tokio::test]
async fn a_dead_shard_is_told_of_and_the_others_go_on() {
    let mut cluster = Cluster::start().await;
    // A cluster that has lost slots still serves the others only if it is told to.
    cluster
        .all("CONFIG SET cluster-require-full-coverage no")
        .await;
    let sidecar = cluster.sidecar().await;
    let key_of = |node: usize| {
        (0..)
            .map(|id| format!("weir:2:{{u:{id}}}:x"))
            .find(|key| (usize::from(Slot::of(key.as_bytes()).0) / 5461).min(2) == node)
            .unwrap()
    };
    let (dead, alive) = (key_of(2), key_of(0));
    let commands = [add_by_source(&dead, 1), add_by_source(&alive, 0)].concat();
    assert_eq!(sidecar.post(&commands).await, sum(1, 1) + &sum(0, 0));
    cluster.nodes[2].lab.stop();
    eventually("the dead shard is told of", async || {
        let told = sidecar.post(&commands).await;
        told.starts_with("-UNREACHABLE weir-sidecar: 127.0.0.1:") && told.ends_with(&sum(0, 0))
    })
    .await;
    eventually("health tells", async || sidecar.health().await.0 == 503).await;
}
