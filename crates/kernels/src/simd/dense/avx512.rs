//! The kernels in AVX-512: sixteen single-precision lanes.

use std::arch::x86_64::*;

use super::activation::{POLYNOMIAL_GELU, POLYNOMIAL_GELU_MAX};
use super::avx2;
use super::erfc::{ERFC, ERFC_P, GELU_TAIL_MAX};
use super::exponential::{EXP, EXP_MIN, LN_2_HIGH, LN_2_LOW};
use super::layer_norm::SUMS;
use super::panel::{Columns, Lane, Lanes, WIDTH};
use super::tile::Tile;

pub(in crate::simd) const LANES: usize = 16;

#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::simd) fn load(lanes: &[f32; LANES]) -> __m512 {
    // SAFETY: the reference covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::simd) fn store(lanes: &mut [f32; LANES], values: __m512) {
    // SAFETY: the reference covers the 64 bytes written; the store needs no alignment.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), values) }
}

/// The first `len` lanes: those that hold what is left over after whole vectors.
#[inline]
pub(in crate::simd) fn tail_mask(len: usize) -> __mmask16 {
    ((1u32 << len) - 1) as __mmask16
}

/// Loads fewer than sixteen values; the other lanes are `fill`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::simd) fn load_tail(values: &[f32], fill: __m512) -> __m512 {
    assert!(values.len() < LANES, "a tail is shorter than a vector");
    // SAFETY: masked-off lanes are not read, and the slice covers the others.
    unsafe { _mm512_mask_loadu_ps(fill, tail_mask(values.len()), values.as_ptr()) }
}

/// Stores the first `values.len()` lanes, fewer than sixteen.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_tail(values: &mut [f32], lanes: __m512) {
    assert!(values.len() < LANES, "a tail is shorter than a vector");
    // SAFETY: masked-off lanes are not written, and the slice covers the others.
    unsafe { _mm512_mask_storeu_ps(values.as_mut_ptr(), tail_mask(values.len()), lanes) }
}

#[target_feature(enable = "avx512f")]
pub(super) fn multiply(tile: &Tile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    match columns {
        WIDTH => multiply_vectors::<2>(tile, out, out_stride),
        LANES => multiply_vectors::<1>(tile, out, out_stride),
        columns => unreachable!("a tile has 16 or 32 columns, not {columns}"),
    }
}

#[target_feature(enable = "avx512f")]
fn multiply_vectors<const VECTORS: usize>(tile: &Tile<'_>, out: &mut [f32], out_stride: usize) {
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

#[target_feature(enable = "avx512f")]
fn multiply_rows<const ROWS: usize, const VECTORS: usize>(
    tile: &Tile<'_>,
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
    for (k, columns) in tile.panel.iter().enumerate() {
        let columns = columns.0.as_chunks().0;
        let mut weights = [_mm512_setzero_ps(); VECTORS];
        for (weights, columns) in weights.iter_mut().zip(columns) {
            *weights = load(columns);
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `k` is below the panel's depth and `row` below `ROWS`, and
            // `assert_within_bounds` found all these rows inside `inputs`.
            let input = unsafe { *tile.inputs.get_unchecked(row * tile.row_stride + k * tile.depth_stride) };
            let input = _mm512_set1_ps(input);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = _mm512_fmadd_ps(input, weights, *sum);
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

/// Transposes `rows` (at most [`WIDTH`]) rows of `matrix`, `stride` apart, into the columns of `panel`, as
/// many whole blocks of 16 values of a row as its depth has. Returns how many values of a row that were.
#[target_feature(enable = "avx512f")]
pub(super) fn transpose<T: Lane>(matrix: &[T], rows: usize, stride: usize, panel: &mut [Lanes<T>]) -> usize {
    const { assert!(size_of::<T>() == 4, "a lane has 32 bits") };
    let depth = panel.len() / LANES * LANES;
    assert!(rows > 0 && rows <= WIDTH, "a panel has 1 to 32 columns");
    assert!(matrix.len() >= (rows - 1) * stride + depth, "all rows must be in the matrix");
    for first in (0..depth).step_by(LANES) {
        for half in 0..rows.div_ceil(LANES) {
            let mut lanes = [_mm512_setzero_si512(); LANES];
            for (row, lanes) in (half * LANES..rows).zip(&mut lanes) {
                // SAFETY: the sixteen lanes, of 32 bits each, end within row `row`, which is in the matrix.
                *lanes = unsafe { _mm512_loadu_si512(matrix.as_ptr().add(row * stride + first).cast()) };
            }
            let lanes = transpose_square(lanes);
            for (columns, lanes) in panel[first..].iter_mut().zip(lanes) {
                // SAFETY: half of the 32 lanes of a panel's row, of 32 bits each.
                unsafe { _mm512_store_si512(columns.0.as_mut_ptr().add(half * LANES).cast(), lanes) };
            }
        }
    }
    depth
}

/// Rows to columns: pairs of lanes, pairs of pairs, then quarters of vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_square(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut pairs = rows;
    for i in 0..LANES / 2 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Quarter q of fours[4 i + j] holds column 4 q + j of rows 4 i to 4 i + 3.
    let mut fours = pairs;
    for i in 0..LANES / 4 {
        fours[4 * i] = _mm512_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
        fours[4 * i + 1] = _mm512_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
        fours[4 * i + 2] = _mm512_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        fours[4 * i + 3] = _mm512_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    }
    let mut columns = fours;
    for j in 0..4 {
        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(fours[j], fours[4 + j]);
        let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(fours[j], fours[4 + j]);
        let later_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(fours[8 + j], fours[12 + j]);
        let later_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(fours[8 + j], fours[12 + j]);
        columns[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even, later_even);
        columns[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd, later_odd);
        columns[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even, later_even);
        columns[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd, later_odd);
    }
    columns
}

/// `e^x` for `x <= 0`; see [`EXP`].
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    // The constant comes first: of an unordered pair the instruction gives the second, so NaN stays.
    let x = _mm512_max_ps(_mm512_set1_ps(EXP_MIN), x);
    let n = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(
        x,
        _mm512_set1_ps(std::f32::consts::LOG2_E),
    ));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_HIGH), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_LOW), r);
    let mut sum = _mm512_set1_ps(EXP[EXP.len() - 1]);
    for &c in EXP.iter().rev().skip(1) {
        sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(sum, n)
}

/// See [`super::scalar::gelu`].
#[inline]
#[target_feature(enable = "avx512f")]
fn gelu(x: __m512) -> __m512 {
    let one = _mm512_set1_ps(1.0);
    let a = _mm512_min_ps(_mm512_set1_ps(GELU_TAIL_MAX), _mm512_abs_ps(x));
    let p = _mm512_set1_ps(ERFC_P * std::f32::consts::FRAC_1_SQRT_2);
    let t = _mm512_div_ps(one, _mm512_fmadd_ps(p, a, one));
    let mut sum = _mm512_set1_ps(ERFC[ERFC.len() - 1]);
    for &c in ERFC.iter().rev().skip(1) {
        sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(c));
    }
    let half = _mm512_mul_ps(_mm512_set1_ps(0.5), a);
    let e = exp(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(half, a)));
    let tail = _mm512_mul_ps(_mm512_mul_ps(half, t), _mm512_mul_ps(sum, e));
    _mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), x), tail)
}

/// GELU of every value.
#[target_feature(enable = "avx512f")]
pub(super) fn gelu_all(x: &mut [f32]) {
    let (whole, tail) = x.as_chunks_mut();
    for lanes in whole {
        store(lanes, gelu(load(lanes)));
    }
    let last = gelu(load_tail(tail, _mm512_setzero_ps()));
    store_tail(tail, last);
}

/// See [`super::scalar::polynomial_gelu`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::simd) fn polynomial_gelu(x: __m512) -> __m512 {
    let end = _mm512_set1_ps(POLYNOMIAL_GELU_MAX);
    let a = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), end), _mm512_min_ps(end, x));
    let square = _mm512_mul_ps(a, a);
    let mut sum = _mm512_set1_ps(POLYNOMIAL_GELU[POLYNOMIAL_GELU.len() - 1]);
    for &c in POLYNOMIAL_GELU.iter().rev().skip(1) {
        sum = _mm512_fmadd_ps(sum, square, _mm512_set1_ps(c));
    }
    _mm512_mul_ps(x, _mm512_fmadd_ps(a, sum, _mm512_set1_ps(0.5)))
}

/// See [`super::scalar::softmax`].
#[target_feature(enable = "avx512f")]
pub(super) fn softmax(rows: &mut [Columns], columns: usize, scale: f32) {
    let scale = _mm512_set1_ps(scale);
    for lane in 0..columns / LANES {
        let mut max = _mm512_set1_ps(f32::NEG_INFINITY);
        for row in &*rows {
            max = _mm512_max_ps(max, load(&row.0.as_chunks().0[lane]));
        }
        let mut sum = _mm512_setzero_ps();
        for row in &mut *rows {
            let lanes = &mut row.0.as_chunks_mut().0[lane];
            let e = exp(_mm512_mul_ps(_mm512_sub_ps(load(lanes), max), scale));
            sum = _mm512_add_ps(sum, e);
            store(lanes, e);
        }
        let factor = _mm512_div_ps(_mm512_set1_ps(1.0), sum);
        for row in &mut *rows {
            let lanes = &mut row.0.as_chunks_mut().0[lane];
            store(lanes, _mm512_mul_ps(load(lanes), factor));
        }
    }
}

/// The sum of all lanes, in the order of [`SUMS`].
#[inline]
#[target_feature(enable = "avx512f")]
fn sum(lanes: __m512) -> f32 {
    let upper = _mm512_shuffle_f32x4::<0b00_00_11_10>(lanes, lanes);
    avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_castps512_ps256(upper)))
}

/// See [`super::scalar::add_layer_norm`].
#[target_feature(enable = "avx512f")]
pub(super) fn add_layer_norm(row: &mut [f32], delta: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let zero = _mm512_setzero_ps();
    let width = row.len() as f32;
    let (whole, tail) = row.as_chunks_mut::<SUMS>();
    let (delta_whole, delta_tail) = delta.as_chunks();
    let mask = tail_mask(tail.len());

    let mut sums = zero;
    for (lanes, delta) in whole.iter_mut().zip(delta_whole) {
        let sum = _mm512_add_ps(load(lanes), load(delta));
        sums = _mm512_add_ps(sums, sum);
        store(lanes, sum);
    }
    let last = _mm512_add_ps(load_tail(tail, zero), load_tail(delta_tail, zero));
    let mean = _mm512_set1_ps(sum(_mm512_add_ps(sums, last)) / width);

    let mut squares = zero;
    for lanes in &*whole {
        let centred = _mm512_sub_ps(load(lanes), mean);
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    let last = _mm512_maskz_sub_ps(mask, last, mean);
    let variance = sum(_mm512_fmadd_ps(last, last, squares)) / width;
    let scale = _mm512_set1_ps(1.0 / (variance + eps).sqrt());

    let (gamma_whole, gamma_tail) = gamma.as_chunks();
    let (beta_whole, beta_tail) = beta.as_chunks();
    for ((lanes, gamma), beta) in whole.iter_mut().zip(gamma_whole).zip(beta_whole) {
        let normalised = _mm512_mul_ps(_mm512_sub_ps(load(lanes), mean), scale);
        store(lanes, _mm512_fmadd_ps(normalised, load(gamma), load(beta)));
    }
    let normalised = _mm512_mul_ps(last, scale);
    let last = _mm512_fmadd_ps(normalised, load_tail(gamma_tail, zero), load_tail(beta_tail, zero));
    store_tail(tail, last);
}
