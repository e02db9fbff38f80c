//! The engine: opening, closing, and the verbs.

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

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the store file, the snapshots and the lock.
    pub data_dir: PathBuf,
    /// Instruction set of the kernels.
    pub cpu: Cpu,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Bytes of the store's page cache.
    pub cache_bytes: usize,
    /// Bytes of the disk that are left free: a write that would take of them is refused; none, if 0.
    pub disk_reserve_bytes: u64,
    /// Bytes that indexes and tables in memory may take, together, before writes that add to them are refused; no limit,
    /// if 0.
    pub memory_max_bytes: u64,
    /// The longest store file that is verified as a whole when it is opened.
    pub verify_bytes_max: u64,
    /// When a write is made durable.
    pub durability: Durability,
    /// Vectors a tail may hold before writers are slowed.
    pub tail_max: usize,
    /// Threads that drain tails into graphs.
    pub index_threads: usize,
    /// Called first on each of these, to lower its priority: they may give way to searches, since one
    /// thread more, which does not, drains a tail that grows long.
    pub lower_priority: fn(),
    /// Called once if no more writes are taken until the engine is opened again, with the reason: nobody may be waiting
    /// for an answer then.
    pub on_read_only: fn(&str),
}

impl Options {
    fn store_options(&self) -> store::Options {
        store::Options { cache_bytes: self.cache_bytes, verify_bytes_max: self.verify_bytes_max }
    }
}

/// Why an engine could not be opened. Messages carry the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum OpenError {
    /// Another engine has the directory.
    #[error("{} is in use by another Nearfield process: stop it first, or talk to it", path.display())]
    Locked { path: PathBuf },
    /// The directory or the lock cannot be made.
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// There are snapshots of a store, and no store.
    #[error(
        "{} is missing or empty, and snapshots beside it tell that there was a store: restore it from a backup, or \
         remove the directory of snapshots to begin anew",
        path.display()
    )]
    Lost { path: PathBuf },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The store cannot be read.
    #[error("cannot read the store in {}: {source}; `nearfield check` tells all that is damaged, `nearfield repair` and `nearfield restore` mend it", path.display())]
    Read { path: PathBuf, source: StoreError },
    /// A stored schema does not read back.
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
    /// Taken away by the first to close, who then waits for them.
    running: Mutex<Option<EngineThreads>>,
}

/// What an open engine holds besides its core.
#[derive(Debug)]
struct EngineThreads {
    committer: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    /// Holds the lock, if it is a directory.
    _directory: Option<DataDir>,
}

impl Engine {
    /// Opens or creates the data directory, reads snapshots and catches up with the store.
    /// On return every answer is complete and correct.
    pub fn open(options: Options) -> Result<Engine, OpenError> {
        Engine::open_with_progress(options, &Progress::default())
    }

    /// [`Engine::open`], which tells how far it has come.
    pub fn open_with_progress(options: Options, progress: &Progress) -> Result<Engine, OpenError> {
        progress.start("the store is being opened".to_owned());
        let directory = DataDir::lock(&options.data_dir)?;
        let snapshots = directory.snapshots()?;
        let store = Store::open(&directory.store_file(), options.store_options())?;
        Engine::start(store, Arc::new(snapshots), Some(directory), &options, progress)
    }

    /// [`Engine::open`] on other disks than the file system: one for the store, one for snapshots.
    /// `data_dir` is only a name.
    pub fn open_on(
        store: impl StorageBackend,
        snapshots: Arc<dyn FileStorage>,
        options: Options,
    ) -> Result<Engine, OpenError> {
        let store = Store::open_with_backend(store, options.store_options())?;
        Engine::start(store, snapshots, None, &options, &Progress::default())
    }

    /// Reads everything in from an open store, and starts the threads.
    fn start(
        store: Store,
        snapshots: Arc<dyn FileStorage>,
        directory: Option<DataDir>,
        options: &Options,
        progress: &Progress,
    ) -> Result<Engine, OpenError> {
        let failed = |source| OpenError::Io { path: options.data_dir.join(SNAPSHOT_DIRECTORY), source };
        let unread = |source| OpenError::Read { path: options.data_dir.clone(), source };
        // A new store must not take the place of one that has gone unnoticed.
        if store.read().and_then(|reader| reader.is_new()).map_err(unread)?
            && snapshots.names().map_err(failed)?.iter().any(|name| Snapshots::is_file_name(name))
        {
            return Err(OpenError::Lost { path: options.data_dir.join(STORE_FILE) });
        }
        let snapshots = Snapshots::open(snapshots, store.id()).map_err(failed)?;
        let core = Core::new(store, snapshots, options);
        core.load(&options.data_dir, progress)?;
        let core = Arc::new(core);
        let spawn = |name: String, run: Box<dyn FnOnce(&Core) + Send>| {
            let core = core.clone();
            thread::Builder::new().name(name).spawn(move || run(&core))
        };
        let started = (|| {
            let committer = spawn("nearfield-committer".to_owned(), Box::new(Core::run_committer))?;
            let mut background = vec![spawn("nearfield-upkeep".to_owned(), Box::new(Core::run_maintenance))?];
            for thread in 0..options.index_threads {
                let lower_priority = options.lower_priority;
                let run = move |core: &Core| {
                    lower_priority();
                    core.run_indexer(thread);
                };
                background.push(spawn(format!("nearfield-index-{thread}"), Box::new(run))?);
            }
            background.push(spawn("nearfield-relief".to_owned(), Box::new(Core::run_tail_drainer))?);
            Ok(EngineThreads { committer, background, _directory: directory })
        })();
        match started {
            Ok(running) => Ok(Engine { core, running: Mutex::new(Some(running)) }),
            Err(source) => {
                core.stop();
                core.queue.close();
                Err(OpenError::Thread { source })
            }
        }
    }

    /// Finishes queued writes, makes all durable, writes snapshots, stops the threads. Reads go on; writes are
    /// refused. Closing again does nothing but wait until the engine is closed.
    pub fn close(&self) {
        let mut running = self.running.lock();
        let Some(EngineThreads { committer, background, _directory }) = running.take() else { return };
        self.core.queue.close();
        self.join(committer);
        self.core.stop();
        for thread in background {
            self.join(thread);
        }
        // A verb on collections may still be at work; it sees that the engine closes.
        let _ddl_lock = self.core.ddl_lock.lock();
        self.core.save(is_snapshot_stale);
    }

    fn join(&self, thread: JoinHandle<()>) {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            self.core.warn(format!("the thread {name} panicked"));
        }
    }

    /// What went wrong without harm since the engine was opened, oldest first: snapshots that were
    /// thrown away or not written, documents that could not be reaped. At most the last 100.
    pub fn warnings(&self) -> Vec<String> {
        self.core.warnings()
    }

    /// Makes a collection; the same name with an equal schema is no error. Documents that stand
    /// under its prefixes already are indexed before this returns, except vectors to be computed:
    /// see [`Engine::unembedded`]. Those that do not fit the schema are counted.
    pub fn create_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, CollectionError> {
        self.core.create_collection(name, schema)?;
        self.collection(name)
    }

    /// Begins a new version of a collection with another schema beside the one that answers.
    /// Writes feed both until [`Engine::switch_collection`]; what does not fit the new schema is
    /// counted, not refused, until then. Vectors that the old version computed alike are taken over.
    pub fn rebuild_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, CollectionError> {
        self.core.rebuild_collection(name, schema)?;
        self.collection(name)
    }

    /// Lets the rebuilt version answer and drops the old one.
    pub fn switch_collection(&self, name: &str) -> Result<CollectionInfo, CollectionError> {
        self.core.switch_collection(name)?;
        self.collection(name)
    }

    /// Drops a collection and the aliases that lead to it.
    pub fn drop_collection(&self, name: &str, documents: DropMode) -> Result<(), CollectionError> {
        self.core.drop_collection(name, documents)
    }

    /// Points an alias at a collection, in place of where it led.
    pub fn set_alias(&self, alias: &str, collection: &str) -> Result<(), CollectionError> {
        self.core.set_alias(alias, collection)
    }

    /// Removes an alias.
    pub fn remove_alias(&self, alias: &str) -> Result<(), CollectionError> {
        self.core.remove_alias(alias)
    }

    /// All collections, by name.
    pub fn collections(&self) -> Vec<CollectionInfo> {
        let registry = self.core.registry();
        let now_ms = self.core.time.now_ms();
        let named = registry.named.iter();
        named.map(|(name, versions)| info(&registry, name, versions, now_ms)).collect()
    }

    /// One collection by name or alias.
    pub fn collection(&self, name: &str) -> Result<CollectionInfo, CollectionError> {
        let registry = self.core.registry();
        match registry.resolve(name) {
            Some((name, versions)) => Ok(info(&registry, name, versions, self.core.time.now_ms())),
            None => {
                Err(CollectionError::NotFound { name: name.to_owned(), known: registry.collection_names() })
            }
        }
    }

    /// Which texts of a document with these fields must be embedded, for all collections its key falls into.
    /// A field that brings its own vector needs none.
    pub fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        let registry = self.core.registry();
        let taking = registry.all().filter(|collection| collection.schema.matches_key(key));
        taking.flat_map(|collection| collection.projector.texts(collection.version, fields)).collect()
    }

    /// Up to `limit` documents of a collection (its rebuilding version included) that still lack
    /// computed vectors, each with the texts to embed.
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

    /// Checks one write as [`Engine::submit`] would, without writing. Its guard is not looked at.
    pub fn validate(&self, op: &Op) -> Result<(), WriteError> {
        let Op::Put { key, fields, vectors, .. } = op else { return Ok(()) };
        check_document(key, fields)?;
        let registry = self.core.registry();
        let collections = registry.with_roles().map(|(collection, role)| (&**collection, role));
        project(collections, key, fields, vectors).map(|_| ())
    }

    /// Queues writes; `done` is called on the committer's thread once they are visible, and durable if
    /// [`Options::durability`] wants it, with one result for each. Never blocks.
    ///
    /// A closed engine calls `done` at once, on this thread.
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

    /// [`Engine::submit`], waiting for room and for the results. Not to be called from `done`.
    pub fn write(&self, ops: Vec<Op>) -> Vec<Result<WriteOutcome, WriteError>> {
        let len = ops.len();
        let (answer, results) = mpsc::sync_channel(1);
        let done: WriteCallback = Box::new(move |results| {
            // The receiver waits below until it has them.
            answer.send(results).expect("whoever writes waits for the results");
        });
        match self.core.queue.submit_blocking(WriteJob::new(ops, done)) {
            Ok(()) => results.recv().expect("the committer answers every job"),
            Err(_) => vec![Err(WriteError::Closed); len],
        }
    }

    /// The time ends are counted from: Unix milliseconds of the clock. After the clock was put back it is for a moment
    /// that of before, until what had ended by then is deleted.
    pub fn now_ms(&self) -> u64 {
        self.core.time.now_ms()
    }

    /// The document under `key`, if it stands and has not expired.
    pub fn get(&self, key: &[u8]) -> Result<Option<Document>, QueryError> {
        let found = self.core.store.read()?.get(key)?;
        let now_ms = self.core.time.now_ms();
        Ok(found.map(|(_, document)| document).filter(|document| !is_expired(document, now_ms)))
    }

    /// Computed vectors of the document under `key` in a collection, by field name: those of the
    /// last write. For export.
    pub fn vectors(&self, collection: &str, key: &[u8]) -> Result<Vec<(String, ComputedVector)>, QueryError> {
        let (_, collection) = self.core.active(collection)?;
        let reader = self.core.store.read()?;
        let now_ms = self.core.time.now_ms();
        let mut vectors = Vec::new();
        let standing = reader.get(key)?.filter(|(_, document)| !is_expired(document, now_ms));
        let Some((doc, _)) = standing else { return Ok(vectors) };
        for field in &collection.projector.vectors {
            for (passage, stored) in reader.document_vectors(collection.version, field.position, doc)? {
                let schema = &field.schema;
                let values = index::decode(&stored.bytes, schema.dim, schema.vector_type, schema.metric)
                    .map_err(|_| StoreError::Corrupt {
                        table: "vectors",
                        key: printable(key),
                        reason: "the vector does not fit the schema it was computed for",
                    })?;
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

    /// Parses a filter in RediSearch's syntax against a collection's schema.
    pub fn parse_filter(&self, collection: &str, text: &str) -> Result<Filter, QueryError> {
        let (_, collection) = self.core.active(collection)?;
        Ok(Filter::parse(text, &collection.schema)?)
    }

    /// The nearest documents: as many as were asked for, or as there are that match.
    pub fn search(&self, query: &Query<'_>) -> Result<SearchResult, QueryError> {
        self.core.search(query, None, &ByteBudget::new(RESPONSE_BYTES_MAX))
    }

    /// The version of a collection that answers now, by name or alias. Waits for nothing.
    pub fn version(&self, collection: &str) -> Option<CollectionVersion> {
        self.core.registry().resolve(collection).map(|(_, versions)| versions.active.version)
    }

    /// [`Engine::search`], refused as [`QueryError::VersionMismatch`] unless this version of the collection answers: a
    /// query's vector is worth nothing beside those of another model. Its documents share `room` with those of other
    /// searches.
    pub fn search_version(
        &self,
        query: &Query<'_>,
        version: CollectionVersion,
        budget: &ByteBudget,
    ) -> Result<SearchResult, QueryError> {
        self.core.search(query, Some(version), budget)
    }

    /// Documents of a collection in the order they were first written, from `after` on: those that
    /// come after the one where the last page ended. `limit` is at most 10,000; a page that has
    /// [`PAGE_BYTES`](crate::PAGE_BYTES) ends before.
    pub fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<ScrollPage, QueryError> {
        self.core.scroll(collection, filter, after, limit)
    }

    /// How many documents of a collection match.
    pub fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, QueryError> {
        self.core.count(collection, filter)
    }

    /// Deletes every document whose end has come, durably; says how many. Happens by itself about
    /// every second, and documents that have ended are never shown: this is for those who cannot wait.
    /// What is damaged stays, and is the error when all else is gone.
    pub fn purge_expired(&self) -> Result<u64, QueryError> {
        Ok(self.core.purge_expired()?)
    }

    /// Writes all there is to `out`, as of now; writes go on meanwhile.
    ///
    /// What was answered before is made durable first. What is answered while the backup begins may be in it and not be
    /// durable: after a loss of power the store can be behind its backup.
    pub fn back_up(&self, out: impl Write) -> Result<Backup, BackupError> {
        self.core.sync()?;
        self.core.store.read()?.back_up(out)
    }

    /// Counts.
    pub fn stats(&self) -> Result<Stats, QueryError> {
        // Asked first, so that it is never ahead of the last change.
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

    /// Whether writes are taken; `Err` says why none are until the engine is opened again: a failed fsync, for one. A
    /// full disk, which ends by itself once there is room, only the writes that it refuses tell.
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
        let now_ms = self.time.now_ms();
        let reader = self.store.read()?;
        let mut found: Vec<(Document, Vec<TextToEmbed>)> = Vec::new();
        for collection in versions.all() {
            collection.hide_expired(now_ms);
            for (doc, fields) in collection.documents_missing_vectors(limit) {
                let Some(document) = reader.document(doc)? else { continue };
                let mut texts = collection.projector.texts(collection.version, &document.fields);
                texts.retain(|text| fields.contains(&text.field));
                let known = found.iter_mut().find(|(known, _)| known.key == document.key);
                if let Some((_, known)) = known {
                    known.extend(texts);
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
