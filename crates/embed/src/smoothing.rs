//! Smoothing the inputs of int8 layers, so that they lose less precision when quantized.

use crate::layer::LinearWeights;

/// Transforms each input of a linear layer before quantization: `(x - shift) * factor`. The layer's weights
/// and bias compensate for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Smoothing {
    pub(crate) shifts: Vec<f32>,
    pub(crate) factors: Vec<f32>,
}

/// Lower bound for ranges, so that the factor of an unused channel is finite.
const RANGE_MIN: f32 = 1e-6;

impl Smoothing {
    /// Leaves all `inputs` unchanged.
    pub(crate) fn identity(inputs: usize) -> Smoothing {
        Smoothing { shifts: vec![0.0; inputs], factors: vec![1.0; inputs] }
    }

    /// Fits the smoothing to sample inputs. Each row of `rows` has as many values as `matrix` has inputs.
    ///
    /// The largest channel determines the quantization step. So each channel's mean is subtracted
    /// (Wei et al. 2023, Outlier Suppression+, equation 3), and half of the remaining range, on a
    /// logarithmic scale, is moved to the weights (Xiao et al. 2023, SmoothQuant, equation 4 with a
    /// strength of 0.5).
    pub(crate) fn fit(rows: &[f32], matrix: &LinearWeights) -> Smoothing {
        let inputs = matrix.inputs;
        let count = rows.len() / inputs;
        if count == 0 {
            return Smoothing::identity(inputs);
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
            for (max, weight) in weights.iter_mut().zip(row) {
                *max = max.max(weight.abs());
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
    fn centres_channels_and_balances_their_ranges_with_the_weights() {
        let matrix =
            LinearWeights { weights: vec![0.5, 0.01, 0.0, -1.0, -0.04, 0.0], bias: vec![0.0; 2], inputs: 3 };
        let rows = [1.0, -20.0, 3.0, 3.0, -28.0, 3.0];
        let Smoothing { shifts, factors } = Smoothing::fit(&rows, &matrix);
        assert_eq!(shifts, [2.0, -24.0, 3.0]);
        assert_eq!(factors[0], 1.0);
        assert!((factors[1] - 0.1).abs() < 1e-6, "{factors:?}");
        assert_eq!(factors[2], 1.0, "an unused channel");
        assert_eq!(Smoothing::fit(&[], &matrix), Smoothing::identity(3));
    }
}
