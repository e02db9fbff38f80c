//! Rows of an input as bytes.

use std::ops::Range;

use crate::simd::dense::Activation;
use crate::simd::{Cpu, Level};

/// Values the vector code takes at once, at most.
const LANES: usize = 16;

/// Neighbouring inputs that share a scale and a least value: the more inputs, the more likely a large one
/// among them, which makes the steps of all others large.
pub(super) const GROUP: usize = 384;

/// Rows as bytes: value `j` of row `i` is `scales[k] * values[i * stride + j] + least[k]`, where `k` is
/// `i` plus the number of rows for each whole [`GROUP`] before `j`.
#[derive(Debug, Default)]
pub(super) struct Quantized {
    values: Vec<u8>,
    stride: usize,
    scales: Vec<f32>,
    least: Vec<f32>,
    /// A group after its activation and factors.
    adjusted: Vec<f32>,
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

/// What a group of inputs goes through; see [`Adjustment`].
#[derive(Clone, Copy)]
pub(super) struct GroupAdjustment<'a> {
    pub(super) shifts: &'a [f32],
    pub(super) factors: &'a [f32],
}

/// A group of some of the rows of [`Quantized`].
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Bytes, a row every `stride`; beyond the group come those of the next one.
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

    pub(super) fn rows(&self, rows: Range<usize>, group: usize) -> Rows<'_> {
        let before = group * (self.values.len() / self.stride);
        let of_group = before + rows.start..before + rows.end;
        Rows {
            values: &self.values[rows.start * self.stride + group * GROUP..rows.end * self.stride],
            stride: self.stride,
            scales: &self.scales[of_group.clone()],
            least: &self.least[of_group],
        }
    }
}

/// A group's range as bytes have it.
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

    /// Steps a unit; zero of a group whose values are all the same.
    pub(super) fn inverse(self) -> f32 {
        if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 }
    }
}

/// Quantises each [`GROUP`] of each row of `x` after `activation` and `adjustment`, from its least value to
/// its greatest, to the nearest byte, ties to the even one. The same bytes at every level.
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
    let groups = inputs.div_ceil(GROUP);
    let Quantized { values, stride: row_stride, scales, least, adjusted } = quantized;
    *row_stride = stride;
    values.resize(rows * stride, 0);
    scales.resize(groups * rows, 0.0);
    least.resize(groups * rows, 0.0);
    adjusted.resize(stride.min(GROUP), 0.0);
    for (i, (row, bytes)) in x.chunks_exact(inputs).zip(values.chunks_exact_mut(stride)).enumerate() {
        let adjustments = adjustment.shifts.chunks(GROUP).zip(adjustment.factors.chunks(GROUP));
        let of_row = row.chunks(GROUP).zip(bytes.chunks_mut(GROUP)).zip(adjustments);
        for (group, ((row, bytes), (shifts, factors))) in of_row.enumerate() {
            let adjustment = GroupAdjustment { shifts, factors };
            let span = quantize_group(cpu, row, adjustment, activation, adjusted, bytes);
            scales[group * rows + i] = span.scale;
            least[group * rows + i] = span.least;
        }
    }
}

/// Quantises one group of one row into `bytes`; `adjusted` holds it in between.
fn quantize_group(
    cpu: Cpu,
    row: &[f32],
    adjustment: GroupAdjustment<'_>,
    activation: Activation,
    adjusted: &mut [f32],
    bytes: &mut [u8],
) -> Span {
    match cpu.level() {
        // SAFETY: a `Cpu` of this level is made only where detection found its instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { super::avx512::quantize(row, adjustment, activation, adjusted, bytes) },
        // SAFETY: a `Cpu` of this level is made only where detection found its instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { super::avx2::quantize(row, adjustment, activation, adjusted, bytes) },
        _ => super::scalar::quantize(row, adjustment, activation, adjusted, bytes),
    }
}
