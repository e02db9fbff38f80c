//! Plain Rust: the fallback of every kernel and the reference for its vector versions.

use super::linear::round;
use super::quantize::{GroupAdjustment, ValueRange};
use super::tile::{ByteTile, INPUTS};
use crate::simd::dense::{Activation, WIDTH, polynomial_gelu};

/// Quantises one group of a row into `bytes`, with a `buffer` of at least the same length.
pub(super) fn quantize(
    row: &[f32],
    adjustment: GroupAdjustment<'_>,
    activation: Activation,
    buffer: &mut [f32],
    bytes: &mut [u8],
) -> ValueRange {
    let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
    let adjustments = adjustment.shifts.iter().zip(adjustment.factors);
    for ((adjusted, &value), (shift, factor)) in buffer.iter_mut().zip(row).zip(adjustments) {
        let value = if activation == Activation::Gelu { polynomial_gelu(value) } else { value };
        let value = (value - shift) * factor;
        min = min.min(value);
        max = max.max(value);
        *adjusted = value;
    }
    let range = ValueRange::between(min, max);
    let inverse = range.inverse();
    for (byte, value) in bytes.iter_mut().zip(&buffer[..row.len()]) {
        *byte = round((value - min) * inverse) as u8;
    }
    range
}

pub(super) fn multiply(tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
    for row in 0..tile.rows() {
        let mut sums = [0; WIDTH];
        let inputs = tile.rows.values[row * tile.rows.stride..].as_chunks::<INPUTS>().0;
        for (inputs, panel) in inputs.iter().zip(tile.panel) {
            for (sum, weights) in sums.iter_mut().zip(&panel.0) {
                for (&input, &weight) in inputs.iter().zip(weights) {
                    *sum += i32::from(input) * i32::from(weight);
                }
            }
        }
        let (scale, min) = (tile.rows.scales[row], tile.rows.minima[row]);
        let out = &mut out[row * out_stride..][..WIDTH];
        for (column, (y, sum)) in out.iter_mut().zip(sums).enumerate() {
            let before = if tile.is_first_group { tile.columns.bias[column] } else { *y };
            let constant = min.mul_add(tile.columns.sum[column], before);
            *y = (sum as f32).mul_add(scale * tile.columns.scale[column], constant);
        }
    }
}
