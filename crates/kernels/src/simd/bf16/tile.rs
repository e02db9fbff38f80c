//! The micro-kernel of every product: a few rows of pairs times one panel.

use crate::simd::dense::{self, Lanes, WIDTH};
use crate::simd::{Cpu, Level};

/// One row of a panel: two neighbouring inputs of [`WIDTH`] outputs.
pub(super) type Pairs = Lanes<u32>;

impl Pairs {
    pub(super) const ZERO: Pairs = Lanes([0; WIDTH]);
}

/// Rows of pairs times a panel of pairs.
pub(super) type PairTile<'a> = dense::Tile<'a, u32>;

/// Rows the micro-kernel keeps in registers.
pub(super) fn rows_max(cpu: Cpu) -> usize {
    if cpu.has_bf16() { ROWS_MAX } else { 4 }
}

/// The maximum of [`rows_max`] on any processor.
const ROWS_MAX: usize = 12;

/// Computes a tile and stores its first `columns` columns in rows of `out`, `out_stride` apart.
pub(super) fn multiply(cpu: Cpu, tile: &PairTile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
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

/// Computes a tile of [`WIDTH`] columns or half as many.
fn multiply_whole(cpu: Cpu, tile: &PairTile<'_>, out: &mut [f32], out_stride: usize, columns: usize) {
    match cpu.level() {
        // SAFETY: a `Cpu` with these is created only if detection found their instructions.
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
