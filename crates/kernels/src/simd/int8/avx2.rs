//! The kernels in AVX2, and products in AVX-VNNI.

use std::arch::x86_64::*;

use super::quantize::{GroupAdjustment, ValueRange};
use super::tile::{ByteTile, INPUTS};
use crate::simd::dense::avx2::{LANES, first_lanes, horizontal_max, load, polynomial_gelu, store};
use crate::simd::dense::{Activation, WIDTH};

/// See [`super::scalar::quantize`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn quantize(
    row: &[f32],
    adjustment: GroupAdjustment<'_>,
    activation: Activation,
    buffer: &mut [f32],
    bytes: &mut [u8],
) -> ValueRange {
    let (whole, tail) = row.as_chunks();
    let shifts = adjustment.shifts.as_chunks().0;
    let factors = adjustment.factors.as_chunks().0;
    let adjusted = buffer.as_chunks_mut().0;
    let mut min = _mm256_set1_ps(f32::INFINITY);
    let mut max = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut last = [0.0; LANES];
    last[..tail.len()].copy_from_slice(tail);
    for (i, lanes) in whole.iter().chain((!tail.is_empty()).then_some(&last)).enumerate() {
        let value = load(lanes);
        let value = if activation == Activation::Gelu { polynomial_gelu(value) } else { value };
        let mut value = _mm256_mul_ps(_mm256_sub_ps(value, load(&shifts[i])), load(&factors[i]));
        if i == whole.len() {
            // Lanes beyond the row's end repeat a value, which changes neither end of its range.
            let first = _mm256_broadcastss_ps(_mm256_castps256_ps128(value));
            value = _mm256_blendv_ps(first, value, first_lanes(tail.len()));
        }
        min = _mm256_min_ps(min, value);
        max = _mm256_max_ps(max, value);
        store(&mut adjusted[i], value);
    }
    let negated = _mm256_sub_ps(_mm256_setzero_ps(), min);
    let range = ValueRange::between(-horizontal_max(negated), horizontal_max(max));
    let inverse = _mm256_set1_ps(range.inverse());
    let min = _mm256_set1_ps(range.min);
    for (adjusted, bytes) in adjusted.iter().zip(bytes.as_chunks_mut::<LANES>().0) {
        let steps = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(load(adjusted), min), inverse));
        let words = _mm_packs_epi32(_mm256_castsi256_si128(steps), _mm256_extracti128_si256::<1>(steps));
        let packed = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
        *bytes = packed.to_le_bytes();
    }
    range
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply(tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
    match tile.rows() {
        1 => multiply_rows::<1>(tile, out, out_stride),
        2 => multiply_rows::<2>(tile, out, out_stride),
        3 => multiply_rows::<3>(tile, out, out_stride),
        4 => multiply_rows::<4>(tile, out, out_stride),
        5 => multiply_rows::<5>(tile, out, out_stride),
        6 => multiply_rows::<6>(tile, out, out_stride),
        rows => unreachable!("a tile has 1 to 6 rows, not {rows}"),
    }
}

/// Four inputs of a row, repeated in every 32-bit lane of the vector.
#[inline]
#[target_feature(enable = "avx2")]
fn inputs(tile: &ByteTile<'_>, row: usize, k: usize) -> i32 {
    let start = row * tile.rows.stride + k * INPUTS;
    // SAFETY: callers are below the panel's depth and the tile's rows, and `assert_within_bounds`
    // found all these rows inside `values`.
    unsafe { tile.rows.values.as_ptr().add(start).cast::<i32>().read_unaligned() }
}

/// Bytes are widened to 16 bits, where a sum of two products cannot overflow (as it could in
/// `vpmaddubsw`), so that the sums are those of the other levels. Sixteen registers hold six rows
/// of a quarter of a panel, so the panel is read four times.
#[target_feature(enable = "avx2,fma")]
fn multiply_rows<const ROWS: usize>(tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
    tile.assert_within_bounds(ROWS);
    for quarter in 0..WIDTH / LANES {
        // Two neighbouring sums per output: one of the first two inputs of each four, one of the other two.
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (k, panel) in tile.panel.iter().enumerate() {
            let weights: *const __m128i = std::ptr::from_ref(panel).cast();
            // SAFETY: a panel's row is eight such vectors, aligned.
            let (low, high) = unsafe {
                (_mm_load_si128(weights.add(2 * quarter)), _mm_load_si128(weights.add(2 * quarter + 1)))
            };
            let (low, high) = (_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high));
            for (row, sums) in sums.iter_mut().enumerate() {
                let input = _mm256_cvtepu8_epi16(_mm_set1_epi32(inputs(tile, row, k)));
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(input, low));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(input, high));
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            // Within each half of the vector: outputs 0 1 4 5 | 2 3 6 7.
            let pairs = _mm256_hadd_epi32(sums[0], sums[1]);
            let sum = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
            store_row(tile, row, quarter, sum, out, out_stride);
        }
    }
}

/// Converts the sums of a row and a quarter of a panel to values.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_row(
    tile: &ByteTile<'_>,
    row: usize,
    quarter: usize,
    sum: __m256i,
    out: &mut [f32],
    out_stride: usize,
) {
    let columns = tile.columns;
    let weight_scale = load(&columns.scale.as_chunks().0[quarter]);
    let weight_sum = load(&columns.sum.as_chunks().0[quarter]);
    let lanes = &mut out[row * out_stride..][..WIDTH].as_chunks_mut().0[quarter];
    let before = if tile.is_first_group { load(&columns.bias.as_chunks().0[quarter]) } else { load(lanes) };
    let scale = _mm256_mul_ps(_mm256_set1_ps(tile.rows.scales[row]), weight_scale);
    let constant = _mm256_fmadd_ps(_mm256_set1_ps(tile.rows.minima[row]), weight_sum, before);
    store(lanes, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, constant));
}

/// `vpdpbusd` on half vectors has two encodings, one of AVX-VNNI and one of AVX-512; this macro
/// defines the same kernel for both, so that a machine with either of them tests both.
macro_rules! multiply_vnni {
    ($name:ident, $rows:ident, $features:literal, $dot:ident) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name(tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
            match tile.rows() {
                1 => $rows::<1>(tile, out, out_stride),
                2 => $rows::<2>(tile, out, out_stride),
                3 => $rows::<3>(tile, out, out_stride),
                4 => $rows::<4>(tile, out, out_stride),
                5 => $rows::<5>(tile, out, out_stride),
                6 => $rows::<6>(tile, out, out_stride),
                rows => unreachable!("a tile has 1 to 6 rows, not {rows}"),
            }
        }

        #[target_feature(enable = $features)]
        fn $rows<const ROWS: usize>(tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
            tile.assert_within_bounds(ROWS);
            for half in 0..2 {
                let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
                for (k, panel) in tile.panel.iter().enumerate() {
                    let weights: *const __m256i = std::ptr::from_ref(panel).cast();
                    // SAFETY: a panel's row is four such vectors, aligned.
                    let (low, high) = unsafe {
                        (
                            _mm256_load_si256(weights.add(2 * half)),
                            _mm256_load_si256(weights.add(2 * half + 1)),
                        )
                    };
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let input = _mm256_set1_epi32(inputs(tile, row, k));
                        sums[0] = $dot(sums[0], input, low);
                        sums[1] = $dot(sums[1], input, high);
                    }
                }
                for (row, sums) in sums.iter().enumerate() {
                    store_row(tile, row, 2 * half, sums[0], out, out_stride);
                    store_row(tile, row, 2 * half + 1, sums[1], out, out_stride);
                }
            }
        }
    };
}

multiply_vnni!(multiply_vnni, multiply_rows_vnni, "avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);
#[cfg(test)]
multiply_vnni!(
    multiply_vnni_of_avx512,
    multiply_rows_vnni_of_avx512,
    "avx2,fma,avx512vnni,avx512vl",
    _mm256_dpbusd_epi32
);
