//! Where documents and vectors are kept and found: the engine in this process, or a Redis.
//!
//! One set of verbs for both. Those that read a disk or ask a server are asynchronous: the engine's
//! hop onto a worker, Redis's wait for the network and hold no worker while they do. What ends in
//! `_blocking` is for the background embedder's own thread.

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

/// What became of each write of a group.
pub(crate) type Results = Vec<Result<WriteOutcome, WriteFailure>>;

/// Why one write of a group was not made.
#[derive(Clone, Debug)]
pub(crate) enum WriteFailure {
    /// The document is not as expected.
    Conflict(Error),
    /// A collection appeared or changed, and a vector for it is missing.
    VectorsMissing(Error),
    /// Anything else.
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
        let refused = error_mapping::write(&error);
        match error {
            WriteError::Conflict { .. } => WriteFailure::Conflict(refused),
            WriteError::VectorsMissing { .. } => WriteFailure::VectorsMissing(refused),
            _ => WriteFailure::Rejected(refused),
        }
    }
}

fn results(written: Vec<Result<WriteOutcome, WriteError>>) -> Results {
    written.into_iter().map(|written| written.map_err(WriteFailure::from)).collect()
}

/// Where a page of documents ended. Opaque to everybody but the backend that gave it.
pub(crate) type Cursor = String;

/// Documents that lack computed vectors, each with the texts to embed, and where to go on.
#[derive(Debug)]
pub(crate) struct PendingEmbeddings {
    pub(crate) documents: Vec<(Document, Vec<TextToEmbed>)>,
    pub(crate) next: Option<Cursor>,
}

/// What the vector fields of a collection are computed by: name of the field, model's fingerprint; in
/// the order of the names.
pub(crate) type Fingerprints = Vec<(String, [u8; 16])>;

/// Where documents and vectors are.
#[derive(Debug)]
pub(crate) struct Backend {
    store: BackendKind,
    on_change: Arc<OnChange>,
    /// Held by who changes collections of the engine, which takes one change at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// The kinds of store.
#[derive(Debug)]
pub(crate) enum BackendKind {
    /// The engine in this process.
    Embedded(Arc<Embedded>),
    /// A Redis with the search module.
    Redis(Arc<Redis>),
}

/// What is called when collections have been made, switched or dropped, by whoever.
#[derive(Default)]
pub(crate) struct OnChange(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl OnChange {
    fn call(&self) {
        if let Some(call) = self.0.get() {
            call();
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

/// What stands under the keys of documents that are about to be written.
#[derive(Clone, Debug)]
pub(crate) enum DocumentLookup {
    /// Looked up when asked for: the engine is at hand.
    Local(Arc<Embedded>),
    /// Read ahead, by key: a worker waits for no network.
    Prefetched(Arc<PrefetchedDocuments>),
}

impl DocumentLookup {
    /// The document under the first of these keys where there is one.
    pub(crate) fn find(&self, keys: &[Vec<u8>]) -> Result<Option<Document>, Error> {
        match self {
            DocumentLookup::Local(embedded) => embedded.find(keys),
            DocumentLookup::Prefetched(read) => {
                Ok(keys.iter().find_map(|key| read.get(key)).map(|(document, _)| document.clone()))
            }
        }
    }

    /// Computed vectors of the document under `key` in a collection.
    pub(crate) fn vectors(
        &self,
        collection: &CollectionHandle,
        key: &[u8],
    ) -> Result<Vec<ComputedVector>, Error> {
        match self {
            DocumentLookup::Local(embedded) => embedded.vectors(&collection.name, key),
            DocumentLookup::Prefetched(read) => {
                let vectors = read.get(key).map_or(&[][..], |(_, vectors)| vectors);
                let of_collection = vectors.iter().filter(|vector| vector.collection == collection.version);
                Ok(of_collection.cloned().collect())
            }
        }
    }
}

/// Store files up to this length are verified as a whole when they are opened: half a second.
const VERIFY_BYTES_MAX: u64 = 512 << 20;

impl Backend {
    /// Opens what the configuration names. A Redis that does not answer does not keep it from
    /// opening: [`Backend::obstacle`] tells.
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
                    on_read_only: |reason| tracing::error!(reason, "no more writes are taken"),
                };
                BackendKind::Embedded(Arc::new(Embedded::open(options, progress)?))
            }
            Store::Redis(store) => BackendKind::Redis(Redis::open(store, clock, on_change.clone())?),
        };
        Ok(Backend { store, on_change, changing: Arc::default() })
    }

    /// Calls `changed` whenever collections have been made, switched or dropped. For once.
    pub(crate) fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        let first = self.on_change.0.set(Box::new(changed)).is_ok();
        assert!(first, "one service listens to its backend");
    }

    /// Whether the index is our own, and can hold vectors in other ways than they are given.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.store, BackendKind::Embedded(_))
    }

    pub(crate) fn close(&self) {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.close(),
            BackendKind::Redis(redis) => redis.close(),
        }
    }

    /// Which Redis it is, by whatever name it was found; `None` for the engine in this process, and
    /// for a Redis that has not answered yet.
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

    /// Unix milliseconds, from which ends are counted.
    pub(crate) fn now_ms(&self) -> u64 {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.now_ms(),
            BackendKind::Redis(redis) => redis.now_ms(),
        }
    }

    /// The collections as they were last seen. Waits for nothing.
    pub(crate) fn seen(&self) -> Vec<CollectionInfo> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.collections(),
            BackendKind::Redis(redis) => redis.cached_collections(),
        }
    }

    /// One collection as it was last seen. Waits for nothing.
    pub(crate) fn seen_one(&self, name: &str) -> Result<CollectionInfo, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                embedded.engine.collection(name).map_err(error_mapping::collection)
            }
            BackendKind::Redis(redis) => redis.cached_collection(name),
        }
    }

    /// The documents of a collection on each server, as last seen; nothing where there is but one.
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

    /// Makes a collection or finds an equal one; `true` if it was made. With `rebuild`, one with
    /// another schema is rebuilt beside itself. `models` are those its texts are embedded by.
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

    /// Runs what changes collections on a worker, which tells of the change even if the caller
    /// has gone meanwhile.
    async fn change<T: Send + 'static>(
        &self,
        call: &Call,
        embedded: &Arc<Embedded>,
        change: impl FnOnce(&Embedded) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (embedded, on_change) = (embedded.clone(), self.on_change.clone());
        // Waited for here, so that who waits keeps no worker from those that only look; held by the work, which goes
        // on when the caller has gone.
        let turn = call.within(self.changing.clone().lock_owned()).await?;
        let change = move || {
            let _turn = turn;
            let result = change(&embedded);
            on_change.call();
            result
        };
        call.administer(change).await
    }

    /// Lets the rebuilt version of a collection answer.
    pub(crate) fn switch_blocking(&self, name: &str) -> Result<(), Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let switched = embedded.engine.switch_collection(name).map_err(error_mapping::collection);
                self.on_change.call();
                switched.map(drop)
            }
            BackendKind::Redis(_) => unreachable!("nothing is rebuilt in a Redis"),
        }
    }

    /// The document under the first of these keys where there is one.
    pub(crate) async fn find(&self, call: &Call, keys: Vec<Vec<u8>>) -> Result<Option<Document>, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                let embedded = embedded.clone();
                call.run(move || embedded.find(&keys)).await
            }
            BackendKind::Redis(redis) => call.within(redis.get_first(keys)).await?,
        }
    }

    /// Where to look documents up without waiting, if that is possible; otherwise they are
    /// read ahead, by [`Backend::prefetch`].
    pub(crate) fn local_lookup(&self) -> Option<DocumentLookup> {
        match &self.store {
            BackendKind::Embedded(embedded) => Some(DocumentLookup::Local(embedded.clone())),
            BackendKind::Redis(_) => None,
        }
    }

    /// What stands under these keys.
    pub(crate) async fn prefetch(&self, call: &Call, keys: Vec<Vec<u8>>) -> Result<DocumentLookup, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(DocumentLookup::Local(embedded.clone())),
            BackendKind::Redis(redis) => {
                Ok(DocumentLookup::Prefetched(Arc::new(call.within(redis.prefetch(keys)).await??)))
            }
        }
    }

    /// Commits a group of writes and waits until it stands.
    pub(crate) async fn commit(&self, call: &Call, ops: Vec<Op>) -> Result<Results, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(results(embedded.commit(call, ops).await?)),
            BackendKind::Redis(redis) => call.within(redis.write(ops)).await?,
        }
    }

    pub(crate) fn write_blocking(&self, ops: Vec<Op>) -> Result<Results, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(results(embedded.engine.write(ops))),
            BackendKind::Redis(redis) => redis.block_on(redis.write(ops)),
        }
    }

    /// Which texts of a document must be embedded, for all collections its key falls into.
    pub(crate) fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.texts_to_embed(key, fields),
            BackendKind::Redis(redis) => redis.texts_to_embed(key, fields),
        }
    }

    /// Checks a write but for its guard.
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

    /// A page of keys that start with `prefix`, from where the last page ended.
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

    /// Documents of a collection that lack computed vectors, from where the last page ended.
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

    /// What the computed vectors of a document in a collection were made by: position of the field,
    /// model's fingerprint.
    pub(crate) fn made_by(
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

    /// The models all vectors of a collection were computed by, where the store notes them once
    /// for all; `None` where every vector carries its own.
    pub(crate) fn models(&self, collection: &str) -> Option<Fingerprints> {
        match &self.store {
            BackendKind::Embedded(_) => None,
            BackendKind::Redis(redis) => Some(redis.models(collection)),
        }
    }

    /// Notes that all vectors of a collection are now computed by these models.
    pub(crate) fn note_models_blocking(&self, collection: &str, models: Fingerprints) -> Result<(), Error> {
        match &self.store {
            BackendKind::Embedded(_) => Ok(()),
            BackendKind::Redis(redis) => redis.block_on(redis.save_models(collection, models)),
        }
    }

    /// The engine to back up; a Redis is refused.
    pub(crate) fn to_back_up(&self) -> Result<Arc<Embedded>, Error> {
        match &self.store {
            BackendKind::Embedded(embedded) => Ok(embedded.clone()),
            BackendKind::Redis(_) => Err(Error::invalid(
                "backup-redis",
                "a Redis makes its own backups (BGSAVE, or its append-only file); `nearfield copy` moves its \
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

    /// What each Redis says of itself.
    pub(crate) async fn diagnose(&self, call: &Call) -> Result<Vec<String>, Error> {
        match &self.store {
            BackendKind::Embedded(_) => Ok(Vec::new()),
            BackendKind::Redis(redis) => call.within(redis.diagnose()).await,
        }
    }

    /// What is wrong but does not keep the store from answering.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match &self.store {
            BackendKind::Embedded(embedded) => embedded.engine.warnings(),
            BackendKind::Redis(redis) => redis.warnings(),
        }
    }

    /// What keeps the store from answering or from taking writes.
    pub(crate) fn obstacle(&self) -> Option<String> {
        match &self.store {
            BackendKind::Embedded(embedded) => {
                embedded.engine.writable().err().map(|reason| format!("writes are not taken: {reason}"))
            }
            BackendKind::Redis(redis) => redis.unavailable_reason().map(|obstacle| obstacle.message),
        }
    }

    /// What keeps the store from knowing its collections.
    pub(crate) fn out_of_reach(&self) -> Option<Error> {
        match &self.store {
            BackendKind::Embedded(_) => None,
            BackendKind::Redis(redis) => redis.catalog_unavailable_reason(),
        }
    }
}

/// The error_mapping of a cursor this store did not give.
fn no_cursor(cursor: &str) -> Error {
    let shown: String = cursor.chars().take(64).collect();
    Error::invalid(
        "cursor",
        format!("{shown:?} is no place to go on from: give `next` of the page before as it came"),
    )
    .at("after")
}
