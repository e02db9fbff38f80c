//! The durable keyspace: documents, vectors, schemas and the change log, stored in redb.
//!
//! The store is the single source of truth. Graphs, posting lists and bitmaps are derived from
//! it. The store knows nothing about vector geometry or text models: schemas and vectors are bytes.
//!
//! redb verifies page checksums when it repairs a file, but not when it reads one. Therefore
//! every entry carries its own CRC-32, computed over its key and its value, and every read
//! verifies it. Reading a damaged or misplaced entry returns an error that names the table and
//! the key.

mod backup;
mod block;
mod builder;
mod change;
mod check;
mod checksum;
mod collection_version;
mod cursor;
mod document;
mod error;
mod expiry;
mod file_identity;
mod frame;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod histories;
mod key_entry;
mod limits;
mod name_target;
mod orphans;
mod overlay;
mod page_tree;
mod panic;
mod primary_row;
mod reader;
mod record;
mod row_iter;
mod row_scan;
mod salvage;
mod shared_backend;
mod state;
mod store;
mod tables;
mod vector_key;
mod vector_table;
mod writer;

pub use backup::{Backup, BackupError};
pub use builder::RecordCounts;
pub use change::{Change, ChangeKind, Seq};
pub use check::IntegrityReport;
pub use collection_version::CollectionVersion;
pub use document::{DocId, Document, Field};
pub use error::{OpenError, StoreError};
pub use frame::{FrameReader, FrameWriter};
pub use histories::HistoryId;
pub use limits::{
    DOCUMENT_BYTES_MAX, FIELD_NAME_BYTES_MAX, FIELDS_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, SCHEMA_BYTES_MAX,
    VECTOR_BYTES_MAX, check_document,
};
pub use name_target::NameTarget;
pub use reader::{ExpiryEntry, KeyedDoc, Reader};
pub use redb::StorageBackend;
pub use store::{Options, Store};
pub use vector_key::{StoredVector, VectorKey};
pub use writer::Writer;
