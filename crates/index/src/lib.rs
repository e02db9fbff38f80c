//! Nearest neighbours of vectors: an HNSW graph that is searched while it grows, and exact search.
//!
//! Vectors in, owners and distances out. An *owner* is a number the caller gives a vector and
//! gets back; what it stands for is the caller's business.

use std::io::{Read, Write};

use roaring::RoaringBitmap;

pub use kernels::simd::{Cpu, Level};

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

/// The element type a vector is given and given back in; little-endian in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorType {
    /// IEEE 754 single.
    Float32,
    /// IEEE 754 half.
    Float16,
    /// The upper half of a single.
    Bfloat16,
    /// Signed bytes.
    Int8,
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

/// What an index is made of; fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Values a vector, 1 to [`DIM_MAX`].
    pub dim: usize,
    /// The distance.
    pub metric: Metric,
    /// The element type vectors are held in.
    pub vector_type: VectorType,
    /// Graph or scan.
    pub algorithm: Algorithm,
}

/// Largest dimension.
pub const DIM_MAX: usize = 4096;

/// Why a vector cannot be indexed. Messages name the value and what was expected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// Wrong length.
    #[error("vector dimensions do not match: expected {expected}, found {found}")]
    Dimensions { expected: usize, found: usize },
    /// A blob that is not a whole number of elements of the right count.
    #[error("vector dimensions do not match: expected {expected} bytes ({dim} x {element}), found {found}")]
    BlobSize { expected: usize, found: usize, dim: usize, element: &'static str },
    /// NaN or infinite.
    #[error("vector value {index} is {value}: every value must be finite")]
    NotFinite { index: usize, value: f32 },
    /// No direction, under cosine.
    #[error("vector is all zeros: it has no direction, so cosine distance is undefined")]
    Zero,
    /// Squared length overflows single precision.
    #[error("vector is too long: its squared length overflows 32-bit floats")]
    TooLong,
}

/// Decodes a little-endian blob of `dim` elements and checks it as [`check`] does.
pub fn decode(
    blob: &[u8],
    dim: usize,
    vector_type: VectorType,
    metric: Metric,
) -> Result<Vec<f32>, VectorError> {
    todo!()
}

/// Encodes values as a little-endian blob of `vector_type` (rounding to nearest; INT8 saturates).
pub fn encode(values: &[f32], vector_type: VectorType) -> Vec<u8> {
    todo!()
}

/// Whether `values` can be indexed or searched for: length, finiteness, direction.
pub fn check(values: &[f32], dim: usize, metric: Metric) -> Result<(), VectorError> {
    todo!()
}

/// A found vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Whose vector.
    pub owner: u32,
    /// How far, by the index's metric.
    pub distance: f32,
}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Neighbours wanted.
    pub k: usize,
    /// Candidates kept while searching; at least `k` is used.
    pub ef: usize,
    /// Owners that may be found; all, if `None`.
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
}

/// Why a snapshot could not be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {}

/// An index of vectors; all methods take `&self` and may run at once from many threads.
#[derive(Debug)]
pub struct Index {}

impl Index {
    /// An empty index.
    pub fn new(options: Options, cpu: Cpu) -> Index {
        todo!()
    }

    /// The options it was made with.
    pub fn options(&self) -> Options {
        todo!()
    }

    /// Gives `owner` this vector in place of any it had. On return every search that starts
    /// later finds it: it stands in the tail until [`Index::drain`] links it into the graph.
    /// The vector has passed [`check`]; the index normalises it under cosine.
    pub fn upsert(&self, owner: u32, vector: &[f32]) {
        todo!()
    }

    /// Takes the vector of `owner` away; `false` if it had none. No search that starts later finds it.
    pub fn remove(&self, owner: u32) -> bool {
        todo!()
    }

    /// The vector of `owner` as held (normalised under cosine, rounded to the element type).
    pub fn vector(&self, owner: u32) -> Option<Vec<f32>> {
        todo!()
    }

    /// Links up to `max` vectors of the tail into the graph, oldest first, and says how many.
    /// Several threads may drain at once.
    pub fn drain(&self, max: usize) -> usize {
        todo!()
    }

    /// Vectors in the tail.
    pub fn tail_len(&self) -> usize {
        todo!()
    }

    /// Gives back the slots of removed vectors, mending the links around them, once they are
    /// more than a small share; says how many were given back. For a background thread.
    pub fn sweep(&self) -> usize {
        todo!()
    }

    /// The nearest `search.k` allowed vectors (fewer only if fewer exist), nearest first,
    /// equal distances by owner. `query` has passed [`check`].
    pub fn search(&self, query: &[f32], search: &Search<'_>) -> Vec<Neighbor> {
        todo!()
    }

    /// Counts.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Writes graph and vectors. Searches and writes may go on; every vector whose `upsert`
    /// returned before the call is in it, tail included.
    pub fn snapshot(&self, to: &mut dyn Write) -> std::io::Result<()> {
        todo!()
    }

    /// Reads a snapshot back. Its integrity is the caller's to check (a checksum around it), but
    /// a malformed one is an error, never a panic or an unbounded allocation.
    pub fn restore(from: &mut dyn Read, options: Options, cpu: Cpu) -> Result<Index, RestoreError> {
        todo!()
    }
}
