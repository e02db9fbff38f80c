//! Rows of single-precision values as pairs of bfloat16.

use crate::simd::dense::Activation;
use crate::simd::{Cpu, Level};

/// Rows of pairs: the first value in the lower half, the second in the upper half.
#[derive(Debug, Default)]
pub(super) struct Bf16Rows {
    pub(super) pairs: Vec<u32>,
}

impl Bf16Rows {
    /// Pairs per row; the last is padded with zero.
    pub(super) fn stride(inputs: usize) -> usize {
        inputs.div_ceil(2)
    }
}

/// Rounds each row of `x` after `activation` to the nearest bfloat16, ties to even.
/// Subnormal values become zero. The same at every level.
pub(super) fn round(cpu: Cpu, x: &[f32], inputs: usize, activation: Activation, rounded: &mut Bf16Rows) {
    let rows = x.len() / inputs;
    let stride = Bf16Rows::stride(inputs);
    rounded.pairs.resize(rows * stride, 0);
    for (row, pairs) in x.chunks_exact(inputs).zip(rounded.pairs.chunks_exact_mut(stride)) {
        match cpu.level() {
            // SAFETY: a `Cpu` with these is created only if detection found their instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if cpu.has_bf16() => unsafe { super::avx512::round(row, activation, pairs) },
            // SAFETY: as above; AVX-512 includes AVX2.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx2 => unsafe { super::avx2::round(row, activation, pairs) },
            _ => super::scalar::round(row, activation, pairs),
        }
    }
}
