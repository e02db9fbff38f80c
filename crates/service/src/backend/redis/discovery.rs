//! Reading the collections from the servers: health checks, the indexes on every shard and the
//! metadata beside them, and the re-creation of indexes that are missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::future::{join_all, try_join_all};

use super::{
    Error, Redis, error,
    index::{self, IndexInfo},
    metadata::{self, CollectionMetadata},
    reply,
    servers::{Shard, SlotMap, into_result},
    slots::{hash_tag_for, slot},
    state::{CachedState, Collection, ShardIndex},
};
use crate::{ErrorKind, sync::Arc};

/// How long to wait for a new index to scan the existing keys, and the time between two checks. With
/// few keys the scan ends at once.
const INITIAL_SCAN_WAIT_MAX: Duration = Duration::from_millis(200);
const INITIAL_SCAN_POLL: Duration = Duration::from_millis(2);

/// Prefix of the keys of warnings about unused indexes. No collection name starts with it.
const STRAY_INDEX: &str = "stray index ";

/// The indexes of a collection, by shard.
type Indexes = BTreeMap<String, ShardIndex>;

/// The indexes found on the shards that replied, and the cached ones of the other shards.
struct DiscoveredIndexes {
    by_collection: BTreeMap<String, Indexes>,
    /// Shards that replied.
    replied: Vec<Arc<Shard>>,
    warnings: BTreeMap<String, String>,
}

impl Redis {
    /// Whether every shard has its own index, to which searches are sent separately.
    pub(super) fn has_index_per_shard(&self) -> bool {
        self.servers.is_cluster()
            && !self.servers.map().shards().iter().any(|shard| shard.primary.has_coordinator())
    }

    /// The shards whose indexes make up a collection: all of them, or any one if the cluster has a
    /// search coordinator.
    pub(super) fn index_shards(&self, map: &SlotMap) -> Result<Vec<Arc<Shard>>, Error> {
        if self.has_index_per_shard() && !map.shards().is_empty() {
            return Ok(map.shards().to_vec());
        }
        Ok(vec![self.servers.any_shard(map)?])
    }

    /// The name of a collection's new index on a shard. To Redis it is a key, so it must hash to a slot
    /// of this shard.
    fn index_name(&self, collection: &str, shard: &Shard) -> String {
        match shard.last_slot().filter(|_| self.has_index_per_shard()) {
            Some(slot) => format!("{collection}:{{{}}}", hash_tag_for(slot)),
            None => collection.to_owned(),
        }
    }

    /// Checks the servers and closes the circuit breakers of those that are healthy; otherwise returns
    /// why one is not. Refreshes the collections with `reload`, or if a server may have been replaced.
    pub(super) async fn health_check(&self, reload: bool) -> Result<(), Error> {
        let refreshed = self.servers.refresh_map().await;
        let reload = reload || matches!(refreshed, Ok(true));
        let checks = self.servers.health_check(reload).await;
        refreshed?;
        let is_replaced = checks.iter().any(|check| matches!(check, Ok(true)));
        let healthy: Result<(), Error> = checks.into_iter().try_for_each(|check| check.map(drop));
        if !self.servers.is_cluster() {
            healthy.clone()?;
        }
        if reload || is_replaced {
            match self.refresh_collections().await {
                // The cached collections stay in use until the next refresh.
                Err(error) if !self.state().servers.is_empty() && error.kind != ErrorKind::Unavailable => {
                    tracing::warn!(%error, "reading the collections from Redis failed");
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
        healthy
    }

    /// Reads all collections from the servers and creates missing indexes, which start out empty. Keeps
    /// what is cached of a shard that does not reply; fails if a single server does not.
    async fn refresh_collections(&self) -> Result<(), Error> {
        let _ddl = self.ddl_lock.lock().await;
        let (old, map) = (self.state(), self.servers.map());
        let mut servers = old.servers.clone();
        servers.retain(|address, _| map.shards().iter().any(|shard| shard.name() == *address));
        let server = |shard: &Arc<Shard>| Some((shard.name(), shard.primary.server()?));
        servers.extend(map.shards().iter().filter_map(server));
        let restarted = restarted_shards(&old, &servers);
        let mut state = CachedState { servers, warnings: old.warnings.clone(), ..CachedState::default() };

        let mut discovered = self.discover_indexes(&old, &map).await?;
        state.warnings.retain(|key, _| !key.starts_with(STRAY_INDEX));
        state.warnings.append(&mut discovered.warnings);
        let aliases = match self.load_aliases().await {
            Ok(aliases) => aliases,
            Err(error) if self.tolerates(&error) => old.aliases(),
            Err(error) => return Err(error),
        };
        for name in old.collections.keys() {
            discovered.by_collection.entry(name.clone()).or_default();
        }
        let names = discovered.by_collection.keys();
        let loaded = join_all(names.map(|name| self.load_metadata(name))).await;
        for ((name, mut indexes), loaded) in discovered.by_collection.into_iter().zip(loaded) {
            let cached = old.collections.get(&name);
            let home = map.shard_for_key(metadata::key(&name).as_bytes());
            let is_home_restarted = home.is_ok_and(|home| restarted.contains(&home.name()));
            let metadata =
                self.usable_metadata(&name, loaded, cached, is_home_restarted, &mut state.warnings).await?;
            let Some(metadata) = metadata else { continue };
            for shard in &discovered.replied {
                if !indexes.contains_key(&shard.name()) {
                    let is_restarted = restarted.contains(&shard.name());
                    let index =
                        self.restore_index(&name, &metadata, shard, is_restarted, &mut state.warnings);
                    indexes.extend(index.await?.map(|index| (shard.name(), index)));
                }
            }
            let own = aliases.iter().filter(|(_, target)| *target == name);
            let own = own.map(|(alias, _)| alias.clone()).collect();
            let collection = Collection::new(&name, metadata, own, indexes);
            collection.log_failures(cached);
            let collection = match cached {
                // Keeps the validator, so that an unchanged collection compares equal.
                Some(cached) if cached.metadata() == collection.metadata() => {
                    Collection { validator: cached.validator.clone(), ..collection }
                }
                _ => collection,
            };
            state.collections.insert(name, Arc::new(collection));
        }
        self.cache.update(|cached| *cached = state);
        Ok(())
    }

    /// The metadata of a collection as it was `loaded`, or as it is `cached` if the servers lost it or
    /// cannot be reached; `None` if there is no such collection.
    async fn usable_metadata(
        &self,
        name: &str,
        loaded: Result<Option<CollectionMetadata>, Error>,
        cached: Option<&Arc<Collection>>,
        is_home_restarted: bool,
        warnings: &mut BTreeMap<String, String>,
    ) -> Result<Option<CollectionMetadata>, Error> {
        match (loaded, cached) {
            (Ok(Some(metadata)), _) => Ok(Some(metadata)),
            (Ok(None), Some(cached)) if is_home_restarted => {
                self.restore_metadata(cached).await?;
                Ok(Some(cached.metadata()))
            }
            // An index without metadata is not Nearfield's, or its collection was dropped.
            (Ok(None), _) => Ok(None),
            (Err(error), _) if error.code == metadata::DAMAGED => {
                if warnings.insert(name.to_owned(), error.message.clone()).is_none() {
                    tracing::warn!(collection = name, %error, "the metadata of a collection cannot be read");
                }
                Ok(None)
            }
            (Err(error), cached) if self.tolerates(&error) => Ok(cached.map(|cached| cached.metadata())),
            (Err(error), _) => Err(error),
        }
    }

    /// Creates the index that a collection lacks on a shard; `None` if the shard does not reply.
    async fn restore_index(
        &self,
        name: &str,
        metadata: &CollectionMetadata,
        shard: &Shard,
        is_restarted: bool,
        warnings: &mut BTreeMap<String, String>,
    ) -> Result<Option<ShardIndex>, Error> {
        let index = match self.create_index(name, metadata, shard).await {
            Ok(index) => index,
            Err(error) if self.tolerates(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let address = shard.name();
        if is_restarted {
            tracing::warn!(collection = name, shard = address, "Redis lost an index; created it again");
            warnings.insert(
                name.to_owned(),
                format!(
                    "collection {name:?}: Redis lost its index, which was created again; documents that Redis lost are gone"
                ),
            );
        } else {
            tracing::info!(collection = name, shard = address, "created a missing index");
        }
        Ok(Some(index))
    }

    /// Whether the operation can go on without the server that failed: in a cluster, if it is
    /// unavailable.
    fn tolerates(&self, error: &Error) -> bool {
        self.servers.is_cluster() && error.kind == ErrorKind::Unavailable
    }

    /// Lists the indexes on every shard, with their `FT.INFO`.
    async fn discover_indexes(&self, old: &CachedState, map: &SlotMap) -> Result<DiscoveredIndexes, Error> {
        let shards = self.index_shards(map)?;
        let found = join_all(shards.iter().map(|shard| self.indexes_on(shard))).await;
        let mut discovered = DiscoveredIndexes {
            by_collection: BTreeMap::new(),
            replied: Vec::new(),
            warnings: BTreeMap::new(),
        };
        for (shard, found) in shards.iter().zip(found) {
            let address = shard.name();
            match found {
                Ok((indexes, strays)) => {
                    for (collection, index) in indexes {
                        let indexes = discovered.by_collection.entry(collection).or_default();
                        indexes.insert(address.clone(), index);
                    }
                    for stray in strays {
                        discovered.warnings.insert(
                            format!("{STRAY_INDEX}{address} {stray}"),
                            format!(
                                "shard {address} still holds index {stray:?}, whose slot moved to another server: it is unused and takes up memory until that server restarts without its data"
                            ),
                        );
                    }
                    discovered.replied.push(shard.clone());
                }
                Err(error) if self.tolerates(&error) => {
                    for (name, collection) in &old.collections {
                        if let Some(index) = collection.indexes.get(&address) {
                            let indexes = discovered.by_collection.entry(name.clone()).or_default();
                            indexes.insert(address.clone(), index.clone());
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if discovered.replied.is_empty() {
            return Err(self.servers.unavailable_reason().unwrap_or_else(error::too_many_redirections));
        }
        Ok(discovered)
    }

    /// The indexes on one shard by collection, and the names of indexes whose slots moved away.
    pub(super) async fn indexes_on(&self, shard: &Shard) -> Result<(Indexes, Vec<String>), Error> {
        let listing = async {
            let listed = shard.primary.connections.send(&redis::cmd("FT._LIST")).await?;
            let (mut names, mut strays) = (BTreeMap::new(), Vec::new());
            for index in reply::items(listed, "FT._LIST")? {
                let index = reply::text(index, "FT._LIST")?;
                if !self.has_index_per_shard() {
                    names.insert(index.clone(), index);
                } else if let Some((collection, _)) =
                    index.strip_suffix('}').and_then(|name| name.split_once(":{"))
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
        listing.await.map_err(|error| shard.with_shard(error))
    }

    /// The `FT.INFO` of an index on a shard.
    async fn index_info(&self, shard: &Shard, index: &str) -> Result<IndexInfo, Error> {
        let mut command = redis::cmd("FT.INFO");
        command.arg(index);
        let info = shard.primary.connections.send(&command).await.and_then(IndexInfo::parse);
        info.map_err(|error| shard.with_shard(error))
    }

    /// Creates the index of a collection on a shard, or adopts an equal one that exists.
    pub(super) async fn create_index(
        &self,
        name: &str,
        metadata: &CollectionMetadata,
        shard: &Shard,
    ) -> Result<ShardIndex, Error> {
        let index = self.index_name(name, shard);
        let command = index::create_command(&index, &metadata.schema);
        let created = shard.primary.connections.send(&command).await.and_then(into_result);
        match created {
            // "already exists": another process created it first.
            Err(error) if !error.message.contains("already exists") => return Err(shard.with_shard(error)),
            _ => {}
        }
        let began = Instant::now();
        loop {
            let info = self.index_info(shard, &index).await?;
            // A document written while Redis still scans the existing keys is indexed twice, which
            // changes its position among documents of equal distance.
            if !info.is_scanning || began.elapsed() > INITIAL_SCAN_WAIT_MAX {
                return Ok(ShardIndex { name: index, info });
            }
            tokio::time::sleep(INITIAL_SCAN_POLL).await;
        }
    }

    /// Reads the `FT.INFO` of these collections again. Keeps what is cached of a shard that does not
    /// reply.
    pub(super) async fn refresh_index_info(&self, names: &[&str]) -> Result<(), Error> {
        let (state, map) = (self.state(), self.servers.map());
        let shards = self.index_shards(&map)?;
        let of_collection = async |name: &str| -> Result<Indexes, Error> {
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
        let refreshed = try_join_all(names.iter().map(|name| of_collection(name))).await?;
        self.cache.update(|state| {
            for (name, indexes) in names.iter().zip(refreshed) {
                if let Some(collection) = state.collections.get_mut(*name) {
                    *collection = Arc::new(collection.with_indexes(indexes));
                }
            }
        });
        Ok(())
    }

    /// Returns the error; if it says that an index is missing, has the supervisor refresh the
    /// collections.
    pub(super) fn refresh_if_index_missing(&self, error: Error) -> Error {
        if error.code == error::INDEX_MISSING {
            self.servers.wake_supervisor.notify_one();
        }
        error
    }
}

/// The shards whose primary is another process than at the last refresh.
fn restarted_shards(
    old: &CachedState,
    servers: &BTreeMap<String, super::server::ServerInfo>,
) -> BTreeSet<String> {
    let is_restarted = |(address, server): &(&String, &super::server::ServerInfo)| {
        servers.get(*address).is_none_or(|now| now.run_id != server.run_id)
    };
    old.servers.iter().filter(is_restarted).map(|(address, _)| address.clone()).collect()
}
