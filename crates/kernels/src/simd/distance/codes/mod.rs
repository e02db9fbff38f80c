//! Vectors held as codes of 8 or 4 bits with an offset and a step of their own, and a second level,
//! always of 8 bits, that tells what the first left over.
//!
//! A row of `dim` values, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | offset `o` (f32) |
//! | 4 | step `s` (f32) |
//! | 4 | sum of the codes (u32) |
//! | 4 | sum of the codes' squares (u32) |
//! | `dim`, or half of it rounded up | codes `c` (u8, or two in a byte: [`CodeWidth`]) |
//! | `dim` | residuals `r` (i8) |
//!
//! A value is about `o + s · c`, and nearly exactly `o + s · (c + r / 256)`. [`score`] reads the first
//! form only, and takes the query as integers (of 14 bits for 8-bit codes, of 8 for 4-bit ones), so that its
//! sums are integers and the same on every level; [`score_with_residuals`] reads both forms, in single precision.

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

/// Bytes of a row before its codes.
const HEADER_BYTES: usize = 16;
/// What a step of the first level is in steps of the second.
const FINE: i32 = 256;
/// Longest row: beyond it a sum could leave 32 bits.
pub const DIM_MAX: usize = 4096;

/// Bytes of a row of `dim` values.
pub fn row_bytes(width: CodeWidth, dim: usize) -> usize {
    part_bytes(width, dim).iter().sum()
}

/// Bytes of a row's parts: header, codes, residuals.
pub fn part_bytes(width: CodeWidth, dim: usize) -> [usize; 3] {
    [HEADER_BYTES, width.code_bytes(dim), dim]
}

/// The parts of a row, wherever they are.
#[derive(Clone, Copy, Debug)]
pub struct CodeRow<'a> {
    /// Offset, step and sums.
    pub header: &'a [u8],
    /// The first level.
    pub codes: &'a [u8],
    /// The second.
    pub residuals: &'a [u8],
}

impl<'r> CodeRow<'r> {
    /// A row in one piece.
    ///
    /// # Panics
    ///
    /// If it is too short to have a header.
    pub fn from_bytes(width: CodeWidth, row: &'r [u8]) -> CodeRow<'r> {
        let (header, levels) = row.split_at(HEADER_BYTES);
        let (codes, residuals) = levels.split_at(levels.len() - width.dim(levels.len()));
        CodeRow { header, codes, residuals }
    }

    #[inline]
    fn head(&self) -> Header {
        let bytes = self.header.first_chunk::<HEADER_BYTES>().expect("a row has a header");
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let [offset, step] = [word(0), word(4)].map(f32::from_bits);
        Header { offset, step, sum: word(8), squares: word(12) }
    }

    /// The row with a code a byte; `codes` is where, if it has to be made.
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

/// The row that holds finite `values`.
///
/// # Panics
///
/// If there are no values or more than [`DIM_MAX`].
pub fn encode(width: CodeWidth, values: &[f32]) -> Vec<u8> {
    let dim = values.len();
    assert!((1..=DIM_MAX).contains(&dim), "{dim} values");
    let (least, most) = bounds(values);
    let step = (most - least) / f64::from(width.code_max());
    // As decoding will multiply by it. A range too small for it is held as its lower end.
    let (offset, step) = (least as f32, step as f32);
    let scale = if step > 0.0 { f64::from(FINE) / f64::from(step) } else { 0.0 };
    let (mut codes, mut residuals) = (Vec::with_capacity(dim), Vec::with_capacity(dim));
    let (mut sum, mut squares) = (0u32, 0u32);
    for &value in values {
        let fine = ((f64::from(value) - f64::from(offset)) * scale + 0.5) as i32;
        let fine = fine.min(width.fine_max());
        let code = (fine + FINE / 2) / FINE;
        codes.push(code as u8);
        residuals.push((fine - code * FINE) as i8);
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

/// The values of a row, as nearly as it holds them, in place of what `values` held.
pub fn decode(width: CodeWidth, row: CodeRow<'_>, values: &mut Vec<f32>) {
    let Header { offset, step, .. } = row.head();
    let step = step / FINE as f32;
    values.clear();
    values.extend(fine(row.unpacked(width, &mut [0; DIM_MAX])).map(|fine| offset + step * fine as f32));
}

/// The values of a row with a code a byte, in steps of the second level from its offset.
fn fine(row: CodeRow<'_>) -> impl ExactSizeIterator<Item = i32> {
    let pairs = row.codes.iter().zip(row.residuals);
    pairs.map(|(&code, &residual)| i32::from(code) * FINE + i32::from(residual.cast_signed()))
}

/// Whether a row, from outside, is one that [`encode`] could have made, as far as scores depend on it.
pub fn is_valid(width: CodeWidth, row: CodeRow<'_>) -> bool {
    let Header { offset, step, sum, squares } = row.head();
    let sums = row.unpacked(width, &mut [0; DIM_MAX]).codes.iter().fold((0, 0), |(sum, squares), &code| {
        (sum + u32::from(code), squares + u32::from(code) * u32::from(code))
    });
    let largest = offset.abs() + step * (width.code_max() + 1) as f32;
    step >= 0.0 && largest.is_finite() && sums == (sum, squares)
}

/// Scores every row against `query` into `out` by the rows' codes alone.
///
/// # Panics
///
/// If `out` is not as long as `rows`, or a row is not of the query's dimension.
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
        // SAFETY: a `Cpu` of this level exists only where detection found its instructions,
        // and those it does not stand for were just found.
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

/// Rows scored by one call of a kernel.
const BATCH: usize = 32;

/// Scores every row against `query` into `out` by the rows' codes and residuals.
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
            // SAFETY: a `Cpu` of this level exists only where detection found its instructions.
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
    assert_eq!(rows.len(), out, "one score a row");
    let expected = (query.width().code_bytes(query.dim()), query.dim());
    for row in rows {
        let lengths = (row.codes.len(), row.residuals.len());
        assert_eq!(lengths, expected, "a row has as many elements as the query");
    }
}

/// The least and the largest value.
fn bounds(values: &[f32]) -> (f64, f64) {
    let (least, most) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), &v| (least.min(v), most.max(v)));
    (f64::from(least), f64::from(most))
}

/// What stands before a row's codes.
#[derive(Clone, Copy, Debug)]
struct Header {
    offset: f32,
    step: f32,
    sum: u32,
    squares: u32,
}
