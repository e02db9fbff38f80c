//! Plain Rust: the fallback of every kernel and the oracle of its vector versions.

use super::erfc::{ERFC, ERFC_P, GELU_TAIL_MAX};
use super::panel::WIDTH;
use super::tile::{Activation, Tile};

pub(super) fn multiply(tile: &Tile<'_>, out: &mut [f32], out_stride: usize) {
    for row in 0..tile.rows {
        let inputs = &tile.inputs[row * tile.input_stride..][..tile.panel.len()];
        let mut sums = tile.bias.0;
        for (&input, columns) in inputs.iter().zip(tile.panel) {
            for (sum, &weight) in sums.iter_mut().zip(&columns.0) {
                *sum += input * weight;
            }
        }
        if tile.activation == Activation::Gelu {
            sums = sums.map(gelu);
        }
        out[row * out_stride..][..WIDTH].copy_from_slice(&sums);
    }
}

/// `x Φ(x) = max(x, 0) - ½|x| erfc(|x| / √2)`; this form has no cancellation for negative `x`.
pub(super) fn gelu(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs().min(GELU_TAIL_MAX);
    let t = 1.0 / (1.0 + ERFC_P * std::f32::consts::FRAC_1_SQRT_2 * a);
    let polynomial = ERFC.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    x.max(0.0) - 0.5 * a * polynomial * (-0.5 * a * a).exp()
}

/// Softmax of `scale * row[..len]`; the rest of the row becomes zero.
pub(super) fn softmax(row: &mut [f32], len: usize, scale: f32) {
    let (scores, rest) = row.split_at_mut(len);
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        *score = ((*score - max) * scale).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
    rest.fill(0.0);
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
