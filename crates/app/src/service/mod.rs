//! The verbs of the system, whatever door a call came through.
//!
//! Asynchronous above, synchronous below: every verb hops once onto a fixed set of worker
//! threads behind a bounded queue, or waits for the committer. Nothing here knows HTTP or JSON.

mod config;
mod context;
mod documents;
mod error;
mod search;

use std::sync::Arc;

pub use config::Config;
pub use context::{Caller, Context};
pub use documents::{Fields, Outcome, Patch, Put, PutResult, Value};
pub use engine::{
    Algorithm, CollectionInfo, Document, Documents, Embedding, Expected, Field, FieldKind, FieldSchema,
    Metric, Page, Quantization, Schema, Seq, Stats, VectorSchema, VectorType,
};
pub use error::{Error, ErrorKind};
pub use search::{Answer, Fusion, Hit, Leg, Paging, Search, Timing};

/// The whole system. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Service {
    _inner: Arc<()>,
}

/// What a door tells of the state of things.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Whether searches are answered correctly and writes are taken.
    pub ready: bool,
    /// Why not, or what is still being caught up, one line each.
    pub notes: Vec<String>,
}

/// One page of documents, with the cursor of the next.
#[derive(Clone, Debug)]
pub struct Scrolled {
    /// The documents.
    pub documents: Vec<Document>,
    /// Pass it on to go on; `None` at the end.
    pub next: Option<u64>,
}

impl Service {
    /// Opens the data directory and the models, starts the workers. Blocking; call it before
    /// or outside the runtime.
    pub fn open(config: Config) -> Result<Service, Error> {
        todo!()
    }

    /// Finishes what is queued, writes snapshots, stops the threads. Blocking.
    pub fn close(&self) {
        todo!()
    }

    /// The state of things.
    pub fn readiness(&self) -> Readiness {
        todo!()
    }

    /// The collection meant where none is named: the only one there is.
    pub fn default_collection(&self) -> Result<String, Error> {
        todo!()
    }

    /// All collections.
    pub async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>, Error> {
        todo!()
    }

    /// One collection, by name or alias.
    pub async fn collection(&self, cx: &Context, name: &str) -> Result<CollectionInfo, Error> {
        todo!()
    }

    /// Makes a collection, or finds an equal one; `true` if it was made. With `rebuild`, one
    /// with another schema is rebuilt beside itself in the background and switched when complete.
    pub async fn put_collection(
        &self,
        cx: &Context,
        name: &str,
        schema: Schema,
        rebuild: bool,
    ) -> Result<(CollectionInfo, bool), Error> {
        todo!()
    }

    /// Drops a collection.
    pub async fn drop_collection(&self, cx: &Context, name: &str, documents: Documents) -> Result<(), Error> {
        todo!()
    }

    /// Points an alias at a collection.
    pub async fn put_alias(&self, cx: &Context, alias: &str, collection: &str) -> Result<(), Error> {
        todo!()
    }

    /// Removes an alias.
    pub async fn drop_alias(&self, cx: &Context, alias: &str) -> Result<(), Error> {
        todo!()
    }

    /// Writes documents, one result each, in order. Unchanged ones (same fields, same end) are
    /// recognised and not embedded again.
    pub async fn put(
        &self,
        cx: &Context,
        collection: &str,
        puts: Vec<Put>,
    ) -> Result<Vec<Result<PutResult, Error>>, Error> {
        todo!()
    }

    /// Changes some fields of a document (or removes them), embedding again what changed.
    pub async fn patch(&self, cx: &Context, collection: &str, patch: Patch) -> Result<PutResult, Error> {
        todo!()
    }

    /// A document by id.
    pub async fn get(&self, cx: &Context, collection: &str, id: &str) -> Result<Document, Error> {
        todo!()
    }

    /// Takes a document away; `false` if there was none.
    pub async fn delete(
        &self,
        cx: &Context,
        collection: &str,
        id: &str,
        expected: Expected,
    ) -> Result<bool, Error> {
        todo!()
    }

    /// Takes away every document that matches, and says how many.
    pub async fn delete_matching(&self, cx: &Context, collection: &str, filter: &str) -> Result<u64, Error> {
        todo!()
    }

    /// Documents of a collection in the order they were first written.
    pub async fn scroll(
        &self,
        cx: &Context,
        collection: &str,
        filter: Option<&str>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        todo!()
    }

    /// How many documents match.
    pub async fn count(&self, cx: &Context, collection: &str, filter: Option<&str>) -> Result<u64, Error> {
        todo!()
    }

    /// Answers one search.
    pub async fn search(&self, cx: &Context, search: Search) -> Result<Answer, Error> {
        todo!()
    }

    /// Answers several searches of one request, one result each, in order.
    pub async fn search_many(
        &self,
        cx: &Context,
        searches: Vec<Search>,
    ) -> Result<Vec<Result<Answer, Error>>, Error> {
        todo!()
    }

    /// Counts of the whole system.
    pub async fn stats(&self, cx: &Context) -> Result<Stats, Error> {
        todo!()
    }

    /// The id of the document under `key` in a collection: the key without the collection's
    /// first prefix that fits.
    pub fn id_of(&self, schema: &Schema, key: &[u8]) -> String {
        todo!()
    }
}
