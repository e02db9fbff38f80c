//! What can be written, and what becomes of it.

use std::sync::Arc;

use index::VectorError;
use store::{CollectionVersion, Field, Seq, StoreError};

/// A computed vector of a document in one field of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputedVector {
    /// Collection version and position of the field, as [`TextToEmbed`] named them.
    pub collection: CollectionVersion,
    /// Position of the vector field in the schema.
    pub field: u16,
    /// Which of the document's vectors in this field.
    pub passage: u16,
    /// Who made it.
    pub model: [u8; 16],
    /// The values.
    pub values: Vec<f32>,
}

/// A text that has to be embedded before a document can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextToEmbed {
    /// For which collection version.
    pub collection: CollectionVersion,
    /// For which vector field.
    pub field: u16,
    /// Which passage of the document the text is. The whole text is passage 0.
    pub passage: u16,
    /// By which model, by name.
    pub model: String,
    /// The text fields of the schema's `embed.fields`, joined by a space.
    pub text: String,
}

/// What a write expects to find. A document that has expired is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    Any,
    /// No document under the key.
    Absent,
    /// The document as last written by this change.
    Seq(Seq),
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A whole document in place of any under its key. Nothing of the old one stays, its end
    /// included.
    Put {
        /// The key.
        key: Vec<u8>,
        /// All fields.
        fields: Vec<Field>,
        /// When it ends, Unix milliseconds. `None`: after the shortest `ttl` of the collections
        /// the key falls into, never if none has one.
        expires_at_ms: Option<u64>,
        /// Vectors for every text [`crate::Engine::texts_to_embed`] named.
        vectors: Vec<ComputedVector>,
        /// Guard.
        expected: Expected,
    },
    /// A document away.
    Delete {
        /// The key.
        key: Vec<u8>,
        /// Guard.
        expected: Expected,
    },
    /// Computed vectors for a document that stands already (a collection made later).
    SetVectors {
        /// The key.
        key: Vec<u8>,
        /// The document the vectors were computed from.
        expected: Seq,
        /// The vectors.
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

    /// Bytes it brings, about.
    pub(crate) fn bytes(&self) -> usize {
        let fields: usize = match self {
            Op::Put { fields, .. } => fields.iter().map(|field| field.name.len() + field.value.len()).sum(),
            Op::Delete { .. } | Op::SetVectors { .. } => 0,
        };
        let vectors: usize = self.vectors().iter().map(|vector| 4 * vector.values.len()).sum();
        self.key().len() + fields + vectors
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The change's number; for a delete of nothing, 0.
    pub seq: Seq,
    /// Whether a document stood under the key before.
    pub existed: bool,
}

/// Why one write was refused. Nothing of it was written, except where a failed disk leaves it open.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum WriteError {
    /// The guard did not hold.
    #[error("the document was changed meanwhile: expected {expected:?}, found sequence {found:?}")]
    Conflict { expected: Expected, found: Option<Seq> },
    /// A collection appeared or changed since [`crate::Engine::texts_to_embed`]: ask it again.
    #[error("collections changed meanwhile: a vector for collection {collection:?} is missing")]
    VectorsMissing { collection: CollectionVersion },
    /// A field does not fit a collection's schema.
    #[error("document \"{key}\", field \"{field}\": {reason}")]
    Invalid { key: String, field: String, reason: String },
    /// A vector does not fit a collection's schema.
    #[error("document \"{key}\", field \"{field}\": {source}")]
    Vector { key: String, field: String, source: VectorError },
    /// A document no keyspace takes: an empty key, a field twice, something too large.
    #[error("document {source}")]
    Document { source: Arc<StoreError> },
    /// The store failed on this write.
    #[error("document \"{key}\" was not written: {source}")]
    Store { key: String, source: Arc<StoreError> },
    /// There is a limit on memory, and it is reached.
    #[error(
        "the collections take {} MiB of memory, and {} are allowed (memory_max_mib): delete documents, or allow more",
        used >> 20, max >> 20
    )]
    Memory {
        /// Bytes taken.
        used: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The disk is full, or all of it but the reserve.
    #[error("the disk is full ({reason}): free some space, and writes are taken again by themselves")]
    Full { reason: String },
    /// A write failed, and what the disk holds of it is unknown.
    #[error("no writes are taken since one failed ({reason}): open the engine again")]
    ReadOnly { reason: String },
    /// The engine is closing.
    #[error("the engine is closed")]
    Closed,
}

/// The engine is not taking writes: its queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the write queue is full")]
pub struct QueueFull;
