//! One layer of the encoder.

use kernels::simd::Cpu;
use kernels::simd::dense::{Activation, add_layer_norm};

use crate::projection::{Projection, Scratch as ProjectionScratch, attention};
use crate::settings::Shape;
use crate::smoothing::Smoothing;
use crate::weights::Weights;
use crate::{ComputeType, LoadError};

/// Tokens that go through the feed-forward part together: its inner activations, four times as wide as
/// the others, then stay in the second-level cache.
const FEED_FORWARD_TOKENS: usize = 96;

/// A layer's matrices as the file has them.
pub(crate) struct Matrices {
    qkv: Matrix,
    attention_output: Matrix,
    attention_norm: LayerNorm,
    intermediate: Matrix,
    output: Matrix,
    output_norm: LayerNorm,
}

/// Weights (a row an output) and bias of a linear layer.
pub(crate) struct Matrix {
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) inputs: usize,
}

/// How the inputs that come out of a layer normalisation are smoothed where they become integers. What
/// attention and GELU put out has no such outliers, and smoothing it made results worse.
pub(crate) struct LayerSmoothing {
    pub(crate) qkv: Smoothing,
    pub(crate) intermediate: Smoothing,
}

impl LayerSmoothing {
    pub(crate) fn none(shape: Shape) -> LayerSmoothing {
        LayerSmoothing { qkv: Smoothing::none(shape.width), intermediate: Smoothing::none(shape.width) }
    }
}

/// A layer in one arithmetic.
pub(crate) struct Layer {
    compute: ComputeType,
    shape: Shape,
    /// Query, key and value, one after the other.
    qkv: Projection,
    attention_output: Projection,
    attention_norm: LayerNorm,
    intermediate: Projection,
    output: Projection,
    output_norm: LayerNorm,
}

#[derive(Clone)]
pub(crate) struct LayerNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

/// Memory of a forward pass, kept between passes so that it is allocated once a call.
#[derive(Default)]
pub(crate) struct Scratch {
    delta: Vec<f32>,
    qkv: Vec<f32>,
    context: Vec<f32>,
    intermediate: Vec<f32>,
    projection: ProjectionScratch,
}

impl Matrices {
    /// Query, key and value, one after the other.
    pub(crate) fn qkv(&self) -> &Matrix {
        &self.qkv
    }

    /// The first of the feed-forward part.
    pub(crate) fn intermediate(&self) -> &Matrix {
        &self.intermediate
    }

    pub(crate) fn load(weights: &Weights<'_>, name: &str, shape: Shape) -> Result<Matrices, LoadError> {
        let Shape { width, intermediate, .. } = shape;
        let norm = |part| LayerNorm::load(weights, &format!("{name}.{part}"), width);
        let matrix = |part: &str, inputs, outputs| {
            let weights_of = weights.tensor(&format!("{name}.{part}.weight"), &[outputs, inputs])?;
            let bias = weights.tensor(&format!("{name}.{part}.bias"), &[outputs])?;
            Ok(Matrix { weights: weights_of, bias, inputs })
        };
        let mut qkv: Matrix = matrix("attention.self.query", width, width)?;
        for part in ["attention.self.key", "attention.self.value"] {
            let more = matrix(part, width, width)?;
            qkv.weights.extend(more.weights);
            qkv.bias.extend(more.bias);
        }
        Ok(Matrices {
            qkv,
            attention_output: matrix("attention.output.dense", width, width)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: matrix("intermediate.dense", width, intermediate)?,
            output: matrix("output.dense", intermediate, width)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }
}

impl Layer {
    /// Packs the layer for one arithmetic.
    pub(crate) fn pack(
        cpu: Cpu,
        compute: ComputeType,
        shape: Shape,
        matrices: &Matrices,
        smoothing: &LayerSmoothing,
    ) -> Layer {
        let pack = |matrix: &Matrix, smoothing: &Smoothing| Projection::pack(cpu, compute, matrix, smoothing);
        Layer {
            compute,
            shape,
            qkv: pack(&matrices.qkv, &smoothing.qkv),
            attention_output: pack(&matrices.attention_output, &Smoothing::none(shape.width)),
            attention_norm: matrices.attention_norm.clone(),
            intermediate: pack(&matrices.intermediate, &smoothing.intermediate),
            output: pack(&matrices.output, &Smoothing::none(shape.intermediate)),
            output_norm: matrices.output_norm.clone(),
        }
    }

    /// Replaces the vectors of `lengths.sum()` tokens, text after text, by the layer's.
    pub(crate) fn apply(&self, cpu: Cpu, hidden: &mut [f32], lengths: &[usize], scratch: &mut Scratch) {
        self.attend(cpu, hidden, lengths, scratch);
        self.feed_forward(cpu, hidden, scratch);
    }

    /// The first part: attention, with its residual connection and normalisation.
    pub(crate) fn attend(&self, cpu: Cpu, hidden: &mut [f32], lengths: &[usize], scratch: &mut Scratch) {
        let Shape { width, layer_norm_eps: eps, heads, .. } = self.shape;
        let tokens = hidden.len() / width;
        let Scratch { delta, qkv, context, projection, .. } = scratch;
        let delta = resized(delta, tokens * width);
        let qkv = resized(qkv, tokens * 3 * width);
        let context = resized(context, tokens * width);

        self.qkv.apply(cpu, hidden, Activation::Identity, qkv, projection);
        let mut first = 0;
        for length in lengths {
            let text = first..first + length;
            attention(
                self.compute,
                cpu,
                &qkv[text.start * 3 * width..text.end * 3 * width],
                width,
                heads,
                &mut context[text.start * width..text.end * width],
                projection,
            );
            first = text.end;
        }
        self.attention_output.apply(cpu, context, Activation::Identity, delta, projection);
        self.attention_norm.apply(cpu, hidden, delta, eps);
    }

    /// The second part: two linear layers with GELU between, residual connection and normalisation.
    pub(crate) fn feed_forward(&self, cpu: Cpu, hidden: &mut [f32], scratch: &mut Scratch) {
        let Shape { width, intermediate: inner, layer_norm_eps: eps, .. } = self.shape;
        let tokens = hidden.len() / width;
        let Scratch { delta, intermediate, projection, .. } = scratch;
        let delta = resized(delta, tokens * width);
        let intermediate = resized(intermediate, tokens.min(FEED_FORWARD_TOKENS) * inner);
        let blocks = hidden.chunks_mut(FEED_FORWARD_TOKENS * width);
        for (hidden, delta) in blocks.zip(delta.chunks_mut(FEED_FORWARD_TOKENS * width)) {
            let intermediate = &mut intermediate[..hidden.len() / width * inner];
            self.intermediate.apply(cpu, hidden, Activation::Identity, intermediate, projection);
            self.output.apply(cpu, intermediate, Activation::Gelu, delta, projection);
            self.output_norm.apply(cpu, hidden, delta, eps);
        }
    }
}

impl LayerNorm {
    pub(crate) fn load(weights: &Weights<'_>, name: &str, width: usize) -> Result<LayerNorm, LoadError> {
        Ok(LayerNorm {
            gamma: weights.tensor(&format!("{name}.weight"), &[width])?,
            beta: weights.tensor(&format!("{name}.bias"), &[width])?,
        })
    }

    pub(crate) fn apply(&self, cpu: Cpu, hidden: &mut [f32], delta: &[f32], eps: f32) {
        add_layer_norm(cpu, hidden, delta, &self.gamma, &self.beta, eps);
    }
}

pub(crate) fn resized(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    values.resize(len, 0.0);
    values
}
