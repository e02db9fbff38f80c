//! Plain Rust: the fallback of every kernel and the reference for its vector versions.

use super::tile::{PairTile, Pairs};
use crate::simd::dense::{Activation, Columns, polynomial_gelu};

/// The nearest bfloat16, ties to even; zero for a subnormal value.
fn nearest(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        bits >> 16 | 0x40
    } else if value.abs() < f32::MIN_POSITIVE {
        bits >> 16 & 0x8000
    } else {
        (bits + 0x7fff + (bits >> 16 & 1)) >> 16
    }
}

/// Rounds one row.
pub(super) fn round(row: &[f32], activation: Activation, pairs: &mut [u32]) {
    let activated = |value| if activation == Activation::Gelu { polynomial_gelu(value) } else { value };
    for (pair, values) in pairs.iter_mut().zip(row.chunks(2)) {
        let after = values.get(1).map_or(0, |&after| nearest(activated(after)));
        *pair = nearest(activated(values[0])) | after << 16;
    }
}

/// The first and the second value of a pair.
fn values(pair: u32) -> (f32, f32) {
    (f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000))
}

pub(super) fn multiply(tile: &PairTile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    for row in 0..tile.rows {
        let inputs = tile.inputs[row * tile.row_stride..].iter().step_by(tile.depth_stride);
        let mut sums = tile.bias.0;
        for (&input, weights) in inputs.zip(tile.panel) {
            let (first, second) = values(input);
            for (sum, &weights) in sums.iter_mut().zip(&weights.0) {
                let (of_first, of_second) = values(weights);
                // The order in which `vdpbf16ps` adds. Products of two bfloat16 values are exact, so that fused
                // multiplication would make no difference.
                *sum += second * of_second;
                *sum += first * of_first;
            }
        }
        out[row * out_stride..][..columns].copy_from_slice(&sums[..columns]);
    }
}

/// See [`super::pairing::pair_rows`].
pub(super) fn pair_rows(rows: &[Columns], columns: usize, paired: &mut [Pairs]) {
    for (rows, paired) in rows.chunks(2).zip(paired) {
        for (column, pair) in paired.0[..columns].iter_mut().enumerate() {
            let second = rows.get(1).map_or(0, |row| nearest(row.0[column]));
            *pair = nearest(rows[0].0[column]) | second << 16;
        }
    }
}

/// See [`super::pairing::interleave`].
pub(super) fn interleave(matrix: &[u32], rows: usize, stride: usize, width: usize, panel: &mut [Pairs]) {
    for (i, paired) in panel.iter_mut().enumerate() {
        *paired = Pairs::ZERO;
        for (p, columns) in paired.0[..width].as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let pair = |row: usize| if row < rows { matrix[row * stride + p] } else { 0 };
            let (first, second) = (pair(2 * i), pair(2 * i + 1));
            *columns = [first & 0xffff | second << 16, first >> 16 | second & 0xffff_0000];
        }
    }
}
