//! Rounds over all points, in which the engines alternate.

use anyhow::Result;

use super::{QuerySet, RoundResult, competitor::Competitor, curve::Curve};

/// An engine, its queries, the values of ef_search, and the results.
pub(super) struct Measurement<'a> {
    competitor: &'a mut Competitor,
    query_set: &'a QuerySet,
    efs: &'a [usize],
    /// The rounds at each ef_search.
    rounds: Vec<Vec<RoundResult>>,
}

impl<'a> Measurement<'a> {
    /// A measurement without results; `efs` is ascending.
    pub(super) fn new(
        competitor: &'a mut Competitor,
        query_set: &'a QuerySet,
        efs: &'a [usize],
    ) -> Measurement<'a> {
        Measurement { competitor, query_set, efs, rounds: vec![Vec::new(); efs.len()] }
    }

    /// The curve of the medians.
    pub(super) fn curve(&self) -> Curve {
        Curve::of(self.efs, &self.rounds)
    }
}

/// Measures each engine at each of its values of ef_search `runs` times. The engines alternate point by point,
/// and the first engine changes from round to round.
pub(super) fn measure_in_rounds(measurements: &mut [Measurement<'_>], runs: usize) -> Result<()> {
    let engines = measurements.len();
    let longest = measurements.iter().map(|measurement| measurement.efs.len()).max().unwrap_or(0);
    for run in 0..runs {
        for position in 0..longest {
            for number in 0..engines {
                let measurement = &mut measurements[(run + number) % engines];
                if let Some(&ef) = measurement.efs.get(position) {
                    let round = measurement.competitor.search(measurement.query_set, ef, true)?;
                    measurement.rounds[position].push(round);
                }
            }
        }
        eprintln!("round {} of {runs} done", run + 1);
    }
    Ok(())
}
