//! The BERT encoder (Devlin et al. 2018) in single precision.

use kernels::simd::Cpu;
use kernels::simd::dense::{Activation, AttentionScratch, Linear, add_layer_norm, attention};

use crate::LoadError;
use crate::settings::Shape;
use crate::weights::Weights;

/// Embeddings and layers, packed for the kernels.
pub(crate) struct Encoder {
    cpu: Cpu,
    shape: Shape,
    /// A row a vocabulary id.
    words: Vec<f32>,
    /// A row a position, the embedding of token type 0 added: a text alone has no second segment.
    positions: Vec<f32>,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key and value, one after the other.
    qkv: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

struct LayerNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Encoder {
    /// Takes the encoder's tensors out of `weights` and packs them.
    pub(crate) fn load(cpu: Cpu, shape: Shape, weights: &Weights<'_>) -> Result<Encoder, LoadError> {
        let width = shape.width;
        let words = weights.tensor("embeddings.word_embeddings.weight", &[shape.vocabulary, width])?;
        let mut positions =
            weights.tensor("embeddings.position_embeddings.weight", &[shape.positions, width])?;
        let types = weights.tensor("embeddings.token_type_embeddings.weight", &[shape.token_types, width])?;
        for row in positions.chunks_exact_mut(width) {
            for (value, of_type) in row.iter_mut().zip(&types) {
                *value += of_type;
            }
        }
        let norm = LayerNorm::load(weights, "embeddings.LayerNorm", width)?;
        let layers = (0..shape.layers)
            .map(|i| Layer::load(weights, &format!("encoder.layer.{i}"), shape))
            .collect::<Result<_, _>>()?;
        Ok(Encoder { cpu, shape, words, positions, norm, layers })
    }

    /// The last layer's vectors of `texts`, a row a token, text after text. Panics if a text has
    /// more tokens than there are positions, or an id beyond the vocabulary.
    pub(crate) fn encode(&self, texts: &[&[u32]], scratch: &mut Scratch) -> Vec<f32> {
        let (cpu, width) = (self.cpu, self.shape.width);
        let eps = self.shape.layer_norm_eps;
        let tokens: usize = texts.iter().map(|ids| ids.len()).sum();
        let Scratch { delta, qkv, context, intermediate, attention: attention_scratch } = scratch;
        let delta = resized(delta, tokens * width);
        let qkv = resized(qkv, tokens * 3 * width);
        let context = resized(context, tokens * width);
        let intermediate = resized(intermediate, tokens * self.shape.intermediate);

        let mut hidden = Vec::with_capacity(tokens * width);
        let mut delta_rest = &mut *delta;
        for ids in texts {
            assert!(ids.len() <= self.shape.positions, "a text has at most as many tokens as positions");
            for &id in *ids {
                assert!((id as usize) < self.shape.vocabulary, "token {id} is not in the vocabulary");
                hidden.extend_from_slice(&self.words[id as usize * width..][..width]);
            }
            let (of_text, rest) = delta_rest.split_at_mut(ids.len() * width);
            of_text.copy_from_slice(&self.positions[..ids.len() * width]);
            delta_rest = rest;
        }
        self.norm.apply(cpu, &mut hidden, delta, eps);

        for layer in &self.layers {
            layer.qkv.apply(cpu, &hidden, Activation::Identity, qkv);
            let mut first = 0;
            for ids in texts {
                let text = first..first + ids.len();
                attention(
                    cpu,
                    &qkv[text.start * 3 * width..text.end * 3 * width],
                    width,
                    self.shape.heads,
                    &mut context[text.start * width..text.end * width],
                    attention_scratch,
                );
                first = text.end;
            }
            layer.attention_output.apply(cpu, context, Activation::Identity, delta);
            layer.attention_norm.apply(cpu, &mut hidden, delta, eps);
            layer.intermediate.apply(cpu, &hidden, Activation::Gelu, intermediate);
            layer.output.apply(cpu, intermediate, Activation::Identity, delta);
            layer.output_norm.apply(cpu, &mut hidden, delta, eps);
        }
        hidden
    }
}

impl Layer {
    fn load(weights: &Weights<'_>, name: &str, shape: Shape) -> Result<Layer, LoadError> {
        let Shape { width, intermediate, .. } = shape;
        let norm = |part| LayerNorm::load(weights, &format!("{name}.{part}"), width);
        let tensors = |part: &str, inputs, outputs| {
            let matrix = weights.tensor(&format!("{name}.{part}.weight"), &[outputs, inputs])?;
            let bias = weights.tensor(&format!("{name}.{part}.bias"), &[outputs])?;
            Ok((matrix, bias))
        };
        let linear = |part: &str, inputs, outputs| {
            let (matrix, bias) = tensors(part, inputs, outputs)?;
            Ok(Linear::pack(&matrix, &bias, inputs))
        };
        let (mut matrix, mut bias) = tensors("attention.self.query", width, width)?;
        for part in ["attention.self.key", "attention.self.value"] {
            let (more, more_bias) = tensors(part, width, width)?;
            matrix.extend(more);
            bias.extend(more_bias);
        }
        Ok(Layer {
            qkv: Linear::pack(&matrix, &bias, width),
            attention_output: linear("attention.output.dense", width, width)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", width, intermediate)?,
            output: linear("output.dense", intermediate, width)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }
}

impl LayerNorm {
    fn load(weights: &Weights<'_>, name: &str, width: usize) -> Result<LayerNorm, LoadError> {
        Ok(LayerNorm {
            gamma: weights.tensor(&format!("{name}.weight"), &[width])?,
            beta: weights.tensor(&format!("{name}.bias"), &[width])?,
        })
    }

    fn apply(&self, cpu: Cpu, hidden: &mut [f32], delta: &[f32], eps: f32) {
        add_layer_norm(cpu, hidden, delta, &self.gamma, &self.beta, eps);
    }
}

/// Memory of a forward pass, kept between passes so that it is allocated once a call.
#[derive(Default)]
pub(crate) struct Scratch {
    delta: Vec<f32>,
    qkv: Vec<f32>,
    context: Vec<f32>,
    intermediate: Vec<f32>,
    attention: AttentionScratch,
}

fn resized(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    values.resize(len, 0.0);
    values
}
