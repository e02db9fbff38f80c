//! Right-hand matrices of products, in the layout that the micro-kernels read.

use crate::simd::{Cpu, Level};

/// Columns per panel; the micro-kernels of every level read this layout.
pub(in crate::simd) const WIDTH: usize = 32;

/// One row of a panel: [`WIDTH`] neighbouring columns, aligned to a cache line so that no vector
/// load crosses one.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(in crate::simd) struct Lanes<T>(pub(in crate::simd) [T; WIDTH]);

/// A row of a panel of single-precision values.
pub(in crate::simd) type Columns = Lanes<f32>;

impl Columns {
    pub(in crate::simd) const ZERO: Columns = Lanes([0.0; WIDTH]);

    /// Splits `values` into rows of [`WIDTH`], padded with zeros.
    pub(in crate::simd) fn rows_of(values: &[f32]) -> Vec<Columns> {
        let row = |chunk: &[f32]| {
            let mut columns = Columns::ZERO;
            columns.0[..chunk.len()].copy_from_slice(chunk);
            columns
        };
        values.chunks(WIDTH).map(row).collect()
    }
}

impl<T: Lane> Lanes<T> {
    /// The values of all rows as one slice.
    pub(in crate::simd) fn flat(rows: &[Lanes<T>]) -> &[T] {
        // SAFETY: `Lanes` consists of its array only (`repr(C)`, and the size of the array is a multiple of the alignment
        // for every `Lane`), so the rows are contiguous arrays.
        unsafe { std::slice::from_raw_parts(rows.as_ptr().cast(), rows.len() * WIDTH) }
    }

    /// The values of all rows as one slice.
    pub(in crate::simd) fn flat_mut(rows: &mut [Lanes<T>]) -> &mut [T] {
        // SAFETY: as in `flat`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(rows.as_mut_ptr().cast(), rows.len() * WIDTH) }
    }
}

/// The content of a 32-bit lane.
pub(in crate::simd) trait Lane: Copy + Default {}

impl Lane for f32 {}
/// Two bfloat16 values.
impl Lane for u32 {}

/// Packs `rows`, each `depth` values, `stride` apart in `matrix`, as the *columns* of panels:
/// the right-hand side of `x · matrixᵀ`. Panel `p` is `panels[p * depth..][..depth]`; columns
/// beyond the last row are zero.
pub(in crate::simd) fn pack_rows_as_columns<T: Lane>(
    cpu: Cpu,
    matrix: &[T],
    rows: usize,
    stride: usize,
    depth: usize,
    panels: &mut [Lanes<T>],
) {
    assert_eq!(panels.len(), rows.div_ceil(WIDTH) * depth, "panels must hold the whole matrix");
    for (p, panel) in panels.chunks_exact_mut(depth).enumerate() {
        let first = p * WIDTH;
        let row_count = WIDTH.min(rows - first);
        if row_count < WIDTH {
            panel.fill(Lanes([T::default(); WIDTH]));
        }
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if cpu.level() == Level::Avx512 {
            // SAFETY: a `Cpu` of this level is created only if detection found its instructions.
            done = unsafe { super::avx512::transpose(&matrix[first * stride..], row_count, stride, panel) };
        }
        for column in 0..row_count {
            let row = &matrix[(first + column) * stride..][..depth];
            for (columns, &value) in panel[done..].iter_mut().zip(&row[done..]) {
                columns.0[column] = value;
            }
        }
    }
}

/// Packs `rows`, each `width` values, `stride` apart in `matrix`, as the *rows* of panels:
/// the right-hand side of `x · matrix`. Panel `p` is `panels[p * rows..][..rows]`; columns beyond
/// `width` are zero.
pub(super) fn pack_rows(matrix: &[f32], rows: usize, stride: usize, width: usize, panels: &mut [Columns]) {
    assert_eq!(panels.len(), width.div_ceil(WIDTH) * rows, "panels must hold the whole matrix");
    for (p, panel) in panels.chunks_exact_mut(rows).enumerate() {
        let first = p * WIDTH;
        let column_count = WIDTH.min(width - first);
        for (row, columns) in panel.iter_mut().enumerate() {
            columns.0[..column_count].copy_from_slice(&matrix[row * stride + first..][..column_count]);
            columns.0[column_count..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_and_the_rest_is_zero() {
        for cpu in Cpu::each_level() {
            for (rows, stride, depth) in [(WIDTH + 1, 5, 3), (1, 16, 16), (15, 40, 33), (97, 70, 70)] {
                let matrix: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
                let mut panels = vec![Lanes([f32::NAN; WIDTH]); rows.div_ceil(WIDTH) * depth];
                pack_rows_as_columns(cpu, &matrix, rows, stride, depth, &mut panels);
                for (i, columns) in panels.iter().enumerate() {
                    for (c, &value) in columns.0.iter().enumerate() {
                        let row = i / depth * WIDTH + c;
                        let expected = if row < rows { (row * stride + i % depth) as f32 } else { 0.0 };
                        assert_eq!(value, expected, "{rows} x {depth}: panel row {i}, column {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_stay_rows_and_the_rest_is_zero() {
        let (rows, stride, width) = (3, 40, WIDTH + 2);
        let matrix: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
        let mut panels = vec![Lanes([f32::NAN; WIDTH]); 2 * rows];
        pack_rows(&matrix, rows, stride, width, &mut panels);
        for (i, columns) in panels.iter().enumerate() {
            for (c, &value) in columns.0.iter().enumerate() {
                let column = i / rows * WIDTH + c;
                let expected = if column < width { (i % rows * stride + column) as f32 } else { 0.0 };
                assert_eq!(value, expected, "panel row {i}, column {c}");
            }
        }
    }
}
