//! Building a new store from the rows of another one.

use redb::{ReadableTable, WriteTransaction};

use crate::error::printable;
use crate::expiry;
use crate::key_entry::KeyEntry;
use crate::orphans::{self, Orphans};
use crate::panic::catch_panic;
use crate::primary_row::{PrimaryRow, VerifiedRow};
use crate::state::State;
use crate::tables::{self, corrupt};
use crate::{NameTarget, Seq, Store, StoreError};

/// Maximum number of rows per transaction.
const TRANSACTION_ROWS_MAX: usize = 5_000;
/// Number of bytes after which a transaction is committed.
const TRANSACTION_BYTES_MAX: usize = 32 << 20;
const DUPLICATE_KEY: &str = "another row has the same key";

/// The number of records of each kind in a store or a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Documents.
    pub documents: u64,
    /// Computed vectors.
    pub vectors: u64,
    /// Schemas of collections.
    pub schemas: u64,
    /// Names and aliases of collections.
    pub names: u64,
}

impl RecordCounts {
    pub(crate) fn add(&mut self, row: &VerifiedRow) {
        match row {
            VerifiedRow::Document(..) => self.documents += 1,
            VerifiedRow::Vectors(_, keys) => self.vectors += keys.len() as u64,
            VerifiedRow::Schema(_) => self.schemas += 1,
            VerifiedRow::Name(..) => self.names += 1,
        }
    }

    /// Subtracts `others`, which must not exceed `self` in any count.
    pub(crate) fn minus(self, others: RecordCounts) -> RecordCounts {
        RecordCounts {
            documents: self.documents - others.documents,
            vectors: self.vectors - others.vectors,
            schemas: self.schemas - others.schemas,
            names: self.names - others.names,
        }
    }

    pub(crate) fn to_array(self) -> [u64; 4] {
        [self.documents, self.vectors, self.schemas, self.names]
    }
}

/// The next document and collection numbers, and the last sequence number, of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) next_doc: u64,
    pub(crate) next_collection: u32,
    pub(crate) last_seq: Seq,
}

/// Upper bound for document and sequence counters. A store that assigns a million numbers per second
/// reaches it after 290,000 years, so a higher number in a file is damage. Accepting such a number
/// could leave no free numbers for later documents.
pub(crate) const ID_MAX: u64 = u64::MAX / 2;

impl Counters {
    /// Whether the numbers are within [`ID_MAX`].
    pub(crate) fn are_valid(&self) -> bool {
        self.next_doc <= ID_MAX && self.last_seq <= ID_MAX
    }

    /// Whether the numbers in `row` are below these counters.
    pub(crate) fn allow(&self, row: &VerifiedRow) -> bool {
        match row {
            VerifiedRow::Document(doc, document) => doc.0 < self.next_doc && document.seq <= self.last_seq,
            VerifiedRow::Schema(collection) => collection.id < self.next_collection,
            VerifiedRow::Vectors(..) | VerifiedRow::Name(..) => true,
        }
    }
}

/// A store that is being filled. It is incomplete until [`StoreBuilder::finish`] returns.
pub(crate) struct StoreBuilder {
    store: Store,
    transaction: Option<WriteTransaction>,
    rows: usize,
    bytes: usize,
}

impl StoreBuilder {
    /// Starts filling `store`, which must be empty.
    pub(crate) fn new(store: Store) -> StoreBuilder {
        StoreBuilder { store, transaction: None, rows: 0, bytes: 0 }
    }

    /// Inserts a verified row. A row that contradicts an earlier one is rejected and leaves the store unchanged.
    pub(crate) fn add(&mut self, row: &PrimaryRow, verified: &VerifiedRow) -> Result<(), StoreError> {
        let transaction = self.take_transaction()?;
        let added = insert(&transaction, row, verified);
        self.rows += 1;
        self.bytes += row.value.len();
        if self.rows == TRANSACTION_ROWS_MAX || self.bytes >= TRANSACTION_BYTES_MAX {
            transaction.commit()?;
            (self.rows, self.bytes) = (0, 0);
        } else {
            self.transaction = Some(transaction);
        }
        added
    }

    fn take_transaction(&mut self) -> Result<WriteTransaction, StoreError> {
        self.transaction.take().map_or_else(|| self.store.begin(), Ok)
    }

    /// Removes rows whose target is missing. Call it after all rows have been inserted.
    pub(crate) fn remove_orphans(&mut self) -> Result<Orphans, StoreError> {
        let transaction = self.take_transaction()?;
        let removed = catch_panic(|| orphans::remove(&transaction))?;
        self.transaction = Some(transaction);
        Ok(removed)
    }

    /// Writes the store's state and commits everything durably.
    pub(crate) fn finish(mut self, counters: Counters) -> Result<Store, StoreError> {
        let transaction = self.take_transaction()?;
        let state = State {
            next_doc: counters.next_doc,
            next_collection: counters.next_collection,
            last_seq: counters.last_seq,
            // The change log starts empty: derived data is rebuilt from the documents.
            trimmed_to: counters.last_seq,
            ..State::new(self.store.id())
        };
        transaction.open_table(tables::META)?.insert(tables::STATE_ROW, &*state.encode())?;
        transaction.commit()?;
        Ok(self.store)
    }
}

fn insert(
    transaction: &WriteTransaction,
    row: &PrimaryRow,
    verified: &VerifiedRow,
) -> Result<(), StoreError> {
    match verified {
        VerifiedRow::Document(doc, document) => {
            let mut keys = transaction.open_table(tables::KEYS)?;
            if keys.get(&*document.key)?.is_some() {
                return Err(corrupt("documents", doc.0.to_string(), "another document has the same key"));
            }
            let mut documents = transaction.open_table(tables::DOCUMENTS)?;
            if documents.get(doc.0)?.is_some() {
                return Err(corrupt("documents", doc.0.to_string(), DUPLICATE_KEY));
            }
            let entry = KeyEntry { doc: *doc, changed: document.seq, expires_at_ms: document.expires_at_ms };
            keys.insert(&*document.key, &*entry.encode(&document.key))?;
            documents.insert(doc.0, &*row.value)?;
            if let Some(at_ms) = document.expires_at_ms {
                let row = expiry::checksum(at_ms, *doc);
                transaction.open_table(tables::EXPIRIES)?.insert((at_ms, doc.0), row)?;
            }
        }
        VerifiedRow::Vectors(row_key, keys) => {
            let documents = transaction.open_table(tables::DOCUMENTS)?;
            for key in keys {
                if documents.get(key.doc.0)?.is_none() {
                    return Err(corrupt("vectors", printable(row_key), "the document does not exist"));
                }
            }
            let mut blocks = transaction.open_table(tables::VECTORS)?;
            if blocks.get(row_key)?.is_some() {
                return Err(corrupt("vectors", printable(row_key), DUPLICATE_KEY));
            }
            blocks.insert(row_key, &*row.value)?;
        }
        VerifiedRow::Schema(collection) => {
            let key = (collection.id, collection.version);
            let mut schemas = transaction.open_table(tables::SCHEMAS)?;
            if schemas.get(key)?.is_some() {
                return Err(corrupt("schemas", printable(&row.key), DUPLICATE_KEY));
            }
            schemas.insert(key, &*row.value)?;
        }
        VerifiedRow::Name(name, target) => {
            if let NameTarget::Collection(collection) = target {
                // Schemas precede names in the stream. Aliases are checked at the end, in `remove_orphans`.
                let schemas = transaction.open_table(tables::SCHEMAS)?;
                if schemas.get((collection.id, collection.version))?.is_none() {
                    return Err(corrupt("names", printable(name.as_bytes()), orphans::UNKNOWN_TARGET));
                }
            }
            let mut names = transaction.open_table(tables::NAMES)?;
            if names.get(name.as_bytes())?.is_some() {
                return Err(corrupt("names", printable(name.as_bytes()), DUPLICATE_KEY));
            }
            names.insert(name.as_bytes(), &*row.value)?;
        }
    }
    Ok(())
}
