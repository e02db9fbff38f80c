//! The background thread that computes the vectors documents still lack: those of a collection
//! made later than its documents, and those of one that is being rebuilt.

use std::{
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
    models::batches::{Plan, gather},
    pool::Pool,
    shared::Shared,
    sync::{Arc, Condvar, Mutex},
    workers::JobContext,
};

/// Documents embedded between two commits.
const PAGE: usize = 256;

/// How long it rests after trouble (a model that is missing, a full queue) before it tries again.
const REST: Duration = Duration::from_secs(2);

/// Longest time a batch may wait for a worker.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The thread. It sleeps while every document has its vectors.
pub(crate) struct Backfill {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Signal {
    wanted: Mutex<bool>,
    changed: Condvar,
    closing: CancellationToken,
}

impl Backfill {
    /// Starts the thread, which first finishes what an earlier run left undone.
    pub(crate) fn start(shared: Arc<Shared>, waker: Waker) -> std::io::Result<Backfill> {
        let Waker(signal) = waker;
        let run = Run { shared, signal: signal.clone() };
        let thread =
            std::thread::Builder::new().name("nearfield-embedder".to_owned()).spawn(move || run.run())?;
        Ok(Backfill { signal, thread: Mutex::new(Some(thread)) })
    }

    /// Stops the thread at its next step, and waits for it.
    pub(crate) fn close(&self) {
        self.signal.closing.cancel();
        Waker(self.signal.clone()).wake();
        if let Some(thread) = self.thread.lock().take() {
            thread.join().expect("the embedder catches every panic of its work");
        }
    }
}

/// Wakes the thread, once it is started.
#[derive(Clone)]
pub(crate) struct Waker(Arc<Signal>);

impl Waker {
    pub(crate) fn new() -> Waker {
        Waker(Arc::new(Signal {
            wanted: Mutex::new(true),
            changed: Condvar::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Tells the thread that documents may lack vectors, or have those of another model.
    pub(crate) fn wake(&self) {
        *self.0.wanted.lock() = true;
        self.0.changed.notify_all();
    }
}

struct Run {
    shared: Arc<Shared>,
    signal: Arc<Signal>,
}

/// Why a collection could not be finished.
enum Stopped {
    /// The service is closing.
    Closing,
    /// Something that may pass.
    Trouble(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped::Trouble(error)
    }
}

impl Run {
    fn run(&self) {
        let mut trouble = false;
        while self.wait(trouble) {
            trouble = false;
            for info in self.shared.backend.seen() {
                let complete = AssertUnwindSafe(|| self.complete(&info));
                let result = catch_unwind(complete).unwrap_or_else(|_| Err(panicked().into()));
                match result {
                    Ok(()) => {
                        self.shared.troubles.lock().remove(&info.name);
                    }
                    Err(Stopped::Closing) => return,
                    // Dropped meanwhile.
                    Err(Stopped::Trouble(error)) if error.kind == ErrorKind::NotFound => {
                        self.shared.troubles.lock().remove(&info.name);
                    }
                    Err(Stopped::Trouble(error)) => {
                        let first =
                            self.shared.troubles.lock().insert(info.name.clone(), error.message.clone());
                        if first.as_ref() != Some(&error.message) {
                            tracing::warn!(collection = info.name, %error, "documents cannot be embedded for now");
                        }
                        trouble = true;
                    }
                }
                // What was noted of one that was dropped meanwhile was noted too late to be forgotten with it.
                if !self.shared.catalog().has(&info.name) {
                    self.shared.forget(&info.name);
                }
            }
        }
    }

    /// Sleeps until there may be work, or after trouble for a while; `false` when closing.
    fn wait(&self, trouble: bool) -> bool {
        let mut wanted = self.signal.wanted.lock();
        let until = Instant::now() + REST;
        while !*wanted && !self.signal.closing.is_cancelled() {
            if !trouble {
                self.signal.changed.wait(&mut wanted);
            } else if self.signal.changed.wait_until(&mut wanted, until).timed_out() {
                break;
            }
        }
        *wanted = false;
        !self.signal.closing.is_cancelled()
    }

    /// Embeds what one collection lacks, then lets a version that was being rebuilt answer.
    fn complete(&self, info: &CollectionInfo) -> Result<(), Stopped> {
        let name = &info.name;
        let mut after = None;
        loop {
            let page = self.shared.backend.unembedded_blocking(name, after.as_ref(), PAGE)?;
            self.embed(page.documents)?;
            self.shared.meter.unembedded(name, self.shared.backend.seen_one(name)?.unembedded);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if self.shared.backend.seen_one(name)?.rebuilding.is_some() {
            self.shared.switch(name)?;
            tracing::info!(collection = name, "the rebuilt version answers now");
        }
        // What a store notes once for all may have been noted by others.
        if self.shared.backend.models(name).is_some() || self.shared.unchecked.lock().contains(name) {
            self.shared.note_if_stale(&*self.shared.resolve(Some(name))?)?;
        }
        if self.shared.stale.lock().contains(name) {
            self.renew(name)?;
            self.shared.stale.lock().remove(name);
        }
        Ok(())
    }

    /// Embeds again what another model embedded, the sample that tells of it last.
    fn renew(&self, collection: &str) -> Result<(), Stopped> {
        let known = self.shared.resolve(Some(collection))?;
        let models = self.shared.fingerprints(&known)?;
        let page =
            |after: Option<&Cursor>, limit| self.shared.backend.scroll_blocking(&known.name, after, limit);
        let embed = |documents: Vec<Document>| -> Result<(), Stopped> {
            let mut stale = Vec::new();
            for document in documents {
                let texts = self.shared.stale_texts(&known, &document)?;
                if !texts.is_empty() {
                    stale.push((document, texts));
                }
            }
            self.embed(stale)
        };
        let mut after = page(None, SAMPLE)?.next;
        while after.is_some() {
            let later = page(after.as_ref(), PAGE)?;
            embed(later.documents)?;
            after = later.next;
        }
        embed(page(None, SAMPLE)?.documents)?;
        Ok(self.shared.backend.note_models_blocking(&known.name, models)?)
    }

    /// Computes these vectors on the workers and writes them.
    fn embed(&self, documents: Vec<(Document, Vec<TextToEmbed>)>) -> Result<(), Stopped> {
        if self.signal.closing.is_cancelled() {
            return Err(Stopped::Closing);
        }
        let texts = documents.iter().flat_map(|(_, texts)| texts);
        let plan = Plan::new(texts.map(|text| (text.model.clone(), text.text.clone())).collect());
        let (distinct, batches) = plan.into_parts();
        let steps = batches.into_iter().map(|batch| batch.into_step(&self.shared.models));
        let job_context =
            JobContext { deadline: Instant::now() + BATCH_WAIT_MAX, cancel: self.signal.closing.clone() };
        let mut done = Vec::new();
        for answer in self.shared.workers.push_all(Pool::Ingest, job_context, steps)? {
            match answer.blocking_recv() {
                Ok(answer) => done.push(answer?),
                Err(_) if self.signal.closing.is_cancelled() => return Err(Stopped::Closing),
                Err(_) => return Err(panicked().into()),
            }
        }
        let mut embedded = gather(&distinct, done).into_iter();
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
                // Changed, deleted or dropped meanwhile: whoever did it brought the vectors, or
                // the next page shows what is still lacking.
                Ok(_) | Err(WriteFailure::Conflict(_) | WriteFailure::VectorsMissing(_)) => {}
                Err(WriteFailure::Rejected(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
