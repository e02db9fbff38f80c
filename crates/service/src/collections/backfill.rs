//! The background thread that computes missing vectors: for a collection created after its
//! documents, for a collection that is being rebuilt, and after a model was replaced.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    CollectionInfo, Document, Error, ErrorKind,
    backend::{Cursor, Op, TextToEmbed, WriteFailure},
    call::panicked,
    collections::staleness::SAMPLE,
    models::batches::{EmbeddingPlan, collect_vectors},
    pool::Pool,
    shared::Shared,
    sync::{Arc, Condvar, Mutex},
    workers::JobContext,
};

/// Documents embedded per commit.
const PAGE: usize = 256;

/// Delay before a retry after an error, such as a missing model or a full queue.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Maximum time a batch waits for a worker.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Handle of the thread, which sleeps while no vectors are missing.
pub(crate) struct Backfill {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Signal {
    is_woken: Mutex<bool>,
    changed: Condvar,
    closing: CancellationToken,
}

impl Backfill {
    /// Starts the thread. It first computes the vectors that an earlier process left missing.
    pub(crate) fn start(shared: Arc<Shared>, waker: Waker) -> std::io::Result<Backfill> {
        let Waker(signal) = waker;
        let worker = BackfillWorker { shared, signal: signal.clone() };
        let thread =
            std::thread::Builder::new().name("nearfield-embedder".to_owned()).spawn(move || worker.run())?;
        Ok(Backfill { signal, thread: Mutex::new(Some(thread)) })
    }

    /// Stops the thread before its next batch and waits until it has ended.
    pub(crate) fn close(&self) {
        self.signal.closing.cancel();
        Waker(self.signal.clone()).wake();
        if let Some(thread) = self.thread.lock().take() {
            thread.join().expect("the backfill thread catches panics of its work");
        }
    }
}

/// Wakes the thread. A wake-up before the start is kept until then.
#[derive(Clone)]
pub(crate) struct Waker(Arc<Signal>);

impl Waker {
    pub(crate) fn new() -> Waker {
        Waker(Arc::new(Signal {
            is_woken: Mutex::new(true),
            changed: Condvar::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Signals that documents may lack vectors or have vectors of a replaced model.
    pub(crate) fn wake(&self) {
        *self.0.is_woken.lock() = true;
        self.0.changed.notify_all();
    }
}

struct BackfillWorker {
    shared: Arc<Shared>,
    signal: Arc<Signal>,
}

/// Why the backfill of a collection stopped early.
enum Interruption {
    /// The service is closing.
    Closing,
    /// An error; the backfill is retried later.
    Failed(Error),
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Interruption {
        Interruption::Failed(error)
    }
}

impl BackfillWorker {
    fn run(&self) {
        let mut has_failed = false;
        loop {
            // Without this thread, collections would stay incomplete and rebuilds would never end.
            match catch_unwind(AssertUnwindSafe(|| self.run_once(has_failed))) {
                Ok(ControlFlow::Continue(failed)) => has_failed = failed,
                Ok(ControlFlow::Break(())) => return,
                Err(_) => {
                    tracing::error!("the background embedder panicked; it continues");
                    has_failed = true;
                }
            }
        }
    }

    /// Waits for work and completes all collections. Returns whether one failed, or breaks when closing.
    fn run_once(&self, has_failed: bool) -> ControlFlow<(), bool> {
        if !self.wait(has_failed) {
            return ControlFlow::Break(());
        }
        let mut has_failed = false;
        for info in self.shared.backend.cached_collections() {
            let complete = AssertUnwindSafe(|| self.complete(&info));
            let result = catch_unwind(complete).unwrap_or_else(|_| Err(panicked().into()));
            match result {
                Ok(()) => {
                    self.shared.backfill_errors.lock().remove(&info.name);
                }
                Err(Interruption::Closing) => return ControlFlow::Break(()),
                // The collection was dropped during the backfill.
                Err(Interruption::Failed(error)) if error.kind == ErrorKind::NotFound => {
                    self.shared.backfill_errors.lock().remove(&info.name);
                }
                Err(Interruption::Failed(error)) => {
                    let previous =
                        self.shared.backfill_errors.lock().insert(info.name.clone(), error.message.clone());
                    if previous.as_ref() != Some(&error.message) {
                        tracing::warn!(collection = info.name, %error, "cannot embed documents; will retry");
                    }
                    has_failed = true;
                }
            }
            // State recorded after a concurrent drop was not removed by the drop.
            if !self.shared.catalog().has(&info.name) {
                self.shared.forget(&info.name);
            }
        }
        ControlFlow::Continue(has_failed)
    }

    /// Sleeps until it is woken, after a failure at most until the retry; `false` when closing.
    fn wait(&self, has_failed: bool) -> bool {
        let mut is_woken = self.signal.is_woken.lock();
        let until = Instant::now() + RETRY_DELAY;
        while !*is_woken && !self.signal.closing.is_cancelled() {
            if !has_failed {
                self.signal.changed.wait(&mut is_woken);
            } else if self.signal.changed.wait_until(&mut is_woken, until).timed_out() {
                break;
            }
        }
        *is_woken = false;
        !self.signal.closing.is_cancelled()
    }

    /// Computes the missing vectors of one collection, then switches to its rebuilt version if there
    /// is one.
    fn complete(&self, info: &CollectionInfo) -> Result<(), Interruption> {
        let name = &info.name;
        // Looked up first: the missing vectors of a version that begins later may not be listed below. It wakes this
        // thread again.
        let is_rebuilding = self.shared.backend.cached_collection(name)?.rebuilding.is_some();
        let mut after = None;
        loop {
            let page = self.shared.backend.unembedded_blocking(name, after.as_ref(), PAGE)?;
            self.embed(page.documents)?;
            self.shared.meter.unembedded(name, self.shared.backend.cached_collection(name)?.unembedded);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if is_rebuilding {
            self.shared.switch(name)?;
            tracing::info!(collection = name, "switched to the rebuilt version");
        }
        // Another process may have changed the fingerprints that the store records per collection.
        if self.shared.backend.models(name).is_some() || self.shared.unchecked.lock().contains(name) {
            self.shared.check_staleness(&*self.shared.resolve(Some(name))?)?;
        }
        if self.shared.stale.lock().contains(name) {
            self.reembed(name)?;
            self.shared.stale.lock().remove(name);
        }
        Ok(())
    }

    /// Embeds documents again whose vectors were computed by another model. The sample comes last, so
    /// that an interrupted run is still detected as stale.
    fn reembed(&self, name: &str) -> Result<(), Interruption> {
        let collection = self.shared.resolve(Some(name))?;
        let models = self.shared.fingerprints(&collection)?;
        let page = |after: Option<&Cursor>, limit| {
            self.shared.backend.scroll_blocking(&collection.name, after, limit)
        };
        let embed = |documents: Vec<Document>| -> Result<(), Interruption> {
            let mut stale = Vec::new();
            for document in documents {
                let texts = self.shared.stale_texts(&collection, &document)?;
                if !texts.is_empty() {
                    stale.push((document, texts));
                }
            }
            self.embed(stale)
        };
        let mut after = page(None, SAMPLE)?.next;
        while after.is_some() {
            let next_page = page(after.as_ref(), PAGE)?;
            embed(next_page.documents)?;
            after = next_page.next;
        }
        embed(page(None, SAMPLE)?.documents)?;
        Ok(self.shared.backend.save_models_blocking(&collection.name, models)?)
    }

    /// Computes the vectors of these texts on the workers and writes them.
    fn embed(&self, documents: Vec<(Document, Vec<TextToEmbed>)>) -> Result<(), Interruption> {
        if self.signal.closing.is_cancelled() {
            return Err(Interruption::Closing);
        }
        let texts = documents.iter().flat_map(|(_, texts)| texts);
        let plan = EmbeddingPlan::new(texts.map(|text| (text.model.clone(), text.text.clone())).collect());
        let (distinct, batches) = plan.into_parts();
        let steps = batches.into_iter().map(|batch| batch.into_job(&self.shared.models));
        let job_context =
            JobContext { deadline: Instant::now() + BATCH_WAIT_MAX, cancel: self.signal.closing.clone() };
        let mut done = Vec::new();
        for result in self.shared.workers.push_all(Pool::Ingest, job_context, steps)? {
            match result.blocking_recv() {
                Ok(result) => done.push(result?),
                Err(_) if self.signal.closing.is_cancelled() => return Err(Interruption::Closing),
                Err(_) => return Err(panicked().into()),
            }
        }
        let mut embedded = collect_vectors(&distinct, done).into_iter();
        let mut ops = Vec::with_capacity(documents.len());
        for (document, texts) in documents {
            let mut vectors = Vec::with_capacity(texts.len());
            for (text, embedded) in texts.into_iter().zip(&mut embedded) {
                vectors.push(embedded?.vector_of(&text));
            }
            ops.push(Op::SetVectors { key: document.key.into(), expected: document.seq, vectors });
        }
        for written in self.shared.backend.write_blocking(ops)? {
            match written {
                // The document was changed or deleted, or the collection was dropped, in the meantime:
                // that write brought the vectors, or a later page lists them as missing.
                Ok(_) | Err(WriteFailure::Conflict(_) | WriteFailure::VectorsMissing(_)) => {}
                Err(WriteFailure::Rejected(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
