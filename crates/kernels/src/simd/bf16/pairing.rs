//! Right-hand matrices of attention: neighbouring rows as pairs.

use super::tile::Pairs;
use crate::simd::dense::{Columns, WIDTH};
use crate::simd::{Cpu, Level};

/// Rounds rows of single-precision values and pairs neighbouring rows; if their number is odd, the second of
/// each pair of the last row is zero. Only the first `columns`, 16 or 32, are used.
pub(super) fn pair_rows(cpu: Cpu, rows: &[Columns], columns: usize, paired: &mut [Pairs]) {
    assert_eq!(paired.len(), rows.len().div_ceil(2), "there must be one row of pairs per two rows");
    match cpu.level() {
        // SAFETY: a `Cpu` with these is created only if detection found their instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if cpu.has_bf16() => unsafe { super::avx512::pair_rows(rows, columns, paired) },
        // SAFETY: as above; AVX-512 includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => unsafe { super::avx2::pair_rows(rows, columns, paired) },
        _ => super::scalar::pair_rows(rows, columns, paired),
    }
}

/// Pairs each value of a row with the one below it: `rows` rows of `width` (even, at most [`WIDTH`])
/// values, `stride` pairs apart in `matrix`, become half as many rows of `panel`. If `rows` is odd, the
/// last row is paired with zeros; columns beyond `width` are zero.
pub(super) fn interleave(
    cpu: Cpu,
    matrix: &[u32],
    rows: usize,
    stride: usize,
    width: usize,
    panel: &mut [Pairs],
) {
    assert_eq!(panel.len(), rows.div_ceil(2), "the panel must have one row per two rows");
    match cpu.level() {
        // SAFETY: a `Cpu` with these is created only if detection found their instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if width == WIDTH => unsafe {
            super::avx512::interleave(matrix, rows, stride, panel);
        },
        _ => super::scalar::interleave(matrix, rows, stride, width, panel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_a_column_become_pairs() {
        for cpu in Cpu::each_level() {
            for rows in 1..=5_usize {
                for width in [2, 8, 30, 32] {
                    let stride = 21;
                    // Value `v` of row `r` is `100 r + v`, two of them to a pair.
                    let matrix: Vec<u32> = (0..rows * stride)
                        .map(|i| (i / stride * 100 + i % stride * 2) as u32)
                        .map(|first| first | (first + 1) << 16)
                        .collect();
                    let mut panel = vec![Pairs::ZERO; rows.div_ceil(2)];
                    panel.fill(crate::simd::dense::Lanes([7; WIDTH]));
                    interleave(cpu, &matrix, rows, stride, width, &mut panel);
                    for (i, row) in panel.iter().enumerate() {
                        for (column, &pair) in row.0.iter().enumerate() {
                            let value = |row: usize| {
                                if row < rows && column < width { (row * 100 + column) as u32 } else { 0 }
                            };
                            assert_eq!(
                                pair,
                                value(2 * i) | value(2 * i + 1) << 16,
                                "{cpu:?}, {rows} x {width}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_rounded_and_paired_alike_at_every_level() {
        for rows in 1..=4 {
            let matrix: Vec<Columns> = (0..rows)
                .map(|row| {
                    let mut columns = Columns::ZERO;
                    for (column, value) in columns.0.iter_mut().enumerate() {
                        *value = (row * 37 + column) as f32 / 129.0;
                    }
                    columns
                })
                .collect();
            let mut expected = vec![Pairs::ZERO; rows.div_ceil(2)];
            super::super::scalar::pair_rows(&matrix, WIDTH, &mut expected);
            for cpu in Cpu::each_level() {
                for columns in [WIDTH / 2, WIDTH] {
                    let mut found = vec![Pairs::ZERO; rows.div_ceil(2)];
                    pair_rows(cpu, &matrix, columns, &mut found);
                    for (found, expected) in found.iter().zip(&expected) {
                        assert_eq!(found.0[..columns], expected.0[..columns], "{cpu:?}, {rows} rows");
                    }
                }
            }
        }
    }
}
