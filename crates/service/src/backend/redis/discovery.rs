//! What the verbs and the keeper work with.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use engine::CollectionVersion;
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Value};

use super::{
    Clock, Error, OnChange, error,
    index::{self, IndexInfo},
    metadata::{self, CollectionMetadata},
    reply,
    servers::{Servers, Shard, SlotMap, into_result},
    slots::{hash_tag_for, slot},
    state::{Collection, ShardIndex, State},
    state_cache::StateCache,
};
use crate::{
    ErrorKind,
    sync::{Arc, Mutex},
};

/// The store.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) servers: Servers,
    pub(super) clock: Arc<dyn Clock>,
    /// Held while collections are made or dropped, or looked at again.
    pub(super) ddl_lock: tokio::sync::Mutex<()>,
    /// Collections whose documents all have their vectors, as far as this process has to care.
    pub(super) fully_embedded: Mutex<BTreeSet<CollectionVersion>>,
    cache: StateCache,
}

/// The indexes that were found on shards that answered, and what was known of the others.
struct DiscoveredIndexes {
    /// By collection, then by shard.
    indexes: BTreeMap<String, BTreeMap<String, ShardIndex>>,
    /// Shards that answered.
    answered: Vec<Arc<Shard>>,
    warnings: BTreeMap<String, String>,
}

impl Core {
    pub(super) fn new(servers: Servers, clock: Arc<dyn Clock>, on_change: Arc<OnChange>) -> Core {
        Core {
            servers,
            clock,
            ddl_lock: tokio::sync::Mutex::new(()),
            fully_embedded: Mutex::default(),
            cache: StateCache::new(on_change),
        }
    }

    /// The collections as they were last seen.
    pub(super) fn state(&self) -> Arc<State> {
        self.cache.get()
    }

    /// Puts one collection in place, or takes it out.
    pub(super) fn cache_collection(&self, name: &str, collection: Option<Collection>) {
        self.cache.update(|state| {
            state.warnings.remove(name);
            match collection {
                Some(collection) => state.collections.insert(name.to_owned(), Arc::new(collection)),
                None => state.collections.remove(name),
            };
        });
    }

    /// Whether every shard has an index of its own, which is asked by itself.
    pub(super) fn has_index_per_shard(&self) -> bool {
        self.servers.is_cluster()
            && !self.servers.map().shards().iter().any(|shard| shard.primary.has_coordinator())
    }

    /// The shards whose indexes make up a collection: all, or any one where the servers ask each other.
    pub(super) fn index_shards(&self, map: &SlotMap) -> Result<Vec<Arc<Shard>>, Error> {
        if self.has_index_per_shard() && !map.shards().is_empty() {
            return Ok(map.shards().to_vec());
        }
        Ok(vec![self.servers.any_shard(map)?])
    }

    /// The name a collection's index has on a shard, if it is made now. It is a key to Redis, and has to
    /// be one that this shard holds.
    pub(super) fn index_name(&self, collection: &str, shard: &Shard) -> String {
        match shard.last_slot().filter(|_| self.has_index_per_shard()) {
            Some(slot) => format!("{collection}:{{{}}}", hash_tag_for(slot)),
            None => collection.to_owned(),
        }
    }

    /// Finds the servers well and lets everybody ask, or says why not. Collections are looked at if that
    /// is wanted, or if a server may be another than before.
    pub(super) async fn health_check(&self, reload: bool) -> Result<(), Error> {
        let refreshed = self.servers.refresh_map().await;
        let reload = reload || matches!(refreshed, Ok(true));
        let checks = self.servers.health_check(reload).await;
        refreshed?;
        let is_another = checks.iter().any(|checks| matches!(checks, Ok(true)));
        let checks: Result<(), Error> = checks.into_iter().try_for_each(|checks| checks.map(drop));
        if !self.servers.is_cluster() {
            checks.clone()?;
        }
        if reload || is_another {
            match self.refresh_collections().await {
                // It goes on with what is known, and looks again soon.
                Err(error) if !self.state().servers.is_empty() && error.kind != ErrorKind::Unavailable => {
                    tracing::warn!(%error, "the collections in Redis cannot be read");
                }
                Err(error) => {
                    if !self.servers.is_cluster() {
                        let map = self.servers.map();
                        map.shards()[0].primary.connections.trip(error.clone());
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        checks
    }

    /// Reads the collections anew. An index that is missing is made, empty as it may be. Of a shard that
    /// does not answer it goes on with what was known; of a single server that does not, it goes no
    /// further.
    pub(super) async fn refresh_collections(&self) -> Result<(), Error> {
        let _ddl = self.ddl_lock.lock().await;
        let (old, map) = (self.state(), self.servers.map());
        let mut servers = old.servers.clone();
        servers.retain(|address, _| map.shards().iter().any(|shard| shard.name() == *address));
        let server = |shard: &Arc<Shard>| Some((shard.name(), shard.primary.server()?));
        servers.extend(map.shards().iter().filter_map(server));
        let mut state = State { servers, warnings: old.warnings.clone(), ..State::default() };

        let DiscoveredIndexes { mut indexes, answered, warnings } = self.discover_indexes(&old, &map).await?;
        state.warnings.retain(|what, _| !what.starts_with(STRAY_INDEX));
        state.warnings.extend(warnings);
        let aliases = match self.aliases().await {
            Ok(aliases) => aliases,
            Err(error) if self.tolerates(&error) => old.aliases(),
            Err(error) => return Err(error),
        };
        for name in old.collections.keys() {
            indexes.entry(name.clone()).or_default();
        }
        let saved = join_all(indexes.keys().map(|name| self.load_metadata(name))).await;
        for ((name, mut indexes), saved) in indexes.into_iter().zip(saved) {
            let known = old.collections.get(&name);
            let restarted = |shard: &Shard| {
                let run_id = |servers: &BTreeMap<String, super::server::ServerInfo>| {
                    servers.get(&shard.name()).map(|server| server.run_id.clone())
                };
                run_id(&old.servers).is_some_and(|known| run_id(&state.servers) != Some(known))
            };
            let metadata = match saved {
                Ok(Some(metadata)) => metadata,
                Ok(None) => {
                    let home_restarted =
                        map.shard_for_key(metadata::key(&name).as_bytes()).is_ok_and(|home| restarted(home));
                    match known {
                        Some(known) if home_restarted => {
                            self.restore_metadata(known).await?;
                            known.metadata()
                        }
                        // An index without notes is none of Nearfield's; or somebody has dropped it.
                        _ => continue,
                    }
                }
                Err(error) if error.code == "metadata-damaged" => {
                    if state.warnings.insert(name.clone(), error.message.clone()).is_none() {
                        tracing::warn!(collection = name, %error, "a collection cannot be read");
                    }
                    continue;
                }
                Err(error) if self.tolerates(&error) => match known {
                    Some(known) => known.metadata(),
                    None => continue,
                },
                Err(error) => return Err(error),
            };
            for shard in &answered {
                if indexes.contains_key(&shard.name()) {
                    continue;
                }
                match self.create_index(&name, &metadata, shard).await {
                    Ok(index) => indexes.insert(shard.name(), index),
                    Err(error) if self.tolerates(&error) => continue,
                    Err(error) => return Err(error),
                };
                if restarted(shard) {
                    tracing::warn!(
                        collection = name,
                        shard = shard.name(),
                        "Redis has lost an index; it is made again"
                    );
                    state.warnings.insert(
                        name.clone(),
                        format!(
                            "collection {name:?}: Redis had lost its index, which has been made again; documents Redis lost are lost"
                        ),
                    );
                } else {
                    tracing::info!(
                        collection = name,
                        shard = shard.name(),
                        "an index is made where there was none"
                    );
                }
            }
            let of_name: Vec<String> = aliases
                .iter()
                .filter(|(_, target)| *target == name)
                .map(|(alias, _)| alias.clone())
                .collect();
            let collection = Collection::new(&name, metadata, of_name, indexes);
            collection.log_failures(known);
            let collection = match known {
                // The same checker, so that only what changed is new.
                Some(known) if known.metadata() == collection.metadata() => {
                    Collection { checker: known.checker.clone(), ..collection }
                }
                _ => collection,
            };
            state.collections.insert(name, Arc::new(collection));
        }
        self.cache.update(|cached| *cached = state);
        Ok(())
    }

    /// Whether what was last seen still stands, as far as it can be known: some servers of a cluster may
    /// be gone, but a single one may not.
    pub(super) fn has_cached_collections(&self) -> bool {
        self.servers.is_cluster() && !self.state().servers.is_empty()
    }

    /// Whether one server of several did not answer, and the others are there.
    fn tolerates(&self, error: &Error) -> bool {
        self.servers.is_cluster() && error.kind == ErrorKind::Unavailable
    }

    /// The indexes on every shard, with what they hold.
    async fn discover_indexes(&self, old: &State, map: &SlotMap) -> Result<DiscoveredIndexes, Error> {
        let shards = self.index_shards(map)?;
        let found = join_all(shards.iter().map(|shard| self.indexes_on(shard))).await;
        let mut listed =
            DiscoveredIndexes { indexes: BTreeMap::new(), answered: Vec::new(), warnings: BTreeMap::new() };
        for (shard, found) in shards.iter().zip(found) {
            let address = shard.name();
            match found {
                Ok((indexes, strays)) => {
                    for (collection, index) in indexes {
                        listed.indexes.entry(collection).or_default().insert(address.clone(), index);
                    }
                    for stray in strays {
                        listed.warnings.insert(
                            format!("{STRAY_INDEX}{address} {stray}"),
                            format!(
                                "shard {address} still holds index {stray:?}, whose slot has moved away: it is not used, and costs memory there until that server is started afresh"
                            ),
                        );
                    }
                    listed.answered.push(shard.clone());
                }
                Err(error) if self.tolerates(&error) => {
                    for (name, collection) in &old.collections {
                        if let Some(index) = collection.indexes.get(&address) {
                            let of_name = listed.indexes.entry(name.clone()).or_default();
                            of_name.insert(address.clone(), index.clone());
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if listed.answered.is_empty() {
            return Err(self.servers.unavailable_reason().unwrap_or_else(error::moving));
        }
        Ok(listed)
    }

    /// The indexes on one shard by their collections, with what they hold; and those whose slots have
    /// moved away.
    pub(super) async fn indexes_on(
        &self,
        shard: &Shard,
    ) -> Result<(BTreeMap<String, ShardIndex>, Vec<String>), Error> {
        let asked = async {
            let listed = shard.primary.connections.send(&redis::cmd("FT._LIST")).await?;
            let (mut names, mut strays) = (BTreeMap::new(), Vec::new());
            for index in reply::items(listed, "FT._LIST")? {
                let index = reply::text(index, "FT._LIST")?;
                if !self.has_index_per_shard() {
                    names.insert(index.clone(), index);
                } else if let Some((collection, _)) =
                    index.strip_suffix('}').and_then(|it| it.split_once(":{"))
                {
                    if shard.holds(slot(index.as_bytes())) {
                        names.entry(collection.to_owned()).or_insert(index);
                    } else {
                        strays.push(index);
                    }
                }
            }
            let infos = try_join_all(names.values().map(|index| self.index_info(shard, index))).await?;
            let index = |((collection, name), info)| (collection, ShardIndex { name, info });
            Ok((names.into_iter().zip(infos).map(index).collect(), strays))
        };
        asked.await.map_err(|error| shard.with_shard(error))
    }

    /// What `FT.INFO` says of an index on a shard.
    pub(super) async fn index_info(&self, shard: &Shard, index: &str) -> Result<IndexInfo, Error> {
        let mut command = redis::cmd("FT.INFO");
        command.arg(index);
        let asked = shard.primary.connections.send(&command).await.and_then(IndexInfo::parse);
        asked.map_err(|error| shard.with_shard(error))
    }

    /// The index of a collection on a shard: made, or taken over where it stands and is equal.
    pub(super) async fn create_index(
        &self,
        name: &str,
        metadata: &CollectionMetadata,
        shard: &Shard,
    ) -> Result<ShardIndex, Error> {
        let index = self.index_name(name, shard);
        let command = index::create_command(&index, &metadata.schema);
        let made = shard.primary.connections.send(&command).await.and_then(into_result);
        match made {
            // Another process was first.
            Err(error) if !error.message.contains("already exists") => return Err(shard.with_shard(error)),
            _ => {}
        }
        let began = Instant::now();
        loop {
            let info = self.index_info(shard, &index).await?;
            // A document that is written while Redis still looks for those that stood before is indexed
            // twice, and among equals changes its place.
            if !info.is_scanning || began.elapsed() > INITIAL_SCAN_WAIT_MAX {
                return Ok(ShardIndex { name: index, info });
            }
            tokio::time::sleep(INITIAL_SCAN_POLL).await;
        }
    }

    /// Aliases and the collections they lead to.
    async fn aliases(&self) -> Result<Vec<(String, String)>, Error> {
        const WHAT: &str = "aliases";
        let pairs = reply::pairs(self.hgetall(metadata::ALIASES_KEY).await?, WHAT)?;
        pairs
            .into_iter()
            .map(|(alias, name)| Ok((reply::text(alias, WHAT)?, reply::text(name, WHAT)?)))
            .collect()
    }

    /// What is noted of a collection.
    pub(super) async fn load_metadata(&self, collection: &str) -> Result<Option<CollectionMetadata>, Error> {
        CollectionMetadata::parse(collection, self.hgetall(&metadata::key(collection)).await?)
    }

    async fn hgetall(&self, key: &str) -> Result<Value, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(key);
        self.send(key, &command).await
    }

    /// Sends one command about a key of Nearfield's own.
    pub(super) async fn send(&self, key: &str, command: &Cmd) -> Result<Value, Error> {
        self.servers.send(key.as_bytes(), command).await
    }

    /// Writes down again what is known of a collection whose notes were lost.
    async fn restore_metadata(&self, collection: &Collection) -> Result<(), Error> {
        let name = &collection.name;
        self.send(&metadata::key(name), &collection.metadata().to_hset(name)).await?;
        for alias in &collection.aliases {
            self.save_alias(alias, name).await?;
        }
        Ok(())
    }

    /// Notes an alias, and has Redis know it where an index has the collection's own name.
    pub(super) async fn save_alias(&self, alias: &str, name: &str) -> Result<(), Error> {
        if !self.servers.is_cluster() {
            let mut update = redis::cmd("FT.ALIASUPDATE");
            update.arg(alias).arg(name);
            self.send(alias, &update).await.map_err(|error| self.refresh_if_index_missing(error))?;
        }
        let mut note = redis::cmd("HSET");
        note.arg(metadata::ALIASES_KEY).arg(alias).arg(name);
        self.send(metadata::ALIASES_KEY, &note).await?;
        Ok(())
    }

    /// Asks anew what the indexes of these collections hold. Of a shard that does not answer, what was
    /// known stands.
    pub(super) async fn refresh_index_info(&self, names: &[&str]) -> Result<(), Error> {
        let (state, map) = (self.state(), self.servers.map());
        let shards = self.index_shards(&map)?;
        let of_name = async |name: &str| -> Result<BTreeMap<String, ShardIndex>, Error> {
            let collection = state.get(name)?;
            let mut indexes = BTreeMap::new();
            for shard in &shards {
                let Some(index) = collection.index_of(shard) else { continue };
                let info = match self.index_info(shard, &index.name).await {
                    Ok(info) => info,
                    Err(error) if self.tolerates(&error) => index.info.clone(),
                    Err(error) => return Err(self.refresh_if_index_missing(error)),
                };
                indexes.insert(shard.name(), ShardIndex { name: index.name.clone(), info });
            }
            Ok(indexes)
        };
        let read = try_join_all(names.iter().map(|name| of_name(name))).await?;
        self.cache.update(|state| {
            for (name, indexes) in names.iter().zip(read) {
                if let Some(collection) = state.collections.get_mut(*name) {
                    *collection = Arc::new(collection.with_indexes(indexes));
                }
            }
        });
        Ok(())
    }

    /// Has the collections looked at again where an error says that an index is missing.
    pub(super) fn refresh_if_index_missing(&self, error: Error) -> Error {
        if error.code == error::INDEX_MISSING {
            self.servers.wake_supervisor.notify_one();
        }
        error
    }
}

/// How long the first look of an index at the keys that stand is waited for, and the time between two
/// questions: where there are few it is over at once.
const INITIAL_SCAN_WAIT_MAX: Duration = Duration::from_millis(200);
const INITIAL_SCAN_POLL: Duration = Duration::from_millis(2);

/// What the warnings with indexes nobody uses are filed under: no collection has such a name.
const STRAY_INDEX: &str = "stray index ";
