//! What a door tells of the state of things.

use std::time::Duration;

use crate::{Service, catalog, pool::Pool, shared::Shared, workers::StuckWorkers};

/// How long a worker may be at one piece of work before it is told of: the longest of them take a second.
const STUCK: Duration = Duration::from_secs(30);

/// The state of things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether searches are answered correctly and writes are taken.
    pub ready: bool,
    /// Why not, or what is still being caught up, one line each.
    pub notes: Vec<String>,
}

impl Service {
    /// The state of things. Waits for nothing.
    pub fn readiness(&self) -> Readiness {
        self.shared().readiness(STUCK)
    }
}

impl Shared {
    /// `stuck` is how long a worker may be at one piece of work.
    pub(crate) fn readiness(&self, stuck: Duration) -> Readiness {
        let mut blocking = Vec::new();
        blocking.extend(self.backend.obstacle());
        for collection in &*self.stale.lock() {
            blocking.push(format!(
                "collection {collection:?}: its vectors were made by another model than the one installed now; they are being made again"
            ));
        }
        let mut passing = self.warnings.clone();
        passing.extend(self.backend.warnings());
        for stuck in self.workers.stuck(stuck) {
            // While one is left, it goes on; collections can wait.
            let stands = stuck.workers == stuck.of && stuck.pool != Pool::Admin;
            if stands { &mut blocking } else { &mut passing }.push(words(stuck));
        }
        for info in self.backend.seen() {
            for model in catalog::models(&info.schema) {
                if let Err(error) = self.models.check(model) {
                    blocking.push(format!("collection {:?}: {error}", info.name));
                }
            }
            if info.unembedded > 0 {
                passing.push(format!(
                    "collection {:?}: {} documents wait to be embedded",
                    info.name, info.unembedded
                ));
            }
            if info.rebuilding.is_some() {
                passing.push(format!("collection {:?} is being rebuilt beside itself", info.name));
            }
            if info.failures > 0 {
                passing.push(format!(
                    "collection {:?}: {} documents do not fit its schema; the last: {}",
                    info.name,
                    info.failures,
                    info.last_failure.as_deref().unwrap_or("unknown")
                ));
            }
        }
        for (collection, trouble) in &*self.backfill_errors.lock() {
            passing.push(format!("collection {collection:?} cannot be completed for now: {trouble}"));
        }
        let ready = blocking.is_empty();
        blocking.extend(passing);
        Readiness { ready, notes: blocking }
    }

    /// Loads the models the collections need. What is missing is told by every call that needs it.
    pub(crate) fn load_models(&self) {
        for known in self.catalog().collections() {
            for model in catalog::models(&known.schema) {
                if let Err(error) = self.models.get(model) {
                    tracing::warn!(collection = known.name, %error, "a model is not available");
                }
            }
        }
    }
}

fn words(StuckWorkers { pool, workers, of, longest }: StuckWorkers) -> String {
    let pool = pool.name();
    let seconds = longest.as_secs();
    format!(
        "{workers} of {of} {pool} workers are stuck: one step has been running for {seconds} s; see the log, and restart \
         the server if it does not end"
    )
}
