//! Approximate and exact nearest-neighbour search over vectors: an HNSW graph that is searched while it
//! grows, and a flat scan.
//!
//! A search takes a vector and returns labels and distances. A *label* is a number that the caller assigns to
//! each vector, as in hnswlib. It identifies a vector, not a document: a caller whose documents have several
//! vectors assigns a label to each vector and keeps the map from labels to documents.

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

/// Minimum `m` of a graph.
pub const M_MIN: usize = 2;
/// Maximum `m` of a graph.
pub const M_MAX: usize = 512;

/// The value that represents "no slot" and "no label".
const NONE: u32 = u32::MAX;

/// The distance function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// `1 - cos(q, v)`. Vectors are normalised when they are inserted.
    Cosine,
    /// `1 - q · v`.
    Ip,
    /// `|q - v|²`.
    L2,
}

/// How an index finds neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Compares the query with every vector.
    Flat,
    /// Hierarchical navigable small world graph (Malkov and Yashunin 2016).
    Hnsw {
        /// Maximum number of links per node on the upper layers; twice as many on layer 0.
        m: usize,
        /// Number of candidates kept while a node is inserted.
        ef_construction: usize,
    },
}

/// How the index represents vectors in memory, independently of the type they are given in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// In the type of the vectors.
    #[default]
    None,
    /// 8-bit codes with an offset and a step per vector, plus 8-bit residuals. Graph traversal reads the
    /// codes only. Rescoring, exact search and [`Index::vector`] read codes and residuals, which together
    /// have a precision of 16 bits per value.
    Int8,
    /// The same with 4-bit codes: 12 bits of precision per value.
    Int4,
}

/// Parameters of an index, fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Values per vector, 1 to [`DIM_MAX`].
    pub dim: usize,
    /// The distance function.
    pub metric: Metric,
    /// The element type that vectors are stored in. Under cosine only the direction of a vector matters, so
    /// the index rescales a vector that the type represents poorly: FLOAT16 and BFLOAT16 vectors of extreme
    /// length, and INT8 vectors whose values are not integers from -128 to 127.
    pub vector_type: VectorType,
    /// How vectors are represented in memory.
    pub quantization: Quantization,
    /// Graph or scan.
    pub algorithm: Algorithm,
}

/// A vector found by a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The label of the vector.
    pub label: u32,
    /// Its distance to the query under the metric of the index.
    pub distance: f32,
}

/// Parameters of a search.
#[derive(Clone, Copy, Debug)]
pub struct SearchParams<'a> {
    /// Number of neighbours to return. `k` counts vectors: a caller that returns each document once asks for
    /// more vectors than documents if documents have several vectors.
    pub k: usize,
    /// Number of candidates kept while searching the graph; at least `k` is used.
    pub ef: usize,
    /// Labels that may be returned; `None` allows all. Labels without a vector are ignored.
    pub allowed: Option<&'a RoaringBitmap>,
    /// Compares the query with every vector instead of searching the graph.
    pub exact: bool,
}

/// Size of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Vectors that searches can find.
    pub vectors: usize,
    /// Number of these vectors that are still in the tail. They are not linked into the graph yet, so every search
    /// scans them exactly.
    pub tail: usize,
    /// Removed vectors whose slots have not been reclaimed yet.
    pub removed: usize,
    /// Bytes allocated by the index.
    pub bytes: usize,
    /// Number of vectors that fit into the allocated memory.
    pub capacity: usize,
}

impl Stats {
    /// Allocated bytes that further vectors can use.
    pub fn spare_bytes(&self) -> usize {
        let spare = self.capacity.saturating_sub(self.vectors);
        (self.bytes as u128 * spare as u128 / self.capacity.max(1) as u128) as usize
    }
}
