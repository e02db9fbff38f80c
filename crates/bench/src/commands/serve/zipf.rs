//! Queries as they come: few often, most seldom.

use crate::random::Random;

/// Zipf's law with exponent 1: the chance of place `i` (from 1 on) is proportional to `1 / i`.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    /// Sums of `1 / i` up to each place.
    sums: Vec<f64>,
}

impl Zipf {
    /// Over so many places, at least one.
    pub(super) fn new(places: usize) -> Zipf {
        assert!(places > 0, "there is a place to draw");
        let mut sum = 0.0;
        let sums = (1..=places).map(|place| {
            sum += 1.0 / place as f64;
            sum
        });
        Zipf { sums: sums.collect() }
    }

    /// A place, from 0 on.
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
    fn places_are_drawn_as_often_as_the_law_says() {
        let (zipf, mut random) = (Zipf::new(100), Random::new(1));
        let mut drawn = [0usize; 100];
        for _ in 0..100_000 {
            drawn[zipf.draw(&mut random)] += 1;
        }
        let all: f64 = (1..=100).map(|place| 1.0 / f64::from(place)).sum();
        for place in [1usize, 2, 10, 100] {
            let expected = 100_000.0 / place as f64 / all;
            let error = (drawn[place - 1] as f64 - expected).abs();
            assert!(error < 5.0 * expected.sqrt(), "place {place}: {} of {expected}", drawn[place - 1]);
        }
    }
}
