//! Errors of opening, reading and writing a store.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened. Every message contains the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file could not be read or written.
    #[error("cannot open the store {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is already open in this process or another one.
    #[error("the store {} is already open in this or another process: close it there first", path.display())]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a store.
    #[error("{} is not a Nearfield store: {reason}", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// How this was determined.
        reason: String,
    },
    /// A newer version created the file, in an unknown format.
    #[error(
        "the store {} was written by a newer version of Nearfield, format {found}; this program reads up to {supported}: upgrade Nearfield to open it",
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
    /// A newer version has written content that this version cannot read.
    #[error(
        "the store {} was written by a newer version of Nearfield, with features that this program does not know (bits {features:#x}): upgrade Nearfield to open it",
        path.display()
    )]
    UnknownFeatures {
        /// The file.
        path: PathBuf,
        /// The unknown features.
        features: u32,
    },
    /// The file is a damaged store.
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
    /// An I/O error. After a failed write the store rejects further writes.
    #[error("the store cannot access its disk: {source}")]
    Io {
        /// The operating system's error.
        source: io::Error,
    },
    /// An earlier write failed, and the state of the disk is unknown.
    #[error("the store has been read-only since a write failed ({reason}): reopen it")]
    ReadOnly {
        /// The first failure.
        reason: String,
    },
    /// An earlier write failed because the disk was full, and it still is.
    #[error("the store is read-only while its disk is full ({reason}): free disk space to resume writes")]
    DiskFull {
        /// The first failure.
        reason: String,
    },
    /// The file was moved, deleted or replaced while it was open, so what is written would not be found again.
    #[error(
        "the store file {} was {what} while it was open, so what is written now would be lost: stop this process, put the file back and start again",
        path.display()
    )]
    Displaced {
        /// Where the file was opened.
        path: PathBuf,
        /// What happened to it.
        what: &'static str,
    },
    /// redb rejects reads after an I/O error.
    #[error("the store's disk failed earlier: reopen the store")]
    DiskFailedEarlier,
    /// An earlier step of this transaction failed, so it can no longer be committed.
    #[error("an earlier step of this transaction failed: start a new transaction")]
    Aborted,
    /// One stored entry is damaged.
    #[error("the store is damaged: table {table}, key {key}: {reason}")]
    Corrupt {
        /// Name of the table.
        table: &'static str,
        /// Key in the table, in printable form.
        key: String,
        /// What is wrong with the entry.
        reason: &'static str,
    },
    /// The file is damaged at the level of redb's pages.
    #[error("the store is damaged: {reason}")]
    Damaged {
        /// What redb reported.
        reason: String,
    },
    /// The store cannot be verified while readers or writers exist.
    #[error("the store is in use: close all readers and writers first")]
    InUse,
    /// An argument exceeds a limit. Nothing was written.
    #[error("{key}: {found} {what}, at most {max} are allowed")]
    TooLarge {
        /// The limited quantity.
        what: &'static str,
        /// The key it belongs to, in printable form and shortened.
        key: String,
        /// The given amount.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// An argument is empty. Nothing was written.
    #[error("\"\": the {what} is empty, at least one byte is needed")]
    Empty {
        /// Name of the argument.
        what: &'static str,
    },
    /// A field was given twice. Nothing was written.
    #[error("{key}: field {field} is given twice")]
    DuplicateField {
        /// Key of the document.
        key: String,
        /// Name of the field.
        field: String,
    },
    /// There is no document with this number. Nothing was written.
    #[error("there is no document with number {doc}")]
    UnknownDocument {
        /// The number.
        doc: u64,
    },
    /// All document or sequence numbers have been assigned. Nothing was written.
    #[error("the store has run out of document or sequence numbers: export its documents to a new store")]
    IdsExhausted,
    /// All collection numbers have been assigned. Nothing was written.
    #[error("the store has run out of collection numbers: export its documents to a new store")]
    CollectionIdsExhausted,
}

impl StoreError {
    /// Whether the request was rejected before it changed anything.
    pub(crate) fn is_rejection(&self) -> bool {
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

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            StoreError::Io { source } => matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge),
            StoreError::DiskFull { .. } => true,
            _ => false,
        }
    }

    /// Whether the store must be reopened before it can be written to again.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, StoreError::Io { .. } | StoreError::DiskFailedEarlier | StoreError::Damaged { .. })
    }
}

/// Bytes in printable form: escaped, and truncated after 64 bytes.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const PRINTED_BYTES_MAX: usize = 64;
    match bytes.get(..PRINTED_BYTES_MAX) {
        Some(head) if bytes.len() > PRINTED_BYTES_MAX => format!("\"{}\"...", head.escape_ascii()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

impl From<redb::StorageError> for StoreError {
    fn from(error: redb::StorageError) -> StoreError {
        match error {
            redb::StorageError::Io(source) => StoreError::Io { source },
            // Reopening after a failure closes the database that existing readers use.
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
