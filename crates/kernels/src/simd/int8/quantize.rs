//! Quantisation of input rows to bytes.

use std::ops::Range;

use crate::simd::dense::Activation;
use crate::simd::{Cpu, Level};

/// The maximum number of values that the vector code processes at once.
const LANES: usize = 16;

/// Neighbouring inputs that share a scale and a minimum: the larger the group, the more likely it contains a large
/// value, which makes the steps of all others large.
pub(super) const GROUP: usize = 384;

/// Rows as bytes: value `j` of row `i` is `scales[k] * values[i * stride + j] + minima[k]`, where `k` is
/// `i` plus the number of rows for each whole [`GROUP`] before `j`.
#[derive(Debug, Default)]
pub(super) struct QuantizedRows {
    values: Vec<u8>,
    stride: usize,
    scales: Vec<f32>,
    minima: Vec<f32>,
    /// A group after its activation and factors.
    adjusted: Vec<f32>,
}

/// The adjustment of each input before it is quantised.
#[derive(Debug)]
pub(super) struct Adjustment {
    /// Subtracted from the input.
    pub(super) shifts: Vec<f32>,
    /// Multiplied with the difference.
    pub(super) factors: Vec<f32>,
}

impl Adjustment {
    /// Pads with zeros to whole vectors, which is what the vector code reads.
    pub(super) fn new(shifts: &[f32], factors: &[f32]) -> Adjustment {
        let padded = |values: &[f32]| {
            let mut padded = values.to_vec();
            padded.resize(QuantizedRows::stride(values.len()), 0.0);
            padded
        };
        Adjustment { shifts: padded(shifts), factors: padded(factors) }
    }
}

/// The adjustment of a group of inputs; see [`Adjustment`].
#[derive(Clone, Copy)]
pub(super) struct GroupAdjustment<'a> {
    pub(super) shifts: &'a [f32],
    pub(super) factors: &'a [f32],
}

/// A group of some of the rows of [`QuantizedRows`].
#[derive(Clone, Copy)]
pub(super) struct RowGroup<'a> {
    /// The bytes, with rows `stride` apart; the bytes of the next group follow those of this one.
    pub(super) values: &'a [u8],
    pub(super) stride: usize,
    pub(super) scales: &'a [f32],
    pub(super) minima: &'a [f32],
}

impl QuantizedRows {
    /// Bytes from one row to the next.
    pub(super) fn stride(inputs: usize) -> usize {
        inputs.next_multiple_of(LANES)
    }

    pub(super) fn rows(&self, rows: Range<usize>, group: usize) -> RowGroup<'_> {
        let before = group * (self.values.len() / self.stride);
        let of_group = before + rows.start..before + rows.end;
        RowGroup {
            values: &self.values[rows.start * self.stride + group * GROUP..rows.end * self.stride],
            stride: self.stride,
            scales: &self.scales[of_group.clone()],
            minima: &self.minima[of_group],
        }
    }
}

/// The range of a group in terms of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ValueRange {
    /// The value of one step.
    pub(super) scale: f32,
    /// The value of byte 0.
    pub(super) min: f32,
}

/// The largest byte of an input.
const INPUT_MAX: f32 = 255.0;

impl ValueRange {
    pub(super) fn between(min: f32, max: f32) -> ValueRange {
        ValueRange { scale: (max - min) / INPUT_MAX, min }
    }

    /// Steps per unit; zero for a group of equal values.
    pub(super) fn inverse(self) -> f32 {
        if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 }
    }
}

/// Quantises each [`GROUP`] of each row of `x` after `activation` and `adjustment`, from its minimum to
/// its maximum, to the nearest byte, ties to even. The bytes are the same at every level.
pub(super) fn quantize(
    cpu: Cpu,
    x: &[f32],
    inputs: usize,
    adjustment: &Adjustment,
    activation: Activation,
    quantized: &mut QuantizedRows,
) {
    let rows = x.len() / inputs;
    let stride = QuantizedRows::stride(inputs);
    let groups = inputs.div_ceil(GROUP);
    let QuantizedRows { values, stride: row_stride, scales, minima, adjusted } = quantized;
    *row_stride = stride;
    values.resize(rows * stride, 0);
    scales.resize(groups * rows, 0.0);
    minima.resize(groups * rows, 0.0);
    adjusted.resize(stride.min(GROUP), 0.0);
    for (i, (row, bytes)) in x.chunks_exact(inputs).zip(values.chunks_exact_mut(stride)).enumerate() {
        let adjustments = adjustment.shifts.chunks(GROUP).zip(adjustment.factors.chunks(GROUP));
        let of_row = row.chunks(GROUP).zip(bytes.chunks_mut(GROUP)).zip(adjustments);
        for (group, ((row, bytes), (shifts, factors))) in of_row.enumerate() {
            let adjustment = GroupAdjustment { shifts, factors };
            let range = quantize_group(cpu, row, adjustment, activation, adjusted, bytes);
            scales[group * rows + i] = range.scale;
            minima[group * rows + i] = range.min;
        }
    }
}

/// Quantises one group of one row into `bytes`, with `adjusted` as buffer.
fn quantize_group(
    cpu: Cpu,
    row: &[f32],
    adjustment: GroupAdjustment<'_>,
    activation: Activation,
    adjusted: &mut [f32],
    bytes: &mut [u8],
) -> ValueRange {
    match cpu.level() {
        // SAFETY: a `Cpu` of this level is created only if detection found its instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { super::avx512::quantize(row, adjustment, activation, adjusted, bytes) },
        // SAFETY: a `Cpu` of this level is created only if detection found its instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { super::avx2::quantize(row, adjustment, activation, adjusted, bytes) },
        _ => super::scalar::quantize(row, adjustment, activation, adjusted, bytes),
    }
}
