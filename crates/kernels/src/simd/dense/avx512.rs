//! The kernels in AVX-512: sixteen single-precision lanes.

use std::arch::x86_64::*;

use super::erfc::{ERFC, ERFC_P, GELU_TAIL_MAX};
use super::exponential::{EXP, EXP_MIN, LN_2_HIGH, LN_2_LOW};
use super::panel::WIDTH;
use super::tile::{Activation, Tile};

const LANES: usize = 16;

#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &[f32; LANES]) -> __m512 {
    // SAFETY: the reference covers the 64 bytes read; the load needs no alignment.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(lanes: &mut [f32; LANES], values: __m512) {
    // SAFETY: the reference covers the 64 bytes written; the store needs no alignment.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), values) }
}

/// The lanes that hold the `len` values left over after whole vectors.
#[inline]
fn tail_mask(len: usize) -> __mmask16 {
    (1u16 << len) - 1
}

/// Loads fewer than sixteen values; the other lanes are `fill`.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_tail(values: &[f32], fill: __m512) -> __m512 {
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
pub(super) fn multiply(tile: &Tile<'_>, out: &mut [f32], out_stride: usize) {
    match tile.rows {
        1 => multiply_rows::<1>(tile, out, out_stride),
        2 => multiply_rows::<2>(tile, out, out_stride),
        3 => multiply_rows::<3>(tile, out, out_stride),
        4 => multiply_rows::<4>(tile, out, out_stride),
        5 => multiply_rows::<5>(tile, out, out_stride),
        6 => multiply_rows::<6>(tile, out, out_stride),
        7 => multiply_rows::<7>(tile, out, out_stride),
        8 => multiply_rows::<8>(tile, out, out_stride),
        9 => multiply_rows::<9>(tile, out, out_stride),
        10 => multiply_rows::<10>(tile, out, out_stride),
        11 => multiply_rows::<11>(tile, out, out_stride),
        12 => multiply_rows::<12>(tile, out, out_stride),
        rows => unreachable!("a tile has 1 to 12 rows, not {rows}"),
    }
    if tile.activation == Activation::Gelu {
        for row in 0..tile.rows {
            for lanes in out[row * out_stride..][..WIDTH].as_chunks_mut().0 {
                store(lanes, gelu(load(lanes)));
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn multiply_rows<const ROWS: usize>(tile: &Tile<'_>, out: &mut [f32], out_stride: usize) {
    tile.assert_within_bounds(ROWS);
    let bias = tile.bias.0.as_chunks().0;
    let mut sums = [[load(&bias[0]), load(&bias[1])]; ROWS];
    for (k, columns) in tile.panel.iter().enumerate() {
        let columns = columns.0.as_chunks().0;
        let (low, high) = (load(&columns[0]), load(&columns[1]));
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `k` is below the panel's depth and `row` below `ROWS`, and
            // `assert_within_bounds` found all these rows inside `inputs`.
            let input = unsafe { *tile.inputs.get_unchecked(row * tile.input_stride + k) };
            let input = _mm512_set1_ps(input);
            sums[0] = _mm512_fmadd_ps(input, low, sums[0]);
            sums[1] = _mm512_fmadd_ps(input, high, sums[1]);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let lanes = out[row * out_stride..][..WIDTH].as_chunks_mut().0;
        store(&mut lanes[0], sums[0]);
        store(&mut lanes[1], sums[1]);
    }
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

/// See [`super::scalar::softmax`].
#[target_feature(enable = "avx512f")]
pub(super) fn softmax(row: &mut [f32], len: usize, scale: f32) {
    let (scores, rest) = row.split_at_mut(len);
    let (whole, tail) = scores.as_chunks_mut();
    let least = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut max = load_tail(tail, least);
    for lanes in &*whole {
        max = _mm512_max_ps(max, load(lanes));
    }
    let max = _mm512_set1_ps(_mm512_reduce_max_ps(max));
    let scale = _mm512_set1_ps(scale);
    let mut sums = _mm512_setzero_ps();
    for lanes in &mut *whole {
        let e = exp(_mm512_mul_ps(_mm512_sub_ps(load(lanes), max), scale));
        sums = _mm512_add_ps(sums, e);
        store(lanes, e);
    }
    let e = exp(_mm512_mul_ps(_mm512_sub_ps(load_tail(tail, least), max), scale));
    let e = _mm512_maskz_mov_ps(tail_mask(tail.len()), e);
    let factor = _mm512_set1_ps(1.0 / _mm512_reduce_add_ps(_mm512_add_ps(sums, e)));
    for lanes in whole {
        store(lanes, _mm512_mul_ps(load(lanes), factor));
    }
    store_tail(tail, _mm512_mul_ps(e, factor));
    rest.fill(0.0);
}

/// See [`super::scalar::add_layer_norm`].
#[target_feature(enable = "avx512f")]
pub(super) fn add_layer_norm(row: &mut [f32], delta: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let zero = _mm512_setzero_ps();
    let width = row.len() as f32;
    let (whole, tail) = row.as_chunks_mut();
    let (delta_whole, delta_tail) = delta.as_chunks();
    let mask = tail_mask(tail.len());

    let mut sums = zero;
    for (lanes, delta) in whole.iter_mut().zip(delta_whole) {
        let sum = _mm512_add_ps(load(lanes), load(delta));
        sums = _mm512_add_ps(sums, sum);
        store(lanes, sum);
    }
    let last = _mm512_add_ps(load_tail(tail, zero), load_tail(delta_tail, zero));
    let mean = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(sums, last)) / width);

    let mut squares = zero;
    for lanes in &*whole {
        let centred = _mm512_sub_ps(load(lanes), mean);
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    let last = _mm512_maskz_sub_ps(mask, last, mean);
    let variance = _mm512_reduce_add_ps(_mm512_fmadd_ps(last, last, squares)) / width;
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
