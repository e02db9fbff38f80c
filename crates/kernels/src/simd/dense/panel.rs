//! Right-hand matrices of products, laid out the way the micro-kernels read them.

/// Columns a panel has; the micro-kernels of every level read this layout.
pub(super) const WIDTH: usize = 32;

/// One row of a panel: [`WIDTH`] neighbouring columns, aligned to a cache line so that no vector
/// load crosses one.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Columns(pub(super) [f32; WIDTH]);

impl Columns {
    pub(super) const ZERO: Columns = Columns([0.0; WIDTH]);
}

/// Packs `rows`, each `depth` values found `stride` apart in `matrix`, as the *columns* of panels:
/// the right-hand side of `x · matrixᵀ`. Panel `p` is `panels[p * depth..][..depth]`; columns
/// beyond the last row are zero.
pub(super) fn pack_rows_as_columns(
    matrix: &[f32],
    rows: usize,
    stride: usize,
    depth: usize,
    panels: &mut [Columns],
) {
    assert_eq!(panels.len(), rows.div_ceil(WIDTH) * depth, "panels must hold the whole matrix");
    for (p, panel) in panels.chunks_exact_mut(depth).enumerate() {
        let first = p * WIDTH;
        let taken = WIDTH.min(rows - first);
        if taken < WIDTH {
            panel.fill(Columns::ZERO);
        }
        for column in 0..taken {
            let row = &matrix[(first + column) * stride..][..depth];
            for (columns, &value) in panel.iter_mut().zip(row) {
                columns.0[column] = value;
            }
        }
    }
}

/// Packs `rows`, each `width` values found `stride` apart in `matrix`, as the *rows* of panels:
/// the right-hand side of `x · matrix`. Panel `p` is `panels[p * rows..][..rows]`; columns beyond
/// `width` are zero.
pub(super) fn pack_rows(matrix: &[f32], rows: usize, stride: usize, width: usize, panels: &mut [Columns]) {
    assert_eq!(panels.len(), width.div_ceil(WIDTH) * rows, "panels must hold the whole matrix");
    for (p, panel) in panels.chunks_exact_mut(rows).enumerate() {
        let first = p * WIDTH;
        let taken = WIDTH.min(width - first);
        for (row, columns) in panel.iter_mut().enumerate() {
            columns.0[..taken].copy_from_slice(&matrix[row * stride + first..][..taken]);
            columns.0[taken..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_and_the_rest_is_zero() {
        let (rows, stride, depth) = (WIDTH + 1, 5, 3);
        let matrix: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
        let mut panels = vec![Columns([f32::NAN; WIDTH]); 2 * depth];
        pack_rows_as_columns(&matrix, rows, stride, depth, &mut panels);
        for (i, columns) in panels.iter().enumerate() {
            for (c, &value) in columns.0.iter().enumerate() {
                let row = i / depth * WIDTH + c;
                let expected = if row < rows { (row * stride + i % depth) as f32 } else { 0.0 };
                assert_eq!(value, expected, "panel row {i}, column {c}");
            }
        }
    }

    #[test]
    fn rows_stay_rows_and_the_rest_is_zero() {
        let (rows, stride, width) = (3, 40, WIDTH + 2);
        let matrix: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
        let mut panels = vec![Columns([f32::NAN; WIDTH]); 2 * rows];
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
