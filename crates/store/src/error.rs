//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened. Messages carry the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be read or written.
    #[error("cannot open the store {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is open elsewhere.
    #[error("the store {} is open already, in this process or another: close it there first", path.display())]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{} is not a Nearfield store: {reason}", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        reason: String,
    },
    /// The file's format is not known yet.
    #[error(
        "the store {} was made by a newer version of Nearfield (format {found}; this version reads up to {supported}): upgrade to open it",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u32,
        /// Highest format this version reads.
        supported: u32,
    },
    /// The file is a store, and damaged.
    #[error("the store {} is damaged: {reason}; restore it from a backup", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

/// Why a read or a write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk failed. The store refuses writes from here on.
    #[error("the store's disk failed: {source}")]
    Io {
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write failed, and what the disk holds of it is unknown.
    #[error("the store takes no more writes since one failed ({reason}): open it again")]
    ReadOnly {
        /// The first failure.
        reason: String,
    },
    /// An earlier write found no room, and there is still none.
    #[error(
        "the store takes no writes while its disk is full ({reason}): make room, and it takes them again"
    )]
    DiskFull {
        /// The first failure.
        reason: String,
    },
    /// redb refuses to read after its disk failed.
    #[error("the store's disk failed earlier: open the store again")]
    DiskFailedEarlier,
    /// A step of this transaction failed half-way: nothing of it can be committed.
    #[error("an earlier step of this transaction failed: begin another")]
    Aborted,
    /// One stored entry is damaged.
    #[error("the store is damaged: table {table}, key {key}: {reason}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Key in the table, printable.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file below the entries is damaged.
    #[error("the store is damaged: {reason}")]
    Damaged {
        /// What redb found.
        reason: String,
    },
    /// The store cannot be verified while it is read or written.
    #[error("the store is being read or written: end that first")]
    InUse,
    /// Something given exceeds a limit; nothing was written.
    #[error("{key}: {found} {what}, at most {max} allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// Of which key, printable and shortened.
        key: String,
        /// As given.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Something given is empty; nothing was written.
    #[error("empty {what}: at least one byte is needed")]
    Empty {
        /// What is empty.
        what: &'static str,
    },
    /// A field was given twice; nothing was written.
    #[error("{key}: field {field} is given twice")]
    DuplicateField {
        /// Key of the document.
        key: String,
        /// Name of the field.
        field: String,
    },
    /// There is no document with this number; nothing was written.
    #[error("there is no document with number {doc}")]
    UnknownDocument {
        /// The number.
        doc: u64,
    },
    /// Every number a document or a change can have has been given; nothing was written.
    #[error(
        "this store has had as many documents or changes as it can number: export its documents to a new one"
    )]
    IdsExhausted,
    /// Every number a collection can have has been given; nothing was written.
    #[error("this store has had as many collections as it can number: export its documents to a new one")]
    CollectionIdsExhausted,
}

impl StoreError {
    /// Whether the request was refused before it changed anything.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            StoreError::TooLarge { .. }
                | StoreError::Empty { .. }
                | StoreError::DuplicateField { .. }
                | StoreError::UnknownDocument { .. }
                | StoreError::CollectionIdsExhausted
                | StoreError::IdsExhausted
        )
    }

    /// Whether the disk has no room.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            StoreError::Io { source } => matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge),
            StoreError::DiskFull { .. } => true,
            _ => false,
        }
    }

    /// Whether nothing more may be written before the store was opened again.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, StoreError::Io { .. } | StoreError::DiskFailedEarlier | StoreError::Damaged { .. })
    }
}

/// Bytes as a message shows them: escaped, and cut after 64.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    match bytes.get(..SHOWN_BYTES_MAX) {
        Some(head) if bytes.len() > SHOWN_BYTES_MAX => format!("\"{}\"...", head.escape_ascii()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

impl From<redb::StorageError> for StoreError {
    fn from(error: redb::StorageError) -> StoreError {
        match error {
            redb::StorageError::Io(source) => StoreError::Io { source },
            // Closed it is, under those who are reading, once it is opened again after a failure.
            redb::StorageError::PreviousIo | redb::StorageError::DatabaseClosed => {
                StoreError::DiskFailedEarlier
            }
            other => StoreError::Damaged { reason: other.to_string() },
        }
    }
}

impl From<redb::TableError> for StoreError {
    fn from(error: redb::TableError) -> StoreError {
        match error {
            redb::TableError::Storage(error) => error.into(),
            other => StoreError::Damaged { reason: other.to_string() },
        }
    }
}

impl From<redb::TransactionError> for StoreError {
    fn from(error: redb::TransactionError) -> StoreError {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => StoreError::Damaged { reason: other.to_string() },
        }
    }
}

impl From<redb::CommitError> for StoreError {
    fn from(error: redb::CommitError) -> StoreError {
        match error {
            redb::CommitError::Storage(error) => error.into(),
            other => StoreError::Damaged { reason: other.to_string() },
        }
    }
}
