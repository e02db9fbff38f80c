//! A query made ready for the kernels of codes.

use super::{FINE, FINE_MAX, Header, Measure, Row, bounds, decode};

/// The integers of a query are between minus this and this.
const INTEGER_MAX: i32 = 8191;
/// An integer is `high · PLANE + low`. Both planes stay within ±64, so that the sum of two
/// products with a code, 2 · 64 · 255, fits the 16 bits AVX2 keeps it in.
pub(super) const PLANE: i32 = 128;
/// Planes are filled up with zeros to a multiple of this.
const PADDING: usize = 64;
/// The middle of a row's values, in steps of the second level.
const MIDDLE: i32 = FINE_MAX / 2;
/// Steps of the second level in a step of a query made of a row.
const COARSER: i32 = 4;

/// A query `q`, held as `middle + step · k` with integers `k`, and as values.
#[derive(Clone, Debug, Default)]
pub struct Query {
    values: Vec<f32>,
    dim: usize,
    high: Vec<i8>,
    low: Vec<i8>,
    middle: f64,
    step: f64,
    /// `Σ k`.
    sum: f64,
    /// `Σ k²`.
    squares: f64,
}

impl Query {
    /// Asks for what is near finite `values`.
    pub fn set_values(&mut self, values: &[f32]) {
        self.values.clear();
        self.values.extend_from_slice(values);
        let (least, most) = bounds(values);
        let (middle, step) = ((least + most) / 2.0, (most - least) / 2.0 / f64::from(INTEGER_MAX));
        let scale = if step.is_normal() { 1.0 / step } else { 0.0 };
        (self.middle, self.step) = (middle, step);
        // Casting what is positive rounds to nearest here, and needs no call.
        let rounding = f64::from(INTEGER_MAX + 1) + 0.5;
        self.set_integers(
            values
                .iter()
                .map(|&value| ((f64::from(value) - middle) * scale + rounding) as i32 - (INTEGER_MAX + 1)),
        );
    }

    /// Asks for what is near the vector that a row holds. Only `with_values` can it be used for
    /// [`score_fine`](super::score_fine).
    pub fn set_row(&mut self, row: Row<'_>, with_values: bool) {
        let Header { offset, step, .. } = row.head();
        let fine = f64::from(step) / f64::from(FINE);
        self.middle = f64::from(offset) + fine * f64::from(MIDDLE);
        self.step = fine * f64::from(COARSER);
        self.set_integers(row.codes.iter().zip(row.residuals).map(|(&code, &residual)| {
            let fine = i32::from(code) * FINE + i32::from(residual.cast_signed());
            (fine - MIDDLE + COARSER / 2) >> COARSER.ilog2()
        }));
        self.values.clear();
        if with_values {
            decode(row, &mut self.values);
        }
    }

    fn set_integers(&mut self, integers: impl ExactSizeIterator<Item = i32>) {
        self.dim = integers.len();
        let padded = self.dim.next_multiple_of(PADDING);
        self.high.clear();
        self.high.resize(padded, 0);
        self.low.clear();
        self.low.resize(padded, 0);
        let (mut sum, mut squares) = (0i32, 0i64);
        for ((high, low), integer) in self.high.iter_mut().zip(&mut self.low).zip(integers) {
            let tops = (integer + PLANE / 2) >> PLANE.ilog2();
            *high = tops as i8;
            *low = (integer - tops * PLANE) as i8;
            sum += integer;
            squares += i64::from(integer * integer);
        }
        (self.sum, self.squares) = (f64::from(sum), squares as f64);
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The values, for scores in single precision.
    pub(super) fn values(&self) -> &[f32] {
        assert_eq!(self.values.len(), self.dim, "the query was made with values");
        &self.values
    }

    /// The upper and lower planes of the integers, of one length, a multiple of 64.
    #[inline]
    pub(super) fn planes(&self) -> (&[i8], &[i8]) {
        (&self.high, &self.low)
    }

    /// What is measured, given `product = Σ k · c` over a row's codes.
    ///
    /// In double precision: no square of a single overflows it, and terms that nearly cancel
    /// (vectors that all lie far from the origin) leave enough.
    #[inline]
    pub(super) fn combine(&self, measure: Measure, header: &Header, product: i64) -> f32 {
        let dim = self.dim as f64;
        let (offset, step) = (f64::from(header.offset), f64::from(header.step));
        let (sum, product) = (f64::from(header.sum), product as f64);
        match measure {
            Measure::InnerProduct => {
                let of_offset = dim * self.middle + self.step * self.sum;
                (offset * of_offset + step * (self.middle * sum + self.step * product)) as f32
            }
            Measure::SquaredL2 => {
                // Σ ((middle - offset) + step · k - step' · c)².
                let apart = self.middle - offset;
                let squares = self.step * self.step * self.squares + step * step * f64::from(header.squares);
                let mixed = apart * (self.step * self.sum - step * sum) - self.step * step * product;
                (dim * apart * apart + squares + 2.0 * mixed).max(0.0) as f32
            }
        }
    }
}
