//! Copying collections from one store to another: schemas, aliases, documents, vectors and expiries.
//!
//! Nothing is embedded: vectors are copied with the fingerprint of the model that computed them, and no
//! model has to be installed. No progress is stored either: every document is compared with the one
//! under its key in the target and written if they differ. Repeating an interrupted copy therefore
//! writes only what is missing, and otherwise runs as fast as both stores can be read.

mod digest;
mod endpoint;
mod pages;
mod plan;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

pub use self::plan::CopyPlan;
use self::{
    digest::{DocumentDigest, difference, to_put},
    endpoint::{CopyEndpoint, StoredDocument},
    pages::DocumentPage,
};
use crate::{
    Clock, Config, Context, Error, ErrorKind, Expected, Store, SystemClock,
    backend::{Op, WriteFailure},
    meter::Meter,
    models::Models,
    sync::{Arc, AtomicU64},
};

/// Pages read ahead of those being written.
const READ_AHEAD: usize = 2;

/// Pages written concurrently: while one waits for the disk or the server, the next is compared.
const WRITERS: usize = 2;

/// How long to retry after a transient error, such as a failover or a full queue.
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);

/// First and longest pause between retries; doubles each time.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Two open stores to copy between. A data directory is opened exclusively; a Redis may be in use.
/// Dropping it closes both, which blocks.
pub struct Copier {
    from: CopyEndpoint,
    to: CopyEndpoint,
    /// To look up the fingerprint of a model if no vector has it.
    models: Arc<Models>,
}

impl std::fmt::Debug for Copier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copier").finish_non_exhaustive()
    }
}

/// The progress of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Documents processed, out of about [`CopyPlan::documents`].
    pub done: u64,
    /// Documents written.
    pub written: u64,
}

/// A document that was not copied, or that differs in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFailure {
    /// The collection it was read from.
    pub collection: String,
    /// Its key, with invalid UTF-8 replaced.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Receives the progress of a copy. Its methods must not block.
pub trait CopyObserver: Sync {
    /// Called after every page.
    fn progress(&self, progress: CopyProgress);
    /// Called for every document that fails.
    fn failure(&self, failure: CopyFailure);
}

/// The totals of a copy. Written, unchanged, rejected and expired add up to the documents read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySummary {
    /// Documents written.
    pub written: u64,
    /// Documents that were already equal in the target.
    pub unchanged: u64,
    /// Documents rejected by the target, or incomplete in the source; each is reported.
    pub rejected: u64,
    /// Documents that expired during the copy.
    pub expired: u64,
    /// Documents of the source that are in none of the copied collections, or do not match its schema;
    /// `None` if the source does not count them.
    pub skipped: Option<u64>,
}

/// The result of comparing all documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyVerification {
    /// Documents of the source that were compared.
    pub documents: u64,
    /// Documents missing in the target; each is reported.
    pub missing: u64,
    /// Documents that differ in the target; each is reported.
    pub different: u64,
    /// The sum modulo 2^128 of the first 16 bytes of each source document's SHA-256 (key, fields and
    /// vectors).
    pub digest: u128,
    /// The same sum for the documents under these keys in the target.
    pub target_digest: u128,
    /// Name of each collection, and its number of documents in source and target.
    pub counts: Vec<(String, u64, u64)>,
}

impl CopyVerification {
    /// Whether every document of the source is in the target and equal.
    pub fn is_equal(&self) -> bool {
        self.missing == 0 && self.different == 0 && self.digest == self.target_digest
    }
}

/// Counters shared by the concurrent writers.
#[derive(Debug, Default)]
struct CopyCounters {
    written: AtomicU64,
    unchanged: AtomicU64,
    rejected: AtomicU64,
    expired: AtomicU64,
}

impl CopyCounters {
    fn progress(&self) -> CopyProgress {
        let [written, unchanged, rejected, expired] =
            [&self.written, &self.unchanged, &self.rejected, &self.expired].map(|count| count.load(Relaxed));
        CopyProgress { done: written + unchanged + rejected + expired, written }
    }
}

impl Copier {
    /// Opens both stores. Blocking. Fails if the source does not exist or is the same store as the
    /// target.
    pub fn open(from: Config, to: Config) -> Result<Copier, Error> {
        Copier::open_with_clock(from, to, Arc::new(SystemClock))
    }

    /// [`Copier::open`] with another clock for expiry.
    pub fn open_with_clock(from: Config, to: Config, clock: Arc<dyn Clock>) -> Result<Copier, Error> {
        if let (Store::Directory, Store::Directory) = (&from.store, &to.store)
            && canonical_path(&from.data_dir) == canonical_path(&to.data_dir)
        {
            return Err(same_store(&from.data_dir.display().to_string()));
        }
        if from.store == Store::Directory && !from.data_dir.is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                "source-not-found",
                format!("there is no data directory {} to copy from", from.data_dir.display()),
            ));
        }
        let source = CopyEndpoint::open(&from, clock.clone())?;
        let target = CopyEndpoint::open(&to, clock)?;
        if let (Some(one), Some(other)) = (source.backend.server_id(), target.backend.server_id())
            && one == other
        {
            return Err(same_store("the same Redis server"));
        }
        let models = Arc::new(Models::new(&to, engine::Cpu::detect(), Arc::new(Meter::new())));
        Ok(Copier { from: source, to: target, models })
    }

    /// Creates the named collections (or all) in the target with their aliases, or adopts equal ones. A
    /// collection that exists there with another schema is rejected before anything is created;
    /// `quantization` may differ, because it is chosen per store.
    pub async fn plan(&self, cx: &Context, names: Option<&[String]>) -> Result<CopyPlan, Error> {
        plan::create(&self.from, &self.to, &self.models, cx, names).await
    }

    /// Copies the documents. Equal documents in the target are not written again; others are replaced.
    pub async fn copy(
        &self,
        cx: &Context,
        plan: &CopyPlan,
        observer: &dyn CopyObserver,
    ) -> Result<CopySummary, Error> {
        let counters = CopyCounters::default();
        let (pages, receiver) = mpsc::channel(READ_AHEAD);
        let receiver = tokio::sync::Mutex::new(receiver);
        let read = async {
            let read = pages::read(&self.from, cx, plan, &pages).await;
            // Closing the channel ends the writers.
            drop(pages);
            read
        };
        let write = || async {
            loop {
                let Some(page) = receiver.lock().await.recv().await else { return Ok(()) };
                self.write(cx, plan, page, &counters, observer).await?;
                observer.progress(counters.progress());
            }
        };
        const { assert!(WRITERS == 2, "the number of writers joined below") };
        let (read, ..) = tokio::try_join!(read, write(), write())?;
        let skipped = if plan.is_complete && self.from.counts_only_documents() {
            let call = self.from.begin(cx)?;
            Some(self.from.backend.stats(&call).await?.documents.saturating_sub(read))
        } else {
            None
        };
        let CopyCounters { written, unchanged, rejected, expired } = counters;
        Ok(CopySummary {
            written: written.into_inner(),
            unchanged: unchanged.into_inner(),
            rejected: rejected.into_inner(),
            expired: expired.into_inner(),
            skipped,
        })
    }

    /// Reads every document from both stores and compares them.
    pub async fn verify(
        &self,
        cx: &Context,
        plan: &CopyPlan,
        observer: &dyn CopyObserver,
    ) -> Result<CopyVerification, Error> {
        let mut verified = CopyVerification::default();
        let (pages, mut receiver) = mpsc::channel(READ_AHEAD);
        let read = async {
            let read = pages::read(&self.from, cx, plan, &pages).await;
            drop(pages);
            read
        };
        let compare = async {
            while let Some(page) = receiver.recv().await {
                self.compare(cx, plan, page, &mut verified, observer).await?;
                observer.progress(CopyProgress { done: verified.documents, written: 0 });
            }
            Ok(())
        };
        tokio::try_join!(read, compare)?;
        for planned in &plan.collections {
            let (from, to) = (self.from.begin(cx)?, self.to.begin(cx)?);
            let counts = tokio::try_join!(
                self.from.backend.count(&from, &planned.from, None),
                self.to.backend.count(&to, &planned.to, None)
            )?;
            verified.counts.push((planned.from.name.clone(), counts.0, counts.1));
        }
        Ok(verified)
    }

    /// Writes one page, with retries after transient errors.
    async fn write(
        &self,
        cx: &Context,
        plan: &CopyPlan,
        page: DocumentPage,
        counters: &CopyCounters,
        observer: &dyn CopyObserver,
    ) -> Result<(), Error> {
        let collection = &plan.collections[page.collection].from.name;
        let writer = PageWriter { to: &self.to, plan, collection, counters, observer };
        let mut pending = page.documents;
        retry(async || writer.write_once(cx, &mut pending).await).await
    }

    async fn compare(
        &self,
        cx: &Context,
        plan: &CopyPlan,
        page: DocumentPage,
        verified: &mut CopyVerification,
        observer: &dyn CopyObserver,
    ) -> Result<(), Error> {
        let collection = &plan.collections[page.collection].from.name;
        let keys: Vec<Vec<u8>> = page.documents.iter().map(|source| source.document.key.to_vec()).collect();
        let targets = || plan.collections.iter().map(|planned| &planned.to);
        let existing_by_key = retry(async || {
            let call = self.to.begin(cx)?;
            self.to.documents(&call, targets(), keys.clone()).await
        })
        .await?;
        let now_ms = self.to.backend.now_ms();
        for source in page.documents {
            if source.has_expired(now_ms) {
                continue;
            }
            verified.documents += 1;
            let digest = DocumentDigest::of_source(plan, &source);
            verified.digest = verified.digest.wrapping_add(digest.sum());
            let Some(existing) = existing_by_key.get(&source.document.key) else {
                verified.missing += 1;
                observer.failure(failure(collection, &source, "it is not in the target".to_owned()));
                continue;
            };
            verified.target_digest =
                verified.target_digest.wrapping_add(DocumentDigest::of_target(plan, existing).sum());
            if let Some(difference) = difference(plan, &source, existing) {
                verified.different += 1;
                observer.failure(failure(collection, &source, difference));
            }
        }
        Ok(())
    }
}

/// Writes documents of one collection to the target.
struct PageWriter<'c> {
    to: &'c CopyEndpoint,
    plan: &'c CopyPlan,
    collection: &'c str,
    counters: &'c CopyCounters,
    observer: &'c dyn CopyObserver,
}

impl PageWriter<'_> {
    /// Writes those of the `pending` documents that differ in the target. Removes all that need no further
    /// attempt; on success that is all of them.
    async fn write_once(&self, cx: &Context, pending: &mut Vec<StoredDocument>) -> Result<(), Error> {
        let call = self.to.begin(cx)?;
        let keys = pending.iter().map(|source| source.document.key.to_vec()).collect();
        let targets = self.plan.collections.iter().map(|planned| &planned.to);
        let existing = self.to.documents(&call, targets, keys).await?;
        let (writing, ops) = self.puts(std::mem::take(pending), &existing);
        if ops.is_empty() {
            return Ok(());
        }
        let results = match self.to.backend.commit(&call, ops).await {
            Ok(results) => results,
            Err(error) => {
                // Whether they were applied is found out when they are compared again.
                *pending = writing;
                return Err(error);
            }
        };
        let mut failed = None;
        for (source, result) in writing.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    self.counters.written.fetch_add(1, Relaxed);
                }
                // Another client changed it after it was compared: compare it again.
                Err(WriteFailure::Conflict(error)) => {
                    failed.get_or_insert(error);
                    pending.push(source);
                }
                Err(WriteFailure::Rejected(error)) if is_document_error(&error) => {
                    self.reject(&source, error.message);
                }
                Err(other) => {
                    failed = Some(other.into_error());
                    pending.push(source);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The documents to write, each with its operation. Counts the others as expired, unchanged or
    /// rejected.
    fn puts(
        &self,
        documents: Vec<StoredDocument>,
        existing: &HashMap<Box<[u8]>, StoredDocument>,
    ) -> (Vec<StoredDocument>, Vec<Op>) {
        let now_ms = self.to.backend.now_ms();
        let (mut writing, mut ops) = (Vec::new(), Vec::new());
        for source in documents {
            if source.has_expired(now_ms) {
                self.counters.expired.fetch_add(1, Relaxed);
                continue;
            }
            let existing = existing.get(&source.document.key);
            if existing.is_some_and(|existing| difference(self.plan, &source, existing).is_none()) {
                self.counters.unchanged.fetch_add(1, Relaxed);
                continue;
            }
            let expected = existing.map_or(Expected::Absent, |existing| Expected::Seq(existing.document.seq));
            let put = to_put(self.plan, &source, expected).and_then(|op| {
                self.to.backend.validate(&op).map_err(|error| plan::rejection_reason(&error))?;
                Ok(op)
            });
            match put {
                Ok(op) => {
                    writing.push(source);
                    ops.push(op);
                }
                Err(reason) => self.reject(&source, reason),
            }
        }
        (writing, ops)
    }

    fn reject(&self, source: &StoredDocument, reason: String) {
        self.counters.rejected.fetch_add(1, Relaxed);
        self.observer.failure(failure(self.collection, source, reason));
    }
}

fn failure(collection: &str, source: &StoredDocument, reason: String) -> CopyFailure {
    let key = String::from_utf8_lossy(&source.document.key).into_owned();
    CopyFailure { collection: collection.to_owned(), key, reason }
}

/// Retries an operation after transient errors.
async fn retry<T>(mut operation: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let began = Instant::now();
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        match operation().await {
            Err(error) if is_transient(&error) && began.elapsed() < RETRY_TIME_MAX => {
                tracing::warn!(%error, "retrying after a transient store error");
                tokio::time::sleep(pause).await;
                pause = RETRY_PAUSE_MAX.min(2 * pause);
            }
            result => return result,
        }
    }
}

/// Whether a retry may succeed.
fn is_transient(error: &Error) -> bool {
    let is_final = matches!(error.code, "cancelled" | "closing" | "read-only" | "redis-refused");
    let is_temporary =
        matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::Conflict);
    is_temporary && !is_final
}

/// Whether an error concerns one document only.
fn is_document_error(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Invalid | ErrorKind::Conflict)
}

/// The absolute path of a directory, with links resolved.
fn canonical_path(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.canonicalize().unwrap_or(absolute)
}

fn same_store(what: &str) -> Error {
    Error::invalid("same-store", format!("source and target are the same store: {what}"))
}
