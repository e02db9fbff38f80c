//! The kernels in AVX-512 with its instructions for bfloat16.

use std::arch::x86_64::*;

use super::tile::{PairTile, Pairs};
use crate::simd::dense::avx512::{LANES, load, load_tail, polynomial_gelu, store, tail_mask};
use crate::simd::dense::{Activation, Columns, WIDTH};

/// The lanes as an integer vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bits(values: __m512bh) -> __m512i {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(values) }
}

/// An integer vector as pairs of bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(bits) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_pairs(lanes: &[u32; LANES]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_pairs(lanes: &mut [u32; LANES], values: __m512i) {
    // SAFETY: the reference covers the 64 bytes written; the store needs no alignment.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), values) }
}

/// See [`super::scalar::round`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round(row: &[f32], activation: Activation, pairs: &mut [u32]) {
    match activation {
        Activation::Identity => round_after::<false>(row, pairs),
        Activation::Gelu => round_after::<true>(row, pairs),
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn round_after<const GELU: bool>(row: &[f32], pairs: &mut [u32]) {
    let (whole, tail) = row.as_chunks::<{ 2 * LANES }>();
    let (pairs, pairs_tail) = pairs.split_at_mut(whole.len() * LANES);
    for (values, pairs) in whole.iter().zip(pairs.as_chunks_mut().0) {
        let halves = values.as_chunks().0;
        store_pairs(pairs, round_pairs::<GELU>(load(&halves[0]), load(&halves[1])));
    }
    if !tail.is_empty() {
        let zero = _mm512_setzero_ps();
        let (first, rest) = tail.as_chunks::<LANES>();
        let rounded = match first {
            [first] => round_pairs::<GELU>(load(first), load_tail(rest, zero)),
            _ => round_pairs::<GELU>(load_tail(rest, zero), zero),
        };
        // SAFETY: as many lanes are written as the slice has, at most sixteen.
        unsafe {
            let mask = tail_mask(pairs_tail.len());
            _mm512_mask_storeu_epi32(pairs_tail.as_mut_ptr().cast(), mask, rounded);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round_pairs<const GELU: bool>(low: __m512, high: __m512) -> __m512i {
    let [low, high] = if GELU { [polynomial_gelu(low), polynomial_gelu(high)] } else { [low, high] };
    bits(_mm512_cvtne2ps_pbh(high, low))
}

#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn multiply(tile: &PairTile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    match columns {
        WIDTH => multiply_vectors::<2>(tile, out, out_stride),
        LANES => multiply_vectors::<1>(tile, out, out_stride),
        columns => unreachable!("a tile has 16 or 32 columns, not {columns}"),
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_vectors<const VECTORS: usize>(tile: &PairTile<'_>, out: &mut [f32], out_stride: usize) {
    match tile.rows {
        1 => multiply_rows::<1, VECTORS>(tile, out, out_stride),
        2 => multiply_rows::<2, VECTORS>(tile, out, out_stride),
        3 => multiply_rows::<3, VECTORS>(tile, out, out_stride),
        4 => multiply_rows::<4, VECTORS>(tile, out, out_stride),
        5 => multiply_rows::<5, VECTORS>(tile, out, out_stride),
        6 => multiply_rows::<6, VECTORS>(tile, out, out_stride),
        7 => multiply_rows::<7, VECTORS>(tile, out, out_stride),
        8 => multiply_rows::<8, VECTORS>(tile, out, out_stride),
        9 => multiply_rows::<9, VECTORS>(tile, out, out_stride),
        10 => multiply_rows::<10, VECTORS>(tile, out, out_stride),
        11 => multiply_rows::<11, VECTORS>(tile, out, out_stride),
        12 => multiply_rows::<12, VECTORS>(tile, out, out_stride),
        rows => unreachable!("a tile has 1 to 12 rows, not {rows}"),
    }
}

/// Number of panel steps by which cache lines are prefetched ahead; the next panel follows in memory.
const STEPS_AHEAD: usize = 16;

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_rows<const ROWS: usize, const VECTORS: usize>(
    tile: &PairTile<'_>,
    out: &mut [f32],
    out_stride: usize,
) {
    tile.assert_within_bounds(ROWS);
    let bias = tile.bias.0.as_chunks().0;
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for sums in &mut sums {
        for (sum, bias) in sums.iter_mut().zip(bias) {
            *sum = load(bias);
        }
    }
    for (k, lanes) in tile.panel.iter().enumerate() {
        let ahead: *const i8 = std::ptr::from_ref(lanes).wrapping_add(STEPS_AHEAD).cast();
        _mm_prefetch::<_MM_HINT_T0>(ahead);
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
        let mut weights = [_mm512_setzero_si512(); VECTORS];
        for (weights, lanes) in weights.iter_mut().zip(lanes.0.as_chunks().0) {
            *weights = load_pairs(lanes);
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `k` is below the panel's depth and `row` below `ROWS`, and
            // `assert_within_bounds` found all these rows inside `inputs`.
            let input = unsafe { *tile.inputs.get_unchecked(row * tile.row_stride + k * tile.depth_stride) };
            let input = pairs(_mm512_set1_epi32(input as i32));
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = _mm512_dpbf16_ps(*sum, input, pairs(weights));
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let lanes = out[row * out_stride..][..VECTORS * LANES].as_chunks_mut().0;
        for (lanes, &sum) in lanes.iter_mut().zip(sums) {
            store(lanes, sum);
        }
    }
}

/// The indices `0 16 1 17 ...`, which interleave the two halves of a vector of 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn zip_halves() -> __m512i {
    let mut indices = [0; LANES];
    for (i, pair) in indices.iter_mut().enumerate() {
        *pair = i as u32 | (i as u32 + 16) << 16;
    }
    load_pairs(&indices)
}

/// See [`super::pairing::pair_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pair_rows(rows: &[Columns], columns: usize, paired: &mut [Pairs]) {
    let order = zip_halves();
    for (rows, paired) in rows.chunks(2).zip(paired) {
        for lane in 0..columns / LANES {
            let first = load(&rows[0].0.as_chunks().0[lane]);
            let second = rows.get(1).map_or(_mm512_setzero_ps(), |row| load(&row.0.as_chunks().0[lane]));
            let zipped = _mm512_permutexvar_epi16(order, bits(_mm512_cvtne2ps_pbh(second, first)));
            store_pairs(&mut paired.0.as_chunks_mut().0[lane], zipped);
        }
    }
}

/// See [`super::pairing::interleave`]; of rows of 32 values.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn interleave(matrix: &[u32], rows: usize, stride: usize, panel: &mut [Pairs]) {
    let mut low = [0; LANES];
    let mut high = [0; LANES];
    for i in 0..LANES as u32 {
        low[i as usize] = i | (i + 32) << 16;
        high[i as usize] = (i + 16) | (i + 48) << 16;
    }
    let (low, high) = (load_pairs(&low), load_pairs(&high));
    for (i, panel) in panel[..rows.div_ceil(2)].iter_mut().enumerate() {
        let row = |row: usize| match matrix.get(row * stride..) {
            Some(values) if row < rows => load_pairs(values.first_chunk().expect("a row has 32 values")),
            _ => _mm512_setzero_si512(),
        };
        let (first, second) = (row(2 * i), row(2 * i + 1));
        let lanes = panel.0.as_chunks_mut().0;
        store_pairs(&mut lanes[0], _mm512_permutex2var_epi16(first, low, second));
        store_pairs(&mut lanes[1], _mm512_permutex2var_epi16(first, high, second));
    }
}
