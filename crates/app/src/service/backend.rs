//! Where documents and vectors are kept and found. The only room of the service that calls the
//! engine; a second kind of store becomes a second case here.

pub(super) use engine::{
    Clock, ComputedVector, Filter, Found, Op, Query, SystemClock, TextToEmbed, WriteError, Written,
};
use engine::{Engine, OpenError, Options, QueueFull};
use tokio::sync::oneshot;

use super::{
    CollectionInfo, Document, Documents, Error, ErrorKind, Field, Page, Schema, Stats, refusal, sync::Arc,
};

/// Results of a group of writes, once they are durable and visible.
pub(super) type Committed = oneshot::Receiver<Vec<Result<Written, WriteError>>>;

/// The embedded engine.
#[derive(Debug)]
pub(super) struct Backend {
    engine: Engine,
    clock: Arc<dyn Clock>,
}

impl Backend {
    pub(super) fn open(options: Options) -> Result<Backend, OpenError> {
        let clock = options.clock.clone();
        Ok(Backend { engine: Engine::open(options)?, clock })
    }

    pub(super) fn close(&self) {
        self.engine.close();
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn collections(&self) -> Vec<CollectionInfo> {
        self.engine.collections()
    }

    pub(super) fn collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        self.engine.collection(name).map_err(refusal::collection)
    }

    pub(super) fn create_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, Error> {
        self.engine.create_collection(name, schema).map_err(refusal::collection)
    }

    pub(super) fn rebuild_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, Error> {
        self.engine.rebuild_collection(name, schema).map_err(refusal::collection)
    }

    pub(super) fn switch_collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        self.engine.switch_collection(name).map_err(refusal::collection)
    }

    pub(super) fn drop_collection(&self, name: &str, documents: Documents) -> Result<(), Error> {
        self.engine.drop_collection(name, documents).map_err(refusal::collection)
    }

    pub(super) fn set_alias(&self, alias: &str, collection: &str) -> Result<(), Error> {
        self.engine.set_alias(alias, collection).map_err(refusal::collection)
    }

    pub(super) fn remove_alias(&self, alias: &str) -> Result<(), Error> {
        self.engine.remove_alias(alias).map_err(refusal::collection)
    }

    pub(super) fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        self.engine.texts_to_embed(key, fields)
    }

    pub(super) fn unembedded(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Vec<(Document, Vec<TextToEmbed>)>, Error> {
        self.engine.unembedded(name, limit).map_err(refusal::collection)
    }

    pub(super) fn validate(&self, op: &Op) -> Result<(), WriteError> {
        self.engine.validate(op)
    }

    /// Queues writes for the committer.
    pub(super) fn submit(&self, ops: Vec<Op>) -> Result<Committed, Error> {
        let (done, committed) = oneshot::channel();
        let answer = Box::new(move |results| {
            // A caller who has gone leaves nobody to tell.
            let _ = done.send(results);
        });
        match self.engine.submit(ops, answer) {
            Ok(()) => Ok(committed),
            Err(QueueFull) => Err(Error::new(
                ErrorKind::Overloaded,
                "write-queue-full",
                "too many writes wait for the disk; try again in a second",
            )),
        }
    }

    /// Writes and waits. For threads that may block.
    pub(super) fn write(&self, ops: Vec<Op>) -> Vec<Result<Written, WriteError>> {
        self.engine.write(ops)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Document>, Error> {
        self.engine.get(key).map_err(refusal::query)
    }

    /// Computed vectors of the document under `key` in a collection, with the version and the
    /// field each is of.
    pub(super) fn vectors(&self, collection: &str, key: &[u8]) -> Result<Vec<ComputedVector>, Error> {
        let vectors = self.engine.vectors(collection, key).map_err(refusal::query)?;
        Ok(vectors.into_iter().map(|(_, vector)| vector).collect())
    }

    pub(super) fn parse_filter(&self, collection: &str, text: &str) -> Result<Filter, Error> {
        self.engine.parse_filter(collection, text).map_err(refusal::query)
    }

    pub(super) fn search(&self, query: &Query<'_>) -> Result<Found, Error> {
        self.engine.search(query).map_err(refusal::query)
    }

    pub(super) fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.engine.scroll(collection, filter, after, limit).map_err(refusal::query)
    }

    pub(super) fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, Error> {
        self.engine.count(collection, filter).map_err(refusal::query)
    }

    pub(super) fn stats(&self) -> Result<Stats, Error> {
        self.engine.stats().map_err(refusal::query)
    }

    /// What is wrong but does not keep the engine from answering.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.engine.warnings()
    }

    pub(super) fn writable(&self) -> Result<(), String> {
        self.engine.writable()
    }
}
