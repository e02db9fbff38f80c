//! A new store, made of the rows of another one.

use redb::{ReadableTable, WriteTransaction};

use crate::contain::contain;
use crate::error::shown;
use crate::expiry;
use crate::item::{Item, Verified};
use crate::key_entry::KeyEntry;
use crate::loose::{self, Loose};
use crate::state::State;
use crate::tables::{self, corrupt};
use crate::{NameTarget, Seq, Store, StoreError};

/// Rows of a transaction.
const ROWS_AT_ONCE: usize = 5_000;
/// And their bytes.
const BYTES_AT_ONCE: usize = 32 << 20;
const TWICE: &str = "another row has its place";

/// How much of what a store holds.
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
    pub(crate) fn add(&mut self, row: &Verified) {
        match row {
            Verified::Document(..) => self.documents += 1,
            Verified::Vectors(_, keys) => self.vectors += keys.len() as u64,
            Verified::Schema(_) => self.schemas += 1,
            Verified::Name(..) => self.names += 1,
        }
    }

    /// What is left without these, which are of it.
    pub(crate) fn without(self, others: RecordCounts) -> RecordCounts {
        RecordCounts {
            documents: self.documents - others.documents,
            vectors: self.vectors - others.vectors,
            schemas: self.schemas - others.schemas,
            names: self.names - others.names,
        }
    }

    pub(crate) fn all(self) -> [u64; 4] {
        [self.documents, self.vectors, self.schemas, self.names]
    }
}

/// The numbers a store gives next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) next_doc: u64,
    pub(crate) next_collection: u32,
    pub(crate) last_seq: Seq,
}

/// The highest number a store comes to, were it written to a million times a second for 290,000 years. One beyond it
/// is nothing a store has given, and would leave no room for others.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 2;

impl Numbers {
    /// Whether a store can have come to them.
    pub(crate) fn are_possible(&self) -> bool {
        self.next_doc <= NUMBER_MAX && self.last_seq <= NUMBER_MAX
    }

    /// Whether a store that gives these next can hold the row.
    pub(crate) fn are_after(&self, row: &Verified) -> bool {
        match row {
            Verified::Document(doc, document) => doc.0 < self.next_doc && document.seq <= self.last_seq,
            Verified::Schema(collection) => collection.id < self.next_collection,
            Verified::Vectors(..) | Verified::Name(..) => true,
        }
    }
}

/// A store that is being filled. Dropped before [`Rebuild::finish`], it is of no use.
pub(crate) struct Rebuild {
    store: Store,
    transaction: Option<WriteTransaction>,
    rows: usize,
    bytes: usize,
}

impl Rebuild {
    /// Fills `store`, which is empty.
    pub(crate) fn begin(store: Store) -> Rebuild {
        Rebuild { store, transaction: None, rows: 0, bytes: 0 }
    }

    /// Takes a row in that was verified. One that contradicts another is refused, and nothing of it is taken.
    pub(crate) fn add(&mut self, item: &Item, verified: &Verified) -> Result<(), StoreError> {
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.store.begin()?,
        };
        let added = insert(&transaction, item, verified);
        self.rows += 1;
        self.bytes += item.row.len();
        if self.rows == ROWS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            transaction.commit()?;
            (self.rows, self.bytes) = (0, 0);
        } else {
            self.transaction = Some(transaction);
        }
        added
    }

    /// Takes out what leads nowhere, now that everything is in.
    pub(crate) fn remove_loose(&mut self) -> Result<Loose, StoreError> {
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.store.begin()?,
        };
        let removed = contain(|| loose::remove(&transaction))?;
        self.transaction = Some(transaction);
        Ok(removed)
    }

    /// Makes it whole and durable.
    pub(crate) fn finish(mut self, numbers: Numbers) -> Result<Store, StoreError> {
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.store.begin()?,
        };
        let state = State {
            id: self.store.id(),
            next_doc: numbers.next_doc,
            next_collection: numbers.next_collection,
            last_seq: numbers.last_seq,
            // No change is kept: whatever is derived is derived from the documents.
            trimmed_to: numbers.last_seq,
        };
        transaction.open_table(tables::META)?.insert(tables::STATE_ROW, &*state.encode())?;
        transaction.commit()?;
        Ok(self.store)
    }
}

fn insert(transaction: &WriteTransaction, item: &Item, verified: &Verified) -> Result<(), StoreError> {
    match verified {
        Verified::Document(doc, document) => {
            let mut keys = transaction.open_table(tables::KEYS)?;
            if keys.get(&*document.key)?.is_some() {
                return Err(corrupt("documents", doc.0.to_string(), "another document has its key"));
            }
            let mut documents = transaction.open_table(tables::DOCUMENTS)?;
            if documents.get(doc.0)?.is_some() {
                return Err(corrupt("documents", doc.0.to_string(), TWICE));
            }
            let entry = KeyEntry { doc: *doc, changed: document.seq, expires_at_ms: document.expires_at_ms };
            keys.insert(&*document.key, &*entry.encode(&document.key))?;
            documents.insert(doc.0, &*item.row)?;
            if let Some(at_ms) = document.expires_at_ms {
                let row = expiry::row(at_ms, *doc);
                transaction.open_table(tables::EXPIRIES)?.insert((at_ms, doc.0), row)?;
            }
        }
        Verified::Vectors(key, vectors) => {
            let documents = transaction.open_table(tables::DOCUMENTS)?;
            for vector in vectors {
                if documents.get(vector.doc.0)?.is_none() {
                    return Err(corrupt("vectors", shown(key), "it is of a document that is not there"));
                }
            }
            let mut blocks = transaction.open_table(tables::VECTORS)?;
            if blocks.get(key)?.is_some() {
                return Err(corrupt("vectors", shown(key), TWICE));
            }
            blocks.insert(key, &*item.row)?;
        }
        Verified::Schema(collection) => {
            let place = (collection.id, collection.version);
            let mut schemas = transaction.open_table(tables::SCHEMAS)?;
            if schemas.get(place)?.is_some() {
                return Err(corrupt("schemas", shown(&item.key), TWICE));
            }
            schemas.insert(place, &*item.row)?;
        }
        Verified::Name(name, target) => {
            if let NameTarget::Collection(collection) = target {
                // Schemas come before names; of an alias it is seen at the end.
                let schemas = transaction.open_table(tables::SCHEMAS)?;
                if schemas.get((collection.id, collection.version))?.is_none() {
                    return Err(corrupt("names", shown(name.as_bytes()), loose::NOWHERE));
                }
            }
            let mut names = transaction.open_table(tables::NAMES)?;
            if names.get(name.as_bytes())?.is_some() {
                return Err(corrupt("names", shown(name.as_bytes()), TWICE));
            }
            names.insert(name.as_bytes(), &*item.row)?;
        }
    }
    Ok(())
}
