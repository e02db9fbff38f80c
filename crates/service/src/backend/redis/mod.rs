//! A Redis server with the search module, or a Redis Cluster of such servers.
//!
//! Documents are hashes, as any other Redis client would write them, and a collection is a RediSearch
//! index over their keys. In a cluster without a search coordinator, every primary has its own index
//! and a search is sent to all of them.
//!
//! Everything in this module waits for the network; nothing computes for long. No reply of a server
//! is trusted to have the expected shape.

mod address;
mod breaker;
mod collections;
mod connections;
mod discovery;
mod doctor;
mod document;
mod documents;
mod error;
mod fan_out;
mod filter;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod index;
mod metadata;
mod node;
mod reply;
mod script;
mod scroll;
mod search;
mod server;
mod servers;
mod slots;
mod state;
mod state_cache;
mod supervisor;

use std::{
    collections::BTreeSet,
    sync::{Weak, mpsc},
};

use engine::CollectionVersion;
use futures_util::future::join_all;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) use self::fan_out::{MergedHits, ShardQuery};
use self::{
    servers::Servers,
    state::{CachedState, Collection},
    state_cache::StateCache,
};
use super::{
    Clock, CollectionInfo, ComputedVector, Cursor, Document, DropMode, Error, Field, Filter, Fingerprints,
    OnChange, Op, PendingEmbeddings, PrefetchedDocuments, Query, Schema, Scrolled, SearchResult, TextToEmbed,
    WriteError, WriteFailure, WriteOutcome, WriteResults, invalid_cursor,
};
use crate::{
    Expected, RedisStore, error_mapping,
    sync::{Arc, Mutex},
};

/// The Redis backend: the servers, the cached state of their collections, and the thread that talks
/// to them.
///
/// Shared as an [`Arc`], because a schema change runs as a separate task, which continues when its caller
/// stops waiting. The supervisor holds only a [`Weak`] reference, so that it does not keep a dropped
/// backend alive.
#[derive(Debug)]
pub(crate) struct Redis {
    servers: Servers,
    clock: Arc<dyn Clock>,
    /// Held while collections are created, dropped or read again.
    ddl_lock: tokio::sync::Mutex<()>,
    /// Collections in which no document lacks a vector that this process would have to compute.
    fully_embedded: Mutex<BTreeSet<CollectionVersion>>,
    cache: StateCache,
    closing: CancellationToken,
    handle: tokio::runtime::Handle,
    /// `None` once closed.
    runtime: Mutex<Option<Runtime>>,
}

impl Redis {
    /// Connects to the servers. Returns once the connections are open or the first attempt has
    /// failed; in that case the supervisor connects as soon as the servers reply.
    pub(super) fn open(
        store: &RedisStore,
        clock: Arc<dyn Clock>,
        on_change: Arc<OnChange>,
    ) -> Result<Arc<Redis>, Error> {
        let servers = Servers::new(store)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nearfield-redis")
            .enable_all()
            .build()
            .map_err(|error| error_mapping::thread(&error))?;
        let redis = Arc::new(Redis {
            servers,
            clock,
            ddl_lock: tokio::sync::Mutex::new(()),
            fully_embedded: Mutex::default(),
            cache: StateCache::new(on_change),
            closing: CancellationToken::new(),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        });
        let (first_check, checked) = mpsc::sync_channel(1);
        let (closing, wake) = (redis.closing.clone(), redis.servers.wake_supervisor.clone());
        let weak: Weak<Redis> = Arc::downgrade(&redis);
        redis.handle.spawn(supervisor::supervise(weak, closing, wake, first_check));
        // Each step of the first check takes at most a second.
        let _ = checked.recv();
        Ok(redis)
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Closes the connections without waiting for commands in flight.
    pub(super) fn close(&self) {
        self.closing.cancel();
        self.servers.close();
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// Runs one of the asynchronous operations below on a thread that may block.
    pub(super) fn block_on<T>(&self, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.closing.is_cancelled() {
            return Err(Error::closing());
        }
        self.handle.block_on(operation)
    }

    /// Runs an operation that must not stop half-way when its caller stops waiting.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.handle.spawn(operation).await.map_err(|_| Error::closing())?
    }

    /// The run id of the server, or the run ids of all servers of a cluster.
    pub(super) fn server_id(&self) -> Option<String> {
        let state = self.state();
        let mut ids: Vec<&str> = state.servers.values().map(|server| server.run_id.as_str()).collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids.join(" "))
    }

    /// The collections as they were last read from the servers.
    fn state(&self) -> Arc<CachedState> {
        self.cache.get()
    }

    /// Inserts, replaces or (with `None`) removes one collection in the cache.
    fn cache_collection(&self, name: &str, collection: Option<Collection>) {
        self.cache.update(|state| {
            state.warnings.remove(name);
            match collection {
                Some(collection) => state.collections.insert(name.to_owned(), Arc::new(collection)),
                None => state.collections.remove(name),
            };
        });
    }

    pub(super) fn cached_collections(&self) -> Vec<CollectionInfo> {
        self.state().collections.values().map(|collection| collection.to_info()).collect()
    }

    pub(super) fn cached_collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        Ok(self.state().get(name)?.to_info())
    }

    pub(super) fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        self.state().texts_to_embed(key, fields)
    }

    pub(super) fn validate(&self, op: &Op) -> Result<(), WriteError> {
        self.state().validate(op)
    }

    /// The models that computed the vectors of a collection.
    pub(super) fn models(&self, collection: &str) -> Fingerprints {
        self.state().get(collection).map_or_else(|_| Vec::new(), |collection| collection.models.clone())
    }

    /// The diagnostic findings of each server.
    pub(super) async fn diagnose(&self) -> Vec<String> {
        let map = self.servers.map();
        join_all(map.shards().iter().map(|shard| doctor::diagnose(&shard.primary))).await.concat()
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.state().warnings();
        if self.servers.is_migrating() {
            warnings.push("the Redis Cluster is migrating slots between servers".to_owned());
        }
        warnings
    }

    /// Why the collections are unknown, if they are.
    pub(super) fn catalog_unavailable_reason(&self) -> Option<Error> {
        self.unavailable_reason().filter(|_| !self.has_cached_collections())
    }

    /// Why some keys cannot be read or written, if that is the case.
    pub(super) fn unavailable_reason(&self) -> Option<Error> {
        self.servers.unavailable_reason()
    }

    /// Whether the cached collections can still be used. In a cluster they can while some servers are
    /// down; a single server must be up.
    fn has_cached_collections(&self) -> bool {
        self.servers.is_cluster() && !self.state().servers.is_empty()
    }

    /// The number of documents of a collection on each shard, as last read; empty if there is only
    /// one shard.
    pub(super) fn documents_per_shard(&self, collection: &str) -> Vec<(String, u64)> {
        let state = self.state();
        let Ok(collection) = state.get(collection) else { return Vec::new() };
        if collection.indexes.len() < 2 {
            return Vec::new();
        }
        let documents = |(shard, index): (&String, &state::ShardIndex)| (shard.clone(), index.info.documents);
        collection.indexes.iter().map(documents).collect()
    }
}

impl Drop for Redis {
    /// The last reference may be dropped on the runtime's own thread, which must not wait for itself.
    fn drop(&mut self) {
        self.close();
    }
}
