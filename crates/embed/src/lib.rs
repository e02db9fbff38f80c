//! Text to sentence vectors: tokenizer, BERT-family forward pass, pooling.
//!
//! Reads the files of a sentence-transformers model directory; knows nothing of documents,
//! indexes or servers.

use std::path::Path;

use kernels::simd::Cpu;

/// Which model made a vector: the first 16 bytes of a SHA-256 over weights, tokenizer and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

/// A text as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Vocabulary ids with the model's special tokens, at most `tokens_max` of them.
    pub ids: Vec<u32>,
    /// Whether the text was longer than the model reads.
    pub truncated: bool,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {}

/// A loaded model, immutable and shared between threads.
#[derive(Debug)]
pub struct Model {}

impl Model {
    /// Loads a sentence-transformers model directory (safetensors, BERT family).
    pub fn load(dir: &Path, cpu: Cpu) -> Result<Model, LoadError> {
        todo!()
    }

    /// The model's name: its directory's last component.
    pub fn name(&self) -> &str {
        todo!()
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        todo!()
    }

    /// Longest text in tokens, special tokens included; longer ones are cut.
    pub fn tokens_max(&self) -> usize {
        todo!()
    }

    /// Identity of the vectors this model makes.
    pub fn fingerprint(&self) -> Fingerprint {
        todo!()
    }

    /// Tokenizes `text`, with special tokens, cut at [`Model::tokens_max`].
    pub fn tokenize(&self, text: &str) -> Tokens {
        todo!()
    }

    /// Embeds a ragged batch: `batch.len() * dim` values, row by row in the order of `batch`.
    /// A row does not depend on what else is in the batch.
    pub fn embed(&self, batch: &[Tokens]) -> Vec<f32> {
        todo!()
    }
}
