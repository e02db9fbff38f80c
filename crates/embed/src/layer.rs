//! One layer of the encoder.

use kernels::simd::Cpu;
use kernels::simd::dense::{Activation, add_layer_norm};

use crate::linear_layer::{LinearLayer, LinearScratch, attention};
use crate::settings::ModelShape;
use crate::smoothing::Smoothing;
use crate::weights::Weights;
use crate::{ComputeType, LoadError};

/// Number of tokens per block in the feed-forward part. Its inner activations, four times as wide as the
/// others, then fit into the second-level cache.
const FEED_FORWARD_TOKENS: usize = 96;

/// A layer's weights, unpacked.
pub(crate) struct LayerWeights {
    qkv: LinearWeights,
    attention_output: LinearWeights,
    attention_norm: LayerNorm,
    intermediate: LinearWeights,
    output: LinearWeights,
    output_norm: LayerNorm,
}

/// Weights (one row per output) and bias of a linear layer, unpacked.
pub(crate) struct LinearWeights {
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) inputs: usize,
}

/// Smoothing of the int8 layers that follow a layer normalization. The outputs of attention and GELU have
/// no such outliers, and smoothing them reduced quality.
pub(crate) struct LayerSmoothing {
    pub(crate) qkv: Smoothing,
    pub(crate) intermediate: Smoothing,
}

impl LayerSmoothing {
    pub(crate) fn identity(shape: ModelShape) -> LayerSmoothing {
        LayerSmoothing {
            qkv: Smoothing::identity(shape.width),
            intermediate: Smoothing::identity(shape.width),
        }
    }
}

/// A layer packed for one compute type.
pub(crate) struct Layer {
    compute: ComputeType,
    shape: ModelShape,
    /// Query, key and value, concatenated.
    qkv: LinearLayer,
    attention_output: LinearLayer,
    attention_norm: LayerNorm,
    intermediate: LinearLayer,
    output: LinearLayer,
    output_norm: LayerNorm,
}

#[derive(Clone)]
pub(crate) struct LayerNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

/// Working memory of a layer, reused so that it is allocated once per call.
#[derive(Default)]
pub(crate) struct LayerScratch {
    delta: Vec<f32>,
    qkv: Vec<f32>,
    context: Vec<f32>,
    intermediate: Vec<f32>,
    projection: LinearScratch,
}

impl LayerWeights {
    /// Query, key and value, concatenated.
    pub(crate) fn qkv(&self) -> &LinearWeights {
        &self.qkv
    }

    /// The first linear layer of the feed-forward part.
    pub(crate) fn intermediate(&self) -> &LinearWeights {
        &self.intermediate
    }

    pub(crate) fn load(
        weights: &Weights<'_>,
        name: &str,
        shape: ModelShape,
    ) -> Result<LayerWeights, LoadError> {
        let ModelShape { width, intermediate, .. } = shape;
        let norm = |part| LayerNorm::load(weights, &format!("{name}.{part}"), width);
        let matrix = |part: &str, inputs, outputs| {
            let weights_of = weights.tensor(&format!("{name}.{part}.weight"), &[outputs, inputs])?;
            let bias = weights.tensor(&format!("{name}.{part}.bias"), &[outputs])?;
            Ok(LinearWeights { weights: weights_of, bias, inputs })
        };
        let mut qkv: LinearWeights = matrix("attention.self.query", width, width)?;
        for part in ["attention.self.key", "attention.self.value"] {
            let part_matrix = matrix(part, width, width)?;
            qkv.weights.extend(part_matrix.weights);
            qkv.bias.extend(part_matrix.bias);
        }
        Ok(LayerWeights {
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
    /// Packs the layer for one compute type.
    pub(crate) fn pack(
        cpu: Cpu,
        compute: ComputeType,
        shape: ModelShape,
        layer_weights: &LayerWeights,
        smoothing: &LayerSmoothing,
    ) -> Layer {
        let pack = |matrix: &LinearWeights, smoothing: &Smoothing| {
            LinearLayer::pack(cpu, compute, matrix, smoothing)
        };
        Layer {
            compute,
            shape,
            qkv: pack(&layer_weights.qkv, &smoothing.qkv),
            attention_output: pack(&layer_weights.attention_output, &Smoothing::identity(shape.width)),
            attention_norm: layer_weights.attention_norm.clone(),
            intermediate: pack(&layer_weights.intermediate, &smoothing.intermediate),
            output: pack(&layer_weights.output, &Smoothing::identity(shape.intermediate)),
            output_norm: layer_weights.output_norm.clone(),
        }
    }

    /// Replaces the vectors in `hidden` with the layer's output. The texts, whose token counts are in `lengths`,
    /// are stored consecutively.
    pub(crate) fn apply(&self, cpu: Cpu, hidden: &mut [f32], lengths: &[usize], scratch: &mut LayerScratch) {
        self.attend(cpu, hidden, lengths, scratch);
        self.feed_forward(cpu, hidden, scratch);
    }

    /// The first part: attention, residual connection and normalization.
    pub(crate) fn attend(&self, cpu: Cpu, hidden: &mut [f32], lengths: &[usize], scratch: &mut LayerScratch) {
        let ModelShape { width, layer_norm_eps: eps, heads, .. } = self.shape;
        let tokens = hidden.len() / width;
        let LayerScratch { delta, qkv, context, projection, .. } = scratch;
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

    /// The second part: two linear layers with GELU in between, residual connection and normalization.
    pub(crate) fn feed_forward(&self, cpu: Cpu, hidden: &mut [f32], scratch: &mut LayerScratch) {
        let ModelShape { width, intermediate: inner, layer_norm_eps: eps, .. } = self.shape;
        let tokens = hidden.len() / width;
        let LayerScratch { delta, intermediate, projection, .. } = scratch;
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
