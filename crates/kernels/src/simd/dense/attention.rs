//! Self-attention over one sequence.

use super::dispatch;
use super::panel::{Columns, WIDTH, pack_rows, pack_rows_as_columns};
use super::tile::{Activation, Tile, blocks, multiply, rows_max};
use crate::simd::Cpu;

/// Memory [`attention`] works in; kept by the caller so that it is allocated once for many sequences.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    keys: Vec<Columns>,
    values: Vec<Columns>,
    scores: Vec<f32>,
}

/// Scaled dot-product attention of every token to every token, in `heads` heads
/// (Vaswani et al. 2017, section 3.2): `softmax(Q Kᵀ / √d) V` a head, `d = width / heads`.
///
/// `qkv` has a row of `3 * width` values a token: query, key, value, each head after head;
/// `out` has a row of `width` values a token. Panics unless the lengths agree and `heads`
/// divides `width`.
pub fn attention(
    cpu: Cpu,
    qkv: &[f32],
    width: usize,
    heads: usize,
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    assert!(heads > 0 && width > 0 && width.is_multiple_of(heads), "heads must divide the width");
    let tokens = out.len() / width;
    assert_eq!(out.len(), tokens * width, "out must be whole rows");
    assert_eq!(qkv.len(), tokens * 3 * width, "qkv must have as many rows as out");
    if tokens == 0 {
        return;
    }
    let stride = 3 * width;
    let depth = width / heads;
    let scale = 1.0 / (depth as f32).sqrt();
    let score_stride = tokens.next_multiple_of(WIDTH);
    scratch.keys.resize(score_stride / WIDTH * depth, Columns::ZERO);
    scratch.values.resize(depth.div_ceil(WIDTH) * tokens, Columns::ZERO);
    scratch.scores.resize(rows_max(cpu) * score_stride, 0.0);
    let AttentionScratch { keys, values, scores } = scratch;
    for head in 0..heads {
        let query = head * depth;
        pack_rows_as_columns(&qkv[width + query..], tokens, stride, depth, keys);
        pack_rows(&qkv[2 * width + query..], tokens, stride, depth, values);
        for block in blocks(tokens, rows_max(cpu)) {
            let scores = &mut scores[..block.len() * score_stride];
            for (p, panel) in keys.chunks_exact(depth).enumerate() {
                let tile = Tile {
                    inputs: &qkv[block.start * stride + query..],
                    input_stride: stride,
                    rows: block.len(),
                    panel,
                    bias: &Columns::ZERO,
                    activation: Activation::Identity,
                };
                multiply(cpu, &tile, &mut scores[p * WIDTH..], score_stride, WIDTH);
            }
            softmax(cpu, scores, score_stride, tokens, scale);
            for (p, panel) in values.chunks_exact(tokens).enumerate() {
                let first = p * WIDTH;
                let tile = Tile {
                    inputs: scores,
                    input_stride: score_stride,
                    rows: block.len(),
                    panel,
                    bias: &Columns::ZERO,
                    activation: Activation::Identity,
                };
                let out = &mut out[block.start * width + query + first..];
                multiply(cpu, &tile, out, width, WIDTH.min(depth - first));
            }
        }
    }
}

/// Softmax of `scale` times the first `len` values of each row; the rest of a row becomes zero.
pub(super) fn softmax(cpu: Cpu, rows: &mut [f32], stride: usize, len: usize, scale: f32) {
    for row in rows.chunks_exact_mut(stride) {
        dispatch!(cpu, softmax(row, len, scale))
    }
}
