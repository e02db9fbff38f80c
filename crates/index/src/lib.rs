//! Nearest neighbours of vectors: an HNSW graph that is searched while it grows, and exact search.
//!
//! Vectors in, labels and distances out. An *label* is a number the caller gives a vector and
//! gets back; what it stands for is the caller's business.

mod batch;
mod candidates;
mod filtered;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod graph;
mod index;
mod invariants;
mod labels;
mod links;
mod nodes;
mod refine;
mod repair;
mod scratch;
mod search;
mod select;
mod snapshot;
mod sync;
mod tail;
mod top_k;
mod vacuum;
mod vector;
mod vector_codec;
mod vectors;

use roaring::RoaringBitmap;

pub use index::Index;
pub use kernels::simd::{Cpu, Level};
pub use snapshot::LoadError;
pub use vector::{DIM_MAX, VectorError, VectorType, check, decode, encode};

/// Smallest `m` of a graph.
pub const M_MIN: usize = 2;
/// Largest `m` of a graph.
pub const M_MAX: usize = 512;

/// No slot, no label.
const NONE: u32 = u32::MAX;

/// What is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Distance `1 - cos(q, v)`; vectors are normalised on the way in.
    Cosine,
    /// Distance `1 - q · v`.
    Ip,
    /// Distance `|q - v|²`.
    L2,
}

/// How an index finds neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Compares the query with every vector.
    Flat,
    /// Hierarchical navigable small world graph (Malkov and Yashunin 2016).
    Hnsw {
        /// Links a node keeps on the upper layers; twice as many on the lowest.
        m: usize,
        /// Candidates kept while a node is inserted.
        ef_construction: usize,
    },
}

/// How the index holds vectors, whatever type they are given in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// In their type.
    #[default]
    None,
    /// As 8-bit codes with an offset and a step a vector, and 8-bit residuals. Walks read the
    /// codes; the last candidates, exact search and whoever asks for a vector read both, which
    /// is worth 16 bits a value.
    Int8,
    /// The same with 4-bit codes, which is worth 12 bits a value.
    Int4,
}

/// What an index is made of; fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Values a vector, 1 to [`DIM_MAX`].
    pub dim: usize,
    /// The distance.
    pub metric: Metric,
    /// The element type vectors are held in. Under cosine only a vector's direction counts, so
    /// one that the type could hold only badly is held at another length: FLOAT16 and BFLOAT16
    /// where it is extreme, INT8 where the values are not integers from -128 to 127.
    pub vector_type: VectorType,
    /// How vectors are held.
    pub quantization: Quantization,
    /// Graph or scan.
    pub algorithm: Algorithm,
}

/// A found vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Whose vector.
    pub label: u32,
    /// How far, by the index's metric.
    pub distance: f32,
}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct SearchParams<'a> {
    /// Neighbours wanted.
    pub k: usize,
    /// Candidates kept while searching; at least `k` is used.
    pub ef: usize,
    /// Labels that may be found; all, if `None`.
    pub allowed: Option<&'a RoaringBitmap>,
    /// Compare with every vector instead of walking the graph.
    pub exact: bool,
}

/// Counts of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Vectors that can be found.
    pub vectors: usize,
    /// Of these, those still scanned exactly because the graph has not taken them in yet.
    pub tail: usize,
    /// Removed vectors whose slots the graph has not given back yet.
    pub removed: usize,
    /// Bytes held, everything included.
    pub bytes: usize,
    /// Vectors these bytes hold or have room for.
    pub capacity: usize,
}

impl Stats {
    /// Bytes that the next vectors need not ask the system for.
    pub fn spare_bytes(&self) -> usize {
        let vacant = self.capacity.saturating_sub(self.vectors);
        (self.bytes as u128 * vacant as u128 / self.capacity.max(1) as u128) as usize
    }
}
