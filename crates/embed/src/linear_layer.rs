//! Linear layers and attention for all compute types, with a common signature.

use kernels::simd::Cpu;
use kernels::simd::dense::Activation;
use kernels::simd::{bf16, dense, int8};

use crate::ComputeType;
use crate::layer::LinearWeights;
use crate::smoothing::Smoothing;

/// A linear layer packed for one compute type.
#[derive(Debug)]
pub(crate) enum LinearLayer {
    Int8(int8::Int8Linear),
    Bf16(bf16::Bf16Linear),
    F32(dense::DenseLinear),
}

/// Working memory of linear layers and attention.
#[derive(Debug, Default)]
pub(crate) struct LinearScratch {
    int8: int8::Int8LinearScratch,
    bf16: bf16::Bf16LinearScratch,
    bf16_attention: bf16::Bf16AttentionScratch,
    dense_attention: dense::DenseAttentionScratch,
}

impl LinearLayer {
    /// Computes `y = activation(x) Wᵀ + b` for each row. The content of `x` is unspecified afterwards.
    pub(crate) fn apply(
        &self,
        cpu: Cpu,
        x: &mut [f32],
        activation: Activation,
        y: &mut [f32],
        scratch: &mut LinearScratch,
    ) {
        match self {
            LinearLayer::Int8(linear) => linear.apply(cpu, x, activation, y, &mut scratch.int8),
            LinearLayer::Bf16(linear) => linear.apply(cpu, x, activation, y, &mut scratch.bf16),
            LinearLayer::F32(linear) => {
                if activation == Activation::Gelu {
                    dense::gelu(cpu, x);
                }
                linear.apply(cpu, x, y);
            }
        }
    }
}

impl LinearLayer {
    /// Packs a layer's weights for one compute type. Only int8 uses `smoothing`.
    pub(crate) fn pack(
        cpu: Cpu,
        compute: ComputeType,
        matrix: &LinearWeights,
        smoothing: &Smoothing,
    ) -> LinearLayer {
        let LinearWeights { weights, bias, inputs } = matrix;
        let inputs = *inputs;
        match compute {
            ComputeType::Int8 => {
                let Smoothing { shifts, factors } = smoothing;
                LinearLayer::Int8(int8::Int8Linear::pack(weights, bias, inputs, shifts, factors))
            }
            ComputeType::Bf16 => LinearLayer::Bf16(bf16::Bf16Linear::pack(cpu, weights, bias, inputs)),
            ComputeType::F32 => LinearLayer::F32(dense::DenseLinear::pack(cpu, weights, bias, inputs)),
        }
    }
}

/// Computes self-attention over one sequence of `out.len() / width` tokens. See [`dense::attention`].
pub(crate) fn attention(
    compute: ComputeType,
    cpu: Cpu,
    qkv: &[f32],
    width: usize,
    heads: usize,
    out: &mut [f32],
    scratch: &mut LinearScratch,
) {
    match compute {
        ComputeType::F32 => dense::attention(cpu, qkv, width, heads, out, &mut scratch.dense_attention),
        ComputeType::Bf16 | ComputeType::Int8 => {
            bf16::attention(cpu, qkv, width, heads, out, &mut scratch.bf16_attention);
        }
    }
}
