//! Token embeddings: the input of the first layer.

use half::bf16;
use kernels::simd::Cpu;

use crate::layer::LayerNorm;
use crate::settings::ModelShape;
use crate::weights::Weights;
use crate::{ComputeType, LoadError};

/// The word and position embeddings, and the normalization of their sum.
pub(crate) struct Embeddings {
    words: WordEmbeddings,
    /// One row per position, including the embedding of token type 0, because a single text has no second segment.
    positions: Vec<f32>,
    norm: LayerNorm,
    shape: ModelShape,
}

/// One row per vocabulary id. This table is half of a small model, so it is kept in single precision only
/// if a compute type needs that.
enum WordEmbeddings {
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
}

impl Embeddings {
    pub(crate) fn load(
        shape: ModelShape,
        weights: &Weights<'_>,
        computes: &[ComputeType],
    ) -> Result<Embeddings, LoadError> {
        let width = shape.width;
        let words = weights.tensor("embeddings.word_embeddings.weight", &[shape.vocabulary, width])?;
        let words = if computes.contains(&ComputeType::F32) {
            WordEmbeddings::F32(words)
        } else {
            WordEmbeddings::Bf16(words.into_iter().map(bf16::from_f32).collect())
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

    /// Writes the embeddings of a text's tokens to `hidden`; `position_rows` is working memory of the same
    /// size. All compute types except [`ComputeType::F32`] round word embeddings to bfloat16. Panics if the
    /// text has more tokens than there are positions, or if an id is not in the vocabulary.
    pub(crate) fn embed(
        &self,
        cpu: Cpu,
        compute: ComputeType,
        ids: &[u32],
        hidden: &mut [f32],
        position_rows: &mut [f32],
    ) {
        let ModelShape { width, positions, vocabulary, layer_norm_eps, .. } = self.shape;
        assert!(ids.len() <= positions, "a text has more tokens than there are positions");
        for (&id, row) in ids.iter().zip(hidden.chunks_exact_mut(width)) {
            assert!((id as usize) < vocabulary, "token {id} is not in the vocabulary");
            let range = id as usize * width..(id as usize + 1) * width;
            match &self.words {
                WordEmbeddings::F32(words) if compute == ComputeType::F32 => {
                    row.copy_from_slice(&words[range])
                }
                WordEmbeddings::F32(words) => {
                    for (value, word) in row.iter_mut().zip(&words[range]) {
                        *value = bf16::from_f32(*word).to_f32();
                    }
                }
                WordEmbeddings::Bf16(words) => {
                    for (value, word) in row.iter_mut().zip(&words[range]) {
                        *value = word.to_f32();
                    }
                }
            }
        }
        position_rows.copy_from_slice(&self.positions[..position_rows.len()]);
        self.norm.apply(cpu, hidden, position_rows, layer_norm_eps);
    }
}
