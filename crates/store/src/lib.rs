//! The durable keyspace: documents, vectors, schemas and the log of changes, on redb.
//!
//! One truth. Whatever else the system holds (graphs, postings, bitmaps) is derived from what
//! stands here. Knows nothing of vector geometry or of text models: a schema is bytes, a vector is bytes.
//!
//! redb verifies the checksums of its pages when it repairs a file, not when it reads one. So
//! every entry written here carries a CRC-32 of its own, bound to the place it stands in, and is
//! checked on every read: a damaged or misplaced entry is an error that names table and key,
//! never an answer.

mod backup;
mod block;
mod change;
mod check;
mod collection;
mod contain;
mod cursor;
mod disk;
mod document;
mod error;
mod expiry;
mod frame;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod item;
mod key_entry;
mod limits;
mod loose;
mod name;
mod reach;
mod reader;
mod rebuild;
mod record;
mod rows;
mod salvage;
mod seal;
mod state;
mod store;
mod tables;
mod vector;
mod vectors;
mod writer;

pub use backup::{Backup, BackupError};
pub use change::{Change, ChangeKind, Seq};
pub use check::IntegrityReport;
pub use collection::CollectionVersion;
pub use document::{DocId, Document, Field};
pub use error::{OpenError, StoreError};
pub use frame::{FrameReader, FrameWriter};
pub use limits::{
    DOCUMENT_BYTES_MAX, FIELD_NAME_BYTES_MAX, FIELDS_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, SCHEMA_BYTES_MAX,
    VECTOR_BYTES_MAX, check_document,
};
pub use name::NameTarget;
pub use reader::{ExpiryEntry, KeyedDoc, Reader};
pub use rebuild::RecordCounts;
pub use redb::StorageBackend;
pub use store::{Options, Store};
pub use vector::{StoredVector, VectorKey};
pub use writer::Writer;
