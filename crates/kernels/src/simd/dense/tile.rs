//! The micro-kernel of every product: a few rows times one panel.

use super::dispatch;
use super::panel::{Columns, Lanes, WIDTH};
use crate::simd::{Cpu, Level};

/// `bias + rows · panel`; each sum runs over the panel's rows in order, so a row's
/// values do not depend on the rows it shares a tile with.
#[derive(Clone, Copy)]
pub(in crate::simd) struct Tile<'a, T = f32> {
    /// Left-hand rows, `row_stride` apart, each as long as the panel is deep,     /// `depth_stride` apart.
    pub(in crate::simd) inputs: &'a [T],
    pub(in crate::simd) row_stride: usize,
    pub(in crate::simd) depth_stride: usize,
    /// At most as many as the micro-kernel keeps in registers.
    pub(in crate::simd) rows: usize,
    pub(in crate::simd) panel: &'a [Lanes<T>],
    /// The initial value of the sums.
    pub(in crate::simd) bias: &'a Columns,
}

#[cfg(target_arch = "x86_64")]
impl<T> Tile<'_, T> {
    /// Asserts what the vector code relies on: there are `rows` rows, all within `inputs`.
    pub(in crate::simd) fn assert_within_bounds(&self, rows: usize) {
        assert_eq!(self.rows, rows, "the kernel is the one for this number of rows");
        let last = (rows - 1) * self.row_stride + (self.panel.len() - 1) * self.depth_stride;
        assert!(self.inputs.len() > last, "every row of a tile must be as long as its panel is deep");
    }
}

/// Rows the micro-kernel keeps in registers at this level.
pub(super) fn rows_max(cpu: Cpu) -> usize {
    match cpu.level() {
        Level::Avx512 => 12,
        Level::Avx2 => 6,
        Level::Scalar => 4,
    }
}

/// Splits `rows` into blocks of at most `max`, as evenly as possible: a block of one row costs nearly as much as a full
/// one.
pub(in crate::simd) fn blocks(rows: usize, max: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let count = rows.div_ceil(max);
    (0..count).map(move |i| rows * i / count..rows * (i + 1) / count)
}

/// Computes a tile and stores its first `columns` columns in rows of `out`, `out_stride` apart.
pub(super) fn multiply(cpu: Cpu, tile: &Tile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    if columns == WIDTH || columns == WIDTH / 2 {
        multiply_whole(cpu, tile, out, out_stride, columns);
        return;
    }
    let mut whole = [0.0; ROWS_MAX * WIDTH];
    multiply_whole(cpu, tile, &mut whole, WIDTH, WIDTH);
    for row in 0..tile.rows {
        out[row * out_stride..][..columns].copy_from_slice(&whole[row * WIDTH..][..columns]);
    }
}

/// The maximum of [`rows_max`] at any level.
const ROWS_MAX: usize = 12;

/// Computes a tile of [`WIDTH`] columns or half as many.
fn multiply_whole(cpu: Cpu, tile: &Tile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    dispatch!(cpu, multiply(tile, out, out_stride, columns))
}
