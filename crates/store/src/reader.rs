//! Reading from one committed snapshot.

use std::ops::Bound;

use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition, Value};

use crate::block::Entry;
use crate::checksum::strip_checksum;
use crate::error::printable;
use crate::expiry;
use crate::key_entry::KeyEntry;
use crate::panic::catch_panic;
use crate::row_iter::{ROW_COUNT_MISMATCH, RowIter};
use crate::state::State;
use crate::tables::{self, Bytes, corrupt};
use crate::vector_key::{VECTOR_KEY_BYTES, field_range};
use crate::vector_table;
use crate::{
    Change, ChangeKind, CollectionVersion, DocId, Document, NameTarget, Seq, StoreError, StoredVector,
    VectorKey, record,
};

/// A key and the number of its document.
pub type KeyedDoc = (Box<[u8]>, DocId);

/// A document's expiry in Unix milliseconds and its number, or the error for a damaged entry.
pub type ExpiryEntry = Result<(u64, DocId), StoreError>;

/// A consistent snapshot of one commit. Its iterators keep the snapshot alive after the `Reader` is dropped.
pub struct Reader {
    transaction: ReadTransaction,
    /// Opened eagerly, because most readers only read documents, and opening a table costs about
    /// as much as reading one of its rows.
    documents: ReadOnlyTable<u64, Bytes>,
}

impl Reader {
    pub(crate) fn new(transaction: ReadTransaction) -> Result<Reader, StoreError> {
        let documents = transaction.open_table(tables::DOCUMENTS)?;
        Ok(Reader { transaction, documents })
    }

    pub(crate) fn table<K: Key, V: Value>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, StoreError> {
        Ok(self.transaction.open_table(table)?)
    }

    pub(crate) fn state(&self) -> Result<State, StoreError> {
        catch_panic(|| tables::state(&self.table(tables::META)?))
    }

    /// Sequence number of the last change in this snapshot; 0 in an empty store.
    pub fn last_seq(&self) -> Result<Seq, StoreError> {
        Ok(self.state()?.last_seq)
    }

    /// Whether the store has never been written to.
    pub fn is_new(&self) -> Result<bool, StoreError> {
        let state = self.state()?;
        Ok(state.last_seq == 0 && state.next_collection == 1)
    }

    /// Number of documents in the keyspace.
    pub fn document_count(&self) -> Result<u64, StoreError> {
        catch_panic(|| Ok(self.documents.len()?))
    }

    /// Gets a document by number.
    pub fn document(&self, doc: DocId) -> Result<Option<Document>, StoreError> {
        catch_panic(|| tables::document(&self.documents, doc))
    }

    /// Gets a document and its number by key.
    pub fn get(&self, key: &[u8]) -> Result<Option<(DocId, Document)>, StoreError> {
        catch_panic(|| tables::get(&self.table(tables::KEYS)?, &self.documents, key))
    }

    /// All documents in order of their numbers. Ends with an error if their count differs from
    /// [`Reader::document_count`].
    pub fn documents(
        &self,
    ) -> Result<impl Iterator<Item = Result<(DocId, Document), StoreError>> + use<>, StoreError> {
        RowIter::table(&self.documents, "documents", |doc, record| {
            let doc = DocId(doc);
            match record::decode(doc, record) {
                Ok(document) => Ok(Some((doc, document))),
                Err(reason) => Err(corrupt("documents", doc.0.to_string(), reason)),
            }
        })
    }

    /// The keys that start with `prefix` and are greater than `after`, in ascending order, with their
    /// document numbers.
    pub fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<KeyedDoc, StoreError>> + use<>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows =
            catch_panic(|| Ok(self.table(tables::KEYS)?.range_owned::<&[u8]>((start, Bound::Unbounded))?))?;
        let prefix: Box<[u8]> = prefix.into();
        Ok(RowIter::range(rows, "keys", move |key: &[u8], entry| {
            if !key.starts_with(&prefix) {
                return Ok(None);
            }
            match KeyEntry::decode(key, entry) {
                Ok(entry) => Ok(Some((key.into(), entry.doc))),
                Err(reason) => Err(corrupt("keys", printable(key), reason)),
            }
        }))
    }

    /// Gets a computed vector.
    pub fn vector(&self, key: VectorKey) -> Result<Option<StoredVector>, StoreError> {
        catch_panic(|| vector_table::get(&self.table(tables::VECTORS)?, key))
    }

    /// Gets the computed vectors of one document in a field of a collection, in order of passage.
    pub fn document_vectors(
        &self,
        collection: CollectionVersion,
        field: u16,
        doc: DocId,
    ) -> Result<Vec<(u16, StoredVector)>, StoreError> {
        let first = VectorKey { collection, field, doc, passage: 0 };
        catch_panic(|| vector_table::get_for_document(&self.table(tables::VECTORS)?, first))
    }

    /// All computed vectors of a collection's field, in order of document and passage.
    pub fn vectors(
        &self,
        collection: CollectionVersion,
        field: u16,
    ) -> Result<impl Iterator<Item = Result<(VectorKey, StoredVector), StoreError>> + use<>, StoreError> {
        let (first, last) = field_range(collection, field);
        let rows = catch_panic(|| {
            Ok(self.table(tables::VECTORS)?.range_owned::<&[u8; VECTOR_KEY_BYTES]>(&first..=&last)?)
        })?;
        let blocks = RowIter::range(rows, "vectors", move |row_key: &[u8; VECTOR_KEY_BYTES], row| {
            let block = vector_table::decode(row_key, row)?;
            let keyed = |entry: &Entry<'_>| {
                let key = VectorKey { collection, field, doc: entry.doc, passage: entry.passage };
                (key, entry.vector())
            };
            Ok(Some(block.entries().iter().map(keyed).collect::<Vec<_>>()))
        });
        Ok(blocks.flat_map(|block| {
            let (vectors, error) = match block {
                Ok(vectors) => (vectors, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            vectors.into_iter().map(Ok).chain(error)
        }))
    }

    /// The last change of every document that changed after `after`, oldest first. A document that
    /// was written several times appears once, at its last change.
    pub fn changes(
        &self,
        after: Seq,
    ) -> Result<impl Iterator<Item = Result<Change, StoreError>> + use<>, StoreError> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let rows = catch_panic(|| Ok(self.table(tables::CHANGES)?.range_owned::<u64>(range)?))?;
        Ok(RowIter::range(rows, "changes", |seq, entry| match Change::decode(seq, entry) {
            Ok(change) => Ok(Some(change)),
            Err(reason) => Err(corrupt("changes", seq.to_string(), reason)),
        }))
    }

    /// Reads all keys and changes, and verifies that they agree. Other reads do not detect that a key or a
    /// change is *missing* because a page above it is damaged. It takes a small fraction of the time needed
    /// to read all documents.
    pub fn verify_references(&self) -> Result<(), StoreError> {
        catch_panic(|| {
            let state = self.state()?;
            let (mut keys, mut expected_changes) = (0, 0);
            let mut last: Option<Box<[u8]>> = None;
            let table = self.table(tables::KEYS)?;
            for row in table.range::<&[u8]>(..)? {
                let (key, entry) = row?;
                let key = key.value();
                // A lookup by key reaches the row through other pages than the iterator does.
                if table.get(key)?.is_none_or(|found| found.value() != entry.value()) {
                    return Err(corrupt("keys", printable(key), "a lookup does not find it"));
                }
                let entry = KeyEntry::decode(key, entry.value())
                    .map_err(|reason| corrupt("keys", printable(key), reason))?;
                if last.as_ref().is_some_and(|last| **last >= *key) {
                    return Err(corrupt("keys", printable(key), "it is out of order"));
                }
                last = Some(key.into());
                keys += 1;
                expected_changes += u64::from(entry.changed > state.trimmed_to);
            }
            if keys != self.documents.len()? {
                return Err(corrupt("keys", "all", "their number differs from the number of documents"));
            }
            let mut last = state.trimmed_to;
            let table = self.table(tables::CHANGES)?;
            let mut changes = 0;
            for row in table.range::<u64>(..)? {
                let (seq, change) = row?;
                let seq = seq.value();
                let change = Change::decode(seq, change.value())
                    .map_err(|reason| corrupt("changes", seq.to_string(), reason))?;
                if seq <= last || seq > state.last_seq {
                    return Err(corrupt("changes", seq.to_string(), "it is out of order"));
                }
                last = seq;
                changes += 1;
                if change.kind == ChangeKind::Written {
                    expected_changes = expected_changes
                        .checked_sub(1)
                        .ok_or_else(|| corrupt("changes", seq.to_string(), "no key refers to it"))?;
                }
            }
            // Deletions have no key, so they are only counted.
            if changes != table.len()? {
                return Err(corrupt("changes", "all", ROW_COUNT_MISMATCH));
            }
            if expected_changes > 0 {
                return Err(corrupt("changes", "all", "changes are missing that keys refer to"));
            }
            Ok(())
        })
    }

    /// Changes up to this sequence number have been trimmed. A consumer that needs older ones must read all
    /// documents.
    pub fn changes_trimmed_to(&self) -> Result<Seq, StoreError> {
        Ok(self.state()?.trimmed_to)
    }

    /// Up to `limit` documents that expire at or before `now_ms`, in order of their expiry. A damaged
    /// entry appears as an error and does not end the list.
    pub fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<ExpiryEntry>, StoreError> {
        catch_panic(|| {
            let mut expired = Vec::new();
            for row in self.table(tables::EXPIRIES)?.range((0, 0)..=(now_ms, u64::MAX))?.take(limit) {
                let (key, sum) = row?;
                let (at_ms, doc) = key.value();
                let doc = DocId(doc);
                let is_intact = sum.value() == expiry::checksum(at_ms, doc);
                let damaged = || expiry::corrupt(at_ms, doc, "the checksum does not match");
                expired.push(if is_intact { Ok((at_ms, doc)) } else { Err(damaged()) });
            }
            Ok(expired)
        })
    }

    /// All stored schemas, in order of collection and version.
    pub fn schemas(&self) -> Result<Vec<(CollectionVersion, Vec<u8>)>, StoreError> {
        let table = catch_panic(|| self.table(tables::SCHEMAS))?;
        let rows = RowIter::table(&table, "schemas", |(id, version): (u32, u32), entry| {
            let collection = CollectionVersion { id, version };
            let schema = strip_checksum(&collection.encode(), entry)
                .map_err(|reason| corrupt("schemas", format!("{id}, version {version}"), reason))?;
            Ok(Some((collection, schema.to_vec())))
        });
        rows?.collect()
    }

    /// All names and aliases, in order.
    pub fn names(&self) -> Result<Vec<(String, NameTarget)>, StoreError> {
        let table = catch_panic(|| self.table(tables::NAMES))?;
        let rows = RowIter::table(&table, "names", |name: &[u8], entry| {
            NameTarget::decode(name, entry)
                .map(Some)
                .map_err(|reason| corrupt("names", printable(name), reason))
        });
        rows?.collect()
    }
}
