//! Recall and times by breadth of search, and what they are at a recall between two measured breadths.

use super::Round;
use crate::{report::Row, sample::median};

/// What an engine does at a breadth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) ef: f64,
    pub(super) recall_at_10: f64,
    /// A query, of all queries in one go.
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// What an engine does at a recall that was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reached {
    /// Between two measured breadths.
    Between(Point),
    /// More than that, at the smallest breadth already.
    Exceeded(Point),
    /// Never; the best there was.
    Never(Point),
}

/// Points by breadth.
#[derive(Clone, Debug)]
pub(super) struct Curve(Vec<Point>);

impl Point {
    /// The medians of rounds at a breadth.
    pub(super) fn of(ef: usize, rounds: &[Round]) -> Point {
        let median = |of: fn(&Round) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
        Point {
            ef: ef as f64,
            recall_at_10: median(|round| round.recall_at_10),
            mean_us: 1e6 / median(|round| round.qps),
            p50_us: median(|round| round.p50_us),
            p99_us: median(|round| round.p99_us),
        }
    }

    /// Queries a second.
    pub(super) fn qps(&self) -> f64 {
        1e6 / self.mean_us
    }

    /// The row with recall, rate and times.
    pub(super) fn tell(&self, row: Row) -> Row {
        row.with_rounded("recall_at_10", self.recall_at_10, 4)
            .with_rounded("qps", self.qps(), 0)
            .with_rounded("p50_us", self.p50_us, 1)
            .with_rounded("p99_us", self.p99_us, 1)
    }

    /// On the straight line from `self` to `other`, a `share` of the way.
    fn towards(&self, other: &Point, share: f64) -> Point {
        let mix = |a: f64, b: f64| a + (b - a) * share;
        Point {
            ef: mix(self.ef, other.ef),
            recall_at_10: mix(self.recall_at_10, other.recall_at_10),
            mean_us: mix(self.mean_us, other.mean_us),
            p50_us: mix(self.p50_us, other.p50_us),
            p99_us: mix(self.p99_us, other.p99_us),
        }
    }
}

impl Curve {
    /// The curve through the medians of the rounds at each breadth; breadths ascend.
    pub(super) fn of(breadths: &[usize], rounds: &[Vec<Round>]) -> Curve {
        Curve(breadths.iter().zip(rounds).map(|(&ef, rounds)| Point::of(ef, rounds)).collect())
    }

    /// Its points.
    pub(super) fn points(&self) -> &[Point] {
        &self.0
    }

    /// Where recall first gets to `target`, recall and microseconds being straight between two
    /// neighbouring points; `None` without points.
    pub(super) fn at(&self, target: f64) -> Option<Reached> {
        let first = self.0.first()?;
        if first.recall_at_10 >= target {
            return Some(Reached::Exceeded(*first));
        }
        let pair =
            self.0.windows(2).find(|pair| pair[0].recall_at_10 < target && pair[1].recall_at_10 >= target);
        Some(match pair {
            Some([below, above]) => {
                let share = (target - below.recall_at_10) / (above.recall_at_10 - below.recall_at_10);
                Reached::Between(below.towards(above, share))
            }
            _ => Reached::Never(self.0.iter().copied().fold(*first, |best, point| {
                if point.recall_at_10 > best.recall_at_10 { point } else { best }
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ef: f64, recall_at_10: f64, mean_us: f64) -> Point {
        Point { ef, recall_at_10, mean_us, p50_us: mean_us * 0.9, p99_us: mean_us * 2.0 }
    }

    #[test]
    fn recall_and_microseconds_are_straight_between_neighbouring_points() {
        let curve = Curve(vec![point(10.0, 0.80, 20.0), point(20.0, 0.90, 30.0), point(40.0, 0.98, 70.0)]);
        let Some(Reached::Between(found)) = curve.at(0.95) else { panic!("{:?}", curve.at(0.95)) };
        // Five eighths of the way from .90 to .98.
        let expected = point(32.5, 0.95, 55.0);
        for (found, expected) in [
            (found.ef, expected.ef),
            (found.recall_at_10, expected.recall_at_10),
            (found.mean_us, expected.mean_us),
            (found.p50_us, expected.p50_us),
            (found.p99_us, expected.p99_us),
            (found.qps(), 1e6 / 55.0),
        ] {
            assert!((found - expected).abs() < 1e-9, "{found} where {expected} was expected");
        }
        let Some(Reached::Between(at_a_point)) = curve.at(0.90) else { panic!() };
        assert!((at_a_point.mean_us - 30.0).abs() < 1e-9);
    }

    #[test]
    fn a_recall_out_of_reach_says_the_best_and_one_below_all_says_so() {
        let curve = Curve(vec![point(10.0, 0.91, 20.0), point(20.0, 0.96, 30.0), point(40.0, 0.955, 60.0)]);
        assert_eq!(curve.at(0.9), Some(Reached::Exceeded(curve.0[0])));
        assert_eq!(curve.at(0.99), Some(Reached::Never(curve.0[1])));
        assert_eq!(Curve(Vec::new()).at(0.9), None);
    }

    #[test]
    fn a_point_is_the_median_of_its_rounds() {
        let round = |qps, recall_at_10| Round { qps, p50_us: 1e6 / qps, p99_us: 2e6 / qps, recall_at_10 };
        let found = Point::of(50, &[round(100.0, 0.5), round(400.0, 0.6), round(200.0, 0.7)]);
        assert_eq!((found.ef, found.recall_at_10, found.mean_us), (50.0, 0.6, 5000.0));
        assert_eq!(found.qps(), 200.0);
    }
}
