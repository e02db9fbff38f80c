//! Durable, filterable, searchable collections of documents and vectors.
//!
//! Takes vectors, not text: who embeds asks [`Engine::texts_to_embed`] what a document needs and
//! hands the vectors over with the write. Synchronous throughout; knows no protocol.

mod attributes;
mod binary;
mod filter;
mod schema;

use std::{path::PathBuf, sync::Arc};

pub use filter::{Filter, FilterError};
pub use index::{Cpu, Level, Metric, VectorError, VectorType};
pub use schema::{
    Algorithm, Embedding, FieldKind, FieldSchema, Quantization, Schema, SchemaError, VectorSchema,
};
pub use store::{CollectionVersion, Document, Field, Seq};

/// What time it is, for expiry.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;
}

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the store file, the snapshots and the lock.
    pub data_dir: PathBuf,
    /// Instruction set of the kernels.
    pub cpu: Cpu,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Bytes of the store's page cache.
    pub cache_bytes: usize,
    /// Vectors a tail may hold before writers are slowed.
    pub tail_max: usize,
    /// Threads that drain tails into graphs.
    pub index_threads: usize,
}

/// A computed vector for one field of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputedVector {
    /// Collection version and position of the field, as [`TextToEmbed`] named them.
    pub collection: CollectionVersion,
    /// Position of the vector field in the schema.
    pub field: u16,
    /// Who made it.
    pub model: [u8; 16],
    /// The values.
    pub values: Vec<f32>,
}

/// A text that has to be embedded before a document can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToEmbed {
    /// For which collection version.
    pub collection: CollectionVersion,
    /// For which vector field.
    pub field: u16,
    /// By which model, by name.
    pub model: String,
    /// The text fields of the schema's `embed.fields`, joined by a space.
    pub text: String,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    Any,
    /// No document under the key.
    Absent,
    /// The document as last written by this change.
    Seq(Seq),
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A whole document in place of any under its key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// All fields.
        fields: Vec<Field>,
        /// When it ends, Unix milliseconds.
        expires_at_ms: Option<u64>,
        /// Vectors for every text [`Engine::texts_to_embed`] named.
        vectors: Vec<ComputedVector>,
        /// Guard.
        expected: Expected,
    },
    /// A document away.
    Delete {
        /// The key.
        key: Vec<u8>,
        /// Guard.
        expected: Expected,
    },
    /// Computed vectors for a document that stands already (a collection made later).
    SetVectors {
        /// The key.
        key: Vec<u8>,
        /// The document the vectors were computed from.
        expected: Seq,
        /// The vectors.
        vectors: Vec<ComputedVector>,
    },
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The change's number; for a delete of nothing, 0.
    pub seq: Seq,
    /// Whether a document stood under the key before.
    pub existed: bool,
}

/// Why one write was refused. Nothing of it was written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The guard did not hold.
    #[error("the document was changed meanwhile: expected {expected:?}, found sequence {found:?}")]
    Conflict { expected: Expected, found: Option<Seq> },
    /// A collection appeared or changed since [`Engine::texts_to_embed`]: ask it again.
    #[error("collections changed meanwhile: a vector for collection {collection:?} is missing")]
    VectorsMissing { collection: CollectionVersion },
    // further kinds: Invalid { key, field, reason }, TooLarge, Full, ReadOnly (a failed fsync), Closed
}

/// Why a collection verb failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    // NotFound{name}, Exists{name, difference}, Name{name}, Schema(SchemaError), Store, Closed
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    // CollectionNotFound{name, known}, Field{..}, Vector(VectorError), Filter(FilterError), Limit{what, max, found}, Store
}

/// Why an engine could not be opened. Messages carry the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    // Locked{path}, Store, Snapshot io, ...
}

/// The engine is not taking writes: its queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the write queue is full")]
pub struct QueueFull;

/// What is known of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Aliases that lead to it.
    pub aliases: Vec<String>,
    /// Number and schema version that answers.
    pub version: CollectionVersion,
    /// Its schema.
    pub schema: Schema,
    /// Documents in it.
    pub documents: u64,
    /// Vectors that can be found, over all fields.
    pub vectors: u64,
    /// Of these, scanned exactly because no graph holds them yet.
    pub tail: u64,
    /// Documents still without their computed vectors (a collection made over existing keys).
    pub unembedded: u64,
    /// Documents under its prefixes that do not fit its schema, and the last reason.
    pub failures: u64,
    /// Key and reason of the last of these.
    pub last_failure: Option<String>,
    /// Bytes in memory: graph, vectors, postings.
    pub memory_bytes: u64,
    /// A newer schema version being built beside this one.
    pub rebuilding: Option<CollectionVersion>,
}

/// A search by vector.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Collection or alias.
    pub collection: &'a str,
    /// Vector field; may be left out where the schema has one.
    pub field: Option<&'a str>,
    /// The query.
    pub vector: &'a [f32],
    /// Hits to skip.
    pub offset: usize,
    /// Hits wanted after these.
    pub k: usize,
    /// Which documents.
    pub filter: Option<&'a Filter>,
    /// Breadth of the graph search; the schema's, if left out.
    pub ef_search: Option<usize>,
    /// Compare with every vector.
    pub exact: bool,
    /// Drop hits that score less.
    pub min_score: Option<f32>,
    /// Fields to return; all but vector fields, if `None`.
    pub fields: Option<&'a [String]>,
}

/// A found document.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document, with the fields asked for.
    pub document: Document,
    /// Redis's distance.
    pub distance: f32,
    /// `1 - distance`; for l2 `1 / (1 + distance)`.
    pub score: f32,
}

/// What a search found, and where its time went.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Nearest first.
    pub hits: Vec<Hit>,
    /// Microseconds to evaluate the filter.
    pub filter_us: u64,
    /// Microseconds in the index.
    pub search_us: u64,
    /// Microseconds to read the documents.
    pub fetch_us: u64,
}

/// One page of a scroll.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Documents in the order they were first written.
    pub documents: Vec<Document>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// What becomes of the documents of a dropped collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Documents {
    /// They stay.
    Keep,
    /// They go with it.
    Delete,
}

/// Counts of the whole engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Documents in the keyspace.
    pub documents: u64,
    /// The last change.
    pub last_seq: Seq,
    /// Bytes of the store file.
    pub file_bytes: u64,
    /// Bytes in memory, over all collections.
    pub memory_bytes: u64,
    /// Commits since the engine was opened.
    pub commits: u64,
}

/// Collections over one durable keyspace. All methods take `&self`.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// Opens or creates the data directory, reads snapshots and catches up with the store.
    /// On return every answer is complete and correct.
    pub fn open(options: Options) -> Result<Engine, OpenError> {
        todo!()
    }

    /// Finishes queued writes, writes snapshots, stops the threads.
    pub fn close(&self) {
        todo!()
    }

    /// Makes a collection; the same name with an equal schema is no error. Documents that stand
    /// under its prefixes already are indexed before this returns, except vectors to be computed:
    /// see [`Engine::unembedded`].
    pub fn create_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, CollectionError> {
        todo!()
    }

    /// Begins a new version of a collection with another schema beside the one that answers.
    /// Writes feed both until [`Engine::switch_collection`].
    pub fn rebuild_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo, CollectionError> {
        todo!()
    }

    /// Lets the rebuilt version answer and drops the old one.
    pub fn switch_collection(&self, name: &str) -> Result<CollectionInfo, CollectionError> {
        todo!()
    }

    /// Drops a collection and the aliases that lead to it.
    pub fn drop_collection(&self, name: &str, documents: Documents) -> Result<(), CollectionError> {
        todo!()
    }

    /// Points an alias at a collection, in place of where it led.
    pub fn set_alias(&self, alias: &str, collection: &str) -> Result<(), CollectionError> {
        todo!()
    }

    /// Removes an alias.
    pub fn remove_alias(&self, alias: &str) -> Result<(), CollectionError> {
        todo!()
    }

    /// All collections, by name.
    pub fn collections(&self) -> Vec<CollectionInfo> {
        todo!()
    }

    /// One collection by name or alias.
    pub fn collection(&self, name: &str) -> Result<CollectionInfo, CollectionError> {
        todo!()
    }

    /// Which texts of a document with these fields must be embedded, for all collections its key falls into.
    /// A field that brings its own vector needs none.
    pub fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        todo!()
    }

    /// Up to `limit` documents of a collection (its rebuilding version included) that still lack
    /// computed vectors.
    pub fn unembedded(
        &self,
        collection: &str,
        limit: usize,
    ) -> Result<Vec<(Document, Vec<TextToEmbed>)>, CollectionError> {
        todo!()
    }

    /// Checks one write as [`Engine::submit`] would, without writing.
    pub fn validate(&self, op: &Op) -> Result<(), WriteError> {
        todo!()
    }

    /// Queues writes; `done` is called on the committer's thread once they are durable and
    /// visible, with one result for each. Never blocks.
    pub fn submit(
        &self,
        ops: Vec<Op>,
        done: Box<dyn FnOnce(Vec<Result<Written, WriteError>>) + Send>,
    ) -> Result<(), QueueFull> {
        todo!()
    }

    /// [`Engine::submit`], waiting for room and for the results.
    pub fn write(&self, ops: Vec<Op>) -> Vec<Result<Written, WriteError>> {
        todo!()
    }

    /// The document under `key`, if it stands and has not expired.
    pub fn get(&self, key: &[u8]) -> Result<Option<Document>, QueryError> {
        todo!()
    }

    /// Computed vectors of the document under `key` in a collection, by field name: those of the
    /// last write. For export.
    pub fn vectors(&self, collection: &str, key: &[u8]) -> Result<Vec<(String, ComputedVector)>, QueryError> {
        todo!()
    }

    /// Parses a filter in RediSearch's syntax against a collection's schema.
    pub fn parse_filter(&self, collection: &str, text: &str) -> Result<Filter, QueryError> {
        todo!()
    }

    /// The nearest documents.
    pub fn search(&self, query: &Query<'_>) -> Result<Found, QueryError> {
        todo!()
    }

    /// Documents of a collection in the order they were first written, from `after` on.
    pub fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page, QueryError> {
        todo!()
    }

    /// How many documents of a collection match.
    pub fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, QueryError> {
        todo!()
    }

    /// Counts.
    pub fn stats(&self) -> Result<Stats, QueryError> {
        todo!()
    }

    /// Whether writes are taken; `Err` says why not (a failed fsync, a full disk).
    pub fn writable(&self) -> Result<(), String> {
        todo!()
    }
}
