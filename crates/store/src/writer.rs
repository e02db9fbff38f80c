//! Write transactions.

use redb::{Durability, ReadableTable, WriteTransaction};

use crate::checksum::append_checksum;
use crate::error::printable;
use crate::expiry;
use crate::key_entry::KeyEntry;
use crate::limits;
use crate::panic::catch_panic;
use crate::state::{FORMAT, State};
use crate::tables::{self, corrupt};
use crate::vector_table;
use crate::{
    Change, ChangeKind, CollectionVersion, DocId, Document, Field, NameTarget, Seq, Store, StoreError,
    VectorKey, histories, record,
};

/// A write transaction. It sees the last commit and its own changes.
///
/// If a step fails for any reason other than a rejected argument, part of it may have been
/// written. The transaction then accepts no further steps and cannot be committed.
pub struct Writer<'s> {
    store: &'s Store,
    transaction: WriteTransaction,
    state: State,
    /// The last change before this transaction.
    begun_after: Seq,
    aborted: bool,
    /// Whether the transaction changes schemas or names.
    ddl: bool,
}

impl Writer<'_> {
    pub(crate) fn new(store: &Store, mut transaction: WriteTransaction) -> Result<Writer<'_>, StoreError> {
        // With quick repair, opening after a crash takes milliseconds instead of a scan of the whole file.
        transaction.set_quick_repair(true);
        let mut state = tables::state(&transaction.open_table(tables::META)?)?;
        let begun_after = state.last_seq;
        if state.format < FORMAT {
            // Copies of the store may have diverged already. So the conversion counts as a change, which begins a
            // history.
            state.format = FORMAT;
            state.next_seq()?;
        }
        Ok(Writer { store, transaction, state, begun_after, aborted: false, ddl: false })
    }

    /// Gets a document and its number by key, including this transaction's changes.
    pub fn get(&self, key: &[u8]) -> Result<Option<(DocId, Document)>, StoreError> {
        catch_panic(|| {
            let keys = self.transaction.open_table(tables::KEYS)?;
            let documents = self.transaction.open_table(tables::DOCUMENTS)?;
            tables::get(&keys, &documents, key)
        })
    }

    /// Gets a document by number, including this transaction's changes.
    pub fn document(&self, doc: DocId) -> Result<Option<Document>, StoreError> {
        catch_panic(|| tables::document(&self.transaction.open_table(tables::DOCUMENTS)?, doc))
    }

    /// Writes a document, replacing any document under `key`. Returns the document's number and the
    /// sequence number of the change. Existing computed vectors remain until [`Writer::remove_vectors`].
    ///
    /// Rejects an empty key, a duplicate field, and arguments that exceed [`crate::KEY_BYTES_MAX`],
    /// [`crate::FIELDS_MAX`], [`crate::FIELD_NAME_BYTES_MAX`] or [`crate::DOCUMENT_BYTES_MAX`].
    pub fn put(
        &mut self,
        key: &[u8],
        fields: &[Field],
        expires_at_ms: Option<u64>,
    ) -> Result<(DocId, Seq), StoreError> {
        self.step(|writer| {
            limits::check_document(key, fields)?;
            let mut keys = writer.transaction.open_table(tables::KEYS)?;
            let old = tables::key_entry(&keys, key)?;
            let doc = match old {
                Some(old) => old.doc,
                None => writer.state.allocate_doc()?,
            };
            let changed = writer.state.next_seq()?;
            log_change(
                &writer.transaction,
                &writer.state,
                old,
                Change { seq: changed, doc, kind: ChangeKind::Written },
            )?;
            update_expiry(&writer.transaction, doc, old.and_then(|old| old.expires_at_ms), expires_at_ms)?;
            let record = record::encode(doc, key, changed, expires_at_ms, fields);
            writer.transaction.open_table(tables::DOCUMENTS)?.insert(doc.0, &*record)?;
            keys.insert(key, &*KeyEntry { doc, changed, expires_at_ms }.encode(key))?;
            Ok((doc, changed))
        })
    }

    /// Deletes the document under `key` and all its computed vectors. Returns `None` if there was none.
    ///
    /// Costs one lookup per vector field of each collection that contains vectors.
    pub fn delete(&mut self, key: &[u8]) -> Result<Option<(DocId, Seq)>, StoreError> {
        self.step(|writer| {
            let mut keys = writer.transaction.open_table(tables::KEYS)?;
            let Some(old) = tables::key_entry(&keys, key)? else {
                return Ok(None);
            };
            let doc = old.doc;
            let seq = writer.state.next_seq()?;
            log_change(
                &writer.transaction,
                &writer.state,
                Some(old),
                Change { seq, doc, kind: ChangeKind::Deleted },
            )?;
            update_expiry(&writer.transaction, doc, old.expires_at_ms, None)?;
            if writer.transaction.open_table(tables::DOCUMENTS)?.remove(doc.0)?.is_none() {
                return Err(corrupt("keys", printable(key), "its document does not exist"));
            }
            keys.remove(key)?;
            vector_table::remove(&mut writer.transaction.open_table(tables::VECTORS)?, None, doc)?;
            Ok(Some((doc, seq)))
        })
    }

    /// Writes a computed vector of an existing document. This does not log a change of the document;
    /// a caller that writes only vectors also calls [`Writer::touch`].
    ///
    /// Rejects an unknown document and vectors of more than [`crate::VECTOR_BYTES_MAX`] bytes.
    pub fn set_vector(&mut self, key: VectorKey, model: [u8; 16], bytes: &[u8]) -> Result<(), StoreError> {
        self.step(|writer| {
            if bytes.len() > limits::VECTOR_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "bytes in the vector",
                    key: format!("document {}", key.doc.0),
                    found: bytes.len(),
                    max: limits::VECTOR_BYTES_MAX,
                });
            }
            if writer.transaction.open_table(tables::DOCUMENTS)?.get(key.doc.0)?.is_none() {
                return Err(StoreError::UnknownDocument { doc: key.doc.0 });
            }
            vector_table::set(&mut writer.transaction.open_table(tables::VECTORS)?, key, model, bytes)
        })
    }

    /// Removes a document's computed vectors in one collection version.
    pub fn remove_vectors(&mut self, collection: CollectionVersion, doc: DocId) -> Result<(), StoreError> {
        self.step(|writer| {
            vector_table::remove(&mut writer.transaction.open_table(tables::VECTORS)?, Some(collection), doc)
        })
    }

    /// Logs a change of a document whose vectors, but not its fields, have changed.
    /// The document's own `seq` remains unchanged. Rejects an unknown document.
    pub fn touch(&mut self, doc: DocId) -> Result<Seq, StoreError> {
        self.step(|writer| {
            let Some(document) = tables::document(&writer.transaction.open_table(tables::DOCUMENTS)?, doc)?
            else {
                return Err(StoreError::UnknownDocument { doc: doc.0 });
            };
            let key = &*document.key;
            let mut keys = writer.transaction.open_table(tables::KEYS)?;
            let Some(old) = tables::key_entry(&keys, key)?.filter(|entry| entry.doc == doc) else {
                return Err(corrupt("documents", doc.0.to_string(), "its key refers to another document"));
            };
            let changed = writer.state.next_seq()?;
            log_change(
                &writer.transaction,
                &writer.state,
                Some(old),
                Change { seq: changed, doc, kind: ChangeKind::Written },
            )?;
            keys.insert(key, &*KeyEntry { changed, ..old }.encode(key))?;
            Ok(changed)
        })
    }

    /// Allocates a collection number that was never used before.
    pub fn allocate_collection_id(&mut self) -> Result<u32, StoreError> {
        self.step(|writer| {
            let id = writer.state.next_collection;
            writer.state.next_collection = id.checked_add(1).ok_or(StoreError::CollectionIdsExhausted)?;
            Ok(id)
        })
    }

    /// Writes a schema of at most [`crate::SCHEMA_BYTES_MAX`] bytes.
    pub fn set_schema(&mut self, collection: CollectionVersion, schema: &[u8]) -> Result<(), StoreError> {
        self.ddl = true;
        self.step(|writer| {
            if schema.len() > limits::SCHEMA_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "bytes in the schema",
                    key: format!("collection {}, version {}", collection.id, collection.version),
                    found: schema.len(),
                    max: limits::SCHEMA_BYTES_MAX,
                });
            }
            let mut entry = schema.to_vec();
            append_checksum(&collection.encode(), &mut entry);
            let mut schemas = writer.transaction.open_table(tables::SCHEMAS)?;
            schemas.insert((collection.id, collection.version), &*entry)?;
            Ok(())
        })
    }

    /// Removes a schema and all computed vectors of its collection version.
    pub fn remove_schema(&mut self, collection: CollectionVersion) -> Result<(), StoreError> {
        self.ddl = true;
        self.step(|writer| {
            writer.transaction.open_table(tables::SCHEMAS)?.remove((collection.id, collection.version))?;
            vector_table::clear(&mut writer.transaction.open_table(tables::VECTORS)?, collection)
        })
    }

    /// Sets the target of a name or an alias of at most [`crate::NAME_BYTES_MAX`] bytes.
    pub fn set_name(&mut self, name: &str, target: &NameTarget) -> Result<(), StoreError> {
        self.ddl = true;
        self.step(|writer| {
            limits::check_name(name)?;
            if let NameTarget::Alias(target) = target {
                limits::check_name(target)?;
            }
            writer.transaction.open_table(tables::NAMES)?.insert(name.as_bytes(), &*target.encode(name))?;
            Ok(())
        })
    }

    /// Removes a name or an alias. Returns `false` if there was none.
    pub fn remove_name(&mut self, name: &str) -> Result<bool, StoreError> {
        self.ddl = true;
        self.step(|writer| {
            let mut names = writer.transaction.open_table(tables::NAMES)?;
            let removed = names.remove(name.as_bytes())?.is_some();
            Ok(removed)
        })
    }

    /// Trims the change log up to and including `seq`.
    pub fn trim_changes(&mut self, seq: Seq) -> Result<(), StoreError> {
        self.step(|writer| {
            let seq = seq.min(writer.state.last_seq);
            if seq > writer.state.trimmed_to {
                let mut changes = writer.transaction.open_table(tables::CHANGES)?;
                changes.retain_in(..=seq, |_, _| false)?;
                histories::trim(&writer.transaction, seq)?;
                writer.state.trimmed_to = seq;
            }
            Ok(())
        })
    }

    /// Commits the transaction atomically and durably. After a failure the store rejects further
    /// writes until it is reopened.
    ///
    /// Costs two fsyncs, one before and one after the new root is written. With only one, opening
    /// after a crash would have to verify the whole file.
    ///
    /// All earlier unsynced commits become durable as well.
    pub fn commit(self) -> Result<(), StoreError> {
        self.commit_with(Durability::Immediate)
    }

    /// Commits the transaction atomically, without making it durable. Readers see it immediately. It becomes
    /// durable with the next [`Writer::commit`] or [`Store::sync`]; if the process dies before, it is lost.
    /// Transactions that change schemas or names are made durable immediately nevertheless.
    ///
    /// Costs no fsync. A crash loses only a suffix of the commits: no commit survives without all earlier ones.
    pub fn commit_unsynced(self) -> Result<(), StoreError> {
        let durability = if self.ddl { Durability::Immediate } else { Durability::None };
        self.commit_with(durability)
    }

    fn commit_with(self, durability: Durability) -> Result<(), StoreError> {
        let Writer { store, mut transaction, mut state, begun_after, aborted, ddl } = self;
        if aborted {
            return Err(StoreError::Aborted);
        }
        let committed = catch_panic(|| {
            transaction
                .set_durability(durability)
                .map_err(|error| StoreError::Damaged { reason: error.to_string() })?;
            if state.last_seq > begun_after && state.history != store.history() {
                state.history = store.history();
                histories::begin(&transaction, state.history, begun_after)?;
            }
            transaction.open_table(tables::META)?.insert(tables::STATE_ROW, &*state.encode())?;
            transaction.commit()?;
            Ok(())
        });
        match committed {
            Ok(()) => {
                store.record_commit(state, matches!(durability, Durability::Immediate));
                store.check_in_place()
            }
            Err(error) => Err(store.record_failure(error, ddl)),
        }
    }

    fn step<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.aborted {
            return Err(StoreError::Aborted);
        }
        catch_panic(|| step(self)).map_err(|error| {
            self.aborted = !error.is_rejection();
            self.store.record_if_fatal(error)
        })
    }
}

/// Appends a change to the log and removes the document's previous entry.
fn log_change(
    transaction: &WriteTransaction,
    state: &State,
    old: Option<KeyEntry>,
    change: Change,
) -> Result<(), StoreError> {
    let mut changes = transaction.open_table(tables::CHANGES)?;
    if let Some(old) = old.filter(|old| old.changed > state.trimmed_to) {
        let corrupt_change = |reason| corrupt("changes", old.changed.to_string(), reason);
        let entry = changes
            .remove(old.changed)?
            .ok_or_else(|| corrupt_change("the change log lacks an entry that a key refers to"))?;
        if Change::decode(old.changed, entry.value()).map_err(corrupt_change)?.doc != change.doc {
            return Err(corrupt_change("the entry belongs to another document than its key"));
        }
    }
    changes.insert(change.seq, &*change.encode())?;
    Ok(())
}

fn update_expiry(
    transaction: &WriteTransaction,
    doc: DocId,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<(), StoreError> {
    if from == to {
        return Ok(());
    }
    let mut expiries = transaction.open_table(tables::EXPIRIES)?;
    if let Some(at_ms) = from
        && expiries.remove((at_ms, doc.0))?.is_none()
    {
        return Err(expiry::corrupt(at_ms, doc, "the expiry of a document is missing"));
    }
    if let Some(at_ms) = to {
        expiries.insert((at_ms, doc.0), expiry::checksum(at_ms, doc))?;
    }
    Ok(())
}
