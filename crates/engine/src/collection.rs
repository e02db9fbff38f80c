//! One version of a collection in memory: ordinals, attributes and one index per vector field.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use index::{Cpu, Index};
use roaring::{MultiOps, RoaringBitmap};
use store::{CollectionVersion, DocId, Seq};

use crate::{
    attributes::AttributeIndex,
    binary::printable,
    clock::EngineClock,
    filter::Filter,
    ordinals::Ordinals,
    passages::{PassageKey, Passages},
    projection::{FieldVectors, PassageVector, Projection, Projector, SchemaViolation},
    schema::{Algorithm, Quantization, Schema, VectorSchema},
    sync::{
        RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// Number of changes applied while holding the lock: few enough that a search waits only microseconds.
const CHANGES_PER_LOCK: usize = 32;
/// The value of `next_expiry_ms` if no document expires.
const NO_EXPIRY: u64 = u64::MAX;
/// The value of `snapshot_seq` if there is no snapshot. A snapshot made before the first write has change 0.
const NO_SNAPSHOT: Seq = Seq::MAX;

/// One version of a collection.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) version: CollectionVersion,
    pub(crate) schema: Arc<Schema>,
    pub(crate) projector: Projector,
    /// By slot.
    pub(crate) indexes: Vec<Index>,
    state: RwLock<CollectionState>,
    /// When the next document expires. Searches read it without a lock to check whether any document has expired.
    next_expiry_ms: AtomicU64,
    /// Documents applied since the last snapshot, plus vectors whose links a completed refinement pass chose again.
    pub(crate) unsaved_changes: AtomicU64,
    /// Vectors refined in the current pass.
    refined: AtomicU64,
    /// The last change that the last snapshot includes.
    snapshot_seq: AtomicU64,
}

/// What filters and the translation of labels need. Indexes and state change together, under the lock of the state.
#[derive(Debug)]
pub(crate) struct CollectionState {
    /// The last change applied.
    pub(crate) published: Seq,
    pub(crate) ordinals: Ordinals,
    pub(crate) passages: Passages,
    pub(crate) attributes: AttributeIndex,
    /// By slot: ordinals of documents whose vector has not been computed yet.
    pub(crate) unembedded: Vec<RoaringBitmap>,
    /// Documents under the prefixes that violate the schema.
    pub(crate) invalid: BTreeSet<DocId>,
    pub(crate) last_violation: Option<String>,
    /// Set while existing documents are being loaded.
    backfill: Option<Backfill>,
}

/// What was published during a backfill.
#[derive(Debug, Default)]
struct Backfill {
    /// Documents written meanwhile, which replace the loaded ones.
    written: HashSet<DocId>,
    /// Vectors of documents that have not been loaded yet.
    embedded: Vec<DocumentChange>,
}

/// A change of one document, as it affects one collection.
#[derive(Debug)]
pub(crate) struct DocumentChange {
    pub(crate) doc: DocId,
    pub(crate) seq: Seq,
    pub(crate) kind: DocumentChangeKind,
}

#[derive(Debug)]
pub(crate) enum DocumentChangeKind {
    /// The document now has this content.
    Upserted { expires_at_ms: Option<u64>, projection: Projection },
    /// The document now violates the schema.
    Invalid { key: Box<[u8]>, violation: SchemaViolation },
    /// The document was deleted.
    Removed,
    /// Some of its vectors, by slot, were computed.
    Embedded { vectors: Vec<(usize, PassageVector)> },
}

/// The documents that match a filter.
pub(crate) struct Selection {
    /// The last change that the selection includes.
    pub(crate) seen: Seq,
    /// Ordinals of the documents; all of them, if `None`.
    pub(crate) ordinals: Option<RoaringBitmap>,
}

/// The vectors in one field of the documents that match a filter.
pub(crate) struct VectorSelection {
    /// The last change that the selection includes.
    pub(crate) seen: Seq,
    /// Labels of the vectors; all of them, if `None`.
    pub(crate) labels: Option<RoaringBitmap>,
    /// Whether any document has several vectors in this field.
    pub(crate) has_passages: bool,
}

impl Collection {
    /// An empty collection.
    pub(crate) fn new(version: CollectionVersion, schema: Arc<Schema>, cpu: Cpu) -> Collection {
        let projector = Projector::new(&schema);
        let indexes =
            projector.vectors.iter().map(|field| Index::new(index_options(&field.schema), cpu)).collect();
        let state = CollectionState::new(&schema, projector.vectors.len());
        Collection::from_parts(version, schema, indexes, state)
    }

    /// A collection from the parts of a snapshot.
    pub(crate) fn from_parts(
        version: CollectionVersion,
        schema: Arc<Schema>,
        indexes: Vec<Index>,
        state: CollectionState,
    ) -> Collection {
        let projector = Projector::new(&schema);
        let next_expiry_ms = AtomicU64::new(state.ordinals.next_expiry_ms().unwrap_or(NO_EXPIRY));
        Collection {
            version,
            schema,
            projector,
            indexes,
            state: RwLock::new(state),
            next_expiry_ms,
            unsaved_changes: AtomicU64::new(0),
            refined: AtomicU64::new(0),
            snapshot_seq: AtomicU64::new(NO_SNAPSHOT),
        }
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, CollectionState> {
        self.state.read()
    }

    /// The last change that the last snapshot includes; `None` if there is no snapshot.
    pub(crate) fn snapshot_seq(&self) -> Option<Seq> {
        Some(self.snapshot_seq.load(Ordering::Relaxed)).filter(|seq| *seq != NO_SNAPSHOT)
    }

    /// Records that a snapshot with changes up to `seq` was written.
    pub(crate) fn set_snapshot_seq(&self, seq: Seq) {
        self.snapshot_seq.store(seq, Ordering::Relaxed);
    }

    /// From now on, published documents take precedence over those that [`Collection::backfill`] loads.
    pub(crate) fn begin_backfill(&self) {
        self.state.write().backfill = Some(Backfill::default());
    }

    /// Applies existing documents, except those that were published meanwhile.
    pub(crate) fn backfill(&self, changes: Vec<DocumentChange>) {
        self.unsaved_changes.fetch_add(changes.len() as u64, Ordering::Relaxed);
        self.apply_in_batches(changes, |state, change| {
            if !state.was_written_during_backfill(change.doc) {
                self.apply(state, change);
            }
        });
    }

    /// Ends a backfill: all changes up to `seq` are applied.
    pub(crate) fn end_backfill(&self, seq: Seq) {
        let mut state = self.state.write();
        if let Some(Backfill { written, embedded }) = state.backfill.take() {
            for change in embedded.into_iter().filter(|change| !written.contains(&change.doc)) {
                self.apply(&mut state, change);
            }
        }
        state.published = state.published.max(seq);
    }

    /// Applies committed changes. On return, searches see all changes up to `seq`.
    pub(crate) fn publish(&self, changes: Vec<DocumentChange>, seq: Seq) {
        self.unsaved_changes.fetch_add(changes.len() as u64, Ordering::Relaxed);
        self.apply_in_batches(changes, |state, change| {
            state.published = state.published.max(change.seq);
            let is_loaded = state.ordinals.ordinal(change.doc).is_some();
            match (&mut state.backfill, &change.kind) {
                // The vector is applied once the document is loaded.
                (Some(backfill), DocumentChangeKind::Embedded { .. }) if !is_loaded => {
                    backfill.embedded.push(change)
                }
                (None, _) | (_, DocumentChangeKind::Embedded { .. }) => self.apply(state, change),
                (Some(backfill), _) => {
                    backfill.written.insert(change.doc);
                    self.apply(state, change);
                }
            }
        });
        let mut state = self.state.write();
        state.published = state.published.max(seq);
    }

    fn apply_in_batches(
        &self,
        changes: Vec<DocumentChange>,
        mut apply: impl FnMut(&mut CollectionState, DocumentChange),
    ) {
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let mut state = self.state.write();
            for change in changes.by_ref().take(CHANGES_PER_LOCK) {
                apply(&mut state, change);
            }
            self.update_next_expiry(&state);
        }
    }

    fn update_next_expiry(&self, state: &CollectionState) {
        let next_expiry_ms = state.ordinals.next_expiry_ms().unwrap_or(NO_EXPIRY);
        self.next_expiry_ms.store(next_expiry_ms, Ordering::Release);
    }

    fn apply(&self, state: &mut CollectionState, change: DocumentChange) {
        let DocumentChange { doc, seq, kind } = change;
        match kind {
            DocumentChangeKind::Upserted { expires_at_ms, projection } => {
                state.invalid.remove(&doc);
                let ordinal = state.ordinals.assign(doc, seq, expires_at_ms);
                state.attributes.set(ordinal, &projection.attributes);
                for (slot, vectors) in projection.vectors.into_iter().enumerate() {
                    if matches!(vectors, FieldVectors::Pending) {
                        state.unembedded[slot].insert(ordinal);
                    } else {
                        state.unembedded[slot].remove(ordinal);
                    }
                    let vectors = match vectors {
                        FieldVectors::Present(vectors) => vectors,
                        FieldVectors::Absent | FieldVectors::Pending => Vec::new(),
                    };
                    self.replace_vectors(state, slot, ordinal, seq, &vectors);
                }
            }
            DocumentChangeKind::Invalid { key, violation } => {
                self.remove(state, doc);
                state.invalid.insert(doc);
                state.last_violation = Some(format!(
                    "document \"{}\", field \"{}\": {}",
                    printable(&key),
                    violation.field,
                    violation.reason
                ));
            }
            DocumentChangeKind::Removed => {
                self.remove(state, doc);
                state.invalid.remove(&doc);
            }
            DocumentChangeKind::Embedded { vectors } => {
                // A document that has expired meanwhile has no ordinal.
                let Some(ordinal) = state.ordinals.ordinal(doc) else { return };
                for (slot, vector) in vectors {
                    self.set_vector(state, slot, ordinal, seq, &vector);
                    state.unembedded[slot].remove(ordinal);
                }
            }
        }
    }

    /// Replaces all vectors of the document in a field.
    fn replace_vectors(
        &self,
        state: &mut CollectionState,
        slot: usize,
        ordinal: u32,
        seq: Seq,
        vectors: &[PassageVector],
    ) {
        let is_kept = |passage: u16| vectors.iter().any(|vector| vector.passage == passage);
        if !is_kept(0) {
            self.indexes[slot].remove(ordinal);
        }
        self.remove_passages(state, slot, ordinal, is_kept);
        for vector in vectors {
            self.set_vector(state, slot, ordinal, seq, vector);
        }
    }

    fn set_vector(
        &self,
        state: &mut CollectionState,
        slot: usize,
        ordinal: u32,
        seq: Seq,
        PassageVector { passage, values }: &PassageVector,
    ) {
        let label = match *passage {
            0 => ordinal,
            passage => {
                let key = PassageKey { slot, ordinal, passage };
                state.passages.assign(key, seq, &mut state.ordinals)
            }
        };
        self.indexes[slot].upsert(label, values);
    }

    /// Removes the document's passages other than 0 in a field, except those that are kept.
    fn remove_passages(
        &self,
        state: &mut CollectionState,
        slot: usize,
        ordinal: u32,
        is_kept: impl Fn(u16) -> bool,
    ) {
        if state.passages.is_empty() {
            return;
        }
        let removed: Vec<(PassageKey, u32)> =
            state.passages.of_document(slot, ordinal).filter(|(key, _)| !is_kept(key.passage)).collect();
        for (key, label) in removed {
            // The index first: a label that can be assigned again must have no vector.
            self.indexes[slot].remove(label);
            state.passages.release(key, &mut state.ordinals);
        }
    }

    fn remove(&self, state: &mut CollectionState, doc: DocId) {
        // The index first: an ordinal that can be assigned again must have no vector.
        let Some(ordinal) = state.ordinals.ordinal(doc) else { return };
        for (slot, index) in self.indexes.iter().enumerate() {
            index.remove(ordinal);
            self.remove_passages(state, slot, ordinal, |_| false);
            state.unembedded[slot].remove(ordinal);
        }
        state.attributes.clear(ordinal);
        state.ordinals.release(doc);
    }

    /// Hides documents that have expired. The store keeps them until they are purged.
    pub(crate) fn hide_expired(&self, time: &EngineClock) {
        while self.next_expiry_ms.load(Ordering::Acquire) <= time.now_ms() {
            let mut state = self.state.write();
            // Read under the lock: if the clock was set back, a document that was written since then may expire before
            // a time that was read earlier.
            let due = state.ordinals.expired(time.now_ms(), CHANGES_PER_LOCK);
            if due.is_empty() {
                break;
            }
            for doc in due {
                self.remove(&mut state, doc);
            }
            self.update_next_expiry(&state);
        }
    }

    /// Whether a document has a vector in a field.
    pub(crate) fn has_vector(&self, slot: usize, doc: DocId) -> bool {
        let state = self.state.read();
        state.ordinals.ordinal(doc).is_some_and(|ordinal| self.indexes[slot].contains(ordinal))
    }

    /// The documents that match `filter`, which has been checked against the schema.
    pub(crate) fn select(&self, filter: Option<&Filter>) -> Selection {
        let state = self.state.read();
        Selection { seen: state.published, ordinals: state.select(filter) }
    }

    /// The vectors in one field of the documents that match `filter`, which has been checked against the schema.
    pub(crate) fn select_vectors(&self, filter: Option<&Filter>, slot: usize) -> VectorSelection {
        let state = self.state.read();
        let mut labels = state.select(filter);
        if let Some(labels) = &mut labels {
            state.passages.add_labels(labels, slot);
        }
        VectorSelection { seen: state.published, labels, has_passages: state.passages.has_slot(slot) }
    }

    /// Whether the store may contain computed vectors of passages other than 0 for this document.
    pub(crate) fn may_have_passages(&self, doc: DocId) -> bool {
        let state = self.state.read();
        // A document that has not been backfilled yet may have inherited them from an older version.
        state.backfill.is_some()
            || (!state.passages.is_empty()
                && state.ordinals.ordinal(doc).is_some_and(|ordinal| {
                    (0..self.indexes.len())
                        .any(|slot| state.passages.of_document(slot, ordinal).next().is_some())
                }))
    }

    /// Refines up to `max` vectors of every graph. Returns whether there were any to refine.
    pub(crate) fn refine(&self, max: usize) -> bool {
        let refined = self.indexes.iter().map(|index| index.refine(max) as u64).sum();
        if refined == 0 {
            // Only a completed pass counts as changes for a snapshot: an interrupted pass starts over.
            self.unsaved_changes.fetch_add(self.refined.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        } else {
            self.refined.fetch_add(refined, Ordering::Relaxed);
        }
        refined > 0
    }

    /// Number of vectors in the tails, and of all vectors, over all fields.
    pub(crate) fn tail_and_vectors(&self) -> (usize, usize) {
        let stats = self.indexes.iter().map(Index::stats);
        stats.fold((0, 0), |(tail, vectors), stats| (tail + stats.tail, vectors + stats.vectors))
    }

    /// Up to `limit` documents without their computed vectors, each with the positions of the fields.
    pub(crate) fn documents_missing_vectors(&self, limit: usize) -> Vec<(DocId, Vec<u16>)> {
        let state = self.state.read();
        let missing = state.unembedded.iter().union();
        let documents = missing.iter().take(limit).filter_map(|ordinal| {
            let slots = self.projector.vectors.iter().zip(&state.unembedded);
            let fields = slots.filter(|(_, unembedded)| unembedded.contains(ordinal));
            let fields = fields.map(|(field, _)| field.position).collect();
            state.ordinals.entry(ordinal).map(|entry| (entry.doc, fields))
        });
        documents.collect()
    }

    /// The part of [`Collection::memory_bytes`] that is in use rather than reserved for future documents.
    pub(crate) fn memory_used(&self) -> usize {
        let spare: usize = self.indexes.iter().map(|index| index.stats().spare_bytes()).sum();
        self.memory_bytes().saturating_sub(spare)
    }

    /// Approximate bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let indexes: usize = self.indexes.iter().map(|index| index.stats().bytes).sum();
        let state = self.state.read();
        let passages = state.passages.memory_bytes();
        indexes + state.ordinals.memory_bytes() + passages + state.attributes.memory_bytes()
    }
}

impl CollectionState {
    pub(crate) fn new(schema: &Schema, slots: usize) -> CollectionState {
        CollectionState {
            published: 0,
            ordinals: Ordinals::default(),
            passages: Passages::default(),
            attributes: AttributeIndex::new(schema),
            unembedded: vec![RoaringBitmap::new(); slots],
            invalid: BTreeSet::new(),
            last_violation: None,
            backfill: None,
        }
    }

    /// Whether the document was written during a backfill.
    fn was_written_during_backfill(&self, doc: DocId) -> bool {
        self.backfill.as_ref().is_some_and(|backfill| backfill.written.contains(&doc))
    }

    /// Ordinals of the documents that match `filter`; `None` if all do.
    fn select(&self, filter: Option<&Filter>) -> Option<RoaringBitmap> {
        let filter = filter.filter(|filter| **filter != Filter::All)?;
        let live = self.ordinals.live();
        Some(filter.evaluate(&self.attributes, live)).filter(|matching| matching.len() < live.len())
    }

    /// The document and the passage of a label that was found by a search which includes changes up to `seen`.
    pub(crate) fn document_of_label(&self, label: u32, seen: Seq) -> Option<(DocId, u16)> {
        match self.ordinals.doc(label, seen) {
            Some(doc) => Some((doc, 0)),
            None => {
                let PassageKey { ordinal, passage, .. } = self.passages.entry(label, seen)?;
                Some((self.ordinals.doc(ordinal, seen)?, passage))
            }
        }
    }

    /// Number of documents without a computed vector.
    pub(crate) fn unembedded_count(&self) -> u64 {
        self.unembedded.iter().union().len()
    }
}

/// Index options of a VECTOR field.
pub(crate) fn index_options(schema: &VectorSchema) -> index::Options {
    index::Options {
        dim: schema.dim,
        metric: schema.metric,
        vector_type: schema.vector_type,
        quantization: match schema.quantization {
            Quantization::None => index::Quantization::None,
            Quantization::Int8 => index::Quantization::Int8,
            Quantization::Int4 => index::Quantization::Int4,
        },
        algorithm: match schema.algorithm {
            Algorithm::Flat => index::Algorithm::Flat,
            Algorithm::Hnsw { m, ef_construction, .. } => index::Algorithm::Hnsw { m, ef_construction },
        },
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
