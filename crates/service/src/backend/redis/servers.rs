//! The servers that hold the documents and the slot map: one Redis server, or the primaries of a
//! cluster.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures_util::{FutureExt, future::join_all};
use redis::{Cmd, Pipeline, Value};
use tokio::sync::Notify;

use super::{
    Error,
    address::{Address, Addresses},
    connections, error,
    node::Node,
    reply,
    script::Script,
    slots::{self, Redirection, SLOTS, SlotRange, slot},
};
use crate::{
    RedisStore,
    sync::{Arc, AtomicUsize, Mutex, Ordering},
};

/// `WAIT` timeout for replicas that missed the previous one.
const LAGGING_WAIT: Duration = Duration::from_millis(20);

/// How long slots count as migrating after the last sign of a migration.
const MIGRATION_WINDOW: Duration = Duration::from_secs(5);

/// Redirections one command follows before it fails.
const REDIRECTIONS_MAX: usize = 5;

/// All servers of the store.
#[derive(Debug)]
pub(super) struct Servers {
    store: RedisStore,
    seeds: Vec<Address>,
    is_cluster: bool,
    /// By address: the servers of the slot map, and others that commands were redirected to.
    nodes: Mutex<BTreeMap<String, Arc<Node>>>,
    map: ArcSwap<SlotMap>,
    /// Counter for the round-robin choice of the server to fetch the slot map from.
    next_map_source: AtomicUsize,
    /// Counter for the round-robin choice of a shard.
    next_shard: AtomicUsize,
    /// Counter for the round-robin choice of a shard's replica.
    next_replica: AtomicUsize,
    /// Wakes the supervisor.
    pub(super) wake_supervisor: Arc<Notify>,
    pub(super) script: Script,
    /// When a slot migration was last noticed.
    last_migration_seen: Mutex<Option<Instant>>,
}

/// Which shard holds which slots, as of the last refresh.
#[derive(Debug, Default)]
pub(super) struct SlotMap {
    /// In order of their lowest slots.
    shards: Vec<Arc<Shard>>,
}

/// A primary with its replicas and the slots it serves.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) primary: Arc<Node>,
    /// Empty unless reads from replicas are enabled.
    replicas: Vec<Arc<Node>>,
    /// First and last slot of each range; empty for a single server, which holds all keys.
    ranges: Vec<(u16, u16)>,
}

/// A shard, and the positions in a list of keys of those that it holds.
pub(super) type KeyGroup = (Arc<Shard>, Vec<usize>);

impl Shard {
    pub(super) fn holds(&self, slot: u16) -> bool {
        self.ranges.is_empty() || self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    /// The highest slot it serves. Resharding tools move the lowest slots first.
    pub(super) fn last_slot(&self) -> Option<u16> {
        self.ranges.iter().map(|(_, last)| *last).max()
    }

    /// Its address.
    pub(super) fn name(&self) -> String {
        self.primary.address().to_string()
    }

    /// Adds the shard's address to an error if there are several shards.
    pub(super) fn with_shard(&self, error: Error) -> Error {
        if self.ranges.is_empty() || error.message.contains(&self.name()) {
            return error;
        }
        Error { message: format!("shard {}: {}", self.name(), error.message), ..error }
    }

    /// A healthy replica in turn, or else the primary.
    fn read_node(&self, turn: usize) -> &Arc<Node> {
        let healthy = |node: &&Arc<Node>| node.connections.unavailable_reason().is_none();
        let replicas = self.replicas.iter().filter(healthy).count();
        match replicas {
            0 => &self.primary,
            _ => self.replicas.iter().filter(healthy).nth(turn % replicas).unwrap_or(&self.primary),
        }
    }
}

impl SlotMap {
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The shard that serves a slot.
    fn shard_for_slot(&self, slot: u16) -> Result<&Arc<Shard>, Error> {
        self.shards.iter().find(|shard| shard.holds(slot)).ok_or_else(|| error::slot_unserved(slot))
    }

    /// The shard that holds a key.
    pub(super) fn shard_for_key(&self, key: &[u8]) -> Result<&Arc<Shard>, Error> {
        match self.shards.as_slice() {
            [only] if only.ranges.is_empty() => Ok(only),
            _ => self.shard_for_slot(slot(key)),
        }
    }

    /// Groups keys by shard; also returns the keys that no shard serves, with the error.
    pub(super) fn group_by_shard<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> (Vec<KeyGroup>, Vec<(usize, Error)>) {
        let (mut groups, mut unserved) = (Vec::<KeyGroup>::new(), Vec::new());
        let mut group_of_shard: HashMap<*const Shard, usize> = HashMap::with_capacity(self.shards.len());
        for (position, key) in keys.enumerate() {
            match self.shard_for_key(key) {
                Ok(shard) => {
                    let group = *group_of_shard.entry(Arc::as_ptr(shard)).or_insert_with(|| {
                        groups.push((shard.clone(), Vec::new()));
                        groups.len() - 1
                    });
                    groups[group].1.push(position);
                }
                Err(error) => unserved.push((position, error)),
            }
        }
        (groups, unserved)
    }

    /// A hash that changes when slots move or a primary is replaced.
    pub(super) fn fingerprint(&self) -> u64 {
        // DefaultHasher::new has fixed keys: a scroll cursor must stay valid across restarts.
        let mut hasher = DefaultHasher::new();
        for shard in &self.shards {
            if !shard.ranges.is_empty() {
                (shard.name(), &shard.ranges).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// The number of slots without a server.
    fn unserved(&self) -> u16 {
        if self.shards.iter().any(|shard| shard.ranges.is_empty()) {
            return 0;
        }
        // The ranges in a reply may overlap: none of it is trusted to be consistent.
        let ranges = self.shards.iter().flat_map(|shard| &shard.ranges);
        let served: u32 = ranges.map(|(first, last)| u32::from(last - first) + 1).sum();
        u16::try_from(u32::from(SLOTS).saturating_sub(served)).expect("at most all slots")
    }
}

impl Servers {
    /// Does not connect yet.
    pub(super) fn new(store: &RedisStore) -> Result<Servers, Error> {
        connections::describe_metrics();
        let Addresses { seeds, is_cluster } = Addresses::parse(&store.url)?;
        let servers = Servers {
            store: store.clone(),
            is_cluster,
            nodes: Mutex::default(),
            map: ArcSwap::default(),
            next_map_source: AtomicUsize::new(0),
            next_shard: AtomicUsize::new(0),
            next_replica: AtomicUsize::new(0),
            wake_supervisor: Arc::default(),
            script: Script::new(),
            last_migration_seen: Mutex::default(),
            seeds,
        };
        if !is_cluster {
            let primary = servers.node(&servers.seeds[0]);
            let shard = Shard { primary, replicas: Vec::new(), ranges: Vec::new() };
            servers.map.store(Arc::new(SlotMap { shards: vec![Arc::new(shard)] }));
        }
        Ok(servers)
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    pub(super) fn store(&self) -> &RedisStore {
        &self.store
    }

    pub(super) fn map(&self) -> Arc<SlotMap> {
        self.map.load_full()
    }

    /// The server for a read that a replica may answer.
    pub(super) fn read_node(&self, shard: &Shard) -> Arc<Node> {
        shard.read_node(self.next_replica.fetch_add(1, Ordering::Relaxed)).clone()
    }

    /// Any shard, round-robin, preferring healthy ones.
    pub(super) fn any_shard(&self, map: &SlotMap) -> Result<Arc<Shard>, Error> {
        let turn = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let count = map.shards.len();
        let round_robin = || (0..count).map(|step| &map.shards[(turn + step) % count]);
        let healthy = round_robin().find(|shard| shard.primary.connections.unavailable_reason().is_none());
        let any = healthy.or_else(|| round_robin().next());
        any.cloned()
            .ok_or_else(|| self.unavailable_reason().unwrap_or_else(|| error::connecting(&self.seeds[0])))
    }

    /// Why some keys cannot be served, if that is the case.
    pub(super) fn unavailable_reason(&self) -> Option<Error> {
        let map = self.map.load();
        if map.shards.is_empty() {
            return Some(self.seed_unavailable_reason().unwrap_or_else(|| error::connecting(&self.seeds[0])));
        }
        let shard_error = |shard: &Arc<Shard>| {
            shard.primary.connections.unavailable_reason().map(|error| shard.with_shard(error))
        };
        map.shards.iter().find_map(shard_error).or_else(|| {
            let unserved = map.unserved();
            (unserved > 0).then(|| error::incomplete(unserved))
        })
    }

    fn seed_unavailable_reason(&self) -> Option<Error> {
        let nodes = self.nodes.lock();
        self.seeds.iter().find_map(|seed| nodes.get(&seed.to_string())?.connections.unavailable_reason())
    }

    /// The node of an address, created if it is new.
    fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        let node = || Arc::new(Node::new(address.clone(), &self.store, self.wake_supervisor.clone()));
        nodes.entry(address.to_string()).or_insert_with(node).clone()
    }

    /// Whether documents may be moving between shards. A search may then miss a document that left one
    /// shard after, and reached another before, they were searched.
    pub(super) fn is_migrating(&self) -> bool {
        self.last_migration_seen.lock().is_some_and(|at| at.elapsed() < MIGRATION_WINDOW)
    }

    fn record_migration(&self) {
        *self.last_migration_seen.lock() = Some(Instant::now());
    }

    /// Fetches the slot map of a cluster; `true` if it changed.
    pub(super) async fn refresh_map(&self) -> Result<bool, Error> {
        if !self.is_cluster {
            return Ok(false);
        }
        let map = self.map();
        let healthy =
            map.shards.iter().filter(|shard| shard.primary.connections.unavailable_reason().is_none());
        let migrating = join_all(healthy.map(|shard| shard.primary.is_migrating_slots())).await;
        if migrating.iter().any(|migrating| matches!(migrating, Ok(true))) {
            self.record_migration();
        }
        let turn = self.next_map_source.fetch_add(1, Ordering::Relaxed);
        let count = map.shards.len();
        let primaries = (0..count).map(|step| map.shards[(turn + step) % count].primary.clone());
        // Unavailable nodes are skipped: their view is out of date.
        let healthy = primaries.filter(|node| node.connections.unavailable_reason().is_none());
        let mut last_error = None;
        for node in healthy.chain(self.seeds.iter().map(|seed| self.node(seed))) {
            match self.fetch_map(&node).await {
                Ok(ranges) if !ranges.is_empty() => return self.replace_map(&node, ranges),
                Ok(_) => last_error = Some(error::incomplete(SLOTS)),
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| error::connecting(&self.seeds[0])))
    }

    async fn fetch_map(&self, node: &Node) -> Result<Vec<SlotRange>, Error> {
        if node.connections.unavailable_reason().is_some() {
            node.health_check(true, &self.script, self.is_cluster).await?;
        }
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        slots::parse_ranges(node.connections.send_bypassing_breaker(&command, node.probe_timeout()).await?)
    }

    /// Installs the slot map that a server replied; `true` if it changed.
    fn replace_map(&self, source: &Node, ranges: Vec<SlotRange>) -> Result<bool, Error> {
        let mut shards: Vec<Shard> = Vec::new();
        for SlotRange { first, last, servers } in ranges {
            let mut nodes = Vec::with_capacity(servers.len());
            for (host, port) in servers {
                nodes.push(self.node(&source.address().with_host(&host, port)?));
                if !self.store.read_from_replicas {
                    break;
                }
            }
            let primary = nodes.remove(0);
            match shards.iter_mut().find(|shard| Arc::ptr_eq(&shard.primary, &primary)) {
                Some(shard) => shard.ranges.push((first, last)),
                None => shards.push(Shard { primary, replicas: nodes, ranges: vec![(first, last)] }),
            }
        }
        let same_replicas = |old: &Shard, new: &Shard| {
            old.replicas.len() == new.replicas.len()
                && old.replicas.iter().zip(&new.replicas).all(|(old, new)| Arc::ptr_eq(old, new))
        };
        let old = self.map();
        let new = SlotMap { shards: shards.into_iter().map(Arc::new).collect() };
        let is_changed = old.fingerprint() != new.fingerprint();
        if is_changed || !old.shards.iter().zip(&new.shards).all(|(old, new)| same_replicas(old, new)) {
            let names: Vec<String> = new.shards.iter().map(|shard| shard.name()).collect();
            tracing::info!(primaries = names.join(", "), "updated the cluster's slot map");
            if !old.shards.is_empty() {
                self.record_migration();
            }
            self.map.store(Arc::new(new));
            let serving_nodes = self.serving_nodes();
            self.nodes
                .lock()
                .retain(|_, node| serving_nodes.iter().any(|serving| Arc::ptr_eq(serving, node)));
        }
        Ok(is_changed)
    }

    /// The servers of the slot map, with replicas if reads from replicas are enabled.
    fn serving_nodes(&self) -> Vec<Arc<Node>> {
        let map = self.map.load();
        map.shards
            .iter()
            .flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
            .cloned()
            .collect()
    }

    /// Checks all servers. Returns for each primary whether it may have been replaced, or why it is
    /// unavailable.
    pub(super) async fn health_check(&self, reload_info: bool) -> Vec<Result<bool, Error>> {
        let map = self.map.load();
        let primaries: Vec<Arc<Node>> = map.shards.iter().map(|shard| shard.primary.clone()).collect();
        let serving_nodes = self.serving_nodes();
        let checked = join_all(
            serving_nodes.iter().map(|node| node.health_check(reload_info, &self.script, self.is_cluster)),
        )
        .await;
        let of_primary = |node: &Arc<Node>| primaries.iter().any(|primary| Arc::ptr_eq(primary, node));
        serving_nodes
            .iter()
            .zip(checked)
            .filter(|(node, _)| of_primary(node))
            .map(|(_, checked)| checked)
            .collect()
    }

    /// Sends one command to the server that holds this key.
    pub(super) async fn send(&self, key: &[u8], command: &Cmd) -> Result<Value, Error> {
        let map = self.map();
        let shard = self.shard(&map, key)?;
        let sent = async {
            let value = shard.primary.connections.send(command).await?;
            into_result(self.follow_redirections(&shard.primary, command, value, 0).await?)
        };
        sent.await.map_err(|error| shard.with_shard(error))
    }

    /// Sends a pipeline to one server and follows redirections. Returns a reply or error per command;
    /// with `replicas`, fails unless that many replicas acknowledge the writes.
    pub(super) async fn send_pipeline(
        &self,
        node: &Arc<Node>,
        commands: &Pipeline,
        bytes: usize,
        replicas: usize,
    ) -> Result<Vec<Result<Value, Error>>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut replies = if replicas == 0 {
            node.connections.send_pipeline(commands, bytes).await?
        } else {
            let mut with_wait = commands.clone();
            with_wait.add_command(self.wait_command(node, replicas));
            let mut replies = node.connections.send_pipeline(&with_wait, bytes).await?;
            check_replicas(node, replies.pop().expect("one reply per command"), replicas)?;
            replies
        };
        let mut results = Vec::with_capacity(replies.len());
        for (command, reply) in commands.cmd_iter().zip(replies.drain(..)) {
            results.push(self.follow_redirections(node, command, reply, replicas).await);
        }
        Ok(results)
    }

    /// Loads the script on a server, and on those that its commands may be redirected to.
    pub(super) async fn load_script(&self, node: &Node) -> Result<(), Error> {
        into_result(node.connections.send(&self.script.load()).await?)?;
        for shard in self.map().shards().iter().filter(|shard| !std::ptr::eq(&*shard.primary, node)) {
            // If this fails, the commands that follow report it.
            let _ = shard.primary.connections.send(&self.script.load()).await;
        }
        Ok(())
    }

    /// The reply to a command after following its redirections.
    async fn follow_redirections(
        &self,
        node: &Arc<Node>,
        command: &Cmd,
        mut reply: Value,
        replicas: usize,
    ) -> Result<Value, Error> {
        if !self.is_cluster {
            return Ok(reply);
        }
        let mut from = node.clone();
        for _ in 0..REDIRECTIONS_MAX {
            let Some(to) = Redirection::parse(&reply) else { return Ok(reply) };
            self.record_migration();
            let node = self.node(&from.address().with_host(&to.host, to.port)?);
            if !to.is_ask {
                self.wake_supervisor.notify_one();
            }
            if node.server().is_none() && node.connections.unavailable_reason().is_some() {
                node.health_check(true, &self.script, self.is_cluster).boxed().await?;
            }
            let mut pipeline = Pipeline::with_capacity(3);
            if to.is_ask {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(command.clone());
            if replicas > 0 {
                pipeline.add_command(self.wait_command(&node, replicas));
            }
            let mut replies = node.connections.send_pipeline(&pipeline, 0).await?;
            if replicas > 0 {
                check_replicas(&node, replies.pop().expect("one reply per command"), replicas)?;
            }
            reply = replies.pop().expect("one reply per command");
            from = node;
        }
        Err(error::too_many_redirections())
    }

    /// `WAIT` with a timeout far below the command timeout, since it blocks the other commands of its
    /// connection.
    fn wait_command(&self, node: &Node, replicas: usize) -> Cmd {
        let time = if node.replicas_lag.load(Ordering::Relaxed) {
            LAGGING_WAIT
        } else {
            self.store.command_timeout / 4
        };
        let mut command = redis::cmd("WAIT");
        command.arg(replicas).arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
        command
    }

    fn shard<'m>(&self, map: &'m SlotMap, key: &[u8]) -> Result<&'m Arc<Shard>, Error> {
        if map.shards.is_empty() {
            return Err(self.unavailable_reason().unwrap_or_else(|| error::connecting(&self.seeds[0])));
        }
        map.shard_for_key(key)
    }

    /// Closes all connections.
    pub(super) fn close(&self) {
        for node in self.nodes.lock().values() {
            node.connections.close();
        }
    }
}

/// Checks the reply to `WAIT`.
fn check_replicas(node: &Node, reply: Value, replicas: usize) -> Result<(), Error> {
    let count = reply::integer(reply, "WAIT")?;
    let is_replicated = usize::try_from(count).is_ok_and(|count| count >= replicas);
    node.replicas_lag.store(!is_replicated, Ordering::Relaxed);
    if is_replicated {
        return Ok(());
    }
    Err(error::not_replicated(count, replicas))
}

/// Turns an error reply into an error.
pub(super) fn into_result(value: Value) -> Result<Value, Error> {
    match value {
        Value::ServerError(reply) => Err(error::server(&reply)),
        value => Ok(value),
    }
}
