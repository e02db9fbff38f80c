//! What a collection holds.

use std::time::Duration;

use index::{Metric, VectorType};

/// How a vector field is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Every vector is compared.
    Flat,
    /// Hierarchical navigable small world graph.
    Hnsw {
        /// Links a node, 2 to 128.
        m: usize,
        /// Breadth while building, up to 4096.
        ef_construction: usize,
        /// Breadth while searching, up to 4096.
        ef_search: usize,
    },
}

/// How the index holds a vector to walk past it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantization {
    /// As given.
    #[default]
    None,
    /// 8-bit codes.
    Int8,
    /// 4-bit codes.
    Int4,
}

/// Which text fields become a vector, and by which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// TEXT fields, joined by a space in this order.
    pub fields: Vec<String>,
    /// Name of the model.
    pub model: String,
}

/// Options of a VECTOR field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorSchema {
    /// Graph or scan.
    pub algorithm: Algorithm,
    /// Element type given and given back.
    pub vector_type: VectorType,
    /// How the index holds it.
    pub quantization: Quantization,
    /// Values a vector.
    pub dim: usize,
    /// The distance.
    pub metric: Metric,
    /// Computed from text, or brought by the document.
    pub embed: Option<Embedding>,
}

/// What a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Text, to embed and to show.
    Text,
    /// Exact words, several in a value divided by `separator`.
    Tag {
        /// One byte.
        separator: u8,
        /// Whether `A` and `a` differ.
        case_sensitive: bool,
    },
    /// A number.
    Numeric,
    /// A vector.
    Vector(VectorSchema),
}

/// A named field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSchema {
    /// Name, as in documents.
    pub name: String,
    /// Kind and options.
    pub kind: FieldKind,
}

/// A schema over key prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// A document belongs to the collection if its key starts with one of these.
    pub prefixes: Vec<Vec<u8>>,
    /// Fields that are indexed; others are only stored.
    pub fields: Vec<FieldSchema>,
    /// Life of a document that is written without an end of its own.
    pub ttl: Option<Duration>,
}

/// Why a schema is refused. Messages name field, value and what is allowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {}
