//! The bottom floor: arithmetic on slices, and the memory that readers walk while writers grow it.
//!
//! The only crate of the project that may hold `unsafe`. Nothing here knows of texts, documents,
//! files or models. A kernel is called once for a matrix or a neighbourhood, never once for a
//! distance, because nothing inlines across `target_feature`.

pub mod arena;
pub mod simd;
mod sync;
