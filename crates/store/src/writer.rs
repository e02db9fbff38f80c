//! Writing one transaction.

use redb::{Durability, ReadableTable, WriteTransaction};

use crate::contain::contain;
use crate::error::shown;
use crate::expiry;
use crate::key_entry::KeyEntry;
use crate::limits;
use crate::seal::seal;
use crate::state::State;
use crate::tables::{self, corrupt};
use crate::vectors;
use crate::{
    Change, ChangeKind, CollectionVersion, DocId, Document, Field, NameTarget, Seq, Store, StoreError,
    VectorKey, record,
};

/// A transaction: sees the last commit and its own changes.
///
/// When a step fails for another reason than a refused argument, part of it may have been
/// written: the transaction then takes no further step and cannot be committed.
pub struct Writer<'s> {
    store: &'s Store,
    transaction: WriteTransaction,
    state: State,
    aborted: bool,
    /// Whether schemas or names change.
    structural: bool,
}

impl Writer<'_> {
    pub(crate) fn new(store: &Store, mut transaction: WriteTransaction) -> Result<Writer<'_>, StoreError> {
        // Opening after a crash takes milliseconds instead of a walk over the whole file.
        transaction.set_quick_repair(true);
        let state = tables::state(&transaction.open_table(tables::META)?)?;
        Ok(Writer { store, transaction, state, aborted: false, structural: false })
    }

    /// A document and its number by key, as this transaction has left it.
    pub fn get(&self, key: &[u8]) -> Result<Option<(DocId, Document)>, StoreError> {
        contain(|| {
            let keys = self.transaction.open_table(tables::KEYS)?;
            let documents = self.transaction.open_table(tables::DOCUMENTS)?;
            tables::get(&keys, &documents, key)
        })
    }

    /// A document by number, as this transaction has left it.
    pub fn document(&self, doc: DocId) -> Result<Option<Document>, StoreError> {
        contain(|| tables::document(&self.transaction.open_table(tables::DOCUMENTS)?, doc))
    }

    /// Writes a whole document in place of any under `key`, and says its number and the change's.
    /// Computed vectors of an older text stay until [`Writer::remove_vectors`].
    ///
    /// Refuses an empty key, a field given twice, and what exceeds [`crate::KEY_BYTES_MAX`],
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
                None => writer.state.number_document()?,
            };
            let changed = writer.state.advance()?;
            log(
                &writer.transaction,
                &writer.state,
                old,
                Change { seq: changed, doc, kind: ChangeKind::Written },
            )?;
            move_expiry(&writer.transaction, doc, old.and_then(|old| old.expires_at_ms), expires_at_ms)?;
            let record = record::encode(doc, key, changed, expires_at_ms, fields);
            writer.transaction.open_table(tables::DOCUMENTS)?.insert(doc.0, &*record)?;
            keys.insert(key, &*KeyEntry { doc, changed, expires_at_ms }.encode(key))?;
            Ok((doc, changed))
        })
    }

    /// Takes the document under `key` away with all its computed vectors; `None` if there was none.
    ///
    /// Costs one look-up in each vector field of each collection that holds vectors.
    pub fn delete(&mut self, key: &[u8]) -> Result<Option<(DocId, Seq)>, StoreError> {
        self.step(|writer| {
            let mut keys = writer.transaction.open_table(tables::KEYS)?;
            let Some(old) = tables::key_entry(&keys, key)? else {
                return Ok(None);
            };
            let doc = old.doc;
            let seq = writer.state.advance()?;
            log(
                &writer.transaction,
                &writer.state,
                Some(old),
                Change { seq, doc, kind: ChangeKind::Deleted },
            )?;
            move_expiry(&writer.transaction, doc, old.expires_at_ms, None)?;
            if writer.transaction.open_table(tables::DOCUMENTS)?.remove(doc.0)?.is_none() {
                return Err(corrupt("keys", shown(key), "leads to no document"));
            }
            keys.remove(key)?;
            vectors::remove(&mut writer.transaction.open_table(tables::VECTORS)?, None, doc)?;
            Ok(Some((doc, seq)))
        })
    }

    /// Writes a computed vector of a document that is there. Does not count as a change of the
    /// document: whoever writes only vectors calls [`Writer::touch`].
    ///
    /// Refuses an unknown document and more than [`crate::VECTOR_BYTES_MAX`].
    pub fn set_vector(&mut self, key: VectorKey, model: [u8; 16], bytes: &[u8]) -> Result<(), StoreError> {
        self.step(|writer| {
            if bytes.len() > limits::VECTOR_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "bytes of vector",
                    key: format!("document {}", key.doc.0),
                    found: bytes.len(),
                    max: limits::VECTOR_BYTES_MAX,
                });
            }
            if writer.transaction.open_table(tables::DOCUMENTS)?.get(key.doc.0)?.is_none() {
                return Err(StoreError::UnknownDocument { doc: key.doc.0 });
            }
            vectors::set(&mut writer.transaction.open_table(tables::VECTORS)?, key, model, bytes)
        })
    }

    /// Removes the computed vectors of one document in one collection.
    pub fn remove_vectors(&mut self, collection: CollectionVersion, doc: DocId) -> Result<(), StoreError> {
        self.step(|writer| {
            vectors::remove(&mut writer.transaction.open_table(tables::VECTORS)?, Some(collection), doc)
        })
    }

    /// Logs a change of the document without changing its fields (its vectors changed).
    /// The document's own `seq` stays as it was. Refuses an unknown document.
    pub fn touch(&mut self, doc: DocId) -> Result<Seq, StoreError> {
        self.step(|writer| {
            let Some(document) = tables::document(&writer.transaction.open_table(tables::DOCUMENTS)?, doc)?
            else {
                return Err(StoreError::UnknownDocument { doc: doc.0 });
            };
            let key = &*document.key;
            let mut keys = writer.transaction.open_table(tables::KEYS)?;
            let Some(old) = tables::key_entry(&keys, key)?.filter(|entry| entry.doc == doc) else {
                return Err(corrupt("documents", doc.0.to_string(), "its key does not lead back to it"));
            };
            let changed = writer.state.advance()?;
            log(
                &writer.transaction,
                &writer.state,
                Some(old),
                Change { seq: changed, doc, kind: ChangeKind::Written },
            )?;
            keys.insert(key, &*KeyEntry { changed, ..old }.encode(key))?;
            Ok(changed)
        })
    }

    /// A number no collection has had.
    pub fn allocate_collection_id(&mut self) -> Result<u32, StoreError> {
        self.step(|writer| {
            let id = writer.state.next_collection;
            writer.state.next_collection = id.checked_add(1).ok_or(StoreError::CollectionIdsExhausted)?;
            Ok(id)
        })
    }

    /// Writes a schema, at most [`crate::SCHEMA_BYTES_MAX`] long.
    pub fn set_schema(&mut self, collection: CollectionVersion, schema: &[u8]) -> Result<(), StoreError> {
        self.structural = true;
        self.step(|writer| {
            if schema.len() > limits::SCHEMA_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "bytes of schema",
                    key: format!("collection {}, version {}", collection.id, collection.version),
                    found: schema.len(),
                    max: limits::SCHEMA_BYTES_MAX,
                });
            }
            let mut entry = schema.to_vec();
            seal(&collection.encode(), &mut entry);
            let mut schemas = writer.transaction.open_table(tables::SCHEMAS)?;
            schemas.insert((collection.id, collection.version), &*entry)?;
            Ok(())
        })
    }

    /// Removes a schema and every computed vector of that collection version.
    pub fn remove_schema(&mut self, collection: CollectionVersion) -> Result<(), StoreError> {
        self.structural = true;
        self.step(|writer| {
            writer.transaction.open_table(tables::SCHEMAS)?.remove((collection.id, collection.version))?;
            vectors::clear(&mut writer.transaction.open_table(tables::VECTORS)?, collection)
        })
    }

    /// Points a name or an alias, at most [`crate::NAME_BYTES_MAX`] long, somewhere.
    pub fn set_name(&mut self, name: &str, target: &NameTarget) -> Result<(), StoreError> {
        self.structural = true;
        self.step(|writer| {
            limits::check_name(name)?;
            if let NameTarget::Alias(target) = target {
                limits::check_name(target)?;
            }
            writer.transaction.open_table(tables::NAMES)?.insert(name.as_bytes(), &*target.encode(name))?;
            Ok(())
        })
    }

    /// Removes a name or an alias; `false` if there was none.
    pub fn remove_name(&mut self, name: &str) -> Result<bool, StoreError> {
        self.structural = true;
        self.step(|writer| {
            let mut names = writer.transaction.open_table(tables::NAMES)?;
            let removed = names.remove(name.as_bytes())?.is_some();
            Ok(removed)
        })
    }

    /// Forgets changes up to and including `seq`.
    pub fn trim_changes(&mut self, seq: Seq) -> Result<(), StoreError> {
        self.step(|writer| {
            let seq = seq.min(writer.state.last_seq);
            if seq > writer.state.trimmed_to {
                let mut changes = writer.transaction.open_table(tables::CHANGES)?;
                changes.retain_in(..=seq, |_, _| false)?;
                writer.state.trimmed_to = seq;
            }
            Ok(())
        })
    }

    /// Makes all of it durable, or none of it. After a failure the store refuses further writes
    /// until it is opened again.
    ///
    /// Costs two fsyncs, one before and one after the new root is written: with only one, opening
    /// after a crash would have to verify the whole file.
    ///
    /// All that was committed before becomes durable with it.
    pub fn commit(self) -> Result<(), StoreError> {
        self.commit_with(Durability::Immediate)
    }

    /// Shows all of it to readers, or none of it, and leaves it to the next [`Writer::commit`] or [`Store::sync`] to
    /// make it durable: until then it is lost with the process. Schemas and names are durable at once all the same.
    ///
    /// Costs no fsync. What is lost is lost from its end: a commit is never there without those before it.
    pub fn commit_unsynced(self) -> Result<(), StoreError> {
        let durability = if self.structural { Durability::Immediate } else { Durability::None };
        self.commit_with(durability)
    }

    fn commit_with(self, durability: Durability) -> Result<(), StoreError> {
        let Writer { store, mut transaction, state, aborted, structural } = self;
        if aborted {
            return Err(StoreError::Aborted);
        }
        let committed = contain(|| {
            transaction
                .set_durability(durability)
                .map_err(|error| StoreError::Damaged { reason: error.to_string() })?;
            transaction.open_table(tables::META)?.insert(tables::STATE_ROW, &*state.encode())?;
            transaction.commit()?;
            Ok(())
        });
        match committed {
            Ok(()) => {
                store.note_committed(state, matches!(durability, Durability::Immediate));
                Ok(())
            }
            Err(error) => Err(store.refuse_writes(error, structural)),
        }
    }

    fn step<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.aborted {
            return Err(StoreError::Aborted);
        }
        contain(|| step(self)).map_err(|error| {
            self.aborted = !error.is_refusal();
            self.store.refuse_writes_if_fatal(error)
        })
    }
}

/// Enters a change, in place of the document's one before it.
fn log(
    transaction: &WriteTransaction,
    state: &State,
    old: Option<KeyEntry>,
    change: Change,
) -> Result<(), StoreError> {
    let mut changes = transaction.open_table(tables::CHANGES)?;
    if let Some(old) = old.filter(|old| old.changed > state.trimmed_to) {
        let lost = |reason| corrupt("changes", old.changed.to_string(), reason);
        let entry =
            changes.remove(old.changed)?.ok_or_else(|| lost("the change of a document is missing"))?;
        if Change::decode(old.changed, entry.value()).map_err(lost)?.doc != change.doc {
            return Err(lost("the change is of another document than its key says"));
        }
    }
    changes.insert(change.seq, &*change.encode())?;
    Ok(())
}

fn move_expiry(
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
        expiries.insert((at_ms, doc.0), expiry::row(at_ms, doc))?;
    }
    Ok(())
}
