//! The verbs of the system, whatever door a call came through.
//!
//! Asynchronous above, synchronous below: every verb hops onto a fixed set of worker threads
//! behind a bounded queue, waits for the committer, or for a Redis. Nothing here knows HTTP or JSON.

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
pub use data_dir::{check, lock};
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
pub use search::{Fusion, Hit, Leg, Paging, SearchRequest, SearchResponse, too_many_fields};
pub use timing::Timing;

use backend::Backend;
use call::Workers;
use collections::backfill::{Backfill, Waker};
use meter::Meter;
use models::Models;
use shared::Shared;
use sync::Arc;

/// The whole system. Cheap to clone; all clones are one. When the last is dropped it is closed
/// as by [`Service::close`], which blocks: a program with a runtime closes it itself, outside.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    backfill: Backfill,
    /// Held while a collection is made.
    making: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("activity", &self.activity()).finish_non_exhaustive()
    }
}

impl Service {
    /// Opens the data directory and the models, starts the workers. Blocking; call it before
    /// or outside the runtime. A model that is missing does not keep the rest from opening:
    /// it is reported by [`Service::readiness`] and by every call that needs it.
    pub fn open(config: Config) -> Result<Service, Error> {
        Service::open_with_clock(config, Arc::new(SystemClock))
    }

    /// [`Service::open`] with another clock for expiry.
    pub fn open_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Service, Error> {
        Service::open_with_progress(config, clock, &Progress::default())
    }

    /// [`Service::open_with_clock`], which tells how far it has come.
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
        let (listening, woken) = (Arc::downgrade(&shared), waker.clone());
        shared.models.on_load(move |model| {
            if let Some(shared) = listening.upgrade() {
                shared.model_loaded(model);
                woken.wake();
            }
        });
        shared.load_models();
        shared.find_stale();
        let backfill = Backfill::start(shared.clone(), waker.clone()).map_err(|error| {
            shared.workers.close();
            error_mapping::thread(&error)
        })?;
        let listening = Arc::downgrade(&shared);
        shared.backend.on_change(move || {
            if let Some(shared) = listening.upgrade() {
                shared.refresh_catalog();
                waker.wake();
            }
        });
        Ok(Service { inner: Arc::new(Inner { shared, backfill, making: tokio::sync::Mutex::new(()) }) })
    }

    /// Finishes what is queued, writes snapshots, stops the threads. Blocking. Later calls are
    /// refused as `Unavailable`.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Counts since the service was opened.
    pub fn activity(&self) -> Activity {
        self.shared().meter.activity()
    }

    /// The id of the document under `key` in a collection: the key without the collection's
    /// first prefix that fits.
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
