//! Self-attention over one sequence.

use super::pairing::{interleave, pair_rows};
use super::round::{Bf16Rows, round};
use super::tile::{PairTile, Pairs, multiply, rows_max};
use crate::simd::Cpu;
use crate::simd::dense::{self, Activation, Columns, WIDTH, blocks, pack_rows_as_columns, softmax};

/// Working memory of [`attention`], kept by the caller so that it is allocated once for many sequences.
#[derive(Debug, Default)]
pub struct Bf16AttentionScratch {
    rounded: Bf16Rows,
    /// The queries of up to [`WIDTH`] tokens, one per column.
    queries: Vec<Pairs>,
    /// One panel per [`WIDTH`] values of a head.
    values: Vec<Pairs>,
    /// One row per key, one column per query.
    scores: Vec<Columns>,
    /// The same after the softmax, with two keys per row.
    weights: Vec<Pairs>,
    /// For heads of an odd depth.
    dense: dense::DenseAttentionScratch,
}

/// Scaled dot-product attention like [`dense::attention`], with queries, keys, values and
/// weights rounded to bfloat16; sums and the softmax are in single precision.
///
/// Heads of odd depth use [`dense::attention`], because pairs would span two heads.
pub fn attention(
    cpu: Cpu,
    qkv: &[f32],
    width: usize,
    heads: usize,
    out: &mut [f32],
    scratch: &mut Bf16AttentionScratch,
) {
    if !(heads > 0 && width.is_multiple_of(2 * heads)) {
        dense::attention(cpu, qkv, width, heads, out, &mut scratch.dense);
        return;
    }
    assert!(width > 0, "rows have values");
    let tokens = out.len() / width;
    assert_eq!(out.len(), tokens * width, "out must be whole rows");
    assert_eq!(qkv.len(), tokens * 3 * width, "qkv must have as many rows as out");
    if tokens == 0 {
        return;
    }
    let depth = width / heads;
    let (depth_pairs, token_pairs) = (depth / 2, tokens.div_ceil(2));
    let stride = Bf16Rows::stride(3 * width);
    let scale = 1.0 / (depth as f32).sqrt();
    let Bf16AttentionScratch { rounded, queries, values, scores, weights, dense: _ } = scratch;
    round(cpu, qkv, 3 * width, Activation::Identity, rounded);
    let pairs = &rounded.pairs[..];
    queries.resize(depth_pairs, Pairs::ZERO);
    values.resize(depth.div_ceil(WIDTH) * token_pairs, Pairs::ZERO);
    scores.resize(tokens, Columns::ZERO);
    weights.resize(token_pairs, Pairs::ZERO);
    for head in 0..heads {
        let query = head * depth_pairs;
        for (p, panel) in values.chunks_exact_mut(token_pairs).enumerate() {
            let first_value = p * WIDTH;
            let rows = &pairs[width + query + first_value / 2..];
            interleave(cpu, rows, tokens, stride, WIDTH.min(depth - first_value), panel);
        }
        for first in (0..tokens).step_by(WIDTH) {
            let query_count = WIDTH.min(tokens - first);
            let columns = if query_count <= WIDTH / 2 { WIDTH / 2 } else { WIDTH };
            pack_rows_as_columns(
                cpu,
                &pairs[first * stride + query..],
                query_count,
                stride,
                depth_pairs,
                queries,
            );
            for block in blocks(tokens, rows_max(cpu)) {
                let tile = PairTile {
                    inputs: &pairs[block.start * stride + width / 2 + query..],
                    row_stride: stride,
                    depth_stride: 1,
                    rows: block.len(),
                    panel: queries,
                    bias: &Columns::ZERO,
                };
                multiply(cpu, &tile, Columns::flat_mut(&mut scores[block]), WIDTH, columns);
            }
            softmax(cpu, scores, columns, scale);
            pair_rows(cpu, scores, columns, weights);
            for block in blocks(query_count, rows_max(cpu)) {
                for (p, panel) in values.chunks_exact(token_pairs).enumerate() {
                    let tile = PairTile {
                        inputs: &Pairs::flat(weights)[block.start..],
                        row_stride: 1,
                        depth_stride: WIDTH,
                        rows: block.len(),
                        panel,
                        bias: &Columns::ZERO,
                    };
                    let first_value = p * WIDTH;
                    let out = &mut out[(first + block.start) * width + head * depth + first_value..];
                    multiply(cpu, &tile, out, width, WIDTH.min(depth - first_value));
                }
            }
        }
    }
}
