//! What tokens are before the first layer.

use half::bf16;
use kernels::simd::Cpu;

use crate::layer::LayerNorm;
use crate::settings::Shape;
use crate::weights::Weights;
use crate::{ComputeType, LoadError};

/// The tables of words and positions, and the normalisation of their sum.
pub(crate) struct Embeddings {
    words: Words,
    /// A row a position, the embedding of token type 0 added: a text alone has no second segment.
    positions: Vec<f32>,
    norm: LayerNorm,
    shape: Shape,
}

/// A row a vocabulary id. Half of a small model is this table, so it is kept in single precision only
/// where someone computes in it.
enum Words {
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
}

impl Embeddings {
    pub(crate) fn load(
        shape: Shape,
        weights: &Weights<'_>,
        computes: &[ComputeType],
    ) -> Result<Embeddings, LoadError> {
        let width = shape.width;
        let words = weights.tensor("embeddings.word_embeddings.weight", &[shape.vocabulary, width])?;
        let words = if computes.contains(&ComputeType::F32) {
            Words::F32(words)
        } else {
            Words::Bf16(words.into_iter().map(bf16::from_f32).collect())
        };
        let mut positions =
            weights.tensor("embeddings.position_embeddings.weight", &[shape.positions, width])?;
        let types = weights.tensor("embeddings.token_type_embeddings.weight", &[shape.token_types, width])?;
        for row in positions.chunks_exact_mut(width) {
            for (value, of_type) in row.iter_mut().zip(&types) {
                *value += of_type;
            }
        }
        let norm = LayerNorm::load(weights, "embeddings.LayerNorm", width)?;
        Ok(Embeddings { words, positions, norm, shape })
    }

    /// Writes the vectors of a text's tokens to `hidden`; `places` is room of the same size. Every
    /// kind but [`ComputeType::F32`] rounds the words to bfloat16. Panics if the text has more tokens
    /// than there are positions, or an id beyond the vocabulary.
    pub(crate) fn embed(
        &self,
        cpu: Cpu,
        compute: ComputeType,
        ids: &[u32],
        hidden: &mut [f32],
        places: &mut [f32],
    ) {
        let Shape { width, positions, vocabulary, layer_norm_eps, .. } = self.shape;
        assert!(ids.len() <= positions, "a text has at most as many tokens as positions");
        for (&id, row) in ids.iter().zip(hidden.chunks_exact_mut(width)) {
            assert!((id as usize) < vocabulary, "token {id} is not in the vocabulary");
            let range = id as usize * width..(id as usize + 1) * width;
            match &self.words {
                Words::F32(words) if compute == ComputeType::F32 => row.copy_from_slice(&words[range]),
                Words::F32(words) => {
                    for (value, word) in row.iter_mut().zip(&words[range]) {
                        *value = bf16::from_f32(*word).to_f32();
                    }
                }
                Words::Bf16(words) => {
                    for (value, word) in row.iter_mut().zip(&words[range]) {
                        *value = word.to_f32();
                    }
                }
            }
        }
        places.copy_from_slice(&self.positions[..places.len()]);
        self.norm.apply(cpu, hidden, places, layer_norm_eps);
    }
}
