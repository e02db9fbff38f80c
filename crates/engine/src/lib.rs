//! Durable, filterable, searchable collections of documents and vectors.
//!
//! Takes vectors, not text: who embeds asks [`Engine::texts_to_embed`] what a document needs and
//! hands the vectors over with the write. Synchronous throughout; knows no protocol.
//!
//! The store is the one truth; everything a search touches is derived from it and held in
//! memory. All writes go through one committer: checked, made durable in groups, published,
//! answered, in this order. So what has been acknowledged survives and can be found, unless
//! [`Durability`] lets it be answered before it is durable. Searches wait for no commit and no graph.

mod attributes;
mod bell;
mod binary;
mod checker;
mod clock;
mod collection;
mod committer;
mod core;
mod data_dir;
mod durability;
mod engine;
mod filter;
mod folder;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod indexer;
mod info;
mod load;
mod ordinals;
mod progress;
mod projection;
mod query;
mod queue;
mod registry;
mod room;
#[cfg(all(test, feature = "shuttle"))]
mod schedules;
mod schema;
mod snapshot;
mod structure;
mod sync;
mod transaction;
mod upkeep;
mod write;

pub use checker::{Checker, check_document};
pub use clock::{Clock, SystemClock};
pub use data_dir::{Checked, DataDir, RestoreError};
pub use durability::Durability;
pub use engine::{Engine, OpenError, Options};
pub use filter::{Filter, FilterError};
pub use folder::{Folder, NewFile};
pub use index::{
    Cpu, Level, Metric, VectorError, VectorType, check as check_vector, decode as decode_vector,
    encode as encode_vector,
};
pub use info::{CollectionInfo, Stats};
pub use progress::Progress;
pub use query::{
    ANSWER_BYTES_MAX, EF_MAX, Found, Hit, K_MAX, PAGE_BYTES, Page, Query, QueryError, WINDOW_MAX, score,
};
pub use room::Room;
pub use schema::{
    Algorithm, Embedding, FieldKind, FieldSchema, Quantization, Schema, SchemaError, VectorSchema,
};
pub use store::{
    Backup, BackupError, CollectionVersion, Document, FIELDS_MAX, Field, IntegrityReport, RecordCounts, Seq,
    StorageBackend, StoreError,
};
pub use structure::{CollectionError, Documents, check_name};
pub use write::{ComputedVector, Expected, Op, QueueFull, TextToEmbed, WriteError, Written};
