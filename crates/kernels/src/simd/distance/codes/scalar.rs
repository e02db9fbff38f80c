//! The kernels of codes in plain Rust: the fallback on every machine and the reference for all levels.

use super::query::PLANE;
use super::{CodeQuery, CodeRow, Header, RESIDUAL_STEPS};

const LANES: usize = 16;

/// `Σ k · c` for each row.
pub(super) fn products<const PACKED: bool>(query: &CodeQuery, rows: &[CodeRow<'_>], out: &mut [i64]) {
    let (high, low) = query.planes();
    for (row, out) in rows.iter().zip(out) {
        let (mut highs, mut lows) = (0i32, 0i32);
        for ((&code, &high), &low) in row.codes.iter().zip(high).zip(low) {
            let (high_code, low_code) = if PACKED { (code >> 4, code & 0x0f) } else { (code, code) };
            highs += i32::from(high_code) * i32::from(high);
            lows += i32::from(low_code) * i32::from(low);
        }
        *out = i64::from(highs) * if PACKED { 1 } else { i64::from(PLANE) } + i64::from(lows);
    }
}

macro_rules! kernel {
    ($name:ident, |$q:ident, $v:ident| $term:expr) => {
        /// Scores a row with one code per byte.
        pub(super) fn $name(query: &[f32], row: CodeRow<'_>) -> f32 {
            let Header { offset, step, .. } = row.head();
            let step = step / RESIDUAL_STEPS as f32;
            let CodeRow { codes, residuals, .. } = row;
            let mut sums = [0f32; LANES];
            for ((query, codes), residuals) in
                query.chunks(LANES).zip(codes.chunks(LANES)).zip(residuals.chunks(LANES))
            {
                for (((sum, &$q), &code), &residual) in sums.iter_mut().zip(query).zip(codes).zip(residuals) {
                    let fine = i32::from(code) * RESIDUAL_STEPS + i32::from(residual.cast_signed());
                    let $v = fine as f32 * step + offset;
                    *sum += $term;
                }
            }
            sums.iter().sum()
        }
    };
}

kernel!(ip, |q, v| q * v);
kernel!(l2, |q, v| (q - v) * (q - v));
