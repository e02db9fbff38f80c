//! Plain Rust: the fallback of every kernel and the oracle of its vector versions.

use super::activation::{QUICK_GELU, QUICK_GELU_MAX};
use super::erfc::{ERFC, ERFC_P, GELU_TAIL_MAX};
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

/// `x Φ(x)` from [`QUICK_GELU`].
pub(in crate::simd) fn quick_gelu(x: f32) -> f32 {
    let a = x.clamp(-QUICK_GELU_MAX, QUICK_GELU_MAX);
    let square = a * a;
    let polynomial = QUICK_GELU.iter().rev().fold(0.0, |sum, c| sum * square + c);
    x * (0.5 + a * polynomial)
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

/// Softmax of `scale` times the values of each of the first `columns` columns of `rows`.
pub(super) fn softmax(rows: &mut [Columns], columns: usize, scale: f32) {
    for column in 0..columns {
        let max = rows.iter().fold(f32::NEG_INFINITY, |max, row| max.max(row.0[column]));
        let mut sum = 0.0;
        for row in &mut *rows {
            row.0[column] = ((row.0[column] - max) * scale).exp();
            sum += row.0[column];
        }
        for row in &mut *rows {
            row.0[column] /= sum;
        }
    }
}

/// `row = gamma * normalised(row + delta) + beta`, of one row.
pub(super) fn add_layer_norm(row: &mut [f32], delta: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let width = row.len() as f32;
    for (value, delta) in row.iter_mut().zip(delta) {
        *value += delta;
    }
    let mean = row.iter().sum::<f32>() / width;
    let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / width;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((value, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
        *value = (*value - mean) * scale * gamma + beta;
    }
}
