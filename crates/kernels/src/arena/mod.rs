//! Shared memory for structures that are read while they grow.
//!
//! [`Chunks`] grow without ever moving what they hold. [`Rows`] are byte rows of one size in such
//! chunks: written once, published, read by any number of threads, and reused only after every
//! reader that might still look at them has gone ([`Epochs`]).

mod chunks;
mod epochs;
mod rows;

pub use chunks::Chunks;
pub use epochs::{Epochs, Pin};
pub use rows::{Claim, Guard, Row, Rows};

/// Slots a chunk holds. A model checker tries every order of a few steps, so there chunks are small.
pub const CHUNK_SLOTS: usize = if cfg!(feature = "shuttle") { 8 } else { 1024 };
