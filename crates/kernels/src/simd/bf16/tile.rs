//! The micro-kernel of every product: a few rows of pairs times one panel.

use crate::simd::dense::{Columns, Lanes, WIDTH};
use crate::simd::{Cpu, Level};

/// One row of a panel: two neighbouring inputs of [`WIDTH`] outputs.
pub(super) type Pairs = Lanes<u32>;

impl Pairs {
    pub(super) const ZERO: Pairs = Lanes([0; WIDTH]);
}

/// `bias + rows · panel`; each sum runs over the panel's rows in order, so a row's values do not
/// depend on the rows it shares a tile with.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// Left-hand rows, `row_stride` apart, each as long as the panel is deep, its pairs
    /// `depth_stride` apart.
    pub(super) inputs: &'a [u32],
    pub(super) row_stride: usize,
    pub(super) depth_stride: usize,
    /// At most [`rows_max`].
    pub(super) rows: usize,
    pub(super) panel: &'a [Pairs],
    /// What sums start from.
    pub(super) bias: &'a Columns,
}

#[cfg(target_arch = "x86_64")]
impl Tile<'_> {
    /// Asserts what the vector code relies on: there are `rows` rows, all within `inputs`.
    pub(super) fn assert_within_bounds(&self, rows: usize) {
        assert_eq!(self.rows, rows, "the kernel is the one for this number of rows");
        let last = (rows - 1) * self.row_stride + (self.panel.len() - 1) * self.depth_stride;
        assert!(self.inputs.len() > last, "every row of a tile must be as long as its panel is deep");
    }
}

/// Rows the micro-kernel keeps in registers.
pub(super) fn rows_max(cpu: Cpu) -> usize {
    if cpu.has_bf16() { ROWS_MAX } else { 4 }
}

/// The largest [`rows_max`] of any processor.
const ROWS_MAX: usize = 12;

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

/// Of [`WIDTH`] columns or half as many.
fn multiply_whole(cpu: Cpu, tile: &Tile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    match cpu.level() {
        // SAFETY: a `Cpu` with these is made only where detection found their instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if cpu.has_bf16() => unsafe {
            super::avx512::multiply(tile, out, out_stride, columns);
        },
        // SAFETY: as above; AVX-512 includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => unsafe { super::avx2::multiply(tile, out, out_stride, columns) },
        _ => super::scalar::multiply(tile, out, out_stride, columns),
    }
}
