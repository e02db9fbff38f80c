//! Writes and their results.

use std::sync::Arc;

use index::VectorError;
use store::{CollectionVersion, Field, Seq, StoreError};

/// A computed vector of a document in one field of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputedVector {
    /// Collection version, as in [`TextToEmbed`].
    pub collection: CollectionVersion,
    /// Position of the vector field in the schema.
    pub field: u16,
    /// Passage number.
    pub passage: u16,
    /// Fingerprint of the model.
    pub model: [u8; 16],
    /// The values.
    pub values: Vec<f32>,
}

/// A text that must be embedded before its document can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToEmbed {
    /// The collection version that needs the vector.
    pub collection: CollectionVersion,
    /// Position of the vector field in the schema.
    pub field: u16,
    /// Passage number. The whole text is passage 0.
    pub passage: u16,
    /// Name of the model.
    pub model: String,
    /// The text fields in the schema's `embed.fields`, joined by a space.
    pub text: String,
}

/// A precondition of a write. An expired document counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No precondition.
    Any,
    /// There is no document under the key.
    Absent,
    /// The document was last written by this change.
    Seq(Seq),
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Writes a whole document, replacing any existing one under its key, including its expiry.
    Put {
        /// Key.
        key: Vec<u8>,
        /// All fields.
        fields: Vec<Field>,
        /// Expiry in Unix milliseconds. If `None`, the shortest `ttl` of the collections that include the key
        /// applies, if any.
        expires_at_ms: Option<u64>,
        /// Vectors for every text that [`crate::Engine::texts_to_embed`] returned.
        vectors: Vec<ComputedVector>,
        /// Precondition.
        expected: Expected,
    },
    /// Deletes a document.
    Delete {
        /// Key.
        key: Vec<u8>,
        /// Precondition.
        expected: Expected,
    },
    /// Adds computed vectors to an existing document, for a collection that was created later.
    SetVectors {
        /// Key.
        key: Vec<u8>,
        /// The change that wrote the document from which the vectors were computed.
        expected: Seq,
        /// Vectors.
        vectors: Vec<ComputedVector>,
    },
}

impl Op {
    /// The key that it writes.
    pub fn key(&self) -> &[u8] {
        match self {
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::SetVectors { key, .. } => key,
        }
    }

    pub(crate) fn vectors(&self) -> &[ComputedVector] {
        match self {
            Op::Put { vectors, .. } | Op::SetVectors { vectors, .. } => vectors,
            Op::Delete { .. } => &[],
        }
    }

    /// Approximate size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let fields: usize = match self {
            Op::Put { fields, .. } => fields.iter().map(|field| field.name.len() + field.value.len()).sum(),
            Op::Delete { .. } | Op::SetVectors { .. } => 0,
        };
        let vectors: usize = self.vectors().iter().map(|vector| 4 * vector.values.len()).sum();
        self.key().len() + fields + vectors
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expected::Any => f.write_str("any document or none"),
            Expected::Absent => f.write_str("no document"),
            Expected::Seq(seq) => write!(f, "sequence number {seq}"),
        }
    }
}

/// Describes what was found instead of what a write expected.
fn document_state(found: Option<Seq>) -> String {
    found.map_or_else(|| "no document".to_owned(), |seq| format!("sequence number {seq}"))
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Sequence number of the change; 0 if a delete found nothing.
    pub seq: Seq,
    /// Whether there was a document under the key.
    pub existed: bool,
}

/// Why a write failed. Nothing was written, unless the disk failed: then it is unknown whether anything was.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages describe the fields")]
pub enum WriteError {
    /// The precondition does not hold.
    #[error("the document has changed: expected {expected}, found {}", document_state(*found))]
    Conflict { expected: Expected, found: Option<Seq> },
    /// A collection was created or changed since [`crate::Engine::texts_to_embed`]: call it again.
    #[error(
        "collections have changed: a vector for collection {}, version {} is missing",
        collection.id,
        collection.version
    )]
    VectorsMissing { collection: CollectionVersion },
    /// A field violates a collection's schema.
    #[error("document \"{key}\", field \"{field}\": {reason}")]
    Invalid { key: String, field: String, reason: String },
    /// A vector violates a collection's schema.
    #[error("document \"{key}\", field \"{field}\": {source}")]
    Vector { key: String, field: String, source: VectorError },
    /// The document violates the limits of every keyspace: an empty key, a duplicate field, or something too large.
    #[error("document {source}")]
    Document { source: Arc<StoreError> },
    /// The store failed on this write.
    #[error("document \"{key}\" was not written: {source}")]
    Store { key: String, source: Arc<StoreError> },
    /// The memory limit is reached.
    #[error(
        "the collections use {} MiB of memory, and {} MiB are allowed (memory_max_mib): delete documents, or raise the limit",
        used >> 20, max >> 20
    )]
    Memory {
        /// Bytes used.
        used: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The disk is full, except for the reserve.
    #[error("the disk is full ({reason}): free some space; writes then resume by themselves")]
    Full { reason: String },
    /// An earlier write failed, and it is unknown whether it was written.
    #[error("the engine is read-only since a write failed ({reason}): open it again")]
    ReadOnly { reason: String },
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

/// The write queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the write queue is full")]
pub struct QueueFull;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_described_in_words() {
        let message = |expected, found: Option<Seq>| WriteError::Conflict { expected, found }.to_string();
        assert_eq!(
            message(Expected::Seq(3), Some(5)),
            "the document has changed: expected sequence number 3, found sequence number 5"
        );
        assert_eq!(
            message(Expected::Absent, Some(5)),
            "the document has changed: expected no document, found sequence number 5"
        );
        assert_eq!(
            message(Expected::Seq(3), None),
            "the document has changed: expected sequence number 3, found no document"
        );
    }
}
