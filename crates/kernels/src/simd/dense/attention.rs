//! Self-attention over one sequence.

use super::dispatch;
use super::panel::{Columns, WIDTH, pack_rows, pack_rows_as_columns};
use super::tile::{Tile, blocks, multiply, rows_max};
use crate::simd::Cpu;

/// Working memory of [`attention`], kept by the caller so that it is allocated once for many sequences.
#[derive(Debug, Default)]
pub struct DenseAttentionScratch {
    /// The queries of up to [`WIDTH`] tokens, one per column.
    queries: Vec<Columns>,
    /// One panel per [`WIDTH`] values of a head.
    values: Vec<Columns>,
    /// One row per key, one column per query.
    scores: Vec<Columns>,
}

/// Scaled dot-product attention of every token to every token, in `heads` heads
/// (Vaswani et al. 2017, section 3.2): `softmax(Q Kᵀ / √d) V` per head, `d = width / heads`.
///
/// `qkv` has a row of `3 * width` values per token: query, key and value, each with the heads in order;
/// `out` has a row of `width` values per token. Panics unless the lengths agree and `heads`
/// divides `width`.
pub fn attention(
    cpu: Cpu,
    qkv: &[f32],
    width: usize,
    heads: usize,
    out: &mut [f32],
    scratch: &mut DenseAttentionScratch,
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
    let DenseAttentionScratch { queries, values, scores } = scratch;
    queries.resize(depth, Columns::ZERO);
    values.resize(depth.div_ceil(WIDTH) * tokens, Columns::ZERO);
    scores.resize(tokens, Columns::ZERO);
    for head in 0..heads {
        let query = head * depth;
        pack_rows(&qkv[2 * width + query..], tokens, stride, depth, values);
        for first in (0..tokens).step_by(WIDTH) {
            let query_count = WIDTH.min(tokens - first);
            // The softmax processes whole vectors of queries; half the columns are enough for a short text.
            let columns = if query_count <= WIDTH / 2 { WIDTH / 2 } else { WIDTH };
            pack_rows_as_columns(cpu, &qkv[first * stride + query..], query_count, stride, depth, queries);
            for block in blocks(tokens, rows_max(cpu)) {
                let tile = Tile {
                    inputs: &qkv[block.start * stride + width + query..],
                    row_stride: stride,
                    depth_stride: 1,
                    rows: block.len(),
                    panel: queries,
                    bias: &Columns::ZERO,
                };
                multiply(cpu, &tile, Columns::flat_mut(&mut scores[block]), WIDTH, columns);
            }
            softmax(cpu, scores, columns, scale);
            for block in blocks(query_count, rows_max(cpu)) {
                for (p, panel) in values.chunks_exact(tokens).enumerate() {
                    let tile = Tile {
                        inputs: &Columns::flat(scores)[block.start..],
                        row_stride: 1,
                        depth_stride: WIDTH,
                        rows: block.len(),
                        panel,
                        bias: &Columns::ZERO,
                    };
                    let first_value = p * WIDTH;
                    let out = &mut out[(first + block.start) * width + query + first_value..];
                    multiply(cpu, &tile, out, width, WIDTH.min(depth - first_value));
                }
            }
        }
    }
}

/// Softmax of `scale` times the values of each of the first `columns` columns of `rows`, 16 or 32.
pub(in crate::simd) fn softmax(cpu: Cpu, rows: &mut [Columns], columns: usize, scale: f32) {
    dispatch!(cpu, softmax(rows, columns, scale))
}
