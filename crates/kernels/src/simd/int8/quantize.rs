//! Rows of an input as bytes.

use std::ops::Range;

use crate::simd::dense::Activation;
use crate::simd::{Cpu, Level};

/// Values the vector code takes at once, at most.
const LANES: usize = 16;

/// Rows as bytes: value `j` of row `i` is `scales[i] * values[i * stride + j] + least[i]`.
#[derive(Debug, Default)]
pub(super) struct Quantized {
    values: Vec<u8>,
    stride: usize,
    scales: Vec<f32>,
    least: Vec<f32>,
    /// A row after its activation and factors.
    row: Vec<f32>,
}

/// What each input goes through before it is quantised.
#[derive(Debug)]
pub(super) struct Adjustment {
    /// What is subtracted from it.
    pub(super) shifts: Vec<f32>,
    /// What it is multiplied by then.
    pub(super) factors: Vec<f32>,
}

impl Adjustment {
    /// Filled up with zeros, so that what the vector code reads in whole vectors ends on one.
    pub(super) fn new(shifts: &[f32], factors: &[f32]) -> Adjustment {
        let padded = |values: &[f32]| {
            let mut padded = values.to_vec();
            padded.resize(Quantized::stride(values.len()), 0.0);
            padded
        };
        Adjustment { shifts: padded(shifts), factors: padded(factors) }
    }
}

/// Some of the rows of [`Quantized`].
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Bytes, a row every `stride`.
    pub(super) values: &'a [u8],
    pub(super) stride: usize,
    pub(super) scales: &'a [f32],
    pub(super) least: &'a [f32],
}

impl Quantized {
    /// Bytes from one row to the next.
    pub(super) fn stride(inputs: usize) -> usize {
        inputs.next_multiple_of(LANES)
    }

    pub(super) fn rows(&self, rows: Range<usize>) -> Rows<'_> {
        Rows {
            values: &self.values[rows.start * self.stride..rows.end * self.stride],
            stride: self.stride,
            scales: &self.scales[rows.clone()],
            least: &self.least[rows],
        }
    }
}

/// A row's range as bytes have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// What a step of one byte is worth.
    pub(super) scale: f32,
    /// What byte 0 is worth.
    pub(super) least: f32,
}

/// The greatest byte of an input.
const INPUT_MAX: f32 = 255.0;

impl Span {
    pub(super) fn between(least: f32, greatest: f32) -> Span {
        Span { scale: (greatest - least) / INPUT_MAX, least }
    }

    /// Steps a unit; zero of a row whose values are all the same.
    pub(super) fn inverse(self) -> f32 {
        if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 }
    }
}

/// Quantises each row of `x` after `activation` and `adjustment`, from its least
/// value to its greatest, to the nearest byte, ties to the even one. The same bytes at every level
/// where the activation gives the same values.
pub(super) fn quantize(
    cpu: Cpu,
    x: &[f32],
    inputs: usize,
    adjustment: &Adjustment,
    activation: Activation,
    quantized: &mut Quantized,
) {
    let rows = x.len() / inputs;
    let stride = Quantized::stride(inputs);
    let Quantized { values, stride: row_stride, scales, least, row: buffer } = quantized;
    *row_stride = stride;
    values.resize(rows * stride, 0);
    scales.resize(rows, 0.0);
    least.resize(rows, 0.0);
    buffer.resize(stride, 0.0);
    for (i, (row, bytes)) in x.chunks_exact(inputs).zip(values.chunks_exact_mut(stride)).enumerate() {
        let span = match cpu.level() {
            // SAFETY: a `Cpu` of this level is made only where detection found its instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { super::avx512::quantize(row, adjustment, activation, buffer, bytes) },
            // SAFETY: a `Cpu` of this level is made only where detection found its instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { super::avx2::quantize(row, adjustment, activation, buffer, bytes) },
            _ => super::scalar::quantize(row, adjustment, activation, buffer, bytes),
        };
        scales[i] = span.scale;
        least[i] = span.least;
    }
}
