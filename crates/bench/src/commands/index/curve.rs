//! Recall and latency by ef_search, and their interpolation at a target recall.

use super::RoundResult;
use crate::{report::Row, sample::median};

/// The figures of an engine at one ef_search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CurvePoint {
    pub(super) ef: f64,
    pub(super) recall_at_10: f64,
    /// Mean microseconds per query over a whole round.
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Where a curve crosses a target recall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Crossing {
    /// Interpolated between two measured points.
    Interpolated(CurvePoint),
    /// Recall is at or above the target at the smallest ef_search.
    AlreadyAbove(CurvePoint),
    /// Recall stays below the target; the point of highest recall.
    NotReached(CurvePoint),
}

/// Points in ascending order of ef_search.
#[derive(Clone, Debug)]
pub(super) struct Curve(Vec<CurvePoint>);

impl CurvePoint {
    /// The medians of the rounds at one ef_search.
    pub(super) fn of(ef: usize, rounds: &[RoundResult]) -> CurvePoint {
        let median = |of: fn(&RoundResult) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
        CurvePoint {
            ef: ef as f64,
            recall_at_10: median(|round| round.recall_at_10),
            mean_us: 1e6 / median(|round| round.qps),
            p50_us: median(|round| round.p50_us),
            p99_us: median(|round| round.p99_us),
        }
    }

    /// Queries per second.
    pub(super) fn qps(&self) -> f64 {
        1e6 / self.mean_us
    }

    /// Adds recall, throughput and latency to a row.
    pub(super) fn add_to(&self, row: Row) -> Row {
        row.with_rounded("recall_at_10", self.recall_at_10, 4)
            .with_rounded("qps", self.qps(), 0)
            .with_rounded("p50_us", self.p50_us, 1)
            .with_rounded("p99_us", self.p99_us, 1)
    }

    /// Linear interpolation from `self` to `other`.
    fn interpolate(&self, other: &CurvePoint, share: f64) -> CurvePoint {
        let mix = |a: f64, b: f64| a + (b - a) * share;
        CurvePoint {
            ef: mix(self.ef, other.ef),
            recall_at_10: mix(self.recall_at_10, other.recall_at_10),
            mean_us: mix(self.mean_us, other.mean_us),
            p50_us: mix(self.p50_us, other.p50_us),
            p99_us: mix(self.p99_us, other.p99_us),
        }
    }
}

impl Curve {
    /// The curve through the medians of the rounds at each ef_search; `efs` is ascending.
    pub(super) fn of(efs: &[usize], rounds: &[Vec<RoundResult>]) -> Curve {
        Curve(efs.iter().zip(rounds).map(|(&ef, rounds)| CurvePoint::of(ef, rounds)).collect())
    }

    /// The points.
    pub(super) fn points(&self) -> &[CurvePoint] {
        &self.0
    }

    /// Where recall first reaches `target`, interpolating linearly between neighbouring points; `None` without
    /// points.
    pub(super) fn at(&self, target: f64) -> Option<Crossing> {
        let first = self.0.first()?;
        if first.recall_at_10 >= target {
            return Some(Crossing::AlreadyAbove(*first));
        }
        let pair =
            self.0.windows(2).find(|pair| pair[0].recall_at_10 < target && pair[1].recall_at_10 >= target);
        Some(match pair {
            Some([below, above]) => {
                let share = (target - below.recall_at_10) / (above.recall_at_10 - below.recall_at_10);
                Crossing::Interpolated(below.interpolate(above, share))
            }
            _ => Crossing::NotReached(self.0.iter().copied().fold(*first, |best, point| {
                if point.recall_at_10 > best.recall_at_10 { point } else { best }
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ef: f64, recall_at_10: f64, mean_us: f64) -> CurvePoint {
        CurvePoint { ef, recall_at_10, mean_us, p50_us: mean_us * 0.9, p99_us: mean_us * 2.0 }
    }

    #[test]
    fn interpolates_recall_and_microseconds_linearly_between_neighbouring_points() {
        let curve = Curve(vec![point(10.0, 0.80, 20.0), point(20.0, 0.90, 30.0), point(40.0, 0.98, 70.0)]);
        let Some(Crossing::Interpolated(found)) = curve.at(0.95) else { panic!("{:?}", curve.at(0.95)) };
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
            assert!((found - expected).abs() < 1e-9, "expected {expected}, found {found}");
        }
        let Some(Crossing::Interpolated(at_a_point)) = curve.at(0.90) else { panic!() };
        assert!((at_a_point.mean_us - 30.0).abs() < 1e-9);
    }

    #[test]
    fn reports_the_best_point_below_an_unreached_target_and_the_first_point_above_a_low_one() {
        let curve = Curve(vec![point(10.0, 0.91, 20.0), point(20.0, 0.96, 30.0), point(40.0, 0.955, 60.0)]);
        assert_eq!(curve.at(0.9), Some(Crossing::AlreadyAbove(curve.0[0])));
        assert_eq!(curve.at(0.99), Some(Crossing::NotReached(curve.0[1])));
        assert_eq!(Curve(Vec::new()).at(0.9), None);
    }

    #[test]
    fn a_point_is_the_median_of_its_rounds() {
        let round =
            |qps, recall_at_10| RoundResult { qps, p50_us: 1e6 / qps, p99_us: 2e6 / qps, recall_at_10 };
        let found = CurvePoint::of(50, &[round(100.0, 0.5), round(400.0, 0.6), round(200.0, 0.7)]);
        assert_eq!((found.ef, found.recall_at_10, found.mean_us), (50.0, 0.6, 5000.0));
        assert_eq!(found.qps(), 200.0);
    }
}
