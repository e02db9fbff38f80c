//! The readiness of the service, for health endpoints.

use std::time::Duration;

use crate::{Service, catalog, pool::Pool, shared::Shared, workers::StuckWorkers};

/// A worker whose current step takes longer than this is reported as stuck. The longest regular steps
/// take a second.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Whether the service is ready, and notes about its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether the service answers searches correctly and accepts writes.
    pub ready: bool,
    /// What prevents readiness, then warnings and work in progress; one line each.
    pub notes: Vec<String>,
}

impl Service {
    /// The readiness of the service. Does not block.
    pub fn readiness(&self) -> Readiness {
        self.shared().readiness(STUCK_AFTER)
    }
}

impl Shared {
    /// `stuck_after` is the maximum duration of one step of a worker.
    pub(crate) fn readiness(&self, stuck_after: Duration) -> Readiness {
        let mut blocking = Vec::new();
        blocking.extend(self.backend.unavailable_reason());
        for collection in &*self.stale.lock() {
            blocking.push(format!(
                "collection {collection:?}: its vectors were computed by another model than the installed one; the documents are being embedded again"
            ));
        }
        let mut warnings = self.warnings.clone();
        warnings.extend(self.backend.warnings());
        for stuck in self.workers.stuck(stuck_after) {
            // A pool with a free worker still makes progress, and admin work can wait.
            let is_blocking = stuck.workers == stuck.of && stuck.pool != Pool::Admin;
            if is_blocking { &mut blocking } else { &mut warnings }.push(stuck_message(stuck));
        }
        for info in self.backend.cached_collections() {
            for model in catalog::models(&info.schema) {
                if let Err(error) = self.models.check(model) {
                    blocking.push(format!("collection {:?}: {error}", info.name));
                }
            }
            if info.unembedded > 0 {
                warnings.push(format!(
                    "collection {:?}: {} documents are waiting to be embedded",
                    info.name, info.unembedded
                ));
            }
            if info.rebuilding.is_some() {
                warnings.push(format!("collection {:?} is being rebuilt", info.name));
            }
            if info.failures > 0 {
                warnings.push(format!(
                    "collection {:?}: {} documents do not match its schema; last error: {}",
                    info.name,
                    info.failures,
                    info.last_failure.as_deref().unwrap_or("unknown")
                ));
            }
        }
        for (collection, error) in &*self.backfill_errors.lock() {
            warnings
                .push(format!("collection {collection:?} cannot embed its documents, will retry: {error}"));
        }
        let ready = blocking.is_empty();
        blocking.extend(warnings);
        Readiness { ready, notes: blocking }
    }

    /// Loads the models that the collections use. Calls that need a missing model fail with an error.
    pub(crate) fn load_models(&self) {
        for collection in self.catalog().collections() {
            for model in catalog::models(&collection.schema) {
                if let Err(error) = self.models.get(model) {
                    tracing::warn!(collection = collection.name, %error, "cannot load a model");
                }
            }
        }
    }
}

fn stuck_message(StuckWorkers { pool, workers, of, longest }: StuckWorkers) -> String {
    let pool = pool.name();
    let seconds = longest.as_secs();
    format!(
        "{workers} of {of} {pool} workers are stuck: one step has been running for {seconds} s; see the log, and restart \
         the server if it does not end"
    )
}
