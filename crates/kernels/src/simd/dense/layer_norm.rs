//! Residual connection and layer normalisation.

use super::dispatch;
use crate::simd::Cpu;

/// Sums over a row run in as many lanes, value `i` in lane `i % SUMS`; then the upper half of the lanes is
/// added to the lower half until one is left. The same order at every level, so the same bits.
pub(super) const SUMS: usize = 16;

/// Adds `delta` to `x` and normalises each row of `gamma.len()` values:
/// `x = gamma * (x + delta - mean) / sqrt(variance + eps) + beta`
/// (Ba, Kiros and Hinton 2016, section 3; the variance is the biased one).
/// Panics unless `x` and `delta` are equally many whole rows and `beta` is as long as `gamma`.
pub fn add_layer_norm(cpu: Cpu, x: &mut [f32], delta: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let width = gamma.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "x must be whole rows");
    assert_eq!(x.len(), delta.len(), "x and delta must have the same shape");
    assert_eq!(width, beta.len(), "gamma and beta must have the same length");
    for (row, delta) in x.chunks_exact_mut(width).zip(delta.chunks_exact(width)) {
        dispatch!(cpu, add_layer_norm(row, delta, gamma, beta, eps))
    }
}
