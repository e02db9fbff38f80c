//! A query in the form that the code kernels read.

use super::width::{self, CodeWidth};
use super::{CodeRow, DIM_MAX, Header, Measure, RESIDUAL_STEPS, bounds, decode, fine};

/// Against 8-bit codes an integer is `high · PLANE + low`. Both planes are within ±64, so the sum of two products with
/// a code, 2 · 64 · 255, fits in the 16 bits that AVX2 uses.
pub(super) const PLANE: i32 = 128;
/// Planes are padded with zeros to a multiple of this.
const PADDING: usize = 64;

/// A query `q` as `middle + step · k` with integers `k`, and as values.
#[derive(Clone, Debug, Default)]
pub struct CodeQuery {
    width: CodeWidth,
    values: Vec<f32>,
    dim: usize,
    integers: Vec<i32>,
    high: Vec<i8>,
    low: Vec<i8>,
    middle: f64,
    step: f64,
    /// `Σ k`.
    sum: f64,
    /// `Σ k²`.
    squares: f64,
}

impl CodeWidth {
    /// The largest magnitude of the integers of a query. An 8-bit query has a fraction of the error of 4-bit codes;
    /// against 8-bit codes it would double the error.
    pub(super) fn integer_max(self) -> i32 {
        match self {
            CodeWidth::Bits8 => 8191,
            CodeWidth::Bits4 => 127,
        }
    }

    /// Residual steps per step of a query that is made from a row: the smallest power of two with which half of the
    /// range fits into the integers.
    fn coarser(self) -> i32 {
        match self {
            CodeWidth::Bits8 => 4,
            CodeWidth::Bits4 => 16,
        }
    }
}

impl CodeQuery {
    /// Prepares the query from finite `values`, for codes of this width.
    pub fn set_values(&mut self, width: CodeWidth, values: &[f32]) {
        self.values.clear();
        self.values.extend_from_slice(values);
        let (min, max) = bounds(values);
        let integer_max = width.integer_max();
        let (middle, step) = ((min + max) / 2.0, (max - min) / 2.0 / f64::from(integer_max));
        let scale = if step.is_normal() { 1.0 / step } else { 0.0 };
        (self.middle, self.step) = (middle, step);
        // A double of this size has no fractional bits, and its lowest bits are those of the integer. Rounding by this
        // addition needs no function call and is vectorised.
        const INTEGERS: f64 = (1u64 << 52) as f64 * 1.5;
        let integer = |&value: &f32| ((f64::from(value) - middle) * scale + INTEGERS).to_bits() as i32;
        self.set_integers(width, values.iter().map(integer));
    }

    /// Prepares the query from a row. It can be used with [`score_with_residuals`](super::score_with_residuals) only if
    /// `with_values` is set.
    pub fn set_row(&mut self, width: CodeWidth, row: CodeRow<'_>, with_values: bool) {
        let Header { offset, step, .. } = row.head();
        let (middle, coarser) = (width.residual_steps_max() / 2, width.coarser());
        let fine_step = f64::from(step) / f64::from(RESIDUAL_STEPS);
        self.middle = f64::from(offset) + fine_step * f64::from(middle);
        self.step = fine_step * f64::from(coarser);
        let mut codes = [0; DIM_MAX];
        let fine = fine(row.unpacked(width, &mut codes));
        self.set_integers(width, fine.map(|fine| (fine - middle + coarser / 2) >> coarser.ilog2()));
        self.values.clear();
        if with_values {
            decode(width, row, &mut self.values);
        }
    }

    fn set_integers(&mut self, width: CodeWidth, integers: impl Iterator<Item = i32>) {
        let CodeQuery { integers: stored, high, low, .. } = self;
        stored.clear();
        stored.extend(integers);
        let padded = width.code_bytes(stored.len()).next_multiple_of(PADDING);
        for plane in [&mut *high, &mut *low] {
            plane.clear();
            plane.resize(padded, 0);
        }
        match width {
            CodeWidth::Bits8 => {
                for ((high, low), integer) in high.iter_mut().zip(low).zip(&*stored) {
                    let high_part = (integer + PLANE / 2) >> PLANE.ilog2();
                    *high = high_part as i8;
                    *low = (integer - high_part * PLANE) as i8;
                }
            }
            CodeWidth::Bits4 => {
                let planes = high.chunks_mut(PADDING).zip(low.chunks_mut(PADDING));
                for (integers, (high, low)) in width::blocks(stored).zip(planes) {
                    let (low_half, high_half) = width::halves(integers);
                    low.iter_mut().zip(low_half).for_each(|(low, &integer)| *low = integer as i8);
                    high.iter_mut().zip(high_half).for_each(|(high, &integer)| *high = integer as i8);
                }
            }
        }
        self.width = width;
        self.dim = stored.len();
        self.sum = f64::from(stored.iter().sum::<i32>());
        self.squares = stored.iter().map(|&integer| i64::from(integer * integer)).sum::<i64>() as f64;
    }

    pub(super) fn width(&self) -> CodeWidth {
        self.width
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The values for scores in single precision.
    pub(super) fn values(&self) -> &[f32] {
        assert_eq!(self.values.len(), self.dim, "the query must be made with values");
        &self.values
    }

    /// The planes that codes are multiplied by, of equal length, a multiple of 64: the high and low parts of the
    /// integers, or, for packed codes, the integers for the high and for the low nibbles.
    #[inline]
    pub(super) fn planes(&self) -> (&[i8], &[i8]) {
        (&self.high, &self.low)
    }

    /// The score of a row, given `product = Σ k · c` over its codes.
    ///
    /// Computed in double precision: squares of single-precision values do not overflow, and terms that nearly cancel
    /// (vectors far from the origin) keep enough digits.
    #[inline]
    pub(super) fn combine(&self, measure: Measure, header: &Header, product: i64) -> f32 {
        let dim = self.dim as f64;
        let (offset, step) = (f64::from(header.offset), f64::from(header.step));
        let (sum, product) = (f64::from(header.sum), product as f64);
        match measure {
            Measure::InnerProduct => {
                let query_sum = dim * self.middle + self.step * self.sum;
                (offset * query_sum + step * (self.middle * sum + self.step * product)) as f32
            }
            Measure::SquaredL2 => {
                // Σ ((middle - offset) + step · k - step' · c)².
                let difference = self.middle - offset;
                let squares = self.step * self.step * self.squares + step * step * f64::from(header.squares);
                let mixed = difference * (self.step * self.sum - step * sum) - self.step * step * product;
                (dim * difference * difference + squares + 2.0 * mixed).max(0.0) as f32
            }
        }
    }
}
