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
    /// Which of the document's vectors in this field.
    pub passage: u16,
    /// Fingerprint of the model.
    pub model: [u8; 16],
    /// The values.
    pub values: Vec<f32>,
}

/// A text that must be embedded before its document can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToEmbed {
    /// For which collection version.
    pub collection: CollectionVersion,
    /// Position of the vector field in the schema.
    pub field: u16,
    /// Which passage of the document the text is. The whole text is passage 0.
    pub passage: u16,
    /// Name of the model.
    pub model: String,
    /// The text fields in the schema's `embed.fields`, joined by a space.
    pub text: String,
}

/// A precondition of a write. An expired document counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// None.
    Any,
    /// There is no document under the key.
    Absent,
    /// The document was last written by this change.
    Seq(Seq),
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Writes a whole document, replacing any under its key, including its expiry.
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
    /// The key it writes.
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

    /// Approximate bytes.
    pub(crate) fn bytes(&self) -> usize {
        let fields: usize = match self {
            Op::Put { fields, .. } => fields.iter().map(|field| field.name.len() + field.value.len()).sum(),
            Op::Delete { .. } | Op::SetVectors { .. } => 0,
        };
        let vectors: usize = self.vectors().iter().map(|vector| 4 * vector.values.len()).sum();
        self.key().len() + fields + vectors
    }
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Sequence number of the change; 0 if a delete found nothing.
    pub seq: Seq,
    /// Whether there was a document under the key.
    pub existed: bool,
}

/// Why a write failed. Nothing of it was written, except that after a disk failure this is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages describe the fields")]
pub enum WriteError {
    /// The precondition does not hold.
    #[error("the document has changed: expected {expected:?}, found sequence {found:?}")]
    Conflict { expected: Expected, found: Option<Seq> },
    /// A collection was created or changed since [`crate::Engine::texts_to_embed`]: call it again.
    #[error("collections have changed: a vector for collection {collection:?} is missing")]
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
    /// A write failed, and it is unknown what the disk holds of it.
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
