//! The engine's public interface.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
};

use index::Cpu;
use parking_lot::Mutex;
use store::{Backup, BackupError, CollectionVersion, Document, Field, StorageBackend, Store, StoreError};

use crate::{
    Clock, DropMode, Durability,
    binary::printable,
    byte_budget::ByteBudget,
    core::Core,
    data_dir::{DataDir, SNAPSHOT_DIRECTORY, STORE_FILE},
    ddl::CollectionError,
    file_storage::FileStorage,
    filter::Filter,
    info::{CollectionInfo, Stats, info},
    maintenance::is_snapshot_stale,
    progress::Progress,
    query::{Query, QueryError, RESPONSE_BYTES_MAX, ScrollPage, SearchResult},
    queue::{SubmitError, WriteCallback, WriteJob},
    registry::Versions,
    schema::Schema,
    snapshot::Snapshots,
    transaction::{is_expired, project},
    validator::check_document,
    write::{ComputedVector, Op, QueueFull, TextToEmbed, WriteError, WriteOutcome},
};

/// Options of [`Engine::open`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the store file, the snapshots and the lock.
    pub data_dir: PathBuf,
    /// Instruction set of the kernels.
    pub cpu: Cpu,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Size of the store's page cache, in bytes.
    pub cache_bytes: usize,
    /// Free disk space that writes must not use, in bytes; 0 for none.
    pub disk_reserve_bytes: u64,
    /// Maximum memory for all indexes and attributes, in bytes. Beyond it, writes that add to them are rejected; 0 for
    /// no limit.
    pub memory_max_bytes: u64,
    /// Largest store file in bytes that is verified completely when it is opened.
    pub verify_bytes_max: u64,
    /// When writes become durable.
    pub durability: Durability,
    /// Length of a tail, in vectors, beyond which writers are slowed down.
    pub tail_max: usize,
    /// Number of threads that link vectors from the tails into the graphs.
    pub index_threads: usize,
    /// Called at the start of each of these threads, to lower its priority in favour of searches. One additional
    /// thread at normal priority drains tails that grow long.
    pub lower_priority: fn(),
    /// Called once, with the reason, if the engine becomes read-only. At that moment there may be no caller to whom
    /// the failure could be returned.
    pub on_read_only: fn(&str),
}

impl Options {
    fn store_options(&self) -> store::Options {
        store::Options { cache_bytes: self.cache_bytes, verify_bytes_max: self.verify_bytes_max }
    }
}

/// Why an engine could not be opened. Messages contain the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages describe the fields")]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("{} is in use by another Nearfield process: stop it first, or send requests to it", path.display())]
    Locked { path: PathBuf },
    /// The directory or the lock cannot be created.
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The directory is not writable.
    #[error(
        "cannot write to {}: {source}; only `nearfield check` works without permission to create and change files there",
        path.display()
    )]
    NotWritable { path: PathBuf, source: io::Error },
    /// The store is missing or empty, although there are snapshots of it.
    #[error(
        "{} is missing or empty, but snapshots next to it show that there was a store: restore it from a backup, or \
         remove the snapshot directory to start empty",
        path.display()
    )]
    StoreMissing { path: PathBuf },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The store cannot be read.
    #[error("cannot read the store in {}: {source}; `nearfield check` lists the damage, `nearfield repair` or `nearfield restore` fixes it", path.display())]
    Read { path: PathBuf, source: StoreError },
    /// The store cannot be converted to the current format.
    #[error(
        "the store {} has format {from} and cannot be converted to the current one: {source}; it is unchanged. \
         Converting needs free disk space of the size of the file",
        path.display()
    )]
    Upgrade { path: PathBuf, from: u32, source: io::Error },
    /// A stored schema is damaged.
    #[error("the schema of collection {}, version {} in {} is damaged: {reason}", collection.id, collection.version, path.display())]
    Schema { path: PathBuf, collection: CollectionVersion, reason: String },
    /// A thread could not be started.
    #[error("cannot start a thread: {source}")]
    Thread { source: io::Error },
}

/// Collections over one durable keyspace. All methods take `&self`.
#[derive(Debug)]
pub struct Engine {
    core: Arc<Core>,
    /// Taken by the first call of [`Engine::close`], which then joins the threads.
    threads: Mutex<Option<EngineThreads>>,
}

/// The threads of an open engine.
#[derive(Debug)]
struct EngineThreads {
    committer: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    /// Holds the lock, if the engine has a directory.
    _directory: Option<DataDir>,
}

impl Engine {
    /// Opens or creates the data directory, loads snapshots and applies the changes since. On return, the engine is
    /// completely up to date.
    pub fn open(options: Options) -> Result<Engine, OpenError> {
        Engine::open_with_progress(options, &Progress::default())
    }

    /// Like [`Engine::open`], and reports its progress.
    pub fn open_with_progress(options: Options, progress: &Progress) -> Result<Engine, OpenError> {
        progress.start("opening the store".to_owned());
        let directory = DataDir::lock(&options.data_dir)?;
        let snapshots = directory.snapshots()?;
        let mut store = Store::open(&directory.store_file(), options.store_options())?;
        let mut warnings = Vec::new();
        if let Some(from) = store.outdated_format() {
            let (upgraded, copy) = directory.upgrade(store, from, options.store_options(), progress)?;
            store = upgraded;
            warnings.push(format!(
                "the store was converted from format {from}, which earlier versions of Nearfield need, to the current \
                 one; a copy in the old format was kept as {}: remove it once you have verified that all is well",
                copy.display()
            ));
        }
        let engine = Engine::start(store, Arc::new(snapshots), Some(directory), &options, progress)?;
        warnings.into_iter().for_each(|warning| engine.core.warn(warning));
        Ok(engine)
    }

    /// Like [`Engine::open`], with custom storage for the store and the snapshots. `data_dir` serves only as a name.
    pub fn open_on(
        store: impl StorageBackend,
        snapshots: Arc<dyn FileStorage>,
        options: Options,
    ) -> Result<Engine, OpenError> {
        let store = Store::open_with_backend(store, options.store_options())?;
        store.upgrade().map_err(|source| OpenError::Read { path: options.data_dir.clone(), source })?;
        Engine::start(store, snapshots, None, &options, &Progress::default())
    }

    /// Loads everything from an open store and starts the threads.
    fn start(
        store: Store,
        snapshots: Arc<dyn FileStorage>,
        directory: Option<DataDir>,
        options: &Options,
        progress: &Progress,
    ) -> Result<Engine, OpenError> {
        let failed = |source| OpenError::Io { path: options.data_dir.join(SNAPSHOT_DIRECTORY), source };
        let unreadable = |source| OpenError::Read { path: options.data_dir.clone(), source };
        // A new store must not silently replace one that was lost.
        if store.read().and_then(|reader| reader.is_new()).map_err(unreadable)?
            && snapshots.names().map_err(failed)?.iter().any(|name| Snapshots::is_file_name(name))
        {
            return Err(OpenError::StoreMissing { path: options.data_dir.join(STORE_FILE) });
        }
        let snapshots = Snapshots::open(snapshots, store.id()).map_err(failed)?;
        let core = Core::new(store, snapshots, options);
        core.load(&options.data_dir, progress)?;
        let core = Arc::new(core);
        let spawn = |name: String, run: Box<dyn Fn(&Core) + Send>| {
            let core = core.clone();
            thread::Builder::new().name(name).spawn(move || core.supervise(&*run))
        };
        let started = (|| {
            let committer = spawn("nearfield-committer".to_owned(), Box::new(Core::run_committer))?;
            let mut background =
                vec![spawn("nearfield-maintenance".to_owned(), Box::new(Core::run_maintenance))?];
            for thread in 0..options.index_threads {
                let lower_priority = options.lower_priority;
                let run = move |core: &Core| {
                    lower_priority();
                    core.run_indexer(thread);
                };
                background.push(spawn(format!("nearfield-index-{thread}"), Box::new(run))?);
            }
            background.push(spawn("nearfield-drain".to_owned(), Box::new(Core::run_tail_drainer))?);
            Ok(EngineThreads { committer, background, _directory: directory })
        })();
        match started {
            Ok(threads) => Ok(Engine { core, threads: Mutex::new(Some(threads)) }),
            Err(source) => {
                core.stop();
                core.queue.close();
                Err(OpenError::Thread { source })
            }
        }
    }

    /// Finishes queued writes, makes everything durable, writes snapshots and stops the threads. Afterwards reads
    /// still work and writes are rejected. Further calls only wait until the engine is closed.
    pub fn close(&self) {
        let mut threads = self.threads.lock();
        let Some(EngineThreads { committer, background, _directory }) = threads.take() else { return };
        self.core.queue.close();
        committer.join().expect("a supervised thread ends without a panic");
        self.core.stop();
        for thread in background {
            thread.join().expect("a supervised thread ends without a panic");
        }
        // A DDL operation may still be running; it checks whether the engine is closing.
        let _ddl_lock = self.core.ddl_lock.lock();
        self.core.save(is_snapshot_stale);
    }

    /// Problems without data loss since the engine was opened, oldest first: snapshots that were discarded or not
    /// written, expired documents that could not be deleted. At most the last 100.
    pub fn warnings(&self) -> Vec<String> {
        self.core.warnings()
    }

    /// Creates a collection. Succeeds if it exists with an equal schema. Existing documents under its prefixes are
    /// indexed before this returns, except for vectors that must be computed: see [`Engine::unembedded`]. Documents
    /// that violate the schema are counted.
    pub fn create_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, CollectionError> {
        self.core.create_collection(name, schema)?;
        self.collection(name)
    }

    /// Starts a new version of a collection with another schema, next to the active one. Both receive writes until
    /// [`Engine::switch_collection`]; until then, violations of the new schema are counted and not rejected. Computed
    /// vectors of the old version are reused where text, model and vector type agree.
    pub fn rebuild_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, CollectionError> {
        self.core.rebuild_collection(name, schema)?;
        self.collection(name)
    }

    /// Makes the rebuilt version active and drops the old one. Fails while computed vectors are missing from the
    /// rebuilt version.
    pub fn switch_collection(&self, name: &str) -> Result<CollectionInfo, CollectionError> {
        self.core.switch_collection(name)?;
        self.collection(name)
    }

    /// Drops a collection and its aliases.
    pub fn drop_collection(&self, name: &str, documents: DropMode) -> Result<(), CollectionError> {
        self.core.drop_collection(name, documents)
    }

    /// Sets the collection of an alias, replacing any other.
    pub fn set_alias(&self, alias: &str, collection: &str) -> Result<(), CollectionError> {
        self.core.set_alias(alias, collection)
    }

    /// Removes an alias.
    pub fn remove_alias(&self, alias: &str) -> Result<(), CollectionError> {
        self.core.remove_alias(alias)
    }

    /// All collections, ordered by name.
    pub fn collections(&self) -> Vec<CollectionInfo> {
        let registry = self.core.registry();
        let named = registry.named.iter();
        named.map(|(name, versions)| info(&registry, name, versions, &self.core.time)).collect()
    }

    /// The collection with this name or alias.
    pub fn collection(&self, name: &str) -> Result<CollectionInfo, CollectionError> {
        let registry = self.core.registry();
        match registry.resolve(name) {
            Some((name, versions)) => Ok(info(&registry, name, versions, &self.core.time)),
            None => {
                Err(CollectionError::NotFound { name: name.to_owned(), known: registry.collection_names() })
            }
        }
    }

    /// The texts of a document with these fields that must be embedded, for all collections that include its key. A
    /// field whose vector is given needs none.
    pub fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        let registry = self.core.registry();
        let including = registry.all().filter(|collection| collection.schema.matches_key(key));
        including.flat_map(|collection| collection.projector.texts(collection.version, fields)).collect()
    }

    /// Up to `limit` documents of a collection, including a version being rebuilt, whose computed vectors are
    /// missing, each with the texts to embed.
    pub fn unembedded(
        &self,
        collection: &str,
        limit: usize,
    ) -> Result<Vec<(Document, Vec<TextToEmbed>)>, CollectionError> {
        let registry = self.core.registry();
        let Some((_, versions)) = registry.resolve(collection) else {
            return Err(CollectionError::NotFound {
                name: collection.to_owned(),
                known: registry.collection_names(),
            });
        };
        self.core.unembedded(versions, limit).map_err(CollectionError::Read)
    }

    /// Checks a write as [`Engine::submit`] does, without writing. Ignores its `expected`.
    pub fn validate(&self, op: &Op) -> Result<(), WriteError> {
        let Op::Put { key, fields, vectors, .. } = op else { return Ok(()) };
        check_document(key, fields)?;
        let registry = self.core.registry();
        let collections = registry.with_roles().map(|(collection, role)| (&**collection, role));
        project(collections, key, fields, vectors).map(|_| ())
    }

    /// Queues writes. Once they are visible, and durable as far as [`Options::durability`] requires, `done` is called
    /// on the committer's thread with one result per write. Never blocks.
    ///
    /// If the engine is closed, calls `done` at once, on this thread.
    pub fn submit(&self, ops: Vec<Op>, done: WriteCallback) -> Result<(), QueueFull> {
        match self.core.queue.submit(WriteJob::new(ops, done)) {
            Ok(()) => Ok(()),
            Err(SubmitError::Full(full)) => Err(full),
            Err(SubmitError::Closed(job)) => {
                let closed = vec![Err(WriteError::Closed); job.ops.len()];
                (job.done)(closed);
                Ok(())
            }
        }
    }

    /// Like [`Engine::submit`], but waits for space in the queue and for the results. Must not be called from `done`.
    pub fn write(&self, ops: Vec<Op>) -> Vec<Result<WriteOutcome, WriteError>> {
        let len = ops.len();
        let (sender, receiver) = mpsc::sync_channel(1);
        let done: WriteCallback = Box::new(move |results| {
            sender.send(results).expect("the receiver below waits for the results");
        });
        match self.core.queue.submit_blocking(WriteJob::new(ops, done)) {
            Ok(()) => receiver.recv().expect("the committer answers every job"),
            Err(_) => vec![Err(WriteError::Closed); len],
        }
    }

    /// The time that expiry is measured by: Unix milliseconds. After the clock is set back, this stays at the latest
    /// time until every document that expired before is deleted.
    pub fn now_ms(&self) -> u64 {
        self.core.time.now_ms()
    }

    /// The document under `key`, if it exists and has not expired.
    pub fn get(&self, key: &[u8]) -> Result<Option<Document>, QueryError> {
        let found = self.core.store.read()?.get(key)?;
        let now_ms = self.core.time.now_ms();
        Ok(found.map(|(_, document)| document).filter(|document| !is_expired(document, now_ms)))
    }

    /// Computed vectors of the document under `key` in a collection, with their field names. For export.
    pub fn vectors(&self, collection: &str, key: &[u8]) -> Result<Vec<(String, ComputedVector)>, QueryError> {
        let (name, collection) = self.core.active(collection)?;
        let reader = self.core.store.read()?;
        let now_ms = self.core.time.now_ms();
        let mut vectors = Vec::new();
        let existing = reader.get(key)?.filter(|(_, document)| !is_expired(document, now_ms));
        let Some((doc, document)) = existing else { return Ok(vectors) };
        let corrupt = |reason| StoreError::Corrupt { table: "vectors", key: printable(key), reason };
        for (slot, field) in collection.projector.vectors.iter().enumerate() {
            let mut stored = reader.document_vectors(collection.version, field.position, doc)?;
            let is_computed = field.schema.embed.is_some() && document.field(field.name.as_bytes()).is_none();
            if stored.is_empty() && is_computed && collection.has_vector(slot, doc) {
                // The collection may have received it only after `reader` began.
                let later = self.core.store.read()?;
                stored = later.document_vectors(collection.version, field.position, doc)?;
                let is_unchanged = later.document(doc)?.is_some_and(|later| later.seq == document.seq)
                    && self.version(&name) == Some(collection.version);
                if stored.is_empty() && is_unchanged {
                    return Err(corrupt("the computed vector of a document is missing").into());
                }
            }
            for (passage, stored) in stored {
                let schema = &field.schema;
                let values = index::decode(&stored.bytes, schema.dim, schema.vector_type, schema.metric)
                    .map_err(|_| corrupt("the vector does not fit the schema it was computed for"))?;
                let vector = ComputedVector {
                    collection: collection.version,
                    field: field.position,
                    passage,
                    model: stored.model,
                    values,
                };
                vectors.push((field.name.clone(), vector));
            }
        }
        Ok(vectors)
    }

    /// Parses a filter in RediSearch syntax against the schema of a collection.
    pub fn parse_filter(&self, collection: &str, text: &str) -> Result<Filter, QueryError> {
        let (_, collection) = self.core.active(collection)?;
        Ok(Filter::parse(text, &collection.schema)?)
    }

    /// Searches a collection. Returns as many hits as requested, or as many as match.
    pub fn search(&self, query: &Query<'_>) -> Result<SearchResult, QueryError> {
        self.core.search(query, None, &ByteBudget::new(RESPONSE_BYTES_MAX))
    }

    /// The active version of a collection, by name or alias. Does not block.
    pub fn version(&self, collection: &str) -> Option<CollectionVersion> {
        self.core.registry().resolve(collection).map(|(_, versions)| versions.active.version)
    }

    /// Like [`Engine::search`], but fails with [`QueryError::VersionMismatch`] unless this version of the collection
    /// is active: a query vector is meaningless in a version with another model. The documents count against
    /// `budget`, which several searches may share.
    pub fn search_version(
        &self,
        query: &Query<'_>,
        version: CollectionVersion,
        budget: &ByteBudget,
    ) -> Result<SearchResult, QueryError> {
        self.core.search(query, Some(version), budget)
    }

    /// Keys of documents that start with `prefix`, at most `limit`, in ascending order after `after`; whether or not a
    /// collection includes them.
    pub fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Box<[u8]>>, QueryError> {
        let reader = self.core.store.read()?;
        let now_ms = self.core.time.now_ms();
        let mut keys = Vec::new();
        for entry in reader.keys(prefix, after)? {
            if keys.len() == limit {
                break;
            }
            let (key, doc) = entry?;
            if reader.document(doc)?.is_some_and(|document| !is_expired(&document, now_ms)) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Documents of a collection in the order in which they were first written, beginning after `after`, the end of
    /// the previous page. `limit` is at most 10,000. A page ends early at [`PAGE_BYTES`](crate::PAGE_BYTES).
    pub fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<ScrollPage, QueryError> {
        self.core.scroll(collection, filter, after, limit)
    }

    /// Number of documents of a collection that match.
    pub fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, QueryError> {
        self.core.count(collection, filter)
    }

    /// Durably deletes every expired document and returns their number. The engine does so about once per second by
    /// itself, and expired documents are never visible; call this to free their space now. Skips corrupt documents,
    /// and returns the first such error at the end.
    pub fn purge_expired(&self) -> Result<u64, QueryError> {
        Ok(self.core.purge_expired()?)
    }

    /// Writes a backup of the current state to `out`. Writes continue meanwhile.
    ///
    /// Earlier writes are made durable first. The backup may also contain writes that are answered while it starts and
    /// are not durable yet: after a power loss, the store can be behind its backup.
    pub fn back_up(&self, out: impl Write) -> Result<Backup, BackupError> {
        self.core.sync()?;
        self.core.store.read()?.back_up(out)
    }

    /// Statistics of the engine.
    pub fn stats(&self) -> Result<Stats, QueryError> {
        // Read first, so that it never exceeds `last_seq`.
        let durable_seq = self.core.store.synced_seq();
        let reader = self.core.store.read()?;
        let registry = self.core.registry();
        let memory: usize = registry.all().map(|collection| collection.memory_bytes()).sum();
        Ok(Stats {
            documents: reader.document_count()?,
            last_seq: reader.last_seq()?,
            durable_seq,
            durability: Some(self.core.durability),
            file_bytes: self.core.store.file_bytes()?,
            memory_bytes: memory as u64,
            commits: self.core.commits.load(Ordering::Relaxed),
        })
    }

    /// Whether the engine accepts writes. `Err` contains the reason if it rejects all writes until it is opened again,
    /// such as a failed fsync. A full disk, which is temporary, is reported only by the rejected writes.
    pub fn writable(&self) -> Result<(), String> {
        if self.core.is_closing() {
            return Err(WriteError::Closed.to_string());
        }
        match self.core.read_only_reason.get() {
            Some(reason) => Err(WriteError::ReadOnly { reason: reason.clone() }.to_string()),
            None => Ok(()),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Core {
    fn unembedded(
        &self,
        versions: &Versions,
        limit: usize,
    ) -> Result<Vec<(Document, Vec<TextToEmbed>)>, StoreError> {
        let reader = self.store.read()?;
        let mut found: Vec<(Document, Vec<TextToEmbed>)> = Vec::new();
        for collection in versions.all() {
            collection.hide_expired(&self.time);
            for (doc, fields) in collection.documents_missing_vectors(limit) {
                let Some(document) = reader.document(doc)? else { continue };
                let mut texts = collection.projector.texts(collection.version, &document.fields);
                texts.retain(|text| fields.contains(&text.field));
                let listed = found.iter_mut().find(|(listed, _)| listed.key == document.key);
                if let Some((_, listed_texts)) = listed {
                    listed_texts.extend(texts);
                } else if found.len() < limit {
                    found.push((document, texts));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
