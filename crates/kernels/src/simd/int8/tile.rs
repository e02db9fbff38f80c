//! The micro-kernel of every product: a few rows of bytes times one panel.

use super::quantize::RowGroup;
use crate::simd::dense::WIDTH;
use crate::simd::{Cpu, Level};

/// Neighbouring inputs that are stored together because one instruction sums their products.
pub(super) const INPUTS: usize = 4;

/// [`INPUTS`] inputs of [`WIDTH`] neighbouring outputs, aligned to a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Panel(pub(super) [[i8; INPUTS]; WIDTH]);

impl Panel {
    pub(super) const ZERO: Panel = Panel([[0; INPUTS]; WIDTH]);
}

/// Parameters of the outputs of a panel besides their weights, for one group of inputs.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct ColumnParams {
    /// The value of one step of a weight.
    pub(super) scale: [f32; WIDTH],
    /// The sum of the weights, in that scale.
    pub(super) sum: [f32; WIDTH],
    /// The bias of the layer in the first group, unused in the others.
    pub(super) bias: [f32; WIDTH],
}

impl ColumnParams {
    pub(super) const ZERO: ColumnParams =
        ColumnParams { scale: [0.0; WIDTH], sum: [0.0; WIDTH], bias: [0.0; WIDTH] };
}

/// `rows · panel`, one group of inputs deep, integer sums turned into values by the scales of both.
#[derive(Clone, Copy)]
pub(super) struct ByteTile<'a> {
    /// At most [`rows_max`].
    pub(super) rows: RowGroup<'a>,
    pub(super) panel: &'a [Panel],
    pub(super) columns: &'a ColumnParams,
    /// Whether sums start from the bias instead of the values already in the output.
    pub(super) is_first_group: bool,
}

impl ByteTile<'_> {
    pub(super) fn rows(&self) -> usize {
        self.rows.scales.len()
    }

    /// Asserts what the vector code relies on: there are `rows` rows, each as long as the panel is deep.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn assert_within_bounds(&self, rows: usize) {
        assert_eq!(self.rows(), rows, "the kernel is the one for this number of rows");
        assert!(
            self.rows.stride >= self.panel.len() * INPUTS
                && self.rows.values.len() >= (rows - 1) * self.rows.stride + self.panel.len() * INPUTS,
            "every row of a tile must be as long as its panel is deep"
        );
    }
}

/// Rows that the micro-kernel keeps in registers.
pub(super) fn rows_max(cpu: Cpu) -> usize {
    match cpu.level() {
        Level::Avx512 if cpu.has_vnni() => ROWS_MAX,
        Level::Avx512 | Level::Avx2 => 6,
        Level::Scalar => 4,
    }
}

/// The maximum of [`rows_max`] on any processor.
const ROWS_MAX: usize = 12;

/// Computes the tiles of all groups and stores the first `columns` columns of their sum in `rows` rows of
/// `out`, `out_stride` apart.
pub(super) fn multiply<'a>(
    cpu: Cpu,
    tiles: impl Iterator<Item = ByteTile<'a>>,
    out: &mut [f32],
    out_stride: usize,
    rows: usize,
    columns: usize,
) {
    if columns == WIDTH {
        tiles.for_each(|tile| multiply_whole(cpu, &tile, out, out_stride));
        return;
    }
    let mut whole = [0.0; ROWS_MAX * WIDTH];
    tiles.for_each(|tile| multiply_whole(cpu, &tile, &mut whole, WIDTH));
    for row in 0..rows {
        out[row * out_stride..][..columns].copy_from_slice(&whole[row * WIDTH..][..columns]);
    }
}

fn multiply_whole(cpu: Cpu, tile: &ByteTile<'_>, out: &mut [f32], out_stride: usize) {
    match cpu.level() {
        // SAFETY: a `Cpu` with these is created only if detection found their instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if cpu.has_vnni() => unsafe { super::avx512::multiply(tile, out, out_stride) },
        // SAFETY: as above; AVX-512 includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if cpu.has_vnni() => unsafe { super::avx2::multiply_vnni(tile, out, out_stride) },
        // SAFETY: as above; AVX-512 includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => unsafe { super::avx2::multiply(tile, out, out_stride) },
        _ => super::scalar::multiply(tile, out, out_stride),
    }
}
