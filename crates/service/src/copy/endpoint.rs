//! The source or target store of a copy, opened without models.

use std::collections::HashMap;

use crate::{
    Clock, Config, Context, Document, Error,
    backend::{Backend, ComputedVector, Cursor},
    call::{Call, Workers},
    catalog::CollectionHandle,
    error_mapping,
    meter::Meter,
    sync::Arc,
    workers::Options,
};

/// A document with its computed vectors.
#[derive(Clone, Debug)]
pub(super) struct StoredDocument {
    pub(super) document: Document,
    pub(super) vectors: Vec<ComputedVector>,
}

impl StoredDocument {
    /// Its approximate size.
    pub(super) fn bytes(&self) -> usize {
        let fields = self.document.fields.iter().map(|field| field.name.len() + field.value.len());
        let vectors = self.vectors.iter().map(|vector| 4 * vector.values.len());
        self.document.key.len() + fields.chain(vectors).sum::<usize>()
    }

    /// Whether it has expired.
    pub(super) fn has_expired(&self, now_ms: u64) -> bool {
        self.document.expires_at_ms.is_some_and(|end| end <= now_ms)
    }
}

/// A store with its worker threads.
pub(super) struct CopyEndpoint {
    pub(super) backend: Backend,
    workers: Arc<Workers>,
    timeout: std::time::Duration,
}

impl CopyEndpoint {
    pub(super) fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<CopyEndpoint, Error> {
        config.check()?;
        let cpu = config.cpu();
        let backend = Backend::open(config, cpu, clock, &crate::Progress::default())?;
        if let Some(reason) = backend.catalog_unavailable_reason() {
            backend.close();
            return Err(reason);
        }
        let meter = Arc::new(Meter::new());
        let options = Options {
            threads: config.workers,
            jobs_max: config.queue_max,
            queue_delay_max: config.queue_wait,
            batch_max: 1,
            pin: false,
        };
        let started = Workers::start(options, meter);
        let workers = started.map_err(|error| {
            backend.close();
            error_mapping::thread(&error)
        })?;
        Ok(CopyEndpoint { backend, workers: Arc::new(workers), timeout: config.timeout })
    }

    pub(super) fn begin(&self, cx: &Context) -> Result<Call, Error> {
        Call::begin(cx, self.timeout, &self.workers)
    }

    /// Whether the store's statistics count only Nearfield's documents.
    pub(super) fn counts_only_documents(&self) -> bool {
        self.backend.is_embedded()
    }

    /// A page of a collection's documents after the cursor `after`, with their vectors in all of `collections`.
    pub(super) async fn page(
        &self,
        call: &Call,
        collection: &Arc<CollectionHandle>,
        collections: impl Iterator<Item = &Arc<CollectionHandle>>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<StoredDocument>, Option<Cursor>), Error> {
        let page = self.backend.scroll(call, collection, None, after, limit).await?;
        let keys: Vec<Vec<u8>> = page.documents.iter().map(|document| document.key.to_vec()).collect();
        let mut documents = self.documents(call, collections, keys).await?;
        // In the order of the page. Documents deleted meanwhile are omitted.
        let documents =
            page.documents.iter().filter_map(|document| documents.remove(&document.key)).collect();
        Ok((documents, page.next))
    }

    /// The existing documents under these keys, by key, with their vectors in these collections.
    pub(super) async fn documents(
        &self,
        call: &Call,
        collections: impl Iterator<Item = &Arc<CollectionHandle>>,
        keys: Vec<Vec<u8>>,
    ) -> Result<HashMap<Box<[u8]>, StoredDocument>, Error> {
        let collections: Vec<Arc<CollectionHandle>> = collections.cloned().collect();
        let existing = self.backend.prefetch(call, keys.clone()).await?;
        let read = move || {
            let mut found = HashMap::with_capacity(keys.len());
            for key in keys {
                let Some(document) = existing.find(std::slice::from_ref(&key))? else { continue };
                let mut vectors = Vec::new();
                for collection in collections.iter().filter(|collection| collection.schema.matches_key(&key))
                {
                    vectors.extend(existing.vectors(collection, &key)?);
                }
                found.insert(key.into(), StoredDocument { document, vectors });
            }
            Ok(found)
        };
        call.run(read).await
    }
}

impl Drop for CopyEndpoint {
    fn drop(&mut self) {
        self.workers.close();
        self.backend.close();
    }
}
