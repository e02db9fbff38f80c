//! A Redis with the search module, or a cluster of them: documents are hashes, as whoever else uses the
//! Redis would write them, and collections are indexes over their keys. In a cluster whose servers do
//! not ask each other, every primary has an index of its own, and all of them are asked.
//!
//! Everything here waits for the network and nothing computes for long. Replies are whatever the
//! server sends: none is trusted to have the right shape.

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

use std::{sync::mpsc, time::Instant};

use futures_util::future::{join_all, try_join_all};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) use self::fan_out::{MergedHits, ShardQuery};
use self::{
    discovery::Core,
    servers::{Servers, Shard, into_result},
};
use super::{
    Clock, CollectionInfo, ComputedVector, Cursor, Document, DropMode, Error, Field, Filter, Fingerprints,
    Lacking, NotWritten, OnChange, Op, Query, Results, Schema, Scrolled, SearchResult, Stats, Stood,
    TextToEmbed, WriteError, WriteOutcome, no_cursor,
};
use crate::{
    Expected, RedisStore, refusal,
    sync::{Arc, Mutex},
};

/// The store, and the threads that talk with it.
#[derive(Debug)]
pub(crate) struct Redis {
    core: Arc<Core>,
    closing: CancellationToken,
    handle: tokio::runtime::Handle,
    /// Taken away by the first to close.
    runtime: Mutex<Option<Runtime>>,
}

impl Redis {
    /// Opens the connections. Waits until they are open or the first attempt has failed: then they
    /// are opened as soon as the server answers.
    pub(super) fn open(
        store: &RedisStore,
        clock: Arc<dyn Clock>,
        on_change: Arc<OnChange>,
    ) -> Result<Redis, Error> {
        let core = Arc::new(Core::new(Servers::new(store)?, clock, on_change));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nearfield-redis")
            .enable_all()
            .build()
            .map_err(|error| refusal::thread(&error))?;
        let closing = CancellationToken::new();
        let (tried, first) = mpsc::sync_channel(1);
        runtime.spawn(supervisor::supervise(core.clone(), closing.clone(), tried));
        // The keeper is patient with each step for at most a second at first.
        let _ = first.recv();
        let handle = runtime.handle().clone();
        Ok(Redis { core, closing, handle, runtime: Mutex::new(Some(runtime)) })
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.core.clock.now_ms()
    }

    /// Gives up the connections. Does not wait for what is on its way.
    pub(super) fn close(&self) {
        self.closing.cancel();
        self.core.servers.close();
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// Waits for one of the verbs below. For threads that may block.
    pub(super) fn block_on<T>(&self, verb: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.closing.is_cancelled() {
            return Err(Error::closing());
        }
        self.handle.block_on(verb)
    }

    /// Runs what must not stop half-way because its caller has gone.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        verb: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.handle.spawn(verb).await.map_err(|_| Error::closing())?
    }

    /// What the server calls itself as long as it runs; of a cluster, what all of them do.
    pub(super) fn server_id(&self) -> Option<String> {
        let state = self.core.state();
        let mut ids: Vec<&str> = state.servers.values().map(|server| server.run_id.as_str()).collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids.join(" "))
    }

    pub(super) fn cached_collections(&self) -> Vec<CollectionInfo> {
        self.core.state().collections.values().map(|collection| collection.to_info()).collect()
    }

    pub(super) fn cached_collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        Ok(self.core.state().get(name)?.to_info())
    }

    pub(super) async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        self.core.collections().await
    }

    pub(super) async fn collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        self.core.collection(name).await
    }

    pub(super) async fn put_collection(
        &self,
        name: &str,
        schema: Schema,
        rebuild: bool,
        models: Fingerprints,
    ) -> Result<(CollectionInfo, bool), Error> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.run_to_completion(async move { core.put_collection(&name, schema, rebuild, models).await }).await
    }

    pub(super) async fn drop_collection(&self, name: &str, documents: DropMode) -> Result<(), Error> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.run_to_completion(async move { core.drop_collection(&name, documents).await }).await
    }

    pub(super) async fn set_alias(&self, alias: &str, collection: &str) -> Result<(), Error> {
        let (core, alias, collection) = (self.core.clone(), alias.to_owned(), collection.to_owned());
        self.run_to_completion(async move { core.set_alias(&alias, &collection).await }).await
    }

    pub(super) async fn remove_alias(&self, alias: &str) -> Result<(), Error> {
        let (core, alias) = (self.core.clone(), alias.to_owned());
        self.run_to_completion(async move { core.remove_alias(&alias).await }).await
    }

    pub(super) async fn get_first(&self, keys: Vec<Vec<u8>>) -> Result<Option<Document>, Error> {
        let document = self.core.get_hashes(&keys).await?.into_iter().flatten().next();
        Ok(document.map(|document| self.core.state().split_vectors(document).0))
    }

    pub(super) async fn prefetch(&self, keys: Vec<Vec<u8>>) -> Result<Stood, Error> {
        self.core.prefetch(keys).await
    }

    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<Results, Error> {
        self.core.write(ops).await
    }

    pub(super) fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        self.core.state().texts_to_embed(key, fields)
    }

    pub(super) fn validate(&self, op: &Op) -> Result<(), WriteError> {
        self.core.state().validate(op)
    }

    pub(super) fn models(&self, collection: &str) -> Fingerprints {
        self.core.state().get(collection).map_or_else(|_| Vec::new(), |known| known.models.clone())
    }

    pub(super) async fn save_models(&self, collection: &str, models: Fingerprints) -> Result<(), Error> {
        self.core.save_models(collection, models).await
    }

    pub(super) async fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        self.core.scroll(collection, filter, after, limit).await
    }

    pub(super) async fn unembedded(
        &self,
        collection: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Lacking, Error> {
        self.core.unembedded(collection, after, limit).await
    }

    pub(super) async fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, Error> {
        let servers = &self.core.servers;
        let (state, map) = (self.core.state(), servers.map());
        let collection = state.get(collection)?;
        let shards = self.core.index_shards(&map)?;
        let of_shard = async |shard: &Arc<Shard>| {
            let index = collection.queryable_index(shard)?;
            let Some(command) = search::build_count(index, filter, servers.store().command_timeout) else {
                return Ok(0);
            };
            let asked = servers.read_node(shard).connections.send(&command).await.and_then(into_result);
            asked
                .and_then(search::parse_count)
                .map_err(|error| shard.with_shard(self.core.refresh_if_index_missing(error)))
        };
        Ok(try_join_all(shards.iter().map(of_shard)).await?.into_iter().sum())
    }

    pub(super) async fn stats(&self) -> Result<Stats, Error> {
        self.core.stats().await
    }

    /// What each server says of itself.
    pub(super) async fn diagnose(&self) -> Vec<String> {
        let map = self.core.servers.map();
        join_all(map.shards().iter().map(|shard| doctor::diagnose(&shard.primary))).await.concat()
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.core.state().warnings();
        if self.core.servers.is_migrating() {
            warnings.push("slots of the Redis Cluster are on their way from server to server".to_owned());
        }
        warnings
    }

    /// What keeps collections from being known.
    pub(super) fn catalog_unavailable_reason(&self) -> Option<Error> {
        self.unavailable_reason().filter(|_| !self.core.has_cached_collections())
    }

    pub(super) fn unavailable_reason(&self) -> Option<Error> {
        self.core.servers.unavailable_reason()
    }

    /// Answers these queries, asked together; one list of hits or one error each.
    pub(crate) async fn search(
        &self,
        queries: &[ShardQuery<'_>],
        deadline: Instant,
    ) -> Result<Vec<Result<MergedHits, Error>>, Error> {
        self.core.search(queries, deadline).await
    }

    /// The documents of a collection on each shard, as last seen; empty where there is but one.
    pub(super) fn documents_per_shard(&self, collection: &str) -> Vec<(String, u64)> {
        let state = self.core.state();
        let Ok(collection) = state.get(collection) else { return Vec::new() };
        if collection.indexes.len() < 2 {
            return Vec::new();
        }
        let documents = |(shard, index): (&String, &state::ShardIndex)| (shard.clone(), index.info.documents);
        collection.indexes.iter().map(documents).collect()
    }
}
