//! The servers that hold the documents, and which of them holds what: one Redis, or the primaries of a
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

/// How long replicas are waited for that did not follow the last time.
const LAGGING_WAIT: Duration = Duration::from_millis(20);

/// How long slots are taken to move after the last sign of it.
const MIGRATION_WINDOW: Duration = Duration::from_secs(5);

/// Servers one command is sent to, one after the other, before it is given up.
const REDIRECTIONS_MAX: usize = 5;

/// The servers.
#[derive(Debug)]
pub(super) struct Servers {
    store: RedisStore,
    seeds: Vec<Address>,
    is_cluster: bool,
    /// By address: those of the map, and others commands were redirected to.
    nodes: Mutex<BTreeMap<String, Arc<Node>>>,
    map: ArcSwap<SlotMap>,
    /// Whose turn it is to tell the map.
    next_map_source: AtomicUsize,
    /// Whose turn it is to answer what any shard can.
    next_shard: AtomicUsize,
    /// Whose turn it is of a shard's replicas.
    next_replica: AtomicUsize,
    /// Wakes whoever looks after servers and collections.
    pub(super) wake_supervisor: Arc<Notify>,
    pub(super) script: Script,
    /// When a sign was last seen that slots move.
    last_migration_seen: Mutex<Option<Instant>>,
}

/// Who holds which keys, as it was last seen.
#[derive(Debug, Default)]
pub(super) struct SlotMap {
    /// In the order of their lowest slots.
    shards: Vec<Arc<Shard>>,
}

/// A part of the keys, and who serves it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) primary: Arc<Node>,
    /// Only where they are asked.
    replicas: Vec<Arc<Node>>,
    /// From the first to the last slot; empty for a server that holds all keys.
    ranges: Vec<(u16, u16)>,
}

/// Some of several keys, by their positions, and the shard that holds them.
pub(super) type KeyGroup = (Arc<Shard>, Vec<usize>);

impl Shard {
    pub(super) fn holds(&self, slot: u16) -> bool {
        self.ranges.is_empty() || self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    /// The highest slot it holds. Whoever takes slots away begins with the lowest.
    pub(super) fn last_slot(&self) -> Option<u16> {
        self.ranges.iter().map(|(_, last)| *last).max()
    }

    /// How it is called.
    pub(super) fn name(&self) -> String {
        self.primary.address().to_string()
    }

    /// An error of this shard, which has to be named where there are others.
    pub(super) fn with_shard(&self, error: Error) -> Error {
        if self.ranges.is_empty() || error.message.contains(&self.name()) {
            return error;
        }
        Error { message: format!("shard {}: {}", self.name(), error.message), ..error }
    }

    /// Who is asked what a replica may answer.
    fn read_node(&self, turn: usize) -> &Arc<Node> {
        let well = |node: &&Arc<Node>| node.connections.unavailable_reason().is_none();
        let replicas = self.replicas.iter().filter(well).count();
        match replicas {
            0 => &self.primary,
            _ => self.replicas.iter().filter(well).nth(turn % replicas).unwrap_or(&self.primary),
        }
    }
}

impl SlotMap {
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The shard that holds a slot.
    fn shard_for_slot(&self, slot: u16) -> Result<&Arc<Shard>, Error> {
        self.shards.iter().find(|shard| shard.holds(slot)).ok_or_else(|| error::unserved(slot))
    }

    /// The shard that holds a key.
    pub(super) fn shard_for_key(&self, key: &[u8]) -> Result<&Arc<Shard>, Error> {
        match self.shards.as_slice() {
            [only] if only.ranges.is_empty() => Ok(only),
            _ => self.shard_for_slot(slot(key)),
        }
    }

    /// Which of these keys each shard holds, by their positions; and those that no shard holds now.
    pub(super) fn group_by_shard<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> (Vec<KeyGroup>, Vec<(usize, Error)>) {
        let (mut parts, mut unserved) = (Vec::<KeyGroup>::new(), Vec::new());
        let mut places: HashMap<*const Shard, usize> = HashMap::with_capacity(self.shards.len());
        for (position, key) in keys.enumerate() {
            match self.shard_for_key(key) {
                Ok(shard) => {
                    let place = *places.entry(Arc::as_ptr(shard)).or_insert_with(|| {
                        parts.push((shard.clone(), Vec::new()));
                        parts.len() - 1
                    });
                    parts[place].1.push(position);
                }
                Err(error) => unserved.push((position, error)),
            }
        }
        (parts, unserved)
    }

    /// A number that is another after slots have moved or a primary was replaced.
    pub(super) fn fingerprint(&self) -> u64 {
        // Fixed keys: a place in a scroll outlives this process.
        let mut hasher = DefaultHasher::new();
        for shard in &self.shards {
            if !shard.ranges.is_empty() {
                (shard.name(), &shard.ranges).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Slots nobody serves.
    fn unserved(&self) -> u16 {
        if self.shards.iter().any(|shard| shard.ranges.is_empty()) {
            return 0;
        }
        // A server may tell of more than there are: none of it is trusted to add up.
        let ranges = self.shards.iter().flat_map(|shard| &shard.ranges);
        let served: u32 = ranges.map(|(first, last)| u32::from(last - first) + 1).sum();
        u16::try_from(u32::from(SLOTS).saturating_sub(served)).expect("at most all slots")
    }
}

impl Servers {
    /// None is connected to yet.
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

    /// Who answers what a replica may answer, if replicas may be asked.
    pub(super) fn read_node(&self, shard: &Shard) -> Arc<Node> {
        shard.read_node(self.next_replica.fetch_add(1, Ordering::Relaxed)).clone()
    }

    /// Any shard, another one each time, of those that are well if any is.
    pub(super) fn any_shard(&self, map: &SlotMap) -> Result<Arc<Shard>, Error> {
        let turn = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let count = map.shards.len();
        let in_turn = || (0..count).map(|step| &map.shards[(turn + step) % count]);
        let well = in_turn().find(|shard| shard.primary.connections.unavailable_reason().is_none());
        let any = well.or_else(|| in_turn().next());
        any.cloned()
            .ok_or_else(|| self.unavailable_reason().unwrap_or_else(|| error::connecting(&self.seeds[0])))
    }

    /// Why not everything can be asked, if it cannot.
    pub(super) fn unavailable_reason(&self) -> Option<Error> {
        let map = self.map.load();
        if map.shards.is_empty() {
            return Some(self.seed_obstacle().unwrap_or_else(|| error::connecting(&self.seeds[0])));
        }
        let of_shard = |shard: &Arc<Shard>| {
            shard.primary.connections.unavailable_reason().map(|obstacle| shard.with_shard(obstacle))
        };
        map.shards.iter().find_map(of_shard).or_else(|| {
            let unserved = map.unserved();
            (unserved > 0).then(|| error::incomplete(unserved))
        })
    }

    fn seed_obstacle(&self) -> Option<Error> {
        let nodes = self.nodes.lock();
        self.seeds.iter().find_map(|seed| nodes.get(&seed.to_string())?.connections.unavailable_reason())
    }

    /// The server at an address.
    fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        let node = || Arc::new(Node::new(address.clone(), &self.store, self.wake_supervisor.clone()));
        nodes.entry(address.to_string()).or_insert_with(node).clone()
    }

    /// Whether documents may be on their way from shard to shard: then one that is not on the first may
    /// have left it for a second that was asked before it came.
    pub(super) fn is_migrating(&self) -> bool {
        self.last_migration_seen.lock().is_some_and(|at| at.elapsed() < MIGRATION_WINDOW)
    }

    fn record_migration(&self) {
        *self.last_migration_seen.lock() = Some(Instant::now());
    }

    /// Looks at the map of a cluster anew; `true` if it is another.
    pub(super) async fn refresh_map(&self) -> Result<bool, Error> {
        if !self.is_cluster {
            return Ok(false);
        }
        let map = self.map();
        let well = map.shards.iter().filter(|shard| shard.primary.connections.unavailable_reason().is_none());
        let moving = join_all(well.map(|shard| shard.primary.is_migrating_slots())).await;
        if moving.iter().any(|moving| matches!(moving, Ok(true))) {
            self.record_migration();
        }
        let turn = self.next_map_source.fetch_add(1, Ordering::Relaxed);
        let count = map.shards.len();
        let known = (0..count).map(|step| map.shards[(turn + step) % count].primary.clone());
        // One that has fallen silent knows least.
        let well = known.filter(|node| node.connections.unavailable_reason().is_none());
        let mut trouble = None;
        for node in well.chain(self.seeds.iter().map(|seed| self.node(seed))) {
            match self.fetch_map(&node).await {
                Ok(ranges) if !ranges.is_empty() => return self.replace_map(&node, ranges),
                Ok(_) => trouble = Some(error::incomplete(SLOTS)),
                Err(error) => trouble = Some(error),
            }
        }
        Err(trouble.unwrap_or_else(|| error::connecting(&self.seeds[0])))
    }

    async fn fetch_map(&self, node: &Node) -> Result<Vec<SlotRange>, Error> {
        if node.connections.unavailable_reason().is_some() {
            node.health_check(true, &self.script, self.is_cluster).await?;
        }
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        slots::parse_ranges(node.connections.send_unguarded(&command, node.probe_timeout()).await?)
    }

    /// Puts the map in place that `told` by this server; `true` if it is another.
    fn replace_map(&self, told: &Node, ranges: Vec<SlotRange>) -> Result<bool, Error> {
        let mut shards: Vec<Shard> = Vec::new();
        for SlotRange { first, last, servers } in ranges {
            let mut nodes = Vec::with_capacity(servers.len());
            for (host, port) in servers {
                nodes.push(self.node(&told.address().sibling(&host, port)?));
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
        let is_another = old.fingerprint() != new.fingerprint();
        if is_another || !old.shards.iter().zip(&new.shards).all(|(old, new)| same_replicas(old, new)) {
            let names: Vec<String> = new.shards.iter().map(|shard| shard.name()).collect();
            tracing::info!(primaries = names.join(", "), "the cluster's slots are served by");
            if !old.shards.is_empty() {
                self.record_migration();
            }
            self.map.store(Arc::new(new));
            let serving_nodes = self.serving_nodes();
            self.nodes
                .lock()
                .retain(|_, node| serving_nodes.iter().any(|serving_nodes| Arc::ptr_eq(serving_nodes, node)));
        }
        Ok(is_another)
    }

    /// The servers of the map, replicas only where they are asked.
    fn serving_nodes(&self) -> Vec<Arc<Node>> {
        let map = self.map.load();
        map.shards
            .iter()
            .flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
            .cloned()
            .collect()
    }

    /// Looks after the connections of every server; for each primary whether it may be another than
    /// before, or why it cannot be asked.
    pub(super) async fn health_check(&self, reload_info: bool) -> Vec<Result<bool, Error>> {
        let map = self.map.load();
        let primaries: Vec<Arc<Node>> = map.shards.iter().map(|shard| shard.primary.clone()).collect();
        let serving_nodes = self.serving_nodes();
        let attended = join_all(
            serving_nodes.iter().map(|node| node.health_check(reload_info, &self.script, self.is_cluster)),
        )
        .await;
        let of_primary = |node: &Arc<Node>| primaries.iter().any(|primary| Arc::ptr_eq(primary, node));
        serving_nodes
            .iter()
            .zip(attended)
            .filter(|(node, _)| of_primary(node))
            .map(|(_, attended)| attended)
            .collect()
    }

    /// Sends one command to whoever holds this key.
    pub(super) async fn send(&self, key: &[u8], command: &Cmd) -> Result<Value, Error> {
        let map = self.map();
        let shard = self.shard(&map, key)?;
        let asked = async {
            let value = shard.primary.connections.send(command).await?;
            into_result(self.follow_redirections(&shard.primary, command, value, 0).await?)
        };
        asked.await.map_err(|error| shard.with_shard(error))
    }

    /// Sends commands together to one server, and each that is redirected to where that leads. What
    /// each replies, or refuses; with `replicas`, once so many of them have taken in what was written.
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
            let mut waited_for = commands.clone();
            waited_for.add_command(self.wait_command(node, replicas));
            let mut replies = node.connections.send_pipeline(&waited_for, bytes).await?;
            check_replicas(node, replies.pop().expect("a reply to each"), replicas)?;
            replies
        };
        let mut told = Vec::with_capacity(replies.len());
        for (command, reply) in commands.cmd_iter().zip(replies.drain(..)) {
            told.push(self.follow_redirections(node, command, reply, replicas).await);
        }
        Ok(told)
    }

    /// Has a server know the script, and others that its commands are redirected to.
    pub(super) async fn load_script(&self, node: &Node) -> Result<(), Error> {
        into_result(node.connections.send(&self.script.load()).await?)?;
        for shard in self.map().shards().iter().filter(|shard| !std::ptr::eq(&*shard.primary, node)) {
            // One that does not answer tells when it is asked for more than this.
            let _ = shard.primary.connections.send(&self.script.load()).await;
        }
        Ok(())
    }

    /// The reply to a command, wherever its server says that has to be asked for.
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
            let node = self.node(&from.address().sibling(&to.host, to.port)?);
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
                check_replicas(&node, replies.pop().expect("a reply to each"), replicas)?;
            }
            reply = replies.pop().expect("a reply to each");
            from = node;
        }
        Err(error::moving())
    }

    /// `WAIT`, for far less long than a command may take: it holds up what else is on its connection.
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

    /// Gives up all connections.
    pub(super) fn close(&self) {
        for node in self.nodes.lock().values() {
            node.connections.close();
        }
    }
}

/// Checks what `WAIT` replies.
fn check_replicas(node: &Node, reply: Value, replicas: usize) -> Result<(), Error> {
    let count = reply::integer(reply, "WAIT")?;
    let enough = usize::try_from(count).is_ok_and(|count| count >= replicas);
    node.replicas_lag.store(!enough, Ordering::Relaxed);
    if enough {
        return Ok(());
    }
    Err(error::not_replicated(count, replicas))
}

/// What a server says, or refuses.
pub(super) fn into_result(value: Value) -> Result<Value, Error> {
    match value {
        Value::ServerError(into_result) => Err(error::server(&into_result)),
        value => Ok(value),
    }
}
