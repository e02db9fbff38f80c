//! Compares a collection with the documents that it was derived from.

use store::{Reader, StoreError};

use crate::{
    attributes::DocumentAttributes,
    collection::{Collection, CollectionState, DocumentChange, DocumentChangeKind},
    load::{ComputedVectorReader, LOAD_BATCH, document_change},
    passages::PassageKey,
    progress::Progress,
    projection::{FieldVectors, PassageVector, Projection},
};

/// The first difference between a collection and the documents that it should contain as of `reader`; `None` if there
/// is none. Documents that expired by `now_ms` may be missing: a collection hides them before they are deleted.
pub(crate) fn difference(
    collection: &Collection,
    reader: &Reader,
    now_ms: u64,
    progress: &Progress,
) -> Result<Option<String>, StoreError> {
    let state = collection.state();
    let mut vectors = ComputedVectorReader::new(collection, reader)?;
    let mut found = Contents::default();
    for (number, document) in reader.documents()?.enumerate() {
        let (doc, document) = document?;
        if number % LOAD_BATCH == LOAD_BATCH - 1 {
            progress.advance(LOAD_BATCH);
        }
        if !collection.schema.matches_key(&document.key) {
            continue;
        }
        let computed = vectors.read(doc)?;
        let DocumentChange { kind, .. } = document_change(collection, doc, document, |field| {
            let vectors = computed.iter().filter(|(key, _)| key.field == field);
            vectors.map(|(key, vector)| (key.passage, vector.clone())).collect()
        });
        let difference = match kind {
            DocumentChangeKind::Upserted { expires_at_ms, projection } => match state.ordinals.ordinal(doc) {
                None if expires_at_ms.is_some_and(|end| end <= now_ms) => None,
                None => Some("it is missing"),
                Some(ordinal) => {
                    let expiry = state.ordinals.entry(ordinal).and_then(|entry| entry.expires_at_ms);
                    found.documents += 1;
                    if expiry == expires_at_ms {
                        difference_of(collection, &state, ordinal, projection, &mut found)
                    } else {
                        Some("it expires at another time")
                    }
                }
            },
            DocumentChangeKind::Invalid { .. } => {
                found.invalid += 1;
                (!state.invalid.contains(&doc)).then_some("it violates the schema")
            }
            DocumentChangeKind::Removed | DocumentChangeKind::Embedded { .. } => {
                unreachable!("an existing document is upserted or invalid")
            }
        };
        if let Some(difference) = difference {
            return Ok(Some(format!("document number {}: {difference}", doc.0)));
        }
    }
    Ok(found.difference_to(collection, &state))
}

/// What the documents of a collection amount to.
#[derive(Default)]
struct Contents {
    documents: u64,
    invalid: usize,
    /// Vectors over all fields.
    vectors: usize,
}

impl Contents {
    /// Whether a collection contains anything else. Everything in here was found in it.
    fn difference_to(&self, collection: &Collection, state: &CollectionState) -> Option<String> {
        let (_, vectors) = collection.tail_and_vectors();
        if state.ordinals.live().len() > self.documents {
            let extra = state.ordinals.live().len() - self.documents;
            return Some(format!("{extra} documents that are not in the store"));
        }
        if state.invalid.len() > self.invalid {
            let extra = state.invalid.len() - self.invalid;
            return Some(format!(
                "{extra} documents that do not violate the schema, or are not in the store"
            ));
        }
        (vectors > self.vectors)
            .then(|| format!("{} vectors that are not in the store", vectors - self.vectors))
    }
}

fn difference_of(
    collection: &Collection,
    state: &CollectionState,
    ordinal: u32,
    projection: Projection,
    found: &mut Contents,
) -> Option<&'static str> {
    if sorted(state.attributes.get(ordinal)) != sorted(projection.attributes) {
        return Some("its tags or numbers differ");
    }
    for (slot, vectors) in projection.vectors.into_iter().enumerate() {
        let is_pending = matches!(vectors, FieldVectors::Pending);
        if state.unembedded[slot].contains(ordinal) != is_pending {
            return Some("whether its vector was computed differs");
        }
        let FieldVectors::Present(vectors) = vectors else { continue };
        found.vectors += vectors.len();
        for PassageVector { passage, values } in vectors {
            let label = match passage {
                0 => Some(ordinal),
                passage => state.passages.label(PassageKey { slot, ordinal, passage }),
            };
            if !label.is_some_and(|label| collection.indexes[slot].holds(label, &values)) {
                return Some("its vector is another one or missing");
            }
        }
    }
    None
}

/// Tags are a set, but kept in any order.
fn sorted(mut attributes: DocumentAttributes) -> DocumentAttributes {
    attributes.tags.iter_mut().for_each(|tags| tags.sort_unstable());
    attributes
}
