//! Making the inputs of integer layers easy to quantise.

use crate::layer::Matrix;

/// What is done to each input of a linear layer before it becomes a byte: `(x - shift) * factor`. Its
/// weights and bias make up for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Smoothing {
    pub(crate) shifts: Vec<f32>,
    pub(crate) factors: Vec<f32>,
}

/// What ranges are taken to be at least, so that a channel that is never used has a factor.
const RANGE_MIN: f32 = 1e-6;

impl Smoothing {
    /// Nothing is done to any of the `inputs`.
    pub(crate) fn none(inputs: usize) -> Smoothing {
        Smoothing { shifts: vec![0.0; inputs], factors: vec![1.0; inputs] }
    }

    /// For inputs like `rows`, as many a row as `matrix` takes.
    ///
    /// A step of a byte is as large as the largest channel makes it. So each channel's mean is
    /// subtracted (Wei et al. 2023, Outlier Suppression+, equation 3), and half of what is left, on a
    /// logarithmic scale, is moved to the weights (Xiao et al. 2023, SmoothQuant, equation 4 with a
    /// strength of 0.5).
    pub(crate) fn of(rows: &[f32], matrix: &Matrix) -> Smoothing {
        let inputs = matrix.inputs;
        let count = rows.len() / inputs;
        if count == 0 {
            return Smoothing::none(inputs);
        }
        let mut shifts = vec![0.0; inputs];
        for row in rows.chunks_exact(inputs) {
            for (sum, value) in shifts.iter_mut().zip(row) {
                *sum += value / count as f32;
            }
        }
        let mut ranges = vec![RANGE_MIN; inputs];
        for row in rows.chunks_exact(inputs) {
            for ((range, value), shift) in ranges.iter_mut().zip(row).zip(&shifts) {
                *range = range.max((value - shift).abs());
            }
        }
        let mut weights = vec![RANGE_MIN; inputs];
        for row in matrix.weights.chunks_exact(inputs) {
            for (greatest, weight) in weights.iter_mut().zip(row) {
                *greatest = greatest.max(weight.abs());
            }
        }
        let factors = weights.iter().zip(ranges).map(|(weight, range)| (weight / range).sqrt()).collect();
        Smoothing { shifts, factors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_end_up_centred_and_no_larger_than_their_weights() {
        let matrix =
            Matrix { weights: vec![0.5, 0.01, 0.0, -1.0, -0.04, 0.0], bias: vec![0.0; 2], inputs: 3 };
        let rows = [1.0, -20.0, 3.0, 3.0, -28.0, 3.0];
        let Smoothing { shifts, factors } = Smoothing::of(&rows, &matrix);
        assert_eq!(shifts, [2.0, -24.0, 3.0]);
        assert_eq!(factors[0], 1.0);
        assert!((factors[1] - 0.1).abs() < 1e-6, "{factors:?}");
        assert_eq!(factors[2], 1.0, "a channel nobody uses");
        assert_eq!(Smoothing::of(&[], &matrix), Smoothing::none(3));
    }
}
