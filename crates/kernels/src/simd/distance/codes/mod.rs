//! Vectors as codes of 8 or 4 bits with an offset and a step per vector, plus 8-bit residuals of the quantisation
//! error.
//!
//! A row of `dim` values, little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | offset `o` (f32) |
//! | 4 | step `s` (f32) |
//! | 4 | sum of the codes (u32) |
//! | 4 | sum of the codes' squares (u32) |
//! | `dim`, or half as many rounded up | codes `c` (u8, or two in a byte: [`CodeWidth`]) |
//! | `dim` | residuals `r` (i8) |
//!
//! A value is approximately `o + s · c`, and almost exactly `o + s · (c + r / 256)`. [`score`] uses the first form with
//! an integer query (14 bits against 8-bit codes, 8 bits against 4-bit codes), so its sums are integers and the same on
//! every level. [`score_with_residuals`] uses the second form in single precision.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod query;
mod rotation;
mod scalar;
#[cfg(test)]
mod tests;
mod width;

pub use query::CodeQuery;
pub use rotation::{rotate, unrotate};
pub use width::CodeWidth;

use super::Measure;
use crate::simd::{Cpu, Level};

/// Bytes of the header of a row.
const HEADER_BYTES: usize = 16;
/// Steps of a residual per step of a code.
const RESIDUAL_STEPS: i32 = 256;
/// Maximum dimension of a row: in longer rows a sum could overflow 32 bits.
pub const DIM_MAX: usize = 4096;

/// Bytes of a row of `dim` values.
pub fn row_bytes(width: CodeWidth, dim: usize) -> usize {
    part_bytes(width, dim).iter().sum()
}

/// Bytes of a row's parts: header, codes, residuals.
pub fn part_bytes(width: CodeWidth, dim: usize) -> [usize; 3] {
    [HEADER_BYTES, width.code_bytes(dim), dim]
}

/// The parts of a row, wherever they are stored.
#[derive(Clone, Copy, Debug)]
pub struct CodeRow<'a> {
    /// Offset, step and sums.
    pub header: &'a [u8],
    /// The codes.
    pub codes: &'a [u8],
    /// The residuals of the codes.
    pub residuals: &'a [u8],
}

impl<'r> CodeRow<'r> {
    /// Splits a contiguous row into its parts.
    ///
    /// # Panics
    ///
    /// If the row is shorter than a header.
    pub fn from_bytes(width: CodeWidth, row: &'r [u8]) -> CodeRow<'r> {
        let (header, levels) = row.split_at(HEADER_BYTES);
        let (codes, residuals) = levels.split_at(levels.len() - width.dim(levels.len()));
        CodeRow { header, codes, residuals }
    }

    #[inline]
    fn head(&self) -> Header {
        let bytes = self.header.first_chunk::<HEADER_BYTES>().expect("the header of a row has 16 bytes");
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let [offset, step] = [word(0), word(4)].map(f32::from_bits);
        Header { offset, step, sum: word(8), squares: word(12) }
    }

    /// The row with one code per byte; packed codes are unpacked into `codes`.
    fn unpacked<'a>(self, width: CodeWidth, codes: &'a mut [u8; DIM_MAX]) -> CodeRow<'a>
    where
        'r: 'a,
    {
        match width {
            CodeWidth::Bits8 => self,
            CodeWidth::Bits4 => {
                let codes = &mut codes[..self.residuals.len()];
                width::unpack(self.codes, codes);
                CodeRow { codes, ..self }
            }
        }
    }
}

/// Encodes finite `values` as a row.
///
/// # Panics
///
/// If there are no values, or more than [`DIM_MAX`].
pub fn encode(width: CodeWidth, values: &[f32]) -> Vec<u8> {
    let dim = values.len();
    assert!((1..=DIM_MAX).contains(&dim), "a row has 1 to {DIM_MAX} values, not {dim}");
    let (min, max) = bounds(values);
    let step = (max - min) / f64::from(width.code_max());
    // Single precision, as in decoding. A range that is too small for a step is represented by its lower end.
    let (offset, step) = (min as f32, step as f32);
    let scale = if step > 0.0 { f64::from(RESIDUAL_STEPS) / f64::from(step) } else { 0.0 };
    let (mut codes, mut residuals) = (Vec::with_capacity(dim), Vec::with_capacity(dim));
    let (mut sum, mut squares) = (0u32, 0u32);
    for &value in values {
        let fine = ((f64::from(value) - f64::from(offset)) * scale + 0.5) as i32;
        let fine = fine.min(width.residual_steps_max());
        let code = (fine + RESIDUAL_STEPS / 2) / RESIDUAL_STEPS;
        codes.push(code as u8);
        residuals.push((fine - code * RESIDUAL_STEPS) as i8);
        sum += code as u32;
        squares += (code * code) as u32;
    }
    let mut row = Vec::with_capacity(row_bytes(width, dim));
    row.extend(offset.to_le_bytes());
    row.extend(step.to_le_bytes());
    row.extend(sum.to_le_bytes());
    row.extend(squares.to_le_bytes());
    match width {
        CodeWidth::Bits8 => row.extend(codes),
        CodeWidth::Bits4 => width::pack(&codes, &mut row),
    }
    row.extend(residuals.into_iter().map(i8::cast_unsigned));
    row
}

/// Decodes a row from codes and residuals, replacing the content of `values`.
pub fn decode(width: CodeWidth, row: CodeRow<'_>, values: &mut Vec<f32>) {
    let Header { offset, step, .. } = row.head();
    let step = step / RESIDUAL_STEPS as f32;
    values.clear();
    values.extend(fine(row.unpacked(width, &mut [0; DIM_MAX])).map(|fine| offset + step * fine as f32));
}

/// The values of a row with one code per byte, as residual steps from the offset.
fn fine(row: CodeRow<'_>) -> impl ExactSizeIterator<Item = i32> {
    let pairs = row.codes.iter().zip(row.residuals);
    pairs.map(|(&code, &residual)| i32::from(code) * RESIDUAL_STEPS + i32::from(residual.cast_signed()))
}

/// Whether a row from an untrusted source is consistent: [`encode`] could have produced its step, sums and range.
pub fn is_valid(width: CodeWidth, row: CodeRow<'_>) -> bool {
    let Header { offset, step, sum, squares } = row.head();
    let sums = row.unpacked(width, &mut [0; DIM_MAX]).codes.iter().fold((0, 0), |(sum, squares), &code| {
        (sum + u32::from(code), squares + u32::from(code) * u32::from(code))
    });
    let largest = offset.abs() + step * (width.code_max() + 1) as f32;
    step >= 0.0 && largest.is_finite() && sums == (sum, squares)
}

/// Scores every row against `query` into `out` from the codes alone.
///
/// # Panics
///
/// If `out` is not as long as `rows`, or the dimension of a row is not that of the query.
pub fn score(cpu: Cpu, measure: Measure, query: &CodeQuery, rows: &[CodeRow<'_>], out: &mut [f32]) {
    check_lengths(query, rows, out.len());
    for (rows, out) in rows.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
        let mut products = [0; BATCH];
        let products = &mut products[..rows.len()];
        match query.width() {
            CodeWidth::Bits8 => multiply::<false>(cpu, query, rows, products),
            CodeWidth::Bits4 => multiply::<true>(cpu, query, rows, products),
        }
        for ((row, &product), out) in rows.iter().zip(&*products).zip(out) {
            *out = query.combine(measure, &row.head(), product);
        }
    }
}

/// `Σ k · c` for each row.
fn multiply<const PACKED: bool>(cpu: Cpu, query: &CodeQuery, rows: &[CodeRow<'_>], products: &mut [i64]) {
    match cpu.level() {
        // SAFETY: a `Cpu` of this level exists only if detection found its instructions, and VNNI, which the level does
        // not include, was just detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if std::is_x86_feature_detected!("avx512vnni") => unsafe {
            avx512::products::<PACKED>(query, rows, products);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => unsafe { avx2::products::<PACKED>(query, rows, products) },
        _ => scalar::products::<PACKED>(query, rows, products),
    }
}

/// Rows per kernel call.
const BATCH: usize = 32;

/// Scores every row against `query` into `out` from codes and residuals.
///
/// # Panics
///
/// As [`score`].
pub fn score_with_residuals(
    cpu: Cpu,
    measure: Measure,
    query: &CodeQuery,
    rows: &[CodeRow<'_>],
    out: &mut [f32],
) {
    check_lengths(query, rows, out.len());
    let mut codes = [0; DIM_MAX];
    for (row, out) in rows.iter().zip(out) {
        let (values, row) = (query.values(), row.unpacked(query.width(), &mut codes));
        *out = match (cpu.level(), measure) {
            // SAFETY: a `Cpu` of this level exists only if detection found its instructions.
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512 | Level::Avx2, Measure::InnerProduct) => unsafe { avx2::ip(values, row) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512 | Level::Avx2, Measure::SquaredL2) => unsafe { avx2::l2(values, row) },
            (_, Measure::InnerProduct) => scalar::ip(values, row),
            (_, Measure::SquaredL2) => scalar::l2(values, row),
        };
    }
}

fn check_lengths(query: &CodeQuery, rows: &[CodeRow<'_>], out: usize) {
    assert_eq!(rows.len(), out, "there must be one score per row");
    let expected = (query.width().code_bytes(query.dim()), query.dim());
    for row in rows {
        let lengths = (row.codes.len(), row.residuals.len());
        assert_eq!(lengths, expected, "a row must have as many elements as the query");
    }
}

/// The smallest and the largest value.
fn bounds(values: &[f32]) -> (f64, f64) {
    let (min, max) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &v| (min.min(v), max.max(v)));
    (f64::from(min), f64::from(max))
}

/// The decoded header of a row.
#[derive(Clone, Copy, Debug)]
struct Header {
    offset: f32,
    step: f32,
    sum: u32,
    squares: u32,
}
