//! One transaction of the committer: checks each write as it stands then, and notes what every
//! collection has to take in once it is committed.

use std::sync::Arc;

use index::VectorError;
use store::{CollectionVersion, DocId, Document, Field, Seq, StoreError, VectorKey, Writer};

use crate::{
    binary::show,
    collection::{Collection, Step, What},
    projection::{Misfit, Projection, Projector, Reason, Slot},
    registry::{Registry, Role},
    schema::VectorSchema,
    write::{ComputedVector, Expected, Op, WriteError, Written},
};

/// A transaction that is being filled.
pub(crate) struct Transaction<'s> {
    writer: Writer<'s>,
    now_ms: u64,
    /// Every collection, with what it has to take in.
    feeds: Vec<Feed>,
    last_seq: Option<Seq>,
}

struct Feed {
    collection: Arc<Collection>,
    role: Role,
    steps: Vec<Step>,
}

/// Why a write did not go in.
pub(crate) enum Failure {
    /// It was refused; the transaction is as it was.
    Refused(WriteError),
    /// The store failed; the transaction is lost.
    Store(StoreError),
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        Failure::Refused(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::TooLarge { .. } | StoreError::Empty { .. } | StoreError::DuplicateField { .. } => {
                Failure::Refused(WriteError::Document { source: Arc::new(error) })
            }
            error => Failure::Store(error),
        }
    }
}

/// What has been committed, to be published.
pub(crate) struct Committed {
    feeds: Vec<Feed>,
    last_seq: Seq,
}

impl<'s> Transaction<'s> {
    pub(crate) fn new(writer: Writer<'s>, registry: &Registry, now_ms: u64) -> Transaction<'s> {
        let feeds = registry
            .with_roles()
            .map(|(collection, role)| Feed { collection: collection.clone(), role, steps: Vec::new() })
            .collect();
        Transaction { writer, now_ms, feeds, last_seq: None }
    }

    /// Puts one write in, wholly or not at all.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<Written, Failure> {
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
    ) -> Result<Written, Failure> {
        store::check_document(key, fields)?;
        let (old, expired) = self.standing(key)?;
        check_expected(expected, old.as_ref())?;
        let collections = self.feeds.iter().map(|feed| (&*feed.collection, feed.role));
        let projections = project(collections, key, fields, vectors)?;

        if expired {
            // What has ended is gone: its successor is another document, in another place.
            self.delete_standing(key)?;
        }
        let expires_at_ms = expires_at_ms.or_else(|| self.default_end(key));
        let (doc, seq) = self.writer.put(key, fields, expires_at_ms)?;
        let mut placed = Vec::with_capacity(projections.len());
        for (at, projection) in projections {
            let version = self.feeds[at].collection.version;
            if old.is_some() && leaves_old_vectors(&self.feeds[at].collection, vectors) {
                self.writer.remove_vectors(version, doc)?;
            }
            let what = match projection {
                Ok(projection) => {
                    placed.push(version);
                    What::Placed { expires_at_ms, projection }
                }
                Err(misfit) => What::Misfit { key: key.into(), misfit },
            };
            self.feeds[at].steps.push(Step { doc, seq, what });
        }
        for vector in vectors.iter().filter(|vector| placed.contains(&vector.collection)) {
            self.store_vector(doc, vector)?;
        }
        self.last_seq = Some(seq);
        Ok(Written { seq, existed: old.is_some() })
    }

    fn delete(&mut self, key: &[u8], expected: Expected) -> Result<Written, Failure> {
        let (old, expired) = self.standing(key)?;
        check_expected(expected, old.as_ref())?;
        if old.is_none() && !expired {
            return Ok(Written { seq: 0, existed: false });
        }
        let seq = self.delete_standing(key)?;
        // Reaping what had ended already is no delete to whoever asked for it.
        Ok(Written { seq: if old.is_some() { seq } else { 0 }, existed: old.is_some() })
    }

    fn set_vectors(
        &mut self,
        key: &[u8],
        expected: Seq,
        vectors: &[ComputedVector],
    ) -> Result<Written, Failure> {
        let (old, _) = self.standing(key)?;
        check_expected(Expected::Seq(expected), old.as_ref())?;
        let (doc, document) = old.expect("a document was expected and stands");
        let mut embedded: Vec<Vec<_>> = self.feeds.iter().map(|_| Vec::new()).collect();
        for vector in vectors {
            // Of a collection that was dropped meanwhile nothing is left to set.
            let Some(at) = self.feed_of(vector.collection) else { continue };
            embedded[at].push(embed(&self.feeds[at].collection, key, &document.fields, vector)?);
        }
        for vector in vectors {
            self.store_vector(doc, vector)?;
        }
        let seq = self.writer.touch(doc)?;
        for (feed, vectors) in self.feeds.iter_mut().zip(embedded) {
            if !vectors.is_empty() {
                feed.steps.push(Step { doc, seq, what: What::Embedded { vectors } });
            }
        }
        self.last_seq = Some(seq);
        Ok(Written { seq, existed: true })
    }

    /// Takes away the document whose end at `at_ms` has come.
    pub(crate) fn reap(&mut self, at_ms: u64, doc: DocId) -> Result<(), StoreError> {
        match self.writer.document(doc)? {
            Some(document) if document.expires_at_ms == Some(at_ms) => {
                self.delete_standing(&document.key).map(drop)
            }
            _ => {
                let (table, key) = ("expiries", format!("{at_ms}, {}", doc.0));
                Err(StoreError::Corrupt { table, key, reason: "no document ends then" })
            }
        }
    }

    /// Takes the document under `key` away, whatever it is; `false` if there is none.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let stands = self.writer.get(key)?.is_some();
        if stands {
            self.delete_standing(key)?;
        }
        Ok(stands)
    }

    /// Commits everything, durably if that is `due`; `None` if nothing was written.
    pub(crate) fn commit(self, due: bool) -> Result<Option<Committed>, StoreError> {
        let Some(last_seq) = self.last_seq else { return Ok(None) };
        if due { self.writer.commit() } else { self.writer.commit_unsynced() }?;
        Ok(Some(Committed { feeds: self.feeds, last_seq }))
    }

    /// The document under `key` if it has not ended, and whether one has.
    fn standing(&self, key: &[u8]) -> Result<(Option<(DocId, Document)>, bool), StoreError> {
        Ok(match self.writer.get(key)? {
            Some((_, document)) if has_ended(&document, self.now_ms) => (None, true),
            standing => (standing, false),
        })
    }

    fn delete_standing(&mut self, key: &[u8]) -> Result<Seq, StoreError> {
        let deleted = self.writer.delete(key)?;
        let (doc, seq) = deleted.ok_or_else(|| StoreError::Corrupt {
            table: "keys",
            key: show(key),
            reason: "the key of a document is missing",
        })?;
        for feed in &mut self.feeds {
            if feed.collection.schema.takes(key) {
                feed.steps.push(Step { doc, seq, what: What::Removed });
            }
        }
        self.last_seq = Some(seq);
        Ok(seq)
    }

    fn default_end(&self, key: &[u8]) -> Option<u64> {
        let schemas = self.feeds.iter().map(|feed| &feed.collection.schema);
        let ttl = schemas.filter(|schema| schema.takes(key)).filter_map(|schema| schema.ttl).min()?;
        let ttl_ms = u64::try_from(ttl.as_millis()).expect("a validated ttl is at most TTL_MAX");
        Some(self.now_ms.saturating_add(ttl_ms))
    }

    fn feed_of(&self, collection: CollectionVersion) -> Option<usize> {
        self.feeds.iter().position(|feed| feed.collection.version == collection)
    }

    /// Stores a computed vector, unless its collection was dropped meanwhile.
    fn store_vector(&mut self, doc: DocId, vector: &ComputedVector) -> Result<(), StoreError> {
        let Some(at) = self.feed_of(vector.collection) else { return Ok(()) };
        let projector = &self.feeds[at].collection.projector;
        let slot = projector.slot(vector.field).expect("a vector is checked before it is stored");
        let bytes = index::encode(&vector.values, projector.vectors[slot].schema.vector_type);
        let key = VectorKey { collection: vector.collection, field: vector.field, doc, passage: 0 };
        self.writer.set_vector(key, vector.model, &bytes)
    }
}

impl Committed {
    /// Has every collection take its changes in: on return searches find them.
    pub(crate) fn publish(self) {
        for feed in self.feeds {
            feed.collection.publish(feed.steps, self.last_seq);
        }
    }
}

/// Whether a document's end has come.
pub(crate) fn has_ended(document: &Document, now_ms: u64) -> bool {
    document.expires_at_ms.is_some_and(|end| end <= now_ms)
}

fn check_expected(expected: Expected, old: Option<&(DocId, Document)>) -> Result<(), WriteError> {
    let found = old.map(|(_, document)| document.seq);
    let holds = match expected {
        Expected::Any => true,
        Expected::Absent => found.is_none(),
        Expected::Seq(seq) => found == Some(seq),
    };
    if holds { Ok(()) } else { Err(WriteError::Conflict { expected, found }) }
}

/// Whether the document may have computed vectors in `collection` that the new ones do not replace.
fn leaves_old_vectors(collection: &Collection, vectors: &[ComputedVector]) -> bool {
    let version = collection.version;
    collection.projector.vectors.iter().any(|field| {
        field.schema.embed.is_some()
            && !vectors.iter().any(|vector| (vector.collection, vector.field) == (version, field.position))
    })
}

/// What collections index of one document, or why they do not take it, by position in a list.
pub(crate) type Projections = Vec<(usize, Result<Projection, Misfit>)>;

/// What each collection indexes of a document, by position in `collections`. A document that a
/// collection does not take is refused where the collection answers; elsewhere it is a misfit.
pub(crate) fn project<'a>(
    collections: impl Iterator<Item = (&'a Collection, Role)>,
    key: &[u8],
    fields: &[Field],
    vectors: &[ComputedVector],
) -> Result<Projections, WriteError> {
    let mut projections = Vec::new();
    for (at, (collection, role)) in collections.enumerate() {
        if !collection.schema.takes(key) {
            continue;
        }
        match project_one(&collection.projector, collection.version, key, fields, vectors)? {
            Err(misfit) if role == Role::Answering => return Err(misfit.refuse(key)),
            projection => projections.push((at, projection)),
        }
    }
    Ok(projections)
}

/// What one collection indexes of a document, or why it does not take it; `Err` if the computed
/// vectors are not those it needs.
pub(crate) fn project_one(
    projector: &Projector,
    version: CollectionVersion,
    key: &[u8],
    fields: &[Field],
    vectors: &[ComputedVector],
) -> Result<Result<Projection, Misfit>, WriteError> {
    let computed: Vec<&ComputedVector> =
        vectors.iter().filter(|vector| vector.collection == version).collect();
    let mut used = 0;
    let projection = projector.project(fields, |slot| {
        let field = &projector.vectors[slot];
        let vector = computed.iter().find(|vector| vector.field == field.position)?;
        used += 1;
        Some(as_stored(&vector.values, &field.schema))
    });
    if let Ok(projection) = &projection {
        if projection.vectors.iter().any(|slot| matches!(slot, Slot::Unembedded)) {
            return Err(WriteError::VectorsMissing { collection: version });
        }
        if used < computed.len() {
            return Err(superfluous(key, projector, &computed));
        }
    }
    Ok(projection)
}

fn superfluous(key: &[u8], projector: &Projector, vectors: &[&ComputedVector]) -> WriteError {
    let fields: Vec<String> = vectors
        .iter()
        .map(|vector| match projector.slot(vector.field) {
            Some(slot) => projector.vectors[slot].name.clone(),
            None => format!("number {}", vector.field),
        })
        .collect();
    WriteError::Invalid {
        key: show(key),
        field: fields.join(", "),
        reason: "a computed vector is given twice, or where the document brings its own or has no text"
            .to_owned(),
    }
}

/// A vector that was computed later, and the slot it belongs to.
fn embed(
    collection: &Collection,
    key: &[u8],
    fields: &[Field],
    vector: &ComputedVector,
) -> Result<(usize, Vec<f32>), WriteError> {
    let wanted = collection.projector.texts(collection.version, fields);
    if !collection.schema.takes(key) || !wanted.iter().any(|text| text.field == vector.field) {
        return Err(superfluous(key, &collection.projector, &[vector]));
    }
    let slot = collection.projector.slot(vector.field).expect("a text to embed names a vector field");
    let field = &collection.projector.vectors[slot];
    let values = as_stored(&vector.values, &field.schema).map_err(|source| WriteError::Vector {
        key: show(key),
        field: field.name.clone(),
        source,
    })?;
    Ok((slot, values))
}

/// A computed vector as it will be read back, rounded to the type it is stored in: so that what is
/// indexed is the same before and after the engine is opened again.
fn as_stored(values: &[f32], schema: &VectorSchema) -> Result<Vec<f32>, VectorError> {
    let VectorSchema { dim, vector_type, metric, .. } = *schema;
    index::check(values, dim, metric)?;
    index::decode(&index::encode(values, vector_type), dim, vector_type, metric)
}

impl Misfit {
    pub(crate) fn refuse(self, key: &[u8]) -> WriteError {
        let Misfit { field, reason } = self;
        let key = show(key);
        match reason {
            Reason::Value(reason) => WriteError::Invalid { key, field, reason },
            Reason::Vector(source) => WriteError::Vector { key, field, source },
        }
    }
}
