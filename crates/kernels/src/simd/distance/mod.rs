//! Distances between one query and the rows of a neighbourhood.
//!
//! A row consists of `dim` little-endian elements, at any alignment. One call scores a whole neighbourhood.
//!
//! The score of a row depends only on the query and the row, never on its position in the batch.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod codes;
#[cfg(target_arch = "x86_64")]
mod prefetch;
mod scalar;
#[cfg(test)]
mod tests;

use super::{Cpu, Level};

/// The element type of a row, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16: the upper half of a single-precision number.
    Bf16,
    /// Signed 8-bit integer.
    I8,
}

impl Element {
    /// Bytes per element.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::Bf16 => 2,
            Element::I8 => 1,
        }
    }
}

/// The function of a query `q` and a row `v` to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// `Σ q[i] · v[i]`.
    InnerProduct,
    /// `Σ (q[i] - v[i])²`.
    SquaredL2,
}

/// Calls a function of the module of the level.
macro_rules! dispatch {
    ($cpu:expr, $function:ident($($argument:expr),*)) => {
        match $cpu.level() {
            // SAFETY: a `Cpu` of this level exists only if detection found its instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::$function($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::$function($($argument),*) },
            _ => scalar::$function($($argument),*),
        }
    };
}

/// Scores every row against `query` into `out`, in single precision.
///
/// # Panics
///
/// If `out` is not as long as `rows`, or a row does not have `query.len()` elements.
pub fn score(cpu: Cpu, element: Element, measure: Measure, query: &[f32], rows: &[&[u8]], out: &mut [f32]) {
    check_lengths(query.len() * element.bytes(), rows, out.len());
    match (element, measure) {
        (Element::F32, Measure::InnerProduct) => dispatch!(cpu, ip_f32(query, rows, out)),
        (Element::F32, Measure::SquaredL2) => dispatch!(cpu, l2_f32(query, rows, out)),
        (Element::F16, Measure::InnerProduct) => dispatch!(cpu, ip_f16(query, rows, out)),
        (Element::F16, Measure::SquaredL2) => dispatch!(cpu, l2_f16(query, rows, out)),
        (Element::Bf16, Measure::InnerProduct) => dispatch!(cpu, ip_bf16(query, rows, out)),
        (Element::Bf16, Measure::SquaredL2) => dispatch!(cpu, l2_bf16(query, rows, out)),
        (Element::I8, Measure::InnerProduct) => dispatch!(cpu, ip_i8(query, rows, out)),
        (Element::I8, Measure::SquaredL2) => dispatch!(cpu, l2_i8(query, rows, out)),
    }
}

/// Maximum length of a row that [`score_i8`] accepts: longer ones could overflow 32-bit sums.
pub const I8_DIM_MAX: usize = 32_768;

/// Scores every row of signed bytes against a query of signed bytes into `out`, exactly.
///
/// # Panics
///
/// If `out` is not as long as `rows`, a row is not as long as `query`, or `query` is longer than
/// [`I8_DIM_MAX`].
pub fn score_i8(cpu: Cpu, measure: Measure, query: &[i8], rows: &[&[u8]], out: &mut [i32]) {
    assert!(query.len() <= I8_DIM_MAX, "a row of {} bytes could overflow 32-bit sums", query.len());
    check_lengths(query.len(), rows, out.len());
    match measure {
        Measure::InnerProduct => dispatch!(cpu, ip_i8_exact(query, rows, out)),
        Measure::SquaredL2 => dispatch!(cpu, l2_i8_exact(query, rows, out)),
    }
}

/// Prefetches `items` for immediate use.
#[inline]
pub fn prefetch<T>(items: &[T]) {
    #[cfg(target_arch = "x86_64")]
    prefetch::into_level_1(items);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = items;
}

/// Prefetches `items` as one of many prefetches whose data is needed a little later.
#[inline]
pub fn prefetch_many<T>(items: &[T]) {
    #[cfg(target_arch = "x86_64")]
    prefetch::into_level_2(items);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = items;
}

fn check_lengths(row_bytes: usize, rows: &[&[u8]], out: usize) {
    assert_eq!(rows.len(), out, "there must be one score per row");
    for row in rows {
        assert_eq!(row.len(), row_bytes, "a row must have as many elements as the query");
    }
}
