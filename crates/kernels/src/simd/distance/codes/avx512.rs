//! The kernel of codes with AVX-512 F, BW, VL and VNNI.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512, _mm512_castsi512_si256,
    _mm512_cvtepi32_epi64, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_maskz_loadu_epi8, _mm512_reduce_add_epi32, _mm512_reduce_add_epi64, _mm512_set1_epi8,
    _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi16,
};

use super::query::PLANE;
use super::{CodeQuery, CodeRow};

const BYTE_LANES: usize = 64;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn load_codes(bytes: &[u8; BYTE_LANES]) -> __m512i {
    // SAFETY: the array is 64 readable bytes; the load takes any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Loads fewer than 64 codes, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn load_rest(bytes: &[u8]) -> __m512i {
    let mask = !(u64::MAX << bytes.len());
    // SAFETY: the mask limits the load to the bytes of the slice.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn load_integers(integers: &[i8; BYTE_LANES]) -> __m512i {
    // SAFETY: the array is 64 readable bytes; the load takes any alignment.
    unsafe { _mm512_loadu_si512(integers.as_ptr().cast()) }
}

/// The factors of the two planes: the high and the low nibbles, or the codes twice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn split<const PACKED: bool>(codes: __m512i) -> (__m512i, __m512i) {
    if !PACKED {
        return (codes, codes);
    }
    let nibble = _mm512_set1_epi8(0x0f);
    (_mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble), _mm512_and_si512(codes, nibble))
}

/// `Σ k · c` for each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn products<const PACKED: bool>(query: &CodeQuery, rows: &[CodeRow<'_>], out: &mut [i64]) {
    let (high, low) = query.planes();
    let (high, low) = (high.as_chunks::<BYTE_LANES>().0, low.as_chunks::<BYTE_LANES>().0);
    for (row, out) in rows.iter().zip(out) {
        let (codes, rest) = row.codes.as_chunks::<BYTE_LANES>();
        let (mut highs, mut lows) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for ((codes, high), low) in codes.iter().zip(high).zip(low) {
            let (of_high, of_low) = split::<PACKED>(load_codes(codes));
            highs = _mm512_dpbusd_epi32(highs, of_high, load_integers(high));
            lows = _mm512_dpbusd_epi32(lows, of_low, load_integers(low));
        }
        if !rest.is_empty() {
            let (of_high, of_low) = split::<PACKED>(load_rest(rest));
            highs = _mm512_dpbusd_epi32(highs, of_high, load_integers(&high[codes.len()]));
            lows = _mm512_dpbusd_epi32(lows, of_low, load_integers(&low[codes.len()]));
        }
        if PACKED {
            // 32 bits are enough: 4096 products of at most 15 · 128.
            *out = i64::from(_mm512_reduce_add_epi32(_mm512_add_epi32(highs, lows)));
            continue;
        }
        // A lane sums 4096 / 16 products of at most 255 · 8192, less than 2³⁰. The sum of all lanes may need more than 32 bits.
        let sums = _mm512_add_epi32(_mm512_slli_epi32::<{ PLANE.ilog2() }>(highs), lows);
        let lower = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
        let upper = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums));
        *out = _mm512_reduce_add_epi64(_mm512_add_epi64(lower, upper));
    }
}
