//! The operations of the system, independent of the transport.
//!
//! The API is asynchronous over synchronous code: every operation runs on a fixed set of worker threads behind a
//! bounded queue, or waits for the committer or for Redis. Nothing in this crate depends on HTTP or JSON.

mod backend;
mod backup;
mod call;
mod catalog;
mod collections;
mod config;
mod context;
mod copy;
mod data_dir;
mod diagnostics;
mod documents;
mod error;
mod error_mapping;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod key_locks;
mod keyspace;
pub mod limits;
mod meter;
mod models;
mod pool;
mod read;
mod search;
mod search_request;
mod shared;
mod sync;
mod timing;
mod workers;
mod write;

pub use backup::BackupStream;
pub use collections::{MODEL, article_schema};
pub use config::{Config, RedisStore, Store};
pub use context::{Caller, Context};
pub use copy::{Copier, CopyFailure, CopyObserver, CopyPlan, CopyProgress, CopySummary, CopyVerification};
pub use data_dir::{check, lock, lock_unchanged};
pub use diagnostics::{Diagnosis, Readiness, Stage};
pub use documents::{Fields, KeyPage, Outcome, Patch, Put, PutResult, Scrolled, Value};
pub use embed::ComputeType;
pub use engine::{
    Algorithm, Backup, BackupError, CheckReport, Clock, CollectionInfo, DataDir, Document, DropMode,
    Durability, Embedding, Expected, FIELDS_MAX, Field, FieldKind, FieldSchema, IntegrityReport, Level,
    Metric, OpenError, Progress, Quantization, RecordCounts, RestoreError, Schema, ScrollPage, Seq, Stats,
    SystemClock, VectorSchema, VectorType, check_name,
};
pub use error::{Error, ErrorKind};
pub use meter::Activity;
pub use read::IncompleteDelete;
pub use search::{Hit, SearchResponse};
pub use search_request::{Fusion, Leg, Paging, SearchRequest, too_many_fields};
pub use timing::Timing;

use backend::Backend;
use call::Workers;
use collections::backfill::{Backfill, Waker};
use meter::Meter;
use models::Models;
use shared::Shared;
use sync::Arc;

/// The search service. Cheap to clone; all clones share one instance. Dropping the last clone closes it as
/// [`Service::close`] does, which blocks: a program with an async runtime calls `close` outside the runtime.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    backfill: Backfill,
    /// Held while a collection is created or changed.
    put_collection_lock: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("activity", &self.activity()).finish_non_exhaustive()
    }
}

impl Service {
    /// Opens the data directory and the models and starts the workers. Blocks; call it outside the async
    /// runtime. A missing model does not fail the call: [`Service::readiness`] and every operation that
    /// needs the model report it.
    pub fn open(config: Config) -> Result<Service, Error> {
        Service::open_with_clock(config, Arc::new(SystemClock))
    }

    /// Like [`Service::open`], with the given clock for expiry.
    pub fn open_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Service, Error> {
        Service::open_with_progress(config, clock, &Progress::default())
    }

    /// Like [`Service::open_with_clock`], and reports progress.
    pub fn open_with_progress(
        config: Config,
        clock: Arc<dyn Clock>,
        progress: &Progress,
    ) -> Result<Service, Error> {
        config.check()?;
        let cpu = config.cpu();
        let backend = Backend::open(&config, cpu, clock, progress)?;
        let meter = Arc::new(Meter::new());
        let models = Models::new(&config, cpu, meter.clone());
        let Config { workers, queue_max, queue_wait, pin_workers, .. } = config;
        let options = workers::Options {
            threads: workers,
            jobs_max: queue_max,
            queue_delay_max: queue_wait,
            batch_max: models.batch_max(),
            pin: pin_workers,
        };
        let workers =
            Workers::start(options, meter.clone()).map_err(|error| error_mapping::thread(&error))?;
        let shared = Arc::new(Shared::new(&config, backend, models, workers, meter));
        let waker = Waker::new();
        let (weak_shared, backfill_waker) = (Arc::downgrade(&shared), waker.clone());
        shared.models.on_load(move |model| {
            if let Some(shared) = weak_shared.upgrade() {
                shared.model_loaded(model);
                backfill_waker.wake();
            }
        });
        shared.load_models();
        shared.find_stale();
        let backfill = Backfill::start(shared.clone(), waker.clone()).map_err(|error| {
            shared.workers.close();
            error_mapping::thread(&error)
        })?;
        let weak_shared = Arc::downgrade(&shared);
        shared.backend.on_change(move || {
            if let Some(shared) = weak_shared.upgrade() {
                shared.refresh_catalog();
                waker.wake();
            }
        });
        Ok(Service {
            inner: Arc::new(Inner { shared, backfill, put_collection_lock: tokio::sync::Mutex::new(()) }),
        })
    }

    /// Finishes the queued work, writes snapshots and stops the threads. Blocks. Later calls fail with
    /// `Unavailable`.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Counters since the service was opened.
    pub fn activity(&self) -> Activity {
        self.shared().meter.activity()
    }

    /// The id of the document under `key` in a collection: the key without the first prefix of the
    /// collection that matches it.
    pub fn id_of(&self, schema: &Schema, key: &[u8]) -> String {
        catalog::id_of(schema, key)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

impl Inner {
    fn close(&self) {
        self.backfill.close();
        self.shared.workers.close();
        self.shared.backend.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
