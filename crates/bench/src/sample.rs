//! Statistics of repeated measurements.

/// Sorted measurements, for quantiles.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    /// A sample of these values; NaN sorts last.
    pub(crate) fn new(mut values: Vec<f64>) -> Sample {
        values.sort_by(f64::total_cmp);
        Sample { sorted: values }
    }

    /// The nearest-rank quantile: the smallest value that at least the share `p` (0 to 1) of the sample does
    /// not exceed; NaN for an empty sample.
    pub(crate) fn quantile(&self, p: f64) -> f64 {
        if self.sorted.is_empty() {
            return f64::NAN;
        }
        let rank = (p * self.sorted.len() as f64).ceil().max(1.0) as usize;
        self.sorted[rank.min(self.sorted.len()) - 1]
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The largest value; NaN for an empty sample.
    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }
}

/// The median of a few runs.
pub(crate) fn median(values: &[f64]) -> f64 {
    Sample::new(values.to_vec()).median()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_use_the_nearest_rank() {
        let sample = Sample::new((1..=100).rev().map(f64::from).collect());
        assert_eq!(sample.median(), 50.0);
        assert_eq!(sample.quantile(0.95), 95.0);
        assert_eq!(sample.quantile(0.99), 99.0);
        assert_eq!(sample.quantile(0.0), 1.0);
        assert_eq!(sample.max(), 100.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn an_empty_sample_has_no_quantiles() {
        assert!(Sample::new(Vec::new()).quantile(0.99).is_nan());
    }
}
