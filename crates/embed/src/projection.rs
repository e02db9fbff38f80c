//! Linear layers and attention in each arithmetic, behind one signature.

use kernels::simd::Cpu;
use kernels::simd::dense::Activation;
use kernels::simd::{bf16, dense, int8};

use crate::ComputeType;
use crate::layer::Matrix;
use crate::smoothing::Smoothing;

/// A linear layer in one arithmetic.
#[derive(Debug)]
pub(crate) enum Projection {
    Int8(int8::Linear),
    Bf16(bf16::Linear),
    F32(dense::Linear),
}

/// Memory a forward pass works in beside its activations.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    int8: int8::LinearScratch,
    bf16: bf16::LinearScratch,
    bf16_attention: bf16::AttentionScratch,
    dense_attention: dense::AttentionScratch,
}

impl Projection {
    /// `y = activation(x) Wᵀ + b` for each row. What is left in `x` does not matter.
    pub(crate) fn apply(
        &self,
        cpu: Cpu,
        x: &mut [f32],
        activation: Activation,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) {
        match self {
            Projection::Int8(linear) => linear.apply(cpu, x, activation, y, &mut scratch.int8),
            Projection::Bf16(linear) => linear.apply(cpu, x, activation, y, &mut scratch.bf16),
            Projection::F32(linear) => {
                if activation == Activation::Gelu {
                    dense::gelu(cpu, x);
                }
                linear.apply(cpu, x, y);
            }
        }
    }
}

impl Projection {
    /// Packs a layer's weights for one arithmetic; only integers need `smoothing`.
    pub(crate) fn pack(cpu: Cpu, compute: ComputeType, matrix: &Matrix, smoothing: &Smoothing) -> Projection {
        let Matrix { weights, bias, inputs } = matrix;
        let inputs = *inputs;
        match compute {
            ComputeType::Int8 => {
                let Smoothing { shifts, factors } = smoothing;
                Projection::Int8(int8::Linear::pack(weights, bias, inputs, shifts, factors))
            }
            ComputeType::Bf16 => Projection::Bf16(bf16::Linear::pack(cpu, weights, bias, inputs)),
            ComputeType::F32 => Projection::F32(dense::Linear::pack(cpu, weights, bias, inputs)),
        }
    }
}

/// Self-attention over one sequence of `out.len() / width` tokens; see [`dense::attention`].
pub(crate) fn attention(
    compute: ComputeType,
    cpu: Cpu,
    qkv: &[f32],
    width: usize,
    heads: usize,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    match compute {
        ComputeType::F32 => dense::attention(cpu, qkv, width, heads, out, &mut scratch.dense_attention),
        ComputeType::Bf16 | ComputeType::Int8 => {
            bf16::attention(cpu, qkv, width, heads, out, &mut scratch.bf16_attention);
        }
    }
}
