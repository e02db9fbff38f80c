//! Memory for data structures that are read while they grow.
//!
//! [`Chunks`] is a growing list that never moves its elements. [`Rows`] stores byte rows of one size in such chunks:
//! a row is written once, published, read by any number of threads, and its slot is reused only after every reader
//! that may still use it has finished ([`Epochs`]).

mod chunks;
mod epochs;
mod rows;

pub use chunks::Chunks;
pub use epochs::{Epochs, Pin};
pub use rows::{Claim, Guard, Row, Rows};

/// Slots per chunk. Chunks are small under the model checker, so that a few steps already need several.
pub const CHUNK_SLOTS: usize = if cfg!(feature = "shuttle") { 8 } else { 1024 };
