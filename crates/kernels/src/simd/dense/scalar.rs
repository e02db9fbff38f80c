//! Plain Rust: the fallback of every kernel and the reference for its vector versions.

use super::activation::{POLYNOMIAL_GELU, POLYNOMIAL_GELU_MAX};
use super::erfc::{ERFC, ERFC_P, GELU_TAIL_MAX};
use super::exponential::{EXP, EXP_MIN, LN_2_HIGH, LN_2_LOW};
use super::layer_norm::SUMS;
use super::panel::Columns;
use super::tile::Tile;

pub(super) fn multiply(tile: &Tile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    for row in 0..tile.rows {
        let inputs = tile.inputs[row * tile.row_stride..].iter().step_by(tile.depth_stride);
        let mut sums = tile.bias.0;
        for (&input, columns) in inputs.zip(tile.panel) {
            for (sum, &weight) in sums.iter_mut().zip(&columns.0) {
                *sum += input * weight;
            }
        }
        out[row * out_stride..][..columns].copy_from_slice(&sums[..columns]);
    }
}

pub(super) fn gelu_all(x: &mut [f32]) {
    for value in x {
        *value = gelu(*value);
    }
}

/// `x Φ(x)` from [`POLYNOMIAL_GELU`].
pub(in crate::simd) fn polynomial_gelu(x: f32) -> f32 {
    let a = x.clamp(-POLYNOMIAL_GELU_MAX, POLYNOMIAL_GELU_MAX);
    let square = a * a;
    let polynomial = POLYNOMIAL_GELU.iter().rev().fold(0.0, |sum: f32, &c| sum.mul_add(square, c));
    x * a.mul_add(polynomial, 0.5)
}

/// `x Φ(x) = max(x, 0) - ½|x| erfc(|x| / √2)`; this form has no cancellation for negative `x`.
fn gelu(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs().min(GELU_TAIL_MAX);
    let t = 1.0 / (1.0 + ERFC_P * std::f32::consts::FRAC_1_SQRT_2 * a);
    let polynomial = ERFC.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    x.max(0.0) - 0.5 * a * polynomial * (-0.5 * a * a).exp()
}

/// `e^x` for `x <= 0`; see [`EXP`].
fn exp(x: f32) -> f32 {
    // Not `max`, which would lose NaN.
    let x = if EXP_MIN > x { EXP_MIN } else { x };
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = (-n).mul_add(LN_2_HIGH, x);
    let r = (-n).mul_add(LN_2_LOW, r);
    let sum = EXP.iter().rev().fold(0.0, |sum: f32, &c| sum.mul_add(r, c));
    sum * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// Softmax of `scale` times the values of each of the first `columns` columns of `rows`.
pub(super) fn softmax(rows: &mut [Columns], columns: usize, scale: f32) {
    for column in 0..columns {
        let max = rows.iter().fold(f32::NEG_INFINITY, |max, row| max.max(row.0[column]));
        let mut sum = 0.0;
        for row in &mut *rows {
            row.0[column] = exp((row.0[column] - max) * scale);
            sum += row.0[column];
        }
        let factor = 1.0 / sum;
        for row in &mut *rows {
            row.0[column] *= factor;
        }
    }
}

/// `row = gamma * normalised(row + delta) + beta`, of one row.
pub(super) fn add_layer_norm(row: &mut [f32], delta: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let width = row.len() as f32;
    for (value, delta) in row.iter_mut().zip(delta) {
        *value += delta;
    }
    let mean = sum_of(row, |sum, value| sum + value) / width;
    let variance = sum_of(row, |sum, value| (value - mean).mul_add(value - mean, sum)) / width;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((value, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
        *value = ((*value - mean) * scale).mul_add(*gamma, *beta);
    }
}

/// The sum over a row in the order of [`SUMS`]; `add` adds a value's part.
fn sum_of(row: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; SUMS];
    for values in row.chunks(SUMS) {
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum = add(*sum, value);
        }
    }
    let mut left = SUMS;
    while left > 1 {
        left /= 2;
        for i in 0..left {
            sums[i] += sums[i + left];
        }
    }
    sums[0]
}
