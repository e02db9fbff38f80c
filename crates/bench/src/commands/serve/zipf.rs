//! Zipf-distributed queries: few are frequent, most are rare.

use crate::random::Random;

/// Zipf's law with exponent 1: the probability of rank `i` (starting at 1) is proportional to `1 / i`.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    /// Cumulative sums of `1 / i`.
    sums: Vec<f64>,
}

impl Zipf {
    /// A distribution over this many ranks, at least one.
    pub(super) fn new(ranks: usize) -> Zipf {
        assert!(ranks > 0, "a distribution needs at least one rank");
        let mut sum = 0.0;
        let sums = (1..=ranks).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Zipf { sums: sums.collect() }
    }

    /// A random rank, starting at 0.
    pub(super) fn draw(&self, random: &mut Random) -> usize {
        let all = self.sums[self.sums.len() - 1];
        let drawn = random.unit() * all;
        self.sums.partition_point(|sum| *sum <= drawn).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_drawn_with_the_expected_frequencies() {
        let (zipf, mut random) = (Zipf::new(100), Random::new(1));
        let mut drawn = [0usize; 100];
        for _ in 0..100_000 {
            drawn[zipf.draw(&mut random)] += 1;
        }
        let all: f64 = (1..=100).map(|position| 1.0 / f64::from(position)).sum();
        for rank in [1usize, 2, 10, 100] {
            let expected = 100_000.0 / rank as f64 / all;
            let error = (drawn[rank - 1] as f64 - expected).abs();
            assert!(error < 5.0 * expected.sqrt(), "rank {rank}: {} of {expected}", drawn[rank - 1]);
        }
    }
}
