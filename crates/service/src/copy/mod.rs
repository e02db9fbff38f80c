//! Copying collections from one store to another: schemas, aliases, documents, their vectors and
//! their ends.
//!
//! Nothing is computed: vectors travel with the fingerprint of the model that made them, and no
//! model has to be installed. Nothing is noted either. Every document is compared with what stands
//! under its key in the target, and written if that differs: so a copy that was interrupted, made
//! again, writes only what is missing, and goes through the rest as fast as both stores are read.

mod digest;
mod endpoint;
mod pages;
mod plan;

use std::{
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
use super::{
    Clock, Config, Context, Error, ErrorKind, Expected, Store, SystemClock,
    backend::NotWritten,
    meter::Meter,
    models::Models,
    sync::{Arc, AtomicU64},
};

/// Pages read ahead of those that are being written.
const READ_AHEAD: usize = 2;

/// Pages written at once: while one waits for the disk or the server, the next is compared.
const WRITERS: usize = 2;

/// How long trouble that may pass (a server that fails over, a full queue) is waited out.
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);

/// First pause before something is tried again; twice as long each time, up to the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Two stores, opened to copy from the one to the other: data directories for this alone, a Redis
/// beside whoever else uses it. Dropped, they are closed, which blocks.
pub struct Copier {
    from: CopyEndpoint,
    to: CopyEndpoint,
    /// To know what a model is called by its fingerprint where no vector tells.
    models: Arc<Models>,
}

impl std::fmt::Debug for Copier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").finish_non_exhaustive()
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Documents gone through, of about [`CopyPlan::documents`].
    pub done: u64,
    /// Of these, written.
    pub written: u64,
}

/// A document that was not copied, or that is not in the target as in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFailure {
    /// The collection it was met in.
    pub collection: String,
    /// Its key; what is not UTF-8 replaced.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Who is told how it goes, while pages are worked on: it must not block.
pub trait CopyObserver: Sync {
    /// Told after every page.
    fn progress(&self, progress: CopyProgress);
    /// Told of every document in trouble.
    fn failure(&self, failure: CopyFailure);
}

/// What became of the documents of a copy. Those written, unchanged, rejected and ended are all that
/// were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySummary {
    /// Written.
    pub written: u64,
    /// Stood in the target already, equal.
    pub unchanged: u64,
    /// Refused by the target, or not whole in the source; told one by one.
    pub rejected: u64,
    /// Their end came while they were being copied.
    pub expired: u64,
    /// Documents of the source that stand in none of the copied collections, or do not fit it, where
    /// the source can tell.
    pub skipped: Option<u64>,
}

/// What a comparison of all documents found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyVerification {
    /// Documents of the source that were compared.
    pub documents: u64,
    /// Of these, not in the target; told one by one.
    pub missing: u64,
    /// Of these, other in the target; told one by one.
    pub different: u64,
    /// Sum, modulo 2 to the 128, of the first 16 bytes of the SHA-256 of each document in the source:
    /// key, fields and vectors.
    pub digest: u128,
    /// The same of the documents under these keys in the target.
    pub target_digest: u128,
    /// Name of each collection, and its documents in source and target as the stores count them.
    pub counts: Vec<(String, u64, u64)>,
}

impl CopyVerification {
    /// Whether every document of the source stands in the target, the same.
    pub fn is_equal(&self) -> bool {
        self.missing == 0 && self.different == 0 && self.digest == self.target_digest
    }
}

/// What is counted while pages come in from several sides.
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
    /// Opens both stores. Blocking. A source that is not there, or that is the target, is refused.
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
            return Err(same_store("one Redis, under whatever name"));
        }
        let models = Arc::new(Models::new(&to, engine::Cpu::detect(), Arc::new(Meter::new())));
        Ok(Copier { from: source, to: target, models })
    }

    /// Makes the collections in the target, with their aliases, or finds equal ones: those named, or
    /// all. One that stands there with another schema is refused before anything is made; how the
    /// index holds vectors (`quantization`) is the target's own business.
    pub async fn plan(&self, cx: &Context, names: Option<&[String]>) -> Result<CopyPlan, Error> {
        plan::make(&self.from, &self.to, &self.models, cx, names).await
    }

    /// Copies the documents: those that stand in the target already, equal, are not written again;
    /// others in their place are replaced.
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
            // The writers end with the pages.
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
        const { assert!(WRITERS == 2, "as many as are joined here") };
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

    /// Reads every document back from both stores and compares them.
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

    /// Brings the target's documents under the keys of a page to those of the page.
    async fn write(
        &self,
        cx: &Context,
        plan: &CopyPlan,
        page: DocumentPage,
        counters: &CopyCounters,
        observer: &dyn CopyObserver,
    ) -> Result<(), Error> {
        let collection = &plan.collections[page.collection].from.name;
        let mut open = page.documents;
        retry(async || self.write_once(cx, plan, collection, &mut open, counters, observer).await).await
    }

    /// Writes what is not in the target yet of these documents, and takes those out that are done:
    /// all of them, unless it fails.
    async fn write_once(
        &self,
        cx: &Context,
        plan: &CopyPlan,
        collection: &str,
        open: &mut Vec<StoredDocument>,
        counters: &CopyCounters,
        observer: &dyn CopyObserver,
    ) -> Result<(), Error> {
        let rejected = |held: &StoredDocument, reason: String| {
            counters.rejected.fetch_add(1, Relaxed);
            observer.failure(failure(collection, held, reason));
        };
        let call = self.to.begin(cx)?;
        let keys = open.iter().map(|held| held.document.key.to_vec()).collect();
        let existing_by_key =
            self.to.documents(&call, plan.collections.iter().map(|planned| &planned.to), keys).await?;
        let now_ms = self.to.backend.now_ms();
        let (mut writing, mut ops) = (Vec::new(), Vec::new());
        for held in std::mem::take(open) {
            if held.has_expired(now_ms) {
                counters.expired.fetch_add(1, Relaxed);
                continue;
            }
            let existing = existing_by_key.get(&held.document.key);
            if existing.is_some_and(|existing| difference(plan, &held, existing).is_none()) {
                counters.unchanged.fetch_add(1, Relaxed);
                continue;
            }
            let expected = existing.map_or(Expected::Absent, |existing| Expected::Seq(existing.document.seq));
            let op = match to_put(plan, &held, expected) {
                Ok(op) => op,
                Err(reason) => {
                    rejected(&held, reason);
                    continue;
                }
            };
            if let Err(error) = self.to.backend.validate(&op) {
                rejected(&held, plan::rejection_reason(&error));
                continue;
            }
            writing.push(held);
            ops.push(op);
        }
        if ops.is_empty() {
            return Ok(());
        }
        let results = match self.to.backend.commit(&call, ops).await {
            Ok(results) => results,
            Err(error) => {
                // Whether they were made is seen when they are compared again.
                *open = writing;
                return Err(error);
            }
        };
        let mut failed = None;
        for (held, result) in writing.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    counters.written.fetch_add(1, Relaxed);
                }
                // Changed by others between the look and the write: it is looked at again.
                Err(NotWritten::Conflict(error)) => {
                    failed.get_or_insert(error);
                    open.push(held);
                }
                Err(NotWritten::Refused(error)) if is_document_error(&error) => {
                    rejected(&held, error.message);
                }
                Err(other) => {
                    failed = Some(other.into_error());
                    open.push(held);
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
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
        let keys: Vec<Vec<u8>> = page.documents.iter().map(|held| held.document.key.to_vec()).collect();
        let targets = || plan.collections.iter().map(|planned| &planned.to);
        let existing_by_key = retry(async || {
            let call = self.to.begin(cx)?;
            self.to.documents(&call, targets(), keys.clone()).await
        })
        .await?;
        let now_ms = self.to.backend.now_ms();
        for held in page.documents {
            if held.has_expired(now_ms) {
                continue;
            }
            verified.documents += 1;
            let digest = DocumentDigest::of_source(plan, &held);
            verified.digest = verified.digest.wrapping_add(digest.sum());
            let Some(existing) = existing_by_key.get(&held.document.key) else {
                verified.missing += 1;
                observer.failure(failure(collection, &held, "it is not in the target".to_owned()));
                continue;
            };
            verified.target_digest =
                verified.target_digest.wrapping_add(DocumentDigest::of_target(plan, existing).sum());
            if let Some(difference) = difference(plan, &held, existing) {
                verified.different += 1;
                observer.failure(failure(collection, &held, difference));
            }
        }
        Ok(())
    }
}

fn failure(collection: &str, held: &StoredDocument, reason: String) -> CopyFailure {
    let key = String::from_utf8_lossy(&held.document.key).into_owned();
    CopyFailure { collection: collection.to_owned(), key, reason }
}

/// Asks again while the trouble may pass.
async fn retry<T>(mut ask: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let began = Instant::now();
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        match ask().await {
            Err(error) if is_transient(&error) && began.elapsed() < RETRY_TIME_MAX => {
                tracing::warn!(%error, "a store is waited for");
                tokio::time::sleep(pause).await;
                pause = RETRY_PAUSE_MAX.min(2 * pause);
            }
            answer => return answer,
        }
    }
}

/// Whether trouble may be over in a moment.
fn is_transient(error: &Error) -> bool {
    let is_final = matches!(error.code, "cancelled" | "closing" | "read-only" | "redis-refused");
    let is_passing =
        matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::Conflict);
    is_passing && !is_final
}

/// Whether a document is refused for what it is, and no other with it.
fn is_document_error(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Invalid | ErrorKind::Conflict)
}

/// Where a directory is, whatever leads to it.
fn canonical_path(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.canonicalize().unwrap_or(absolute)
}

fn same_store(what: &str) -> Error {
    Error::invalid("same-store", format!("source and target are the same store: {what}"))
}
