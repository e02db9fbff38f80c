//! Text to sentence vectors: tokenizer, BERT-family forward pass, pooling.
//!
//! Reads the files of a sentence-transformers model directory. Knows nothing about documents,
//! indexes or servers.

mod calibration;
mod compute_type;
mod embeddings;
mod encoder;
mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod layer;
mod linear_layer;
mod model;
mod pooling;
mod prompts;
mod settings;
mod smoothing;
mod tokenizer;
mod weights;

pub use compute_type::ComputeType;
pub use error::LoadError;
pub use model::Model;

/// Identifies the model that produced a vector: the first 16 bytes of a SHA-256 over weights, tokenizer and
/// settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

/// A tokenized text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Vocabulary ids with the model's special tokens, at most `tokens_max` of them.
    pub ids: Vec<u32>,
    /// Whether the text was truncated to the model's maximum length.
    pub truncated: bool,
}
