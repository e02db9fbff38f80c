//! A real Redis Cluster of three primaries with one replica each, on loopback.

mod nodes;

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use self::nodes::Node;
use crate::redis_stack::{RedisOptions, RedisStack, Reply};

/// Number of slots of a cluster.
pub const SLOTS: u16 = 16_384;

const PRIMARIES: usize = 3;

/// A test fails if forming a cluster or failing over takes longer than this.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two checks of a changing cluster.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Keys per MIGRATE, and its timeout.
const MIGRATE_BATCH: &str = "1000";
const MIGRATE_TIMEOUT_MS: &str = "10000";

/// RedisOptions for starting a cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// Time without a reply after which a node counts as failed. The failover of a killed primary
    /// begins after one to two of these.
    pub node_timeout_ms: u32,
    /// Whether every write is on disk before it is acknowledged.
    pub append_only: bool,
    /// Additional arguments of every node.
    pub arguments: &'static [&'static str],
}

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions { node_timeout_ms: 5_000, append_only: false, arguments: &[] }
    }
}

/// A cluster; all nodes are killed when it is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// The first three start as primaries, the others as their replicas in the same order.
    nodes: Vec<RedisStack>,
    /// Ports of paused nodes.
    paused: Mutex<BTreeSet<u16>>,
}

impl RedisCluster {
    /// Three primaries with one replica each and no persistence; see [`RedisCluster::with`].
    pub fn start() -> Option<RedisCluster> {
        RedisCluster::with(ClusterOptions::default())
    }

    /// Starts the nodes, joins them and waits until the cluster is healthy
    /// ([`RedisCluster::wait_until_healthy`]). `None` if the test is to be skipped.
    pub fn with(options: ClusterOptions) -> Option<RedisCluster> {
        let node = RedisOptions {
            append_only: options.append_only,
            arguments: options.arguments,
            cluster_node_timeout_ms: Some(options.node_timeout_ms),
            ..RedisOptions::default()
        };
        let nodes = thread::scope(|scope| {
            let starting: Vec<_> =
                (0..2 * PRIMARIES).map(|_| scope.spawn(|| RedisStack::start(node.clone()))).collect();
            starting.into_iter().map(|node| node.join().unwrap()).collect::<Option<Vec<_>>>()
        })?;
        let cluster = RedisCluster { nodes, paused: Mutex::default() };
        cluster.join();
        Some(cluster)
    }

    /// The URL for clients: the nodes that started as primaries.
    pub fn url(&self) -> String {
        let nodes = self.nodes[..PRIMARIES].iter().map(|node| format!("127.0.0.1:{}", node.port()));
        format!("redis-cluster://{}", nodes.collect::<Vec<_>>().join(","))
    }

    /// Ports of all nodes, including killed ones.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(RedisStack::port).collect()
    }

    /// Ports of the running primaries that own slots, in slot order.
    pub fn primaries(&self) -> Vec<u16> {
        let mut primaries: Vec<u16> = Vec::new();
        for owner in self.owners().into_iter().flatten() {
            if !primaries.contains(&owner) {
                primaries.push(owner);
            }
        }
        primaries
    }

    /// Ports of the running replicas.
    pub fn replicas(&self) -> Vec<u16> {
        let replicas = self.self_descriptions().into_iter().filter(|node| !node.is_primary);
        replicas.map(|node| node.port).collect()
    }

    /// Ports of the running replicas of a primary.
    pub fn replicas_of(&self, primary: u16) -> Vec<u16> {
        let id = self.node_id(primary);
        let replicas =
            self.self_descriptions().into_iter().filter(|node| node.primary.as_deref() == Some(&*id));
        replicas.map(|node| node.port).collect()
    }

    /// The primary that owns a slot.
    pub fn owner(&self, slot: u16) -> u16 {
        self.owners()[usize::from(slot)].unwrap_or_else(|| panic!("no running node owns slot {slot}"))
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        match self.any_running().command(&["CLUSTER", "KEYSLOT", key]) {
            Reply::Integer(slot) => u16::try_from(slot).unwrap(),
            other => panic!("CLUSTER KEYSLOT: {other:?}"),
        }
    }

    /// Sends a command to one node over a new connection; does not follow MOVED.
    pub fn command<W: AsRef<[u8]>>(&self, port: u16, words: &[W]) -> Reply {
        self.node(port).command(words)
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self, port: u16) {
        self.node_mut(port).kill();
        self.paused.lock().unwrap().remove(&port);
    }

    /// Sends SIGSTOP.
    pub fn pause(&self, port: u16) {
        self.node(port).pause();
        self.paused.lock().unwrap().insert(port);
    }

    /// Sends SIGCONT.
    pub fn resume(&self, port: u16) {
        self.node(port).resume();
        self.paused.lock().unwrap().remove(&port);
    }

    /// Restarts a node on its port and waits until it replies; the other nodes notice it later. Data
    /// that was not on disk comes from its primary, if it has one: a primary that returns before its
    /// replica took over is empty.
    pub fn restart(&mut self, port: u16) {
        self.node_mut(port).restart();
        self.paused.lock().unwrap().remove(&port);
    }

    /// Migrates slots with their documents between primaries while both serve.
    pub fn migrate_slots(&self, from: u16, to: u16, slots: RangeInclusive<u16>) {
        for slot in slots {
            self.begin_migration(from, to, slot);
            while self.migrate_some(from, to, slot, MIGRATE_BATCH) {}
            self.end_migration(from, to, slot);
        }
    }

    /// Begins a migration: `from` now replies ASK for keys that it no longer has.
    pub fn begin_migration(&self, from: u16, to: u16, slot: u16) {
        let slot = slot.to_string();
        self.expect_ok(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.node_id(from)]);
        self.expect_ok(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.node_id(to)]);
    }

    /// Migrates up to `count` documents of a slot whose migration has begun; returns whether there were any.
    pub fn migrate_some(&self, from: u16, to: u16, slot: u16, count: &str) -> bool {
        let keys = match self.command(from, &["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), count]) {
            Reply::Array(keys) => keys,
            other => panic!("CLUSTER GETKEYSINSLOT: {other:?}"),
        };
        let keys = keys.into_iter().map(|key| match key {
            Reply::Text(key) => key,
            other => panic!("a key: {other:?}"),
        });
        let to = to.to_string();
        let words = ["MIGRATE", "127.0.0.1", &to, "", "0", MIGRATE_TIMEOUT_MS, "KEYS"];
        let mut command: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let without_keys = command.len();
        command.extend(keys);
        let has_keys = command.len() > without_keys;
        if has_keys {
            self.expect_ok(from, &command);
        }
        has_keys
    }

    /// Ends a migration: every primary now knows that `to` owns the slot.
    pub fn end_migration(&self, from: u16, to: u16, slot: u16) {
        let words = ["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &self.node_id(to)];
        self.expect_ok(to, &words);
        self.expect_ok(from, &words);
        for port in self.primaries().into_iter().filter(|port| *port != from && *port != to) {
            self.expect_ok(port, &words);
        }
    }

    /// Closes the client connections of all running nodes; those between nodes stay.
    pub fn close_client_connections(&self) {
        for node in self.running() {
            let reply = node.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            assert!(matches!(reply, Reply::Integer(_)), "CLIENT KILL: {reply:?}");
        }
    }

    /// Waits until every running node serves all slots and sees all running nodes, and every replica
    /// among them is in sync with its primary.
    pub fn wait_until_healthy(&self) {
        self.wait_for("healthy", |cluster| cluster.problems().is_empty());
    }

    /// Waits until a node is a primary, for instance after its own was killed.
    pub fn wait_until_primary(&self, port: u16) {
        self.wait_for("failed over", |cluster| cluster.primaries().contains(&port));
    }

    /// Waits until `condition` is true.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&RedisCluster) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !condition(self) {
            assert!(Instant::now() < deadline, "the cluster is not {what}: {:?}", self.problems());
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn join(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            // Distinct epochs: nodes with equal ones need time to resolve the conflict.
            let epoch = (number + 1).to_string();
            self.expect_ok(node.port(), &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
        }
        for (number, node) in self.nodes[..PRIMARIES].iter().enumerate() {
            let bound = |number: usize| number * usize::from(SLOTS) / PRIMARIES;
            let (first, last) = (bound(number).to_string(), (bound(number + 1) - 1).to_string());
            self.expect_ok(node.port(), &["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        // Introduces every node to every other: gossip alone takes seconds.
        for (number, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[number + 1..] {
                let (port, bus_port) = (other.port().to_string(), other.bus_port().to_string());
                self.expect_ok(node.port(), &["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
            }
        }
        self.wait_for("joined", |cluster| {
            cluster.nodes.iter().all(|node| {
                let seen = nodes::parse(&node.command(&["CLUSTER", "NODES"]));
                seen.len() == cluster.nodes.len() && seen.iter().all(|node| node.linked && !node.in_handshake)
            })
        });
        for (primary, replica) in self.nodes.iter().zip(&self.nodes[PRIMARIES..]) {
            self.expect_ok(replica.port(), &["CLUSTER", "REPLICATE", &self.node_id(primary.port())]);
        }
        self.wait_until_healthy();
    }

    /// Why the cluster is not healthy.
    fn problems(&self) -> Vec<String> {
        let running: Vec<u16> = self.running().map(RedisStack::port).collect();
        let mut problems = Vec::new();
        for node in self.running() {
            let mut add = |what: String| problems.push(format!("{}: {what}", node.port()));
            let info = node.try_command(&["CLUSTER", "INFO"]).map(|reply| nodes::pairs(&reply));
            let replication = node.try_command(&["INFO", "replication"]).map(|reply| nodes::pairs(&reply));
            let seen = node.try_command(&["CLUSTER", "NODES"]).map(|reply| nodes::parse(&reply));
            let (Ok(info), Ok(replication), Ok(seen)) = (info, replication, seen) else {
                add("does not reply".to_owned());
                continue;
            };
            if info["cluster_state"] != "ok" {
                add(format!("state {}", info["cluster_state"]));
            }
            let alive = seen.iter().filter(|node| node.linked && !node.failed && !node.in_handshake);
            if running.iter().any(|port| !alive.clone().any(|node| node.port == *port)) {
                add("does not see all nodes".to_owned());
            }
            let slots: usize = alive.map(Node::slots_count).sum();
            if slots != usize::from(SLOTS) {
                add(format!("{slots} slots are served"));
            }
            if replication.get("master_link_status").is_some_and(|status| status != "up") {
                add("no link to its primary".to_owned());
            }
            // A primary lists its replicas; one is `online` once it is in sync.
            let online = replication.values().filter(|value| value.contains("state=online")).count();
            let port = node.port();
            let id = seen.iter().find(|node| node.port == port).map(|node| node.id.as_str());
            let replicas = seen.iter().filter(|node| !node.failed && node.primary.as_deref() == id).count();
            if online < replicas {
                add(format!("{online} of {replicas} replicas have its data"));
            }
        }
        problems
    }

    /// The owner of each slot according to the primaries themselves: other nodes learn of a change
    /// later, and a restarted primary may not know yet that it lost its slots.
    fn owners(&self) -> Vec<Option<u16>> {
        let mut owners = vec![None; usize::from(SLOTS)];
        let mut primaries: Vec<Node> =
            self.self_descriptions().into_iter().filter(|node| node.is_primary).collect();
        primaries.sort_by_key(|node| node.epoch);
        for primary in primaries {
            for slot in primary.slots.iter().cloned().flatten() {
                owners[usize::from(slot)] = Some(primary.port);
            }
        }
        owners
    }

    /// Every running node, as it describes itself.
    fn self_descriptions(&self) -> Vec<Node> {
        let replies = self.running().filter_map(|node| node.try_command(&["CLUSTER", "NODES"]).ok());
        replies.filter_map(|reply| nodes::parse(&reply).into_iter().find(|node| node.is_myself)).collect()
    }

    /// The id of a node, running or not.
    fn node_id(&self, port: u16) -> String {
        let nodes = nodes::parse(&self.any_running().command(&["CLUSTER", "NODES"]));
        let node = nodes.into_iter().find(|node| node.port == port);
        node.unwrap_or_else(|| panic!("no node on port {port}")).id
    }

    fn expect_ok<W: AsRef<[u8]>>(&self, port: u16, words: &[W]) {
        let reply = self.command(port, words);
        assert!(
            matches!(reply, Reply::Text(_)),
            "{:?}: {reply:?}",
            words.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect::<Vec<_>>()
        );
    }

    fn any_running(&self) -> &RedisStack {
        self.running().next().expect("at least one node is running")
    }

    /// Nodes that are neither killed nor paused.
    fn running(&self) -> impl Iterator<Item = &RedisStack> {
        let paused = self.paused.lock().unwrap().clone();
        self.nodes.iter().filter(move |node| node.is_running() && !paused.contains(&node.port()))
    }

    fn node(&self, port: u16) -> &RedisStack {
        self.nodes.iter().find(|node| node.port() == port).expect("a node of the cluster")
    }

    fn node_mut(&mut self, port: u16) -> &mut RedisStack {
        self.nodes.iter_mut().find(|node| node.port() == port).expect("a node of the cluster")
    }
}
