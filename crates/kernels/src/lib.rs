//! The lowest layer: SIMD arithmetic on slices, and memory that readers use while writers extend it.
//!
//! This is the only crate of the project that may contain `unsafe` code. It knows nothing of texts, documents, files
//! or models. A kernel is called once per matrix or neighbourhood, not once per distance, because functions with
//! `target_feature` are not inlined into their callers.

pub mod arena;
pub mod simd;
mod sync;
