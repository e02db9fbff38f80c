//! Reading one commit.

use std::ops::Bound;

use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition, Value};

use crate::block::Entry;
use crate::contain::contain;
use crate::error::shown;
use crate::expiry;
use crate::key_entry::KeyEntry;
use crate::rows::{COUNT, Rows};
use crate::seal::unseal;
use crate::state::State;
use crate::tables::{self, corrupt};
use crate::vector::{VECTOR_KEY_BYTES, field_range};
use crate::vectors;
use crate::{
    Change, ChangeKind, CollectionVersion, DocId, Document, NameTarget, Seq, StoreError, StoredVector,
    VectorKey, record,
};

type Bytes = &'static [u8];

/// A key and the number of the document under it.
pub type KeyedDoc = (Box<[u8]>, DocId);

/// A document's end in Unix milliseconds and its number, or what is wrong with the entry.
pub type ExpiryEntry = Result<(u64, DocId), StoreError>;

/// A consistent view of one commit. Its iterators keep the view alive by themselves.
pub struct Reader {
    transaction: ReadTransaction,
    /// Open from the start: most readers are there for documents alone, and opening a table costs
    /// about as much as reading a row of it.
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
        contain(|| tables::state(&self.table(tables::META)?))
    }

    /// The last change in this view; 0 in an empty store.
    pub fn last_seq(&self) -> Result<Seq, StoreError> {
        Ok(self.state()?.last_seq)
    }

    /// Whether nothing was ever written.
    pub fn is_new(&self) -> Result<bool, StoreError> {
        let state = self.state()?;
        Ok(state.last_seq == 0 && state.next_collection == 1)
    }

    /// Documents in the whole keyspace.
    pub fn document_count(&self) -> Result<u64, StoreError> {
        contain(|| Ok(self.documents.len()?))
    }

    /// A document by number.
    pub fn document(&self, doc: DocId) -> Result<Option<Document>, StoreError> {
        contain(|| tables::document(&self.documents, doc))
    }

    /// A document and its number by key.
    pub fn get(&self, key: &[u8]) -> Result<Option<(DocId, Document)>, StoreError> {
        contain(|| tables::get(&self.table(tables::KEYS)?, &self.documents, key))
    }

    /// All documents, by number. Ends with an error if there are not as many as [`Reader::document_count`] says.
    pub fn documents(
        &self,
    ) -> Result<impl Iterator<Item = Result<(DocId, Document), StoreError>> + use<>, StoreError> {
        Rows::of(&self.documents, "documents", |doc, record| {
            let doc = DocId(doc);
            match record::decode(doc, record) {
                Ok(document) => Ok(Some((doc, document))),
                Err(reason) => Err(corrupt("documents", doc.0.to_string(), reason)),
            }
        })
    }

    /// Keys that start with `prefix` and come after `after`, ascending, with their documents' numbers.
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
            contain(|| Ok(self.table(tables::KEYS)?.range_owned::<&[u8]>((start, Bound::Unbounded))?))?;
        let prefix: Box<[u8]> = prefix.into();
        Ok(Rows::within(rows, "keys", move |key: &[u8], entry| {
            if !key.starts_with(&prefix) {
                return Ok(None);
            }
            match KeyEntry::decode(key, entry) {
                Ok(entry) => Ok(Some((key.into(), entry.doc))),
                Err(reason) => Err(corrupt("keys", shown(key), reason)),
            }
        }))
    }

    /// A computed vector.
    pub fn vector(&self, key: VectorKey) -> Result<Option<StoredVector>, StoreError> {
        contain(|| vectors::find(&self.table(tables::VECTORS)?, key))
    }

    /// All computed vectors of a field of a collection, by document.
    pub fn vectors(
        &self,
        collection: CollectionVersion,
        field: u16,
    ) -> Result<impl Iterator<Item = Result<(VectorKey, StoredVector), StoreError>> + use<>, StoreError> {
        let (first, last) = field_range(collection, field);
        let rows = contain(|| {
            Ok(self.table(tables::VECTORS)?.range_owned::<&[u8; VECTOR_KEY_BYTES]>(&first..=&last)?)
        })?;
        let blocks = Rows::within(rows, "vectors", move |row_key: &[u8; VECTOR_KEY_BYTES], row| {
            let block = vectors::decode(row_key, row)?;
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

    /// The last change of every document changed after `after`, oldest first. A document written
    /// twice stands here once, under its last change.
    pub fn changes(
        &self,
        after: Seq,
    ) -> Result<impl Iterator<Item = Result<Change, StoreError>> + use<>, StoreError> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let rows = contain(|| Ok(self.table(tables::CHANGES)?.range_owned::<u64>(range)?))?;
        Ok(Rows::within(rows, "changes", |seq, entry| match Change::decode(seq, entry) {
            Ok(change) => Ok(Some(change)),
            Err(reason) => Err(corrupt("changes", seq.to_string(), reason)),
        }))
    }

    /// Reads all keys and all changes, and whether they agree: that a key or a change is *missing*, because a page
    /// that led to it was damaged, no other read can tell. A look at what all documents are reached by, in a small
    /// part of the time that reading them takes.
    pub fn verify_references(&self) -> Result<(), StoreError> {
        contain(|| {
            let state = self.state()?;
            let (mut keys, mut logged) = (0, 0);
            let mut last: Option<Box<[u8]>> = None;
            let table = self.table(tables::KEYS)?;
            for row in table.range::<&[u8]>(..)? {
                let (key, entry) = row?;
                let key = key.value();
                // One by one they are reached by other pages than in their order.
                if table.get(key)?.is_none_or(|found| found.value() != entry.value()) {
                    return Err(corrupt("keys", shown(key), "it is not found where it stands"));
                }
                let entry = KeyEntry::decode(key, entry.value())
                    .map_err(|reason| corrupt("keys", shown(key), reason))?;
                if last.as_ref().is_some_and(|last| **last >= *key) {
                    return Err(corrupt("keys", shown(key), "it does not stand where it belongs"));
                }
                last = Some(key.into());
                keys += 1;
                logged += u64::from(entry.changed > state.trimmed_to);
            }
            if keys != self.documents.len()? {
                return Err(corrupt("keys", "all", "there are more or fewer than documents"));
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
                    return Err(corrupt("changes", seq.to_string(), "it does not stand where it belongs"));
                }
                last = seq;
                changes += 1;
                if change.kind == ChangeKind::Written {
                    logged = logged
                        .checked_sub(1)
                        .ok_or_else(|| corrupt("changes", seq.to_string(), "it is of no key"))?;
                }
            }
            // Deletions are of no key.
            if changes != table.len()? {
                return Err(corrupt("changes", "all", COUNT));
            }
            if logged > 0 {
                return Err(corrupt("changes", "all", "there are fewer than keys say"));
            }
            Ok(())
        })
    }

    /// Changes up to here have been forgotten: who needs older ones must read everything.
    pub fn changes_trimmed_to(&self) -> Result<Seq, StoreError> {
        Ok(self.state()?.trimmed_to)
    }

    /// Up to `limit` documents whose end is at or before `now_ms`, soonest first, each with its end
    /// in Unix milliseconds. A damaged entry is an error in its own place.
    pub fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<ExpiryEntry>, StoreError> {
        contain(|| {
            let mut expired = Vec::new();
            for row in self.table(tables::EXPIRIES)?.range((0, 0)..=(now_ms, u64::MAX))?.take(limit) {
                let (key, sum) = row?;
                let (at_ms, doc) = key.value();
                let doc = DocId(doc);
                let is_whole = sum.value() == expiry::row(at_ms, doc);
                let damaged = || expiry::corrupt(at_ms, doc, "checksum does not match");
                expired.push(if is_whole { Ok((at_ms, doc)) } else { Err(damaged()) });
            }
            Ok(expired)
        })
    }

    /// Every stored schema, by collection and version.
    pub fn schemas(&self) -> Result<Vec<(CollectionVersion, Vec<u8>)>, StoreError> {
        let table = contain(|| self.table(tables::SCHEMAS))?;
        let rows = Rows::of(&table, "schemas", |(id, version): (u32, u32), entry| {
            let collection = CollectionVersion { id, version };
            let schema = unseal(&collection.encode(), entry)
                .map_err(|reason| corrupt("schemas", format!("{id}, version {version}"), reason))?;
            Ok(Some((collection, schema.to_vec())))
        });
        rows?.collect()
    }

    /// Every name and alias, by name.
    pub fn names(&self) -> Result<Vec<(String, NameTarget)>, StoreError> {
        let table = contain(|| self.table(tables::NAMES))?;
        let rows = Rows::of(&table, "names", |name: &[u8], entry| {
            NameTarget::decode(name, entry).map(Some).map_err(|reason| corrupt("names", shown(name), reason))
        });
        rows?.collect()
    }
}
