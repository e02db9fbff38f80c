//! Loads collections: from a snapshot and the changes since, or from all documents.

use std::{
    iter::Peekable,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use index::{Cpu, VectorError};
use store::{
    ChangeKind, CollectionVersion, DocId, Document, HistoryId, NameTarget, Reader, Seq, StoreError,
    StoredVector, VectorKey,
};

use crate::{
    OpenError,
    collection::{Collection, DocumentChange, DocumentChangeKind},
    comparison,
    core::Core,
    data_dir::SNAPSHOT_DIRECTORY,
    progress::Progress,
    projection::PassageVector,
    registry::{Registry, Versions},
    schema::{Schema, VectorSchema},
    snapshot::Snapshots,
};

/// Documents read per batch.
pub(crate) const LOAD_BATCH: usize = 256;

impl Core {
    /// Loads every collection that has a name in the store, and removes versions without one.
    pub(crate) fn load(&self, path: &Path, progress: &Progress) -> Result<(), OpenError> {
        let failed = |source| OpenError::Read { path: path.to_owned(), source };
        let reader = self.store.read().map_err(failed)?;
        progress.start("verifying keys and changes".to_owned());
        reader.verify_references().map_err(failed)?;
        let mut registry = Registry::default();
        let mut versions = Vec::new();
        let mut active = Vec::new();
        for (name, target) in reader.names().map_err(failed)? {
            match target {
                NameTarget::Collection(version) => active.push((name, version)),
                NameTarget::Alias(collection) => {
                    registry.aliases.insert(name, collection);
                }
            }
        }
        // Names and schemas are each read completely or not at all: if a damaged name were skipped, its schema would
        // be removed for good.
        let mut abandoned = Vec::new();
        for (version, schema) in reader.schemas().map_err(failed)? {
            // A version newer than the active one is being rebuilt. An older one, or one of a collection without a
            // name, was left behind.
            let named =
                active.iter().any(|(_, active)| active.id == version.id && version.version >= active.version);
            if !named {
                abandoned.push(version);
                continue;
            }
            let schema = Schema::from_stored_bytes(&schema).map_err(|reason| OpenError::Schema {
                path: path.to_owned(),
                collection: version,
                reason,
            })?;
            let source = SnapshotSource {
                version,
                schema: Arc::new(schema),
                snapshots: &self.snapshots,
                cpu: self.cpu,
                now_ms: self.time.now_ms(),
            };
            let (collection, warning) = open_collection(source, &reader, progress).map_err(failed)?;
            if let Some(warning) = warning {
                self.warn(warning);
                // Immediately, not when a new one replaces it: a snapshot that is ahead of the store would look valid
                // once the store has reused the same sequence numbers for other changes.
                let path = path.join(SNAPSHOT_DIRECTORY);
                self.snapshots.remove_durably(version).map_err(|source| OpenError::Io { path, source })?;
            }
            versions.push(Arc::new(collection));
        }
        for (name, version) in active {
            let same_id = |collection: &&Arc<Collection>| collection.version.id == version.id;
            let mut found = versions.iter().filter(same_id).cloned();
            let active = found.next().filter(|collection| collection.version == version);
            let Some(active) = active else {
                return Err(OpenError::Schema {
                    path: path.to_owned(),
                    collection: version,
                    reason: "it is missing".to_owned(),
                });
            };
            registry.named.insert(name, Versions { active, rebuilding: found.next() });
        }
        drop(reader);
        self.remove_abandoned(&abandoned).map_err(failed)?;
        let kept: Vec<CollectionVersion> = versions.iter().map(|collection| collection.version).collect();
        if let Err(error) = self.snapshots.retain(&kept) {
            self.warn(format!("old snapshots were not removed: {error}"));
        }
        self.change_registry(|empty| *empty = registry);
        Ok(())
    }

    fn remove_abandoned(&self, abandoned: &[CollectionVersion]) -> Result<(), StoreError> {
        if abandoned.is_empty() {
            return Ok(());
        }
        let mut writer = self.store.write()?;
        for version in abandoned {
            writer.remove_schema(*version)?;
        }
        writer.commit()
    }
}

/// Where the snapshot of a collection is, and what it must match.
pub(crate) struct SnapshotSource<'s> {
    pub(crate) version: CollectionVersion,
    pub(crate) schema: Arc<Schema>,
    pub(crate) snapshots: &'s Snapshots,
    pub(crate) cpu: Cpu,
    pub(crate) now_ms: u64,
}

/// Loads a collection as of `reader`: from its snapshot if possible, otherwise from the documents. Also returns a
/// warning if a snapshot was discarded.
fn open_collection(
    source: SnapshotSource<'_>,
    reader: &Reader,
    progress: &Progress,
) -> Result<(Collection, Option<String>), StoreError> {
    let CollectionVersion { id, version: number } = source.version;
    let discarded = match from_snapshot(&source, reader, progress)? {
        Ok(Some(collection)) => return Ok((collection, None)),
        Ok(None) => None,
        Err(reason) => Some(format!(
            "the snapshot of collection {id}, version {number}, is not used, all documents are read again: {reason}"
        )),
    };
    let collection = Collection::new(source.version, source.schema, source.cpu);
    let documents = reader.document_count()?;
    progress.start(format!("reading {documents} documents for collection {id}, version {number}"));
    backfill(&collection, reader, progress)?;
    collection.end_backfill(reader.last_seq()?);
    Ok((collection, discarded))
}

/// Loads a collection from its snapshot and the changes since. The inner `Err` says why the snapshot does not belong to
/// this store; the inner `None` means that there is no snapshot.
pub(crate) fn from_snapshot(
    source: &SnapshotSource<'_>,
    reader: &Reader,
    progress: &Progress,
) -> Result<Result<Option<Collection>, String>, StoreError> {
    let CollectionVersion { id, version: number } = source.version;
    progress.start(format!("loading the snapshot of collection {id}, version {number}, and later changes"));
    let snapshot = match source.snapshots.read(source.version, &source.schema, source.cpu) {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => return Ok(Ok(None)),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let collection = snapshot.collection;
    if let Some(reason) = why_unrelated(&collection, snapshot.last_change, reader)? {
        return Ok(Err(reason));
    }
    apply_changes(&collection, reader, progress)?;
    if snapshot.last_change.is_none() || !snapshot.has_current_analyzers {
        // An earlier version wrote it, without saying all that it was derived from. Comparing takes as long as reading
        // all documents, but saves linking the vectors again.
        progress.start(format!(
            "comparing the snapshot of collection {id}, version {number}, with all documents"
        ));
        if let Some(difference) = comparison::difference(&collection, reader, source.now_ms, progress)? {
            return Ok(Err(format!(
                "it was written by an earlier version and does not match the store: {difference}"
            )));
        }
        // The next snapshot says it.
        collection.unsaved_changes.fetch_add(1, Ordering::Relaxed);
    }
    Ok(Ok(Some(collection)))
}

/// Why a snapshot was not derived from this store, judging by the changes that it includes.
fn why_unrelated(
    collection: &Collection,
    last_change: Option<(HistoryId, Seq)>,
    reader: &Reader,
) -> Result<Option<String>, StoreError> {
    let seq = collection.state().published;
    let (trimmed_to, last_seq) = (reader.changes_trimmed_to()?, reader.last_seq()?);
    if seq > last_seq {
        return Ok(Some(format!("it includes changes up to {seq}, the store only up to {last_seq}")));
    }
    if seq < trimmed_to {
        return Ok(Some(format!("it includes changes up to {seq}, changes up to {trimmed_to} were trimmed")));
    }
    if let Some((history, last)) = last_change
        && !reader.was_in_history(history, seq, last)?
    {
        return Ok(Some(format!(
            "it includes changes up to {last} of another copy of this store, whose history differs"
        )));
    }
    Ok(None)
}

/// Applies all changes since the snapshot that `collection` was loaded from.
fn apply_changes(collection: &Collection, reader: &Reader, progress: &Progress) -> Result<(), StoreError> {
    let (seq, last_seq) = (collection.state().published, reader.last_seq()?);
    let mut changes = Vec::new();
    for change in reader.changes(seq)? {
        let change = change?;
        changes.push(match change.kind {
            ChangeKind::Deleted => {
                DocumentChange { doc: change.doc, seq: change.seq, kind: DocumentChangeKind::Removed }
            }
            ChangeKind::Written => {
                // The log holds only the last change of a document.
                let document = reader.document(change.doc)?.ok_or_else(|| StoreError::Corrupt {
                    table: "changes",
                    key: change.seq.to_string(),
                    reason: "the written document is missing",
                })?;
                if !collection.schema.matches_key(&document.key) {
                    continue;
                }
                let mut failure = None;
                let updated = document_change(collection, change.doc, document, |field| {
                    reader.document_vectors(collection.version, field, change.doc).unwrap_or_else(|error| {
                        failure = Some(error);
                        Vec::new()
                    })
                });
                if let Some(error) = failure {
                    return Err(error);
                }
                DocumentChange { seq: change.seq, ..updated }
            }
        });
        if changes.len() == LOAD_BATCH {
            progress.advance(changes.len());
            collection.publish(std::mem::take(&mut changes), seq);
        }
    }
    collection.publish(changes, last_seq);
    Ok(())
}

/// Loads every document under the collection's prefixes, with its computed vectors, except documents written
/// meanwhile.
pub(crate) fn backfill(
    collection: &Collection,
    reader: &Reader,
    progress: &Progress,
) -> Result<(), StoreError> {
    let mut vectors = ComputedVectorReader::new(collection, reader)?;
    let mut changes = Vec::with_capacity(LOAD_BATCH);
    for document in reader.documents()? {
        let (doc, document) = document?;
        if !collection.schema.matches_key(&document.key) {
            continue;
        }
        let computed = vectors.read(doc)?;
        changes.push(document_change(collection, doc, document, |field| {
            let vectors = computed.iter().filter(|(key, _)| key.field == field);
            vectors.map(|(key, vector)| (key.passage, vector.clone())).collect()
        }));
        if changes.len() == LOAD_BATCH {
            progress.advance(changes.len());
            collection.backfill(std::mem::take(&mut changes));
        }
    }
    collection.backfill(changes);
    Ok(())
}

/// The change that adds a document to a collection, or marks it as invalid if it violates the schema.
pub(crate) fn document_change(
    collection: &Collection,
    doc: DocId,
    document: Document,
    mut computed: impl FnMut(u16) -> Vec<(u16, StoredVector)>,
) -> DocumentChange {
    let projection = collection.projector.project(&document.fields, |slot| {
        let field = &collection.projector.vectors[slot];
        let vectors = computed(field.position).into_iter();
        vectors.map(|(passage, vector)| decode(&field.schema, passage, &vector)).collect()
    });
    let kind = match projection {
        Ok(projection) => DocumentChangeKind::Upserted { expires_at_ms: document.expires_at_ms, projection },
        Err(violation) => DocumentChangeKind::Invalid { key: document.key, violation },
    };
    DocumentChange { doc, seq: document.seq, kind }
}

fn decode(schema: &VectorSchema, passage: u16, vector: &StoredVector) -> Result<PassageVector, VectorError> {
    let values = index::decode(&vector.bytes, schema.dim, schema.vector_type, schema.metric)?;
    Ok(PassageVector { passage, values })
}

type VectorRows = Box<dyn Iterator<Item = Result<(VectorKey, StoredVector), StoreError>>>;

/// Reads the computed vectors of a collection alongside its documents. Both are ordered by document.
pub(crate) struct ComputedVectorReader {
    fields: Vec<Peekable<VectorRows>>,
}

impl ComputedVectorReader {
    pub(crate) fn new(collection: &Collection, reader: &Reader) -> Result<ComputedVectorReader, StoreError> {
        let mut fields = Vec::new();
        for field in &collection.projector.vectors {
            if field.schema.embed.is_some() {
                let rows: VectorRows = Box::new(reader.vectors(collection.version, field.position)?);
                fields.push(rows.peekable());
            }
        }
        Ok(ComputedVectorReader { fields })
    }

    /// The computed vectors of `doc`. Must be called in ascending order of documents.
    pub(crate) fn read(&mut self, doc: DocId) -> Result<Vec<(VectorKey, StoredVector)>, StoreError> {
        let mut found = Vec::with_capacity(self.fields.len());
        for rows in &mut self.fields {
            while let Some(row) = rows.next_if(|row| row.as_ref().map_or(true, |(key, _)| key.doc <= doc)) {
                let (key, vector) = row?;
                if key.doc == doc {
                    found.push((key, vector));
                }
            }
        }
        Ok(found)
    }
}
