//! What every verb works with.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{
    Config, Context, Document, Error,
    backend::{Backend, Op, WriteError, Written},
    call::Call,
    catalog::{Catalog, Known},
    meter::Meter,
    models::Models,
    sync::{Arc, Mutex, RwLock},
    turns::Turns,
    workers::{Lane, Workers},
};

/// Documents on their way to the disk: half of what the engine's own queue holds, which the
/// background embedder also writes through.
const WRITES_MAX: usize = 4096;

/// The parts of a service that its jobs share.
pub(super) struct Shared {
    pub(super) backend: Backend,
    pub(super) models: Arc<Models>,
    pub(super) workers: Workers,
    pub(super) meter: Arc<Meter>,
    pub(super) timeout: Duration,
    /// What is odd about the configuration.
    pub(super) warnings: Vec<String>,
    catalog: RwLock<Arc<Catalog>>,
    /// Held to write while a rebuilt version takes over; to read by searches, for which schema,
    /// model and vectors must be of one version.
    pub(super) switching: RwLock<()>,
    /// Room for writes on their way to the disk, so that calls wait for the committer in
    /// turn instead of being refused after they have paid for their vectors.
    write_room: Semaphore,
    pub(super) turns: Turns,
    /// Collections whose vectors were made by another model than the one that is loaded.
    pub(super) stale: Mutex<BTreeSet<String>>,
    /// What keeps a collection from being complete, by its name.
    pub(super) troubles: Mutex<BTreeMap<String, String>>,
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        backend: Backend,
        models: Models,
        workers: Workers,
        meter: Arc<Meter>,
    ) -> Shared {
        let catalog = Catalog::new(backend.collections());
        Shared {
            backend,
            models: Arc::new(models),
            workers,
            meter,
            timeout: config.timeout,
            warnings: config.warnings(),
            switching: RwLock::new(()),
            write_room: Semaphore::new(WRITES_MAX),
            turns: Turns::new(),
            catalog: RwLock::new(Arc::new(catalog)),
            stale: Mutex::default(),
            troubles: Mutex::default(),
        }
    }

    pub(super) fn begin(&self, cx: &Context) -> Result<Call, Error> {
        Call::begin(cx, self.timeout)
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Looks at the collections again, after one of them was made, switched or dropped.
    pub(super) fn refresh_catalog(&self) {
        // Read under the lock, so that of two refreshes the later one reads later.
        let mut catalog = self.catalog.write();
        *catalog = Arc::new(Catalog::new(self.backend.collections()));
    }

    /// Lets the rebuilt version of a collection answer.
    pub(super) fn switch(&self, name: &str) -> Result<(), Error> {
        let _switching = self.switching.write();
        self.backend.switch_collection(name)?;
        self.refresh_catalog();
        Ok(())
    }

    pub(super) fn resolve(&self, name: Option<&str>) -> Result<Arc<Known>, Error> {
        self.catalog.read().resolve(name).cloned()
    }

    /// The key an id stands under, and its document; if there is none, the key it would be written under.
    pub(super) fn find(&self, known: &Known, id: &str) -> Result<(Vec<u8>, Option<Document>), Error> {
        for key in known.keys(id) {
            if let Some(document) = self.backend.get(&key)? {
                return Ok((key, Some(document)));
            }
        }
        Ok((known.key(id), None))
    }

    /// Runs one direct job.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Shared>,
        call: &Call,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.clone();
        let pending = self.workers.push(Lane::Direct, call.ticket(), move |_waited| work(&shared))?;
        call.wait(pending).await
    }

    /// Commits a group of writes and waits until it is durable.
    pub(super) async fn commit(
        &self,
        call: &Call,
        ops: Vec<Op>,
    ) -> Result<Vec<Result<Written, WriteError>>, Error> {
        let permits = u32::try_from(ops.len().min(WRITES_MAX)).expect("WRITES_MAX is small");
        let _room =
            call.within(self.write_room.acquire_many(permits)).await?.map_err(|_| Error::closing())?;
        let committed = self.backend.submit(ops)?;
        call.within(committed).await?.map_err(|_| Error::closing())
    }
}
