//! What every verb works with.

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

/// The parts of a service that its jobs share.
pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) models: Arc<Models>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) timeout: Duration,
    /// Threads of each pool.
    pub(crate) worker_count: usize,
    /// What is odd about the configuration.
    pub(crate) warnings: Vec<String>,
    catalog: RwLock<Arc<Catalog>>,
    pub(crate) key_locks: KeyLocks,
    /// Collections whose vectors were made by another model than the one that is loaded.
    pub(crate) stale: Mutex<BTreeSet<String>>,
    /// Collections whose vectors have to be compared with the models: one of these was loaded since, or another version
    /// answers.
    pub(crate) unchecked: Mutex<BTreeSet<String>>,
    /// What keeps a collection from being complete, by its name.
    pub(crate) backfill_errors: Mutex<BTreeMap<String, String>>,
    /// Held while a backup is made.
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
        let catalog = Catalog::new(backend.seen());
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

    /// Looks at the collections again, after one of them was made, switched or dropped.
    pub(crate) fn refresh_catalog(&self) {
        // Read under the lock, so that of two refreshes the later one reads later.
        let mut catalog = self.catalog.write();
        let next = Catalog::new(self.backend.seen());
        let gone = catalog.collections().filter(|known| !next.has(&known.name));
        gone.for_each(|known| self.forget(&known.name));
        *catalog = Arc::new(next);
    }

    /// Tells nothing more of a collection that is gone.
    pub(crate) fn forget(&self, name: &str) {
        self.stale.lock().remove(name);
        self.unchecked.lock().remove(name);
        self.backfill_errors.lock().remove(name);
        self.meter.unembedded(name, 0);
    }

    /// Lets the rebuilt version of a collection answer. Searches do not wait for it: each names the version it is
    /// posed to.
    pub(crate) fn switch(&self, name: &str) -> Result<(), Error> {
        self.backend.switch_blocking(name)?;
        self.refresh_catalog();
        self.unchecked.lock().insert(name.to_owned());
        Ok(())
    }

    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<Arc<CollectionHandle>, Error> {
        let known = self.catalog.read().resolve(name).cloned();
        // What is not known may be there all the same, where the store cannot be asked.
        known.map_err(|error| self.backend.out_of_reach().unwrap_or(error))
    }
}
