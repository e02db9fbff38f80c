//! The kernels in AVX2: values rounded to bfloat16, products in single precision.

use std::arch::x86_64::*;

use super::tile::{PairTile, Pairs};
use crate::simd::dense::avx2::{LANES, load, polynomial_gelu, store};
use crate::simd::dense::{Activation, Columns, WIDTH};

/// Eight values as bfloat16 in the lower halves of their lanes; see [`super::scalar`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn nearest(values: __m256) -> __m256i {
    let bits = _mm256_castps_si256(values);
    let upper = _mm256_srli_epi32::<16>(bits);
    let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
    let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    let rounded = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(rounded), quiet, nan);
    let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f80_0000));
    let subnormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    _mm256_blendv_epi8(rounded, _mm256_and_si256(upper, _mm256_set1_epi32(0x8000)), subnormal)
}

/// See [`super::scalar::round`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn round(row: &[f32], activation: Activation, pairs: &mut [u32]) {
    let (whole, tail) = row.as_chunks::<{ 2 * LANES }>();
    let (pairs, pairs_tail) = pairs.split_at_mut(whole.len() * LANES);
    for (values, pairs) in whole.iter().zip(pairs.as_chunks_mut().0) {
        *pairs = round_pairs(values, activation);
    }
    let mut last = [0.0; 2 * LANES];
    last[..tail.len()].copy_from_slice(tail);
    let last = round_pairs(&last, activation);
    pairs_tail.copy_from_slice(&last[..pairs_tail.len()]);
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn round_pairs(values: &[f32; 2 * LANES], activation: Activation) -> [u32; LANES] {
    let rounded = [0, 1].map(|half| {
        let values = load(&values.as_chunks().0[half]);
        nearest(if activation == Activation::Gelu { polynomial_gelu(values) } else { values })
    });
    // Quarters come out as 0 2 1 3.
    let packed = _mm256_packus_epi32(rounded[0], rounded[1]);
    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
    let mut pairs = [0; LANES];
    // SAFETY: the array covers the 32 bytes written; the store needs no alignment.
    unsafe { _mm256_storeu_si256(pairs.as_mut_ptr().cast(), packed) };
    pairs
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply(tile: &PairTile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    match tile.rows {
        1 => multiply_rows::<1>(tile, out, out_stride, columns),
        2 => multiply_rows::<2>(tile, out, out_stride, columns),
        3 => multiply_rows::<3>(tile, out, out_stride, columns),
        4 => multiply_rows::<4>(tile, out, out_stride, columns),
        rows => unreachable!("a tile has 1 to 4 rows, not {rows}"),
    }
}

/// The first and the second values of pairs.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn values(pairs: __m256i) -> [__m256; 2] {
    let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
    [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second)]
}

/// Sixteen registers hold four rows of half a panel, so the kernel passes over the panel twice.
#[target_feature(enable = "avx2,fma")]
fn multiply_rows<const ROWS: usize>(tile: &PairTile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    tile.assert_within_bounds(ROWS);
    for half in 0..columns * 2 / WIDTH {
        let bias = tile.bias.0.as_chunks().0;
        let mut sums = [[load(&bias[2 * half]), load(&bias[2 * half + 1])]; ROWS];
        for (k, weights) in tile.panel.iter().enumerate() {
            let weights: *const __m256i = std::ptr::from_ref(weights).cast();
            // SAFETY: a panel's row is four such vectors, aligned.
            let (low, high) = unsafe {
                (_mm256_load_si256(weights.add(2 * half)), _mm256_load_si256(weights.add(2 * half + 1)))
            };
            let (low, high) = (values(low), values(high));
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `k` is below the panel's depth and `row` below `ROWS`, and
                // `assert_within_bounds` found all these rows inside `inputs`.
                let input =
                    unsafe { *tile.inputs.get_unchecked(row * tile.row_stride + k * tile.depth_stride) };
                let input = values(_mm256_set1_epi32(input as i32));
                // The second of a pair first: the order in which `vdpbf16ps` adds.
                for i in [1, 0] {
                    sums[0] = _mm256_fmadd_ps(input[i], low[i], sums[0]);
                    sums[1] = _mm256_fmadd_ps(input[i], high[i], sums[1]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let lanes = out[row * out_stride..][..columns].as_chunks_mut().0;
            store(&mut lanes[2 * half], sums[0]);
            store(&mut lanes[2 * half + 1], sums[1]);
        }
    }
}

/// See [`super::pairing::pair_rows`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn pair_rows(rows: &[Columns], columns: usize, paired: &mut [Pairs]) {
    for (rows, paired) in rows.chunks(2).zip(paired) {
        for lane in 0..columns / LANES {
            let row = |row: &Columns| nearest(load(&row.0.as_chunks().0[lane]));
            let second = rows.get(1).map_or(_mm256_setzero_si256(), row);
            let pairs = _mm256_or_si256(row(&rows[0]), _mm256_slli_epi32::<16>(second));
            // SAFETY: the eight lanes are within the row's 32; the store needs no alignment.
            unsafe { _mm256_storeu_si256(paired.0[lane * LANES..].as_mut_ptr().cast(), pairs) };
        }
    }
}
