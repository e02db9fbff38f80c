//! Durable, filterable, searchable collections of documents and vectors.
//!
//! The engine takes vectors, not text: the caller gets the texts of a document from [`Engine::texts_to_embed`] and
//! passes their vectors with the write. The engine is synchronous throughout and knows no protocol.
//!
//! The store holds the truth; everything that a search uses is derived from it and kept in memory. One committer
//! handles all writes: it checks them, commits them durably in groups, publishes them and answers, in this order. So
//! an acknowledged write is durable and visible, unless [`Durability`] allows the answer to come first. Searches wait
//! neither for commits nor for graphs.

mod attributes;
mod binary;
mod byte_budget;
mod clock;
mod collection;
mod committer;
mod comparison;
mod core;
mod data_dir;
mod ddl;
mod durability;
mod engine;
mod file_storage;
mod filter;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod indexer;
mod info;
mod load;
mod maintenance;
mod ordinals;
mod passages;
mod progress;
mod projection;
mod query;
mod queue;
mod registry;
#[cfg(all(test, feature = "shuttle"))]
mod schedules;
mod schema;
mod scroll;
mod search;
mod snapshot;
mod sync;
mod transaction;
mod validator;
mod wake_signal;
mod write;

pub use byte_budget::ByteBudget;
pub use clock::{Clock, SystemClock};
pub use data_dir::{CheckReport, DataDir, RestoreError};
pub use ddl::{CollectionError, DropMode, check_name};
pub use durability::Durability;
pub use engine::{Engine, OpenError, Options};
pub use file_storage::{FileStorage, WritableFile};
pub use filter::{Filter, FilterError};
pub use index::{
    Cpu, DIM_MAX, Level, Metric, VectorError, VectorType, check as check_vector, decode as decode_vector,
    encode as encode_vector,
};
pub use info::{CollectionInfo, Stats};
pub use progress::Progress;
pub use query::{
    EF_MAX, Hit, K_MAX, Leg, Order, PAGE_BYTES, Page, Query, QueryError, RESPONSE_BYTES_MAX, ScrollPage,
    SearchResult, VectorLeg, WINDOW_MAX, score,
};
pub use schema::{
    Algorithm, EF_RANGE, Embedding, FieldKind, FieldSchema, M_RANGE, Quantization, Schema, SchemaError,
    VectorSchema,
};
pub use store::{
    Backup, BackupError, CollectionVersion, Document, FIELDS_MAX, Field, IntegrityReport, RecordCounts, Seq,
    StorageBackend, StoreError,
};
pub use validator::{DocumentValidator, check_document};
pub use write::{ComputedVector, Expected, Op, QueueFull, TextToEmbed, WriteError, WriteOutcome};
