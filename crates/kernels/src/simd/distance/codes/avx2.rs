//! The kernels of codes with AVX2 and FMA.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si32, _mm_cvtss_f32,
    _mm_loadl_epi64, _mm_movehl_ps, _mm_shuffle_epi32, _mm_shuffle_ps, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_castps256_ps128, _mm256_castsi256_si128, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_extractf128_ps, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_slli_epi32, _mm256_srli_epi16, _mm256_sub_ps,
};

use super::query::PLANE;
use super::{CodeQuery, CodeRow, Header, RESIDUAL_STEPS};

const LANES: usize = 8;
const BYTE_LANES: usize = 32;

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_bytes(bytes: &[u8; BYTE_LANES]) -> __m256i {
    // SAFETY: the array is 32 readable bytes; the load takes any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_integers(integers: &[i8; BYTE_LANES]) -> __m256i {
    // SAFETY: the array is 32 readable bytes; the load takes any alignment.
    unsafe { _mm256_loadu_si256(integers.as_ptr().cast()) }
}

/// The factors of the two planes: the high and the low nibbles, or the codes twice.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn split<const PACKED: bool>(codes: __m256i) -> (__m256i, __m256i) {
    if !PACKED {
        return (codes, codes);
    }
    let nibble = _mm256_set1_epi8(0x0f);
    (_mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble), _mm256_and_si256(codes, nibble))
}

/// Adds the products of a plane with codes. Pairs of products fit into 16 bits, so nothing saturates.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_products(sum: __m256i, codes: __m256i, plane: &[i8; BYTE_LANES]) -> __m256i {
    let pairs = _mm256_maddubs_epi16(codes, load_integers(plane));
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn reduce_integers(sum: __m256i) -> i64 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    i64::from(_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two))))
}

/// `Σ k · c` for each row.
#[target_feature(enable = "avx2,fma")]
pub(super) fn products<const PACKED: bool>(query: &CodeQuery, rows: &[CodeRow<'_>], out: &mut [i64]) {
    let (high, low) = query.planes();
    let (high, low) = (high.as_chunks::<BYTE_LANES>().0, low.as_chunks::<BYTE_LANES>().0);
    for (row, out) in rows.iter().zip(out) {
        let (codes, rest) = row.codes.as_chunks::<BYTE_LANES>();
        let (mut highs, mut lows) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for ((codes, high), low) in codes.iter().zip(high).zip(low) {
            let (of_high, of_low) = split::<PACKED>(load_bytes(codes));
            highs = add_products(highs, of_high, high);
            lows = add_products(lows, of_low, low);
        }
        if !rest.is_empty() {
            let mut last = [0; BYTE_LANES];
            last[..rest.len()].copy_from_slice(rest);
            let (of_high, of_low) = split::<PACKED>(load_bytes(&last));
            highs = add_products(highs, of_high, &high[codes.len()]);
            lows = add_products(lows, of_low, &low[codes.len()]);
        }
        *out = if PACKED {
            reduce_integers(_mm256_add_epi32(highs, lows))
        } else {
            reduce_integers(highs) * i64::from(PLANE) + reduce_integers(lows)
        };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(values: &[f32; LANES]) -> __m256 {
    // SAFETY: the array is 32 readable bytes; the load takes any alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_eight(bytes: &[u8; LANES]) -> __m128i {
    // SAFETY: the array is the 8 bytes this load reads; it takes any alignment.
    unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn values(codes: &[u8; LANES], residuals: &[u8; LANES], step: __m256, offset: __m256) -> __m256 {
    let codes = _mm256_slli_epi32::<{ RESIDUAL_STEPS.ilog2().cast_signed() }>(_mm256_cvtepu8_epi32(
        load_eight(codes),
    ));
    let fine = _mm256_add_epi32(codes, _mm256_cvtepi8_epi32(load_eight(residuals)));
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(fine), step, offset)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_product(sum: __m256, q: __m256, v: __m256) -> __m256 {
    _mm256_fmadd_ps(q, v, sum)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_square(sum: __m256, q: __m256, v: __m256) -> __m256 {
    let difference = _mm256_sub_ps(q, v);
    _mm256_fmadd_ps(difference, difference, sum)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn reduce(sum: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

macro_rules! kernel {
    ($name:ident, $add:ident, |$q:ident, $v:ident| $term:expr) => {
        /// Scores a row with one code per byte.
        #[target_feature(enable = "avx2,fma")]
        pub(super) fn $name(query: &[f32], row: CodeRow<'_>) -> f32 {
            let (query, query_rest) = query.as_chunks::<{ 2 * LANES }>();
            let Header { offset, step, .. } = row.head();
            let step = step / RESIDUAL_STEPS as f32;
            let (codes, codes_rest) = row.codes.as_chunks::<{ 2 * LANES }>();
            let (residuals, residuals_rest) = row.residuals.as_chunks::<{ 2 * LANES }>();
            let (steps, offsets) = (_mm256_set1_ps(step), _mm256_set1_ps(offset));
            let mut sums = [_mm256_setzero_ps(); 2];
            for ((query, codes), residuals) in query.iter().zip(codes).zip(residuals) {
                let query = query.as_chunks::<LANES>().0;
                let codes = codes.as_chunks::<LANES>().0;
                let residuals = residuals.as_chunks::<LANES>().0;
                sums[0] = $add(sums[0], load(&query[0]), values(&codes[0], &residuals[0], steps, offsets));
                sums[1] = $add(sums[1], load(&query[1]), values(&codes[1], &residuals[1], steps, offsets));
            }
            let mut sum = reduce(_mm256_add_ps(sums[0], sums[1]));
            for ((&$q, &code), &residual) in query_rest.iter().zip(codes_rest).zip(residuals_rest) {
                let fine = i32::from(code) * RESIDUAL_STEPS + i32::from(residual.cast_signed());
                let $v = (fine as f32).mul_add(step, offset);
                sum += $term;
            }
            sum
        }
    };
}

kernel!(ip, add_product, |q, v| q * v);
kernel!(l2, add_square, |q, v| (q - v) * (q - v));
