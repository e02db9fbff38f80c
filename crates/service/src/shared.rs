//! The state that all operations share.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{
    Config, Context, Error,
    backend::Backend,
    call::{Call, Workers},
    catalog::{Catalog, CollectionHandle},
    key_locks::KeyLocks,
    meter::Meter,
    models::Models,
    sync::{Arc, Mutex, RwLock},
};

/// The state of a service that its calls and jobs share.
pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) models: Arc<Models>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) timeout: Duration,
    /// The number of threads per pool.
    pub(crate) worker_count: usize,
    /// Warnings about the configuration.
    pub(crate) warnings: Vec<String>,
    catalog: RwLock<Arc<Catalog>>,
    pub(crate) key_locks: KeyLocks,
    /// Collections whose vectors were computed by another model than the loaded one.
    pub(crate) stale: Mutex<BTreeSet<String>>,
    /// Collections whose vectors are still to be compared with the models, because a model was loaded or another
    /// version became active.
    pub(crate) unchecked: Mutex<BTreeSet<String>>,
    /// Why a collection is incomplete, by collection name.
    pub(crate) backfill_errors: Mutex<BTreeMap<String, String>>,
    /// Held while a backup runs.
    pub(crate) backing_up: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(
        config: &Config,
        backend: Backend,
        models: Models,
        workers: Workers,
        meter: Arc<Meter>,
    ) -> Shared {
        let catalog = Catalog::new(backend.cached_collections());
        Shared {
            backend,
            models: Arc::new(models),
            workers: Arc::new(workers),
            meter,
            timeout: config.timeout,
            worker_count: config.workers,
            warnings: config.warnings(),
            key_locks: KeyLocks::new(),
            catalog: RwLock::new(Arc::new(catalog)),
            stale: Mutex::default(),
            unchecked: Mutex::default(),
            backfill_errors: Mutex::default(),
            backing_up: Arc::new(Semaphore::new(1)),
        }
    }

    pub(crate) fn begin(&self, cx: &Context) -> Result<Call, Error> {
        Call::begin(cx, self.timeout, &self.workers)
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Rebuilds the catalog after a collection was created, switched or dropped.
    pub(crate) fn refresh_catalog(&self) {
        // Read under the lock, so that the later of two refreshes does not publish an older state.
        let mut catalog = self.catalog.write();
        let next = Catalog::new(self.backend.cached_collections());
        let dropped = catalog.collections().filter(|collection| !next.has(&collection.name));
        dropped.for_each(|collection| self.forget(&collection.name));
        *catalog = Arc::new(next);
    }

    /// Discards the status of a dropped collection.
    pub(crate) fn forget(&self, name: &str) {
        self.stale.lock().remove(name);
        self.unchecked.lock().remove(name);
        self.backfill_errors.lock().remove(name);
        self.meter.unembedded(name, 0);
    }

    /// Makes the rebuilt version of a collection the active one. Running searches need not wait: each names the
    /// version it was planned for.
    pub(crate) fn switch(&self, name: &str) -> Result<(), Error> {
        self.backend.switch_blocking(name)?;
        self.refresh_catalog();
        self.unchecked.lock().insert(name.to_owned());
        Ok(())
    }

    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<Arc<CollectionHandle>, Error> {
        let collection = self.catalog.read().resolve(name).cloned();
        // If the store is unreachable, a collection missing from the catalog may still exist.
        collection.map_err(|error| self.backend.catalog_unavailable_reason().unwrap_or(error))
    }
}
