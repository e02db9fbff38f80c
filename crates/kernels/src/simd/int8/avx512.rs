//! The kernels in AVX-512, products in AVX-512 VNNI.

use std::arch::x86_64::*;

use super::quantize::{GroupAdjustment, ValueRange};
use super::tile::{ByteTile, INPUTS};
use crate::simd::dense::avx512::{LANES, load, load_tail, polynomial_gelu, store, tail_mask};
use crate::simd::dense::{Activation, WIDTH};

/// See [`super::scalar::quantize`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn quantize(
    row: &[f32],
    adjustment: GroupAdjustment<'_>,
    activation: Activation,
    buffer: &mut [f32],
    bytes: &mut [u8],
) -> ValueRange {
    match activation {
        Activation::Identity => quantize_after::<false>(row, adjustment, buffer, bytes),
        Activation::Gelu => quantize_after::<true>(row, adjustment, buffer, bytes),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quantize_after<const GELU: bool>(
    row: &[f32],
    adjustment: GroupAdjustment<'_>,
    buffer: &mut [f32],
    bytes: &mut [u8],
) -> ValueRange {
    let (whole, tail) = row.as_chunks();
    let shifts = adjustment.shifts.as_chunks().0;
    let factors = adjustment.factors.as_chunks().0;
    let adjusted = buffer.as_chunks_mut().0;
    let mut min = _mm512_set1_ps(f32::INFINITY);
    let mut max = _mm512_set1_ps(f32::NEG_INFINITY);
    for (((lanes, shift), factor), adjusted) in whole.iter().zip(shifts).zip(factors).zip(&mut *adjusted) {
        let value = load(lanes);
        let value = if GELU { polynomial_gelu(value) } else { value };
        let value = _mm512_mul_ps(_mm512_sub_ps(value, load(shift)), load(factor));
        min = _mm512_min_ps(min, value);
        max = _mm512_max_ps(max, value);
        store(adjusted, value);
    }
    if !tail.is_empty() {
        let mask = tail_mask(tail.len());
        let value = load_tail(tail, _mm512_setzero_ps());
        let value = if GELU { polynomial_gelu(value) } else { value };
        let (shift, factor) = (load(&shifts[whole.len()]), load(&factors[whole.len()]));
        let value = _mm512_mul_ps(_mm512_sub_ps(value, shift), factor);
        min = _mm512_mask_min_ps(min, mask, min, value);
        max = _mm512_mask_max_ps(max, mask, max, value);
        store(&mut adjusted[whole.len()], value);
    }
    let range = ValueRange::between(_mm512_reduce_min_ps(min), _mm512_reduce_max_ps(max));
    let inverse = _mm512_set1_ps(range.inverse());
    let min = _mm512_set1_ps(range.min);
    for (adjusted, bytes) in adjusted.iter().zip(bytes.as_chunks_mut::<LANES>().0) {
        let steps = _mm512_mul_ps(_mm512_sub_ps(load(adjusted), min), inverse);
        let packed = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(steps));
        // SAFETY: the reference covers the 16 bytes written; the store needs no alignment.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), packed) };
    }
    range
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn multiply(tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
    match tile.rows() {
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
}

/// Number of panel steps by which cache lines are prefetched ahead; the next panel follows in memory.
const STEPS_AHEAD: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn multiply_rows<const ROWS: usize>(tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
    tile.assert_within_bounds(ROWS);
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for (k, panel) in tile.panel.iter().enumerate() {
        let weights: *const __m512i = std::ptr::from_ref(panel).cast();
        // SAFETY: a panel's row is two whole vectors, aligned as one.
        let (low, high) = unsafe { (_mm512_load_si512(weights), _mm512_load_si512(weights.add(1))) };
        let ahead = weights.wrapping_add(2 * STEPS_AHEAD);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(1).cast());
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `k` is below the panel's depth and `row` below `ROWS`, and
            // `assert_within_bounds` found all these rows inside `values`.
            let input = unsafe {
                let input = tile.rows.values.as_ptr().add(row * tile.rows.stride + k * INPUTS);
                _mm512_set1_epi32(input.cast::<i32>().read_unaligned())
            };
            sums[0] = _mm512_dpbusd_epi32(sums[0], input, low);
            sums[1] = _mm512_dpbusd_epi32(sums[1], input, high);
        }
    }
    let columns = tile.columns;
    for half in 0..2 {
        let weight_scale = load(&columns.scale.as_chunks().0[half]);
        let weight_sum = load(&columns.sum.as_chunks().0[half]);
        let bias = load(&columns.bias.as_chunks().0[half]);
        for (row, sums) in sums.iter().enumerate() {
            let lanes = &mut out[row * out_stride..][..WIDTH].as_chunks_mut().0[half];
            let before = if tile.is_first_group { bias } else { load(lanes) };
            let scale = _mm512_mul_ps(_mm512_set1_ps(tile.rows.scales[row]), weight_scale);
            let constant = _mm512_fmadd_ps(_mm512_set1_ps(tile.rows.minima[row]), weight_sum, before);
            store(lanes, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[half]), scale, constant));
        }
    }
}
