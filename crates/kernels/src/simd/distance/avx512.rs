//! The kernels with AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_ps,
    _mm512_castsi512_ps, _mm512_cvtepi8_epi16, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_madd_epi16,
    _mm512_reduce_add_epi32, _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_sub_epi16, _mm512_sub_ps,
};

const LANES: usize = 16;
const BYTE_LANES: usize = 32;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn load(values: &[f32; 16]) -> __m512 {
    // SAFETY: the array is 64 readable bytes; the load takes any alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen_f32(bytes: &[u8; 64]) -> __m512 {
    // SAFETY: the array is 64 readable bytes; the load takes any alignment.
    unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen_f16(bytes: &[u8; 32]) -> __m512 {
    // SAFETY: the array is 32 readable bytes; the load takes any alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen_bf16(bytes: &[u8; 32]) -> __m512 {
    // SAFETY: the array is 32 readable bytes; the load takes any alignment.
    let halves = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen_i8(bytes: &[u8; 16]) -> __m512 {
    // SAFETY: the array is 16 readable bytes; the load takes any alignment.
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn widen_i16(bytes: &[u8; 32]) -> __m512i {
    // SAFETY: the array is 32 readable bytes; the load takes any alignment.
    _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add_product(sum: __m512, q: __m512, v: __m512) -> __m512 {
    _mm512_fmadd_ps(q, v, sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add_square(sum: __m512, q: __m512, v: __m512) -> __m512 {
    let difference = _mm512_sub_ps(q, v);
    _mm512_fmadd_ps(difference, difference, sum)
}

macro_rules! kernel {
    ($name:ident, $bytes:literal, $widen:ident, $add:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        pub(super) fn $name(query: &[f32], rows: &[&[u8]], out: &mut [f32]) {
            for (row, out) in rows.iter().zip(out) {
                let mut sums = [_mm512_setzero_ps(); 4];
                let (query, query_rest) = query.as_chunks::<{ 4 * LANES }>();
                let (row, row_rest) = row.as_chunks::<{ 4 * LANES * $bytes }>();
                for (query, row) in query.iter().zip(row) {
                    let query = query.as_chunks::<LANES>().0;
                    let row = row.as_chunks::<{ LANES * $bytes }>().0;
                    sums[0] = $add(sums[0], load(&query[0]), $widen(&row[0]));
                    sums[1] = $add(sums[1], load(&query[1]), $widen(&row[1]));
                    sums[2] = $add(sums[2], load(&query[2]), $widen(&row[2]));
                    sums[3] = $add(sums[3], load(&query[3]), $widen(&row[3]));
                }
                let (query, query_rest) = query_rest.as_chunks::<LANES>();
                let (row, row_rest) = row_rest.as_chunks::<{ LANES * $bytes }>();
                for (query, row) in query.iter().zip(row) {
                    sums[0] = $add(sums[0], load(query), $widen(row));
                }
                if !query_rest.is_empty() {
                    // Zeros on both sides add nothing to either measure.
                    let mut query = [0f32; LANES];
                    let mut row = [0u8; LANES * $bytes];
                    query[..query_rest.len()].copy_from_slice(query_rest);
                    row[..row_rest.len()].copy_from_slice(row_rest);
                    sums[1] = $add(sums[1], load(&query), $widen(&row));
                }
                let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
                *out = _mm512_reduce_add_ps(sum);
            }
        }
    };
}

kernel!(ip_f32, 4, widen_f32, add_product);
kernel!(l2_f32, 4, widen_f32, add_square);
kernel!(ip_f16, 2, widen_f16, add_product);
kernel!(l2_f16, 2, widen_f16, add_square);
kernel!(ip_bf16, 2, widen_bf16, add_product);
kernel!(l2_bf16, 2, widen_bf16, add_square);
kernel!(ip_i8, 1, widen_i8, add_product);
kernel!(l2_i8, 1, widen_i8, add_square);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add_product_i16(sum: __m512i, q: __m512i, v: __m512i) -> __m512i {
    _mm512_add_epi32(sum, _mm512_madd_epi16(q, v))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add_square_i16(sum: __m512i, q: __m512i, v: __m512i) -> __m512i {
    let difference = _mm512_sub_epi16(q, v);
    _mm512_add_epi32(sum, _mm512_madd_epi16(difference, difference))
}

macro_rules! exact_kernel {
    ($name:ident, $add:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        pub(super) fn $name(query: &[i8], rows: &[&[u8]], out: &mut [i32]) {
            for (row, out) in rows.iter().zip(out) {
                let mut sum = _mm512_setzero_si512();
                let (query, query_rest) = query.as_chunks::<BYTE_LANES>();
                let (row, row_rest) = row.as_chunks::<BYTE_LANES>();
                for (query, row) in query.iter().zip(row) {
                    sum = $add(sum, widen_i16(&query.map(i8::cast_unsigned)), widen_i16(row));
                }
                if !query_rest.is_empty() {
                    let mut query = [0i8; BYTE_LANES];
                    let mut row = [0u8; BYTE_LANES];
                    query[..query_rest.len()].copy_from_slice(query_rest);
                    row[..row_rest.len()].copy_from_slice(row_rest);
                    sum = $add(sum, widen_i16(&query.map(i8::cast_unsigned)), widen_i16(&row));
                }
                *out = _mm512_reduce_add_epi32(sum);
            }
        }
    };
}

exact_kernel!(ip_i8_exact, add_product_i16);
exact_kernel!(l2_i8_exact, add_square_i16);
