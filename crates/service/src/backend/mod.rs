//! The backend that stores and searches documents and vectors: the engine in this process, or Redis.
//!
//! Both have the same operations. Operations that read from disk or call a server are asynchronous: those of
//! the engine run on a worker, those of Redis wait for the network without occupying a worker. Functions
//! whose names end in `_blocking` run on the background embedder's own thread.

mod embedded;
mod redis;
mod search;

#[cfg(any(fuzzing, test))]
pub(crate) use redis::fuzzing;

use std::collections::HashMap;

pub(crate) use engine::{
    Clock, ComputedVector, Filter, Op, Progress, Query, SearchResult, TextToEmbed, WriteError, WriteOutcome,
};

pub(crate) use self::{
    embedded::Embedded,
    redis::{MergedHits, Redis, ShardQuery},
    search::{SearchOutcome, SearchOutcomes, SearchPlan, SearchTarget},
};
use crate::{
    CollectionInfo, Config, Document, DropMode, Error, Field, KeyPage, Schema, Scrolled, Stats, Store,
    call::Call,
    catalog::CollectionHandle,
    error_mapping,
    models::Models,
    sync::{Arc, OnceLock},
    workers::lower_priority,
};

/// The result of each write of a group, in order.
pub(crate) type WriteResults = Vec<Result<WriteOutcome, WriteFailure>>;

/// Why one write of a group failed.
#[derive(Clone, Debug)]
pub(crate) enum WriteFailure {
    /// The document does not meet the write's precondition.
    Conflict(Error),
    /// A collection was created or changed, and the write lacks a vector for it.
    VectorsMissing(Error),
    /// Any other error.
    Rejected(Error),
}

impl WriteFailure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            WriteFailure::Conflict(error)
            | WriteFailure::VectorsMissing(error)
            | WriteFailure::Rejected(error) => error,
        }
    }
}

impl From<WriteError> for WriteFailure {
    fn from(error: WriteError) -> WriteFailure {
        let mapped = error_mapping::write(&error);
        match error {
            WriteError::Conflict { .. } => WriteFailure::Conflict(mapped),
            WriteError::VectorsMissing { .. } => WriteFailure::VectorsMissing(mapped),
            _ => WriteFailure::Rejected(mapped),
        }
    }
}

fn write_results(written: Vec<Result<WriteOutcome, WriteError>>) -> WriteResults {
    written.into_iter().map(|result| result.map_err(WriteFailure::from)).collect()
}

/// Where a page of documents ended. Opaque to all but the backend that issued it.
pub(crate) type Cursor = String;

/// Documents that lack computed vectors, each with the texts to embed, and the cursor of the next page.
#[derive(Debug)]
pub(crate) struct PendingEmbeddings {
    pub(crate) documents: Vec<(Document, Vec<TextToEmbed>)>,
    pub(crate) next: Option<Cursor>,
}

/// The models that compute the vector fields of a collection: field name and model fingerprint, ordered by
/// field name.
pub(crate) type Fingerprints = Vec<(String, [u8; 16])>;

/// The store of documents and vectors.
#[derive(Debug)]
pub(crate) struct Backend {
    store: BackendKind,
    on_change: Arc<OnChange>,
    /// Held while collections of the engine change: it accepts one change at a time.
    ddl_lock: Arc<tokio::sync::Mutex<()>>,
}

/// The kinds of store.
#[derive(Debug)]
pub(crate) enum BackendKind {
    /// The engine in this process.
    Embedded(Arc<Embedded>),
    /// Redis with the search module.
    Redis(Arc<Redis>),
}

/// The callback run after any client creates, switches or drops a collection.
#[derive(Default)]
pub(crate) struct OnChange(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl OnChange {
    fn call(&self) {
        if let Some(callback) = self.0.get() {
            callback();
        }
    }
}

impl std::fmt::Debug for OnChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnChange").field(&self.0.get().is_some()).finish()
    }
}

/// Documents by key, each with its computed vectors.
pub(crate) type PrefetchedDocuments = HashMap<Vec<u8>, (Document, Vec<ComputedVector>)>;

/// The stored documents under the keys that are about to be written.
#[derive(Clone, Debug)]
pub(crate) enum DocumentLookup {
    /// Read from the engine on demand.
    Local(Arc<Embedded>),
    /// Read in advance, so that no worker waits for the network.
    Prefetched(Arc<PrefetchedDocuments>),
}

impl DocumentLookup {
    /// The document under the first of these keys that exists.
    pub(crate) fn find(&self, keys: &[Vec<u8>]) -> Result<Option<Document>, Error> {
        match self {
            DocumentLookup::Local(embedded) => embedded.find(keys),
            DocumentLookup::Prefetched(documents) => {
                Ok(keys.iter().find_map(|key| documents.get(key)).map(|(document, _)| document.clone()))
            }
        }
    }

    /// The computed vectors of the document under `key` in a collection.
    pub(crate) fn vectors(
        &self,
        collection: &CollectionHandle,
        key: &[u8],
    ) -> Result<Vec<ComputedVector>, Error> {
        match self {
            DocumentLookup::Local(embedded) => embedded.vectors(&collection.name, key),
            DocumentLookup::Prefetched(documents) => {
                let vectors = documents.get(key).map_or(&[][..], |(_, vectors)| vectors);
                let of_collection = vectors.iter().filter(|vector| vector.collection == collection.version);
                Ok(of_collection.cloned().collect())
            }
        }
    }
}

/// Store files up to this length are verified in full on opening, which takes about half a second.
const VERIFY_BYTES_MAX: u64 = 512 << 20;

impl Backend {
    /// Opens the configured store. An unreachable Redis does not fail the call:
    /// [`Backend::unavailable_reason`] reports it.
    pub(crate) fn open(
        config: &Config,
        cpu: engine::Cpu,
        clock: Arc<dyn Clock>,
        progress: &Progress,
    ) -> Result<Backend, Error> {
        let on_change: Arc<OnChange> = Arc::default();
        let store = match &config.store {
            Store::Directory => {
                let options = engine::Options {
                    data_dir: config.data_dir.clone(),
                    cpu,
                    clock,
                    cache_bytes: config.cache_bytes,
                    disk_reserve_bytes: config.disk_reserve_bytes,
                    memory_max_bytes: config.memory_max_bytes,
                    verify_bytes_max: VERIFY_BYTES_MAX,
                    durability: config.durability,
                    tail_max: config.tail_max,
                    index_threads: config.index_threads,
                    lower_priority,
                    on_read_only: |reason| {
                        tracing::error!(reason, "the store is read-only: writes are rejected")
                    },
                };
                BackendKind::Embedded(Arc::new(Embedded::open(options, progress)?))
            }
            Store::Redis(store) => BackendKind::Redis(Redis::open(store, clock, on_change.clone())?),
        };
        Ok(Backend { store, on_change, ddl_lock: Arc::default() })
    }

    /// Runs `changed` after every creation, switch or drop of a collection. Can be set only once.
    pub(crate) fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        let first = self.on_change.0.set(Box::new(changed)).is_ok();
        assert!(first, "on_change is set only once");
    }

    /// Whether the engine in this process holds the index, so that vectors can be quantized.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.store, BackendKind::Embedded(_))
    }

    pub(crate) fn close(&self) {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.close(),
            BackendKind::Redis(redis) => redis.close(),
        }
    }

    /// The identity of the Redis server, independent of its address; `None` for the engine in this process,
    /// and until Redis has answered for the first time.
    pub(crate) fn server_id(&self) -> Option<String> {
        match &self.store {
            BackendKind::Embedded(_) => None,
            BackendKind::Redis(redis) => redis.server_id(),
        }
    }

    /// Executes searches together; one outcome per plan, in order.
    pub(crate) async fn search(
        &self,
        call: &Call,
        models: &Arc<Models>,
        plans: &[Arc<SearchPlan>],
    ) -> Result<SearchOutcomes, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => search::in_engine(embedded, call, models, plans).await,
            BackendKind::Redis(redis) => search::in_redis(redis, call, models, plans).await,
        }
    }

    /// The current time in Unix milliseconds, from which expiry times are computed.
    pub(crate) fn now_ms(&self) -> u64 {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.now_ms(),
            BackendKind::Redis(redis) => redis.now_ms(),
        }
    }

    /// The collections as last read from the store. Does not block.
    pub(crate) fn cached_collections(&self) -> Vec<CollectionInfo> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.collections(),
            BackendKind::Redis(redis) => redis.cached_collections(),
        }
    }

    /// One collection as last read from the store. Does not block.
    pub(crate) fn cached_collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                embedded.engine.collection(name).map_err(error_mapping::collection)
            }
            BackendKind::Redis(redis) => redis.cached_collection(name),
        }
    }

    /// The number of documents of a collection per server, as last read; empty if there is only one server.
    pub(crate) fn shards(&self, name: &str) -> Vec<(String, u64)> {
        match &self.store {
            BackendKind::Embedded(_) => Vec::new(),
            BackendKind::Redis(redis) => redis.documents_per_shard(name),
        }
    }

    pub(crate) async fn collections(&self, call: &Call) -> Result<Vec<CollectionInfo>, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let embedded = embedded.clone();
                call.administer(move || Ok(embedded.engine.collections())).await
            }
            BackendKind::Redis(redis) => call.within(redis.collections()).await?,
        }
    }

    pub(crate) async fn collection(&self, call: &Call, name: &str) -> Result<CollectionInfo, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let (embedded, name) = (embedded.clone(), name.to_owned());
                call.administer(move || embedded.engine.collection(&name).map_err(error_mapping::collection))
                    .await
            }
            BackendKind::Redis(redis) => call.within(redis.collection(name)).await?,
        }
    }

    /// Creates a collection unless an equal one exists; `true` if it was created. With `rebuild`, an existing
    /// collection with another schema is rebuilt as a new version in the background. `models` are the models
    /// that embed its texts.
    pub(crate) async fn put_collection(
        &self,
        call: &Call,
        name: &str,
        schema: Schema,
        rebuild: bool,
        models: Fingerprints,
    ) -> Result<(CollectionInfo, bool), Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let name = name.to_owned();
                self.change(call, embedded, move |embedded| embedded.put_collection(&name, schema, rebuild))
                    .await
            }
            BackendKind::Redis(redis) => {
                call.within(redis.put_collection(name, schema, rebuild, models)).await?
            }
        }
    }

    pub(crate) async fn drop_collection(
        &self,
        call: &Call,
        name: &str,
        documents: DropMode,
    ) -> Result<(), Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let name = name.to_owned();
                self.change(call, embedded, move |embedded| embedded.drop_collection(&name, documents)).await
            }
            BackendKind::Redis(redis) => call.within(redis.drop_collection(name, documents)).await?,
        }
    }

    pub(crate) async fn set_alias(&self, call: &Call, alias: &str, collection: &str) -> Result<(), Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let (alias, collection) = (alias.to_owned(), collection.to_owned());
                let set = move |embedded: &Embedded| {
                    embedded.engine.set_alias(&alias, &collection).map_err(error_mapping::collection)
                };
                self.change(call, embedded, set).await
            }
            BackendKind::Redis(redis) => call.within(redis.set_alias(alias, collection)).await?,
        }
    }

    pub(crate) async fn remove_alias(&self, call: &Call, alias: &str) -> Result<(), Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let alias = alias.to_owned();
                let remove = move |embedded: &Embedded| {
                    embedded.engine.remove_alias(&alias).map_err(error_mapping::collection)
                };
                self.change(call, embedded, remove).await
            }
            BackendKind::Redis(redis) => call.within(redis.remove_alias(alias)).await?,
        }
    }

    /// Changes collections on a worker, which runs the `on_change` callback even if the caller stops waiting.
    async fn change<T: Send + 'static>(
        &self,
        call: &Call,
        embedded: &Arc<Embedded>,
        change: impl FnOnce(&Embedded) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (embedded, on_change) = (embedded.clone(), self.on_change.clone());
        // Acquired here, so that a waiting call occupies no worker; held by the job, which continues even if the caller
        // stops waiting.
        let guard = call.within(self.ddl_lock.clone().lock_owned()).await?;
        let change = move || {
            let _guard = guard;
            let result = change(&embedded);
            on_change.call();
            result
        };
        call.administer(change).await
    }

    /// Makes the rebuilt version of a collection the active one.
    pub(crate) fn switch_blocking(&self, name: &str) -> Result<(), Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let switched = embedded.engine.switch_collection(name).map_err(error_mapping::collection);
                self.on_change.call();
                switched.map(drop)
            }
            BackendKind::Redis(_) => unreachable!("Redis collections are not rebuilt"),
        }
    }

    /// The document under the first of these keys that exists.
    pub(crate) async fn find(&self, call: &Call, keys: Vec<Vec<u8>>) -> Result<Option<Document>, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let embedded = embedded.clone();
                call.run(move || embedded.find(&keys)).await
            }
            BackendKind::Redis(redis) => call.within(redis.get_first(keys)).await?,
        }
    }

    /// A lookup that does not wait for the network, if the backend has one; otherwise
    /// [`Backend::prefetch`] reads the documents in advance.
    pub(crate) fn local_lookup(&self) -> Option<DocumentLookup> {
        match &self.store {
            BackendKind::Embedded(embedded) => Some(DocumentLookup::Local(embedded.clone())),
            BackendKind::Redis(_) => None,
        }
    }

    /// Reads the documents under these keys in advance.
    pub(crate) async fn prefetch(&self, call: &Call, keys: Vec<Vec<u8>>) -> Result<DocumentLookup, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(DocumentLookup::Local(embedded.clone())),
            BackendKind::Redis(redis) => {
                Ok(DocumentLookup::Prefetched(Arc::new(call.within(redis.prefetch(keys)).await??)))
            }
        }
    }

    /// Commits a group of writes and waits until it is durable.
    pub(crate) async fn commit(&self, call: &Call, ops: Vec<Op>) -> Result<WriteResults, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(write_results(embedded.commit(call, ops).await?)),
            BackendKind::Redis(redis) => call.within(redis.write(ops)).await?,
        }
    }

    pub(crate) fn write_blocking(&self, ops: Vec<Op>) -> Result<WriteResults, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(write_results(embedded.engine.write(ops))),
            BackendKind::Redis(redis) => redis.block_on(redis.write(ops)),
        }
    }

    /// The texts of a document to embed, for every collection whose prefix matches its key.
    pub(crate) fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.texts_to_embed(key, fields),
            BackendKind::Redis(redis) => redis.texts_to_embed(key, fields),
        }
    }

    /// Checks everything about a write except its precondition.
    pub(crate) fn validate(&self, op: &Op) -> Result<(), WriteError> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.validate(op),
            BackendKind::Redis(redis) => redis.validate(op),
        }
    }

    pub(crate) async fn scroll(
        &self,
        call: &Call,
        collection: &Arc<CollectionHandle>,
        filter: Option<Filter>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let (embedded, collection) = (embedded.clone(), collection.clone());
                call.run(move || embedded.scroll(&collection.name, filter.as_ref(), after.as_ref(), limit))
                    .await
            }
            BackendKind::Redis(redis) => {
                call.within(redis.scroll(&collection.name, filter.as_ref(), after.as_ref(), limit)).await?
            }
        }
    }

    /// A page of the keys that start with `prefix`, after the cursor `after`.
    pub(crate) async fn keys(
        &self,
        call: &Call,
        prefix: Vec<u8>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<KeyPage, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let embedded = embedded.clone();
                call.run(move || embedded.keys(&prefix, after.as_ref(), limit)).await
            }
            BackendKind::Redis(redis) => call.within(redis.keys(&prefix, after.as_ref(), limit)).await?,
        }
    }

    pub(crate) fn scroll_blocking(
        &self,
        collection: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.scroll(collection, None, after, limit),
            BackendKind::Redis(redis) => redis.block_on(redis.scroll(collection, None, after, limit)),
        }
    }

    pub(crate) async fn count(
        &self,
        call: &Call,
        collection: &Arc<CollectionHandle>,
        filter: Option<Filter>,
    ) -> Result<u64, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let (embedded, collection) = (embedded.clone(), collection.clone());
                call.run(move || embedded.count(&collection.name, filter.as_ref())).await
            }
            BackendKind::Redis(redis) => call.within(redis.count(&collection.name, filter.as_ref())).await?,
        }
    }

    /// Documents of a collection that lack computed vectors, after the cursor `after`.
    pub(crate) fn unembedded_blocking(
        &self,
        collection: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<PendingEmbeddings, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.unembedded(collection, limit),
            BackendKind::Redis(redis) => redis.block_on(redis.unembedded(collection, after, limit)),
        }
    }

    /// The models that computed the vectors of a document in a collection: field position and model
    /// fingerprint.
    pub(crate) fn vector_models(
        &self,
        collection: &CollectionHandle,
        key: &[u8],
    ) -> Result<Vec<(u16, [u8; 16])>, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let vectors = embedded.vectors(&collection.name, key)?;
                Ok(vectors.iter().map(|vector| (vector.field, vector.model)).collect())
            }
            BackendKind::Redis(redis) => {
                let position = |(name, model): (String, _)| {
                    let fields = &collection.schema.fields;
                    let position = fields.iter().position(|field| field.name == name)?;
                    Some((u16::try_from(position).ok()?, model))
                };
                Ok(redis.models(&collection.name).into_iter().filter_map(position).collect())
            }
        }
    }

    /// The models that computed all vectors of a collection, if the store records them per collection;
    /// `None` if it records them per vector.
    pub(crate) fn models(&self, collection: &str) -> Option<Fingerprints> {
        match &self.store {
            BackendKind::Embedded(_) => None,
            BackendKind::Redis(redis) => Some(redis.models(collection)),
        }
    }

    /// Records that these models computed all vectors of a collection.
    pub(crate) fn save_models_blocking(&self, collection: &str, models: Fingerprints) -> Result<(), Error> {
        match &self.store {
            BackendKind::Embedded(_) => Ok(()),
            BackendKind::Redis(redis) => redis.block_on(redis.save_models(collection, models)),
        }
    }

    /// The engine to back up; an error for Redis.
    pub(crate) fn backup_source(&self) -> Result<Arc<Embedded>, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(embedded.clone()),
            BackendKind::Redis(_) => Err(Error::invalid(
                "backup-redis",
                "Redis makes its own backups (BGSAVE, or its append-only file); `nearfield copy` copies its \
                 collections into a data directory",
            )),
        }
    }

    pub(crate) async fn stats(&self, call: &Call) -> Result<Stats, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let embedded = embedded.clone();
                call.administer(move || embedded.engine.stats().map_err(error_mapping::query)).await
            }
            BackendKind::Redis(redis) => call.within(redis.stats()).await?,
        }
    }

    /// The diagnosis of each Redis server.
    pub(crate) async fn diagnose(&self, call: &Call) -> Result<Vec<String>, Error> {
        match &self.store {
            BackendKind::Embedded(_) => Ok(Vec::new()),
            BackendKind::Redis(redis) => call.within(redis.diagnose()).await,
        }
    }

    /// Problems that do not prevent the store from answering.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.warnings(),
            BackendKind::Redis(redis) => redis.warnings(),
        }
    }

    /// Why the store cannot answer or accept writes, if it cannot.
    pub(crate) fn unavailable_reason(&self) -> Option<String> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                embedded.engine.writable().err().map(|reason| format!("writes are rejected: {reason}"))
            }
            BackendKind::Redis(redis) => redis.unavailable_reason().map(|error| error.message),
        }
    }

    /// Why the store cannot read its collections, if it cannot.
    pub(crate) fn catalog_unavailable_reason(&self) -> Option<Error> {
        match &self.store {
            BackendKind::Embedded(_) => None,
            BackendKind::Redis(redis) => redis.catalog_unavailable_reason(),
        }
    }
}

/// The error for a cursor that this store did not issue.
fn invalid_cursor(cursor: &str) -> Error {
    let shown: String = cursor.chars().take(64).collect();
    Error::invalid("cursor", format!("invalid cursor {shown:?}: pass `next` of the previous page unchanged"))
        .at("after")
}
