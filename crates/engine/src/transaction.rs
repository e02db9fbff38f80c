//! A transaction of the committer: checks each write against the state at that moment, and records the changes that
//! each collection applies after the commit.

use std::sync::Arc;

use index::VectorError;
use store::{CollectionVersion, DocId, Document, Field, Seq, StoreError, VectorKey, Writer};

use crate::{
    binary::printable,
    collection::{Collection, DocumentChange, DocumentChangeKind},
    projection::{FieldVectors, PassageVector, Projection, Projector, SchemaViolation, ViolationReason},
    registry::{Registry, Role},
    schema::VectorSchema,
    write::{ComputedVector, Expected, Op, WriteError, WriteOutcome},
};

/// An open transaction.
pub(crate) struct Transaction<'s> {
    writer: Writer<'s>,
    now_ms: u64,
    /// The changes of every collection.
    collections: Vec<CollectionChanges>,
    last_seq: Option<Seq>,
}

struct CollectionChanges {
    collection: Arc<Collection>,
    role: Role,
    changes: Vec<DocumentChange>,
    /// Whether this transaction stored a vector of a passage other than 0.
    stored_passages: bool,
}

/// Why a write failed.
pub(crate) enum ApplyError {
    /// The write was rejected; the transaction is unchanged.
    Rejected(WriteError),
    /// The store failed; the transaction cannot be committed.
    Store(StoreError),
}

impl From<WriteError> for ApplyError {
    fn from(error: WriteError) -> ApplyError {
        ApplyError::Rejected(error)
    }
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> ApplyError {
        match error {
            StoreError::TooLarge { .. } | StoreError::Empty { .. } | StoreError::DuplicateField { .. } => {
                ApplyError::Rejected(WriteError::Document { source: Arc::new(error) })
            }
            error => ApplyError::Store(error),
        }
    }
}

/// Committed changes to publish.
pub(crate) struct CommittedChanges {
    collections: Vec<CollectionChanges>,
    last_seq: Seq,
}

impl<'s> Transaction<'s> {
    pub(crate) fn new(writer: Writer<'s>, registry: &Registry, now_ms: u64) -> Transaction<'s> {
        let collections = registry
            .with_roles()
            .map(|(collection, role)| CollectionChanges {
                collection: collection.clone(),
                role,
                changes: Vec::new(),
                stored_passages: false,
            })
            .collect();
        Transaction { writer, now_ms, collections, last_seq: None }
    }

    /// Applies one write completely or not at all.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<WriteOutcome, ApplyError> {
        match op {
            Op::Put { key, fields, expires_at_ms, vectors, expected } => {
                self.put(key, fields, *expires_at_ms, vectors, *expected)
            }
            Op::Delete { key, expected } => self.delete(key, *expected),
            Op::SetVectors { key, expected, vectors } => self.set_vectors(key, *expected, vectors),
        }
    }

    fn put(
        &mut self,
        key: &[u8],
        fields: &[Field],
        expires_at_ms: Option<u64>,
        vectors: &[ComputedVector],
        expected: Expected,
    ) -> Result<WriteOutcome, ApplyError> {
        store::check_document(key, fields)?;
        let (old, expired) = self.live_document(key)?;
        check_expected(expected, old.as_ref())?;
        let collections = self.collections.iter().map(|changes| (&*changes.collection, changes.role));
        let projections = project(collections, key, fields, vectors)?;

        if expired {
            // An expired document no longer exists, so this is a new document.
            self.delete_existing(key)?;
        }
        let expires_at_ms = expires_at_ms.or_else(|| self.default_expiry(key));
        let (doc, seq) = self.writer.put(key, fields, expires_at_ms)?;
        let mut upserted = Vec::with_capacity(projections.len());
        for (at, projection) in projections {
            let version = self.collections[at].collection.version;
            if old.is_some() && self.collections[at].may_leave_stale_vectors(doc, vectors) {
                self.writer.remove_vectors(version, doc)?;
            }
            let kind = match projection {
                Ok(projection) => {
                    upserted.push(version);
                    DocumentChangeKind::Upserted { expires_at_ms, projection }
                }
                Err(violation) => DocumentChangeKind::Invalid { key: key.into(), violation },
            };
            self.collections[at].changes.push(DocumentChange { doc, seq, kind });
        }
        for vector in vectors.iter().filter(|vector| upserted.contains(&vector.collection)) {
            self.store_vector(doc, vector)?;
        }
        self.last_seq = Some(seq);
        Ok(WriteOutcome { seq, existed: old.is_some() })
    }

    fn delete(&mut self, key: &[u8], expected: Expected) -> Result<WriteOutcome, ApplyError> {
        let (old, expired) = self.live_document(key)?;
        check_expected(expected, old.as_ref())?;
        if old.is_none() && !expired {
            return Ok(WriteOutcome { seq: 0, existed: false });
        }
        let seq = self.delete_existing(key)?;
        // Deleting an expired document does not count as a delete for the caller.
        Ok(WriteOutcome { seq: if old.is_some() { seq } else { 0 }, existed: old.is_some() })
    }

    fn set_vectors(
        &mut self,
        key: &[u8],
        expected: Seq,
        vectors: &[ComputedVector],
    ) -> Result<WriteOutcome, ApplyError> {
        let (old, _) = self.live_document(key)?;
        check_expected(Expected::Seq(expected), old.as_ref())?;
        let (doc, document) = old.expect("the expected document exists");
        let mut embedded: Vec<Vec<_>> = self.collections.iter().map(|_| Vec::new()).collect();
        for vector in vectors {
            // The collection was dropped meanwhile.
            let Some(at) = self.collection_index(vector.collection) else { continue };
            embedded[at].push(check_vector(&self.collections[at].collection, key, &document.fields, vector)?);
        }
        for vector in vectors {
            self.store_vector(doc, vector)?;
        }
        let seq = self.writer.touch(doc)?;
        for (changes, vectors) in self.collections.iter_mut().zip(embedded) {
            if !vectors.is_empty() {
                changes.changes.push(DocumentChange {
                    doc,
                    seq,
                    kind: DocumentChangeKind::Embedded { vectors },
                });
            }
        }
        self.last_seq = Some(seq);
        Ok(WriteOutcome { seq, existed: true })
    }

    /// Deletes the document that expires at `at_ms`.
    pub(crate) fn purge(&mut self, at_ms: u64, doc: DocId) -> Result<(), StoreError> {
        match self.writer.document(doc)? {
            Some(document) if document.expires_at_ms == Some(at_ms) => {
                self.delete_existing(&document.key).map(drop)
            }
            _ => {
                let (table, key) = ("expiries", format!("{at_ms}, {}", doc.0));
                Err(StoreError::Corrupt { table, key, reason: "no document expires at that time" })
            }
        }
    }

    /// Deletes the document under `key`, even if it has expired. Returns whether there was one.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let exists = self.writer.get(key)?.is_some();
        if exists {
            self.delete_existing(key)?;
        }
        Ok(exists)
    }

    /// Commits everything, durably if `durable` is set. Returns `None` if nothing was written.
    pub(crate) fn commit(self, durable: bool) -> Result<Option<CommittedChanges>, StoreError> {
        let Some(last_seq) = self.last_seq else { return Ok(None) };
        if durable { self.writer.commit() } else { self.writer.commit_unsynced() }?;
        Ok(Some(CommittedChanges { collections: self.collections, last_seq }))
    }

    /// The document under `key` unless it has expired, and whether it has.
    fn live_document(&self, key: &[u8]) -> Result<(Option<(DocId, Document)>, bool), StoreError> {
        Ok(match self.writer.get(key)? {
            Some((_, document)) if is_expired(&document, self.now_ms) => (None, true),
            live => (live, false),
        })
    }

    fn delete_existing(&mut self, key: &[u8]) -> Result<Seq, StoreError> {
        let deleted = self.writer.delete(key)?;
        let (doc, seq) = deleted.ok_or_else(|| StoreError::Corrupt {
            table: "keys",
            key: printable(key),
            reason: "the key of a document is missing",
        })?;
        for changes in &mut self.collections {
            if changes.collection.schema.matches_key(key) {
                changes.changes.push(DocumentChange { doc, seq, kind: DocumentChangeKind::Removed });
            }
        }
        self.last_seq = Some(seq);
        Ok(seq)
    }

    fn default_expiry(&self, key: &[u8]) -> Option<u64> {
        let schemas = self.collections.iter().map(|changes| &changes.collection.schema);
        let ttl = schemas.filter(|schema| schema.matches_key(key)).filter_map(|schema| schema.ttl).min()?;
        let ttl_ms = u64::try_from(ttl.as_millis()).expect("a validated ttl is at most TTL_MAX");
        Some(self.now_ms.saturating_add(ttl_ms))
    }

    fn collection_index(&self, collection: CollectionVersion) -> Option<usize> {
        self.collections.iter().position(|changes| changes.collection.version == collection)
    }

    /// Stores a computed vector, unless its collection was dropped meanwhile.
    fn store_vector(&mut self, doc: DocId, vector: &ComputedVector) -> Result<(), StoreError> {
        let Some(at) = self.collection_index(vector.collection) else { return Ok(()) };
        self.collections[at].stored_passages |= vector.passage > 0;
        let projector = &self.collections[at].collection.projector;
        let slot = projector.slot(vector.field).expect("a vector is checked before it is stored");
        let bytes = index::encode(&vector.values, projector.vectors[slot].schema.vector_type);
        let key =
            VectorKey { collection: vector.collection, field: vector.field, doc, passage: vector.passage };
        self.writer.set_vector(key, vector.model, &bytes)
    }
}

impl CollectionChanges {
    /// Whether the document may have computed vectors in this collection that the new ones do not replace.
    fn may_leave_stale_vectors(&self, doc: DocId, vectors: &[ComputedVector]) -> bool {
        let Collection { version, projector, .. } = &*self.collection;
        let is_replaced = |position: u16| {
            let passage_0 = (*version, position, 0);
            vectors.iter().any(|vector| (vector.collection, vector.field, vector.passage) == passage_0)
        };
        projector.vectors.iter().any(|field| field.schema.embed.is_some() && !is_replaced(field.position))
            || self.stored_passages
            || self.collection.may_have_passages(doc)
    }
}

impl CommittedChanges {
    /// Applies the changes to every collection. On return, searches see them.
    pub(crate) fn publish(self) {
        for changes in self.collections {
            changes.collection.publish(changes.changes, self.last_seq);
        }
    }
}

/// Whether a document has expired.
pub(crate) fn is_expired(document: &Document, now_ms: u64) -> bool {
    document.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
}

fn check_expected(expected: Expected, old: Option<&(DocId, Document)>) -> Result<(), WriteError> {
    let found = old.map(|(_, document)| document.seq);
    let is_met = match expected {
        Expected::Any => true,
        Expected::Absent => found.is_none(),
        Expected::Seq(seq) => found == Some(seq),
    };
    if is_met { Ok(()) } else { Err(WriteError::Conflict { expected, found }) }
}

/// What each of a list of collections indexes of a document, or why the document violates its schema. Each entry has
/// the collection's position in the list.
pub(crate) type Projections = Vec<(usize, Result<Projection, SchemaViolation>)>;

/// Projects a document for each of `collections` that includes its key. Violating the schema of an active collection
/// is an error; other violations are part of the result.
pub(crate) fn project<'a>(
    collections: impl Iterator<Item = (&'a Collection, Role)>,
    key: &[u8],
    fields: &[Field],
    vectors: &[ComputedVector],
) -> Result<Projections, WriteError> {
    let mut projections = Vec::new();
    for (at, (collection, role)) in collections.enumerate() {
        if !collection.schema.matches_key(key) {
            continue;
        }
        match project_document(&collection.projector, collection.version, key, fields, vectors)? {
            Err(violation) if role == Role::Active => return Err(violation.into_write_error(key)),
            projection => projections.push((at, projection)),
        }
    }
    Ok(projections)
}

/// Projects a document for one collection. The inner `Err` is a violation of the schema; the outer one means that the
/// computed vectors are not the required ones.
pub(crate) fn project_document(
    projector: &Projector,
    version: CollectionVersion,
    key: &[u8],
    fields: &[Field],
    vectors: &[ComputedVector],
) -> Result<Result<Projection, SchemaViolation>, WriteError> {
    let computed: Vec<&ComputedVector> =
        vectors.iter().filter(|vector| vector.collection == version).collect();
    let mut used = 0;
    let projection = projector.project(fields, |slot| {
        let field = &projector.vectors[slot];
        let mut vectors: Vec<PassageVector> = Vec::new();
        for vector in computed.iter().filter(|vector| vector.field == field.position) {
            if vectors.iter().all(|earlier| earlier.passage != vector.passage) {
                let values = round_to_stored_type(&vector.values, &field.schema)?;
                vectors.push(PassageVector { passage: vector.passage, values });
            }
        }
        used += vectors.len();
        Ok(vectors)
    });
    if let Ok(projection) = &projection {
        if projection.vectors.iter().any(|slot| matches!(slot, FieldVectors::Pending)) {
            return Err(WriteError::VectorsMissing { collection: version });
        }
        if used < computed.len() {
            return Err(unexpected_vectors(key, projector, &computed));
        }
    }
    Ok(projection)
}

fn unexpected_vectors(key: &[u8], projector: &Projector, vectors: &[&ComputedVector]) -> WriteError {
    let fields: Vec<String> = vectors
        .iter()
        .map(|vector| match projector.slot(vector.field) {
            Some(slot) => projector.vectors[slot].name.clone(),
            None => format!("number {}", vector.field),
        })
        .collect();
    WriteError::Invalid {
        key: printable(key),
        field: fields.join(", "),
        reason: "a computed vector is given twice, or for a field that has its own vector or no text"
            .to_owned(),
    }
}

/// Checks a vector that was computed after its document was written. Returns it with its slot, rounded to the type in
/// which it is stored.
fn check_vector(
    collection: &Collection,
    key: &[u8],
    fields: &[Field],
    vector: &ComputedVector,
) -> Result<(usize, PassageVector), WriteError> {
    let expected = collection.projector.texts(collection.version, fields);
    if !collection.schema.matches_key(key) || !expected.iter().any(|text| text.field == vector.field) {
        return Err(unexpected_vectors(key, &collection.projector, &[vector]));
    }
    let slot = collection.projector.slot(vector.field).expect("a text to embed names a vector field");
    let field = &collection.projector.vectors[slot];
    let values = round_to_stored_type(&vector.values, &field.schema)
        .map_err(|source| WriteError::Vector { key: printable(key), field: field.name.clone(), source })?;
    Ok((slot, PassageVector { passage: vector.passage, values }))
}

/// Rounds a computed vector to the type in which it is stored, so that the index is the same before and after a
/// restart.
fn round_to_stored_type(values: &[f32], schema: &VectorSchema) -> Result<Vec<f32>, VectorError> {
    let VectorSchema { dim, vector_type, metric, .. } = *schema;
    index::check(values, dim, metric)?;
    index::decode(&index::encode(values, vector_type), dim, vector_type, metric)
}

impl SchemaViolation {
    pub(crate) fn into_write_error(self, key: &[u8]) -> WriteError {
        let SchemaViolation { field, reason } = self;
        let key = printable(key);
        match reason {
            ViolationReason::Value(reason) => WriteError::Invalid { key, field, reason },
            ViolationReason::Vector(source) => WriteError::Vector { key, field, source },
        }
    }
}
