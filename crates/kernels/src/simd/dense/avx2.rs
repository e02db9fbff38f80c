//! The kernels in AVX2 and FMA: eight single-precision lanes.

use std::arch::x86_64::*;

use super::activation::{POLYNOMIAL_GELU, POLYNOMIAL_GELU_MAX};
use super::erfc::{ERFC, ERFC_P, GELU_TAIL_MAX};
use super::exponential::{EXP, EXP_MIN, LN_2_HIGH, LN_2_LOW};
use super::layer_norm::SUMS;
use super::panel::{Columns, WIDTH};
use super::tile::Tile;

pub(in crate::simd) const LANES: usize = 8;

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn load(lanes: &[f32; LANES]) -> __m256 {
    // SAFETY: the reference covers the 32 bytes read; the load needs no alignment.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn store(lanes: &mut [f32; LANES], values: __m256) {
    // SAFETY: the reference covers the 32 bytes written; the store needs no alignment.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), values) }
}

/// Loads fewer than eight values; the other lanes are `fill`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_tail(values: &[f32], fill: f32) -> __m256 {
    let mut lanes = [fill; LANES];
    lanes[..values.len()].copy_from_slice(values);
    load(&lanes)
}

/// Stores the first `values.len()` lanes, fewer than eight.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_tail(values: &mut [f32], lanes: __m256) {
    let mut stored = [0.0; LANES];
    store(&mut stored, lanes);
    values.copy_from_slice(&stored[..values.len()]);
}

/// A mask of the first `len` lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn first_lanes(len: usize) -> __m256 {
    let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(len as i32), index))
}

/// The first `len` lanes; zero in the others.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn keep_first(lanes: __m256, len: usize) -> __m256 {
    _mm256_and_ps(lanes, first_lanes(len))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn horizontal_max(lanes: __m256) -> f32 {
    let four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply(tile: &Tile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    match tile.rows {
        1 => multiply_rows::<1>(tile, out, out_stride, columns),
        2 => multiply_rows::<2>(tile, out, out_stride, columns),
        3 => multiply_rows::<3>(tile, out, out_stride, columns),
        4 => multiply_rows::<4>(tile, out, out_stride, columns),
        5 => multiply_rows::<5>(tile, out, out_stride, columns),
        6 => multiply_rows::<6>(tile, out, out_stride, columns),
        rows => unreachable!("a tile has 1 to 6 rows, not {rows}"),
    }
}

/// Sixteen registers hold six rows of half a panel, so the kernel passes over the panel twice.
#[target_feature(enable = "avx2,fma")]
fn multiply_rows<const ROWS: usize>(tile: &Tile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    tile.assert_within_bounds(ROWS);
    for half in 0..columns * 2 / WIDTH {
        let bias = tile.bias.0.as_chunks().0;
        let mut sums = [[load(&bias[2 * half]), load(&bias[2 * half + 1])]; ROWS];
        for (k, columns) in tile.panel.iter().enumerate() {
            let columns = columns.0.as_chunks().0;
            let (low, high) = (load(&columns[2 * half]), load(&columns[2 * half + 1]));
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `k` is below the panel's depth and `row` below `ROWS`, and
                // `assert_within_bounds` found all these rows inside `inputs`.
                let input =
                    unsafe { *tile.inputs.get_unchecked(row * tile.row_stride + k * tile.depth_stride) };
                let input = _mm256_set1_ps(input);
                sums[0] = _mm256_fmadd_ps(input, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(input, high, sums[1]);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let lanes = out[row * out_stride..][..columns].as_chunks_mut().0;
            store(&mut lanes[2 * half], sums[0]);
            store(&mut lanes[2 * half + 1], sums[1]);
        }
    }
}

/// `e^x` for `x <= 0`; see [`EXP`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp(x: __m256) -> __m256 {
    // The constant comes first: of an unordered pair the instruction gives the second, so NaN stays.
    let x = _mm256_max_ps(_mm256_set1_ps(EXP_MIN), x);
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2_HIGH), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2_LOW), r);
    let mut sum = _mm256_set1_ps(EXP[EXP.len() - 1]);
    for &c in EXP.iter().rev().skip(1) {
        sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(c));
    }
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_mul_ps(sum, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
}

/// See [`super::scalar::gelu`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn gelu(x: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
    let a = _mm256_min_ps(_mm256_set1_ps(GELU_TAIL_MAX), magnitude);
    let p = _mm256_set1_ps(ERFC_P * std::f32::consts::FRAC_1_SQRT_2);
    let t = _mm256_div_ps(one, _mm256_fmadd_ps(p, a, one));
    let mut sum = _mm256_set1_ps(ERFC[ERFC.len() - 1]);
    for &c in ERFC.iter().rev().skip(1) {
        sum = _mm256_fmadd_ps(sum, t, _mm256_set1_ps(c));
    }
    let half = _mm256_mul_ps(_mm256_set1_ps(0.5), a);
    let e = exp(_mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(half, a)));
    let tail = _mm256_mul_ps(_mm256_mul_ps(half, t), _mm256_mul_ps(sum, e));
    _mm256_sub_ps(_mm256_max_ps(_mm256_setzero_ps(), x), tail)
}

/// GELU of every value.
#[target_feature(enable = "avx2,fma")]
pub(super) fn gelu_all(x: &mut [f32]) {
    let (whole, tail) = x.as_chunks_mut();
    for lanes in whole {
        store(lanes, gelu(load(lanes)));
    }
    let last = gelu(load_tail(tail, 0.0));
    store_tail(tail, last);
}

/// See [`super::scalar::polynomial_gelu`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::simd) fn polynomial_gelu(x: __m256) -> __m256 {
    let end = _mm256_set1_ps(POLYNOMIAL_GELU_MAX);
    let a = _mm256_max_ps(_mm256_sub_ps(_mm256_setzero_ps(), end), _mm256_min_ps(end, x));
    let square = _mm256_mul_ps(a, a);
    let mut sum = _mm256_set1_ps(POLYNOMIAL_GELU[POLYNOMIAL_GELU.len() - 1]);
    for &c in POLYNOMIAL_GELU.iter().rev().skip(1) {
        sum = _mm256_fmadd_ps(sum, square, _mm256_set1_ps(c));
    }
    _mm256_mul_ps(x, _mm256_fmadd_ps(a, sum, _mm256_set1_ps(0.5)))
}

/// See [`super::scalar::softmax`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn softmax(rows: &mut [Columns], columns: usize, scale: f32) {
    let scale = _mm256_set1_ps(scale);
    for lane in 0..columns / LANES {
        let mut max = _mm256_set1_ps(f32::NEG_INFINITY);
        for row in &*rows {
            max = _mm256_max_ps(max, load(&row.0.as_chunks().0[lane]));
        }
        let mut sum = _mm256_setzero_ps();
        for row in &mut *rows {
            let lanes = &mut row.0.as_chunks_mut().0[lane];
            let e = exp(_mm256_mul_ps(_mm256_sub_ps(load(lanes), max), scale));
            sum = _mm256_add_ps(sum, e);
            store(lanes, e);
        }
        let factor = _mm256_div_ps(_mm256_set1_ps(1.0), sum);
        for row in &mut *rows {
            let lanes = &mut row.0.as_chunks_mut().0[lane];
            store(lanes, _mm256_mul_ps(load(lanes), factor));
        }
    }
}

/// See [`super::scalar::add_layer_norm`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_layer_norm(row: &mut [f32], delta: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    const { assert!(SUMS == 2 * LANES, "vectors alternate between two sums") };
    let width = row.len() as f32;
    let (whole, tail) = row.as_chunks_mut();
    let (delta_whole, delta_tail) = delta.as_chunks();
    let of_tail = whole.len() % 2;

    let mut sums = [_mm256_setzero_ps(); 2];
    for (i, (lanes, delta)) in whole.iter_mut().zip(delta_whole).enumerate() {
        let sum = _mm256_add_ps(load(lanes), load(delta));
        sums[i % 2] = _mm256_add_ps(sums[i % 2], sum);
        store(lanes, sum);
    }
    let last = _mm256_add_ps(load_tail(tail, 0.0), load_tail(delta_tail, 0.0));
    sums[of_tail] = _mm256_add_ps(sums[of_tail], last);
    let mean = _mm256_set1_ps(sum(_mm256_add_ps(sums[0], sums[1])) / width);

    let mut squares = [_mm256_setzero_ps(); 2];
    for (i, lanes) in whole.iter().enumerate() {
        let centred = _mm256_sub_ps(load(lanes), mean);
        squares[i % 2] = _mm256_fmadd_ps(centred, centred, squares[i % 2]);
    }
    let last = keep_first(_mm256_sub_ps(last, mean), tail.len());
    squares[of_tail] = _mm256_fmadd_ps(last, last, squares[of_tail]);
    let variance = sum(_mm256_add_ps(squares[0], squares[1])) / width;
    let scale = _mm256_set1_ps(1.0 / (variance + eps).sqrt());

    let (gamma_whole, gamma_tail) = gamma.as_chunks();
    let (beta_whole, beta_tail) = beta.as_chunks();
    for ((lanes, gamma), beta) in whole.iter_mut().zip(gamma_whole).zip(beta_whole) {
        let normalised = _mm256_mul_ps(_mm256_sub_ps(load(lanes), mean), scale);
        store(lanes, _mm256_fmadd_ps(normalised, load(gamma), load(beta)));
    }
    let normalised = _mm256_mul_ps(last, scale);
    let last = _mm256_fmadd_ps(normalised, load_tail(gamma_tail, 0.0), load_tail(beta_tail, 0.0));
    store_tail(tail, last);
}
