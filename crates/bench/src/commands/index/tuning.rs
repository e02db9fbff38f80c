//! Chooses the values of ef_search to measure, with queries that are not reported.

use anyhow::Result;

use super::{QuerySet, competitor::Competitor};

/// Probed values: each is `STEP` times the one before, up to `LAST`.
const STEP: f64 = std::f64::consts::SQRT_2;
const LAST: f64 = 4096.0;
/// Recall that grows by less than this while ef_search doubles has reached its maximum.
const FLAT: f64 = 0.0003;
/// The probes go beyond the highest target by this much, since the reported queries may be harder.
const BEYOND: f64 = 0.001;
/// Relative distance below and above the interpolated ef_search at which to measure.
const MARGIN: f64 = 0.08;
/// Probed values with at least this recall are measured as well, for the plot and in case the reported queries
/// need a very different ef_search.
const FROM: f64 = 0.8;

/// ef_search and the recall of the tuning queries.
type EfRecall = (f64, f64);

/// The values of ef_search to measure, ascending, such that recall crosses each of `targets` between two of them.
pub(super) fn efs(competitor: &mut Competitor, tuning: &QuerySet, targets: &[f64]) -> Result<Vec<usize>> {
    let highest = targets.iter().copied().fold(0.0, f64::max);
    let mut tried: Vec<EfRecall> = Vec::new();
    let mut ef = competitor.ef_min as f64;
    while ef <= LAST {
        let recall = competitor.search(tuning, ef.round() as usize, false)?.recall_at_10;
        tried.push((ef.round(), recall));
        let is_flat = tried.len() > 2 && recall - tried[tried.len() - 3].1 < FLAT;
        if is_flat || recall >= (highest + BEYOND).min(1.0) {
            break;
        }
        ef *= STEP;
    }
    Ok(choose(&tried, targets))
}

/// Two values around each target's ef_search, and the probed ones in their range.
fn choose(tried: &[EfRecall], targets: &[f64]) -> Vec<usize> {
    let mut chosen: Vec<f64> =
        tried.iter().filter(|(_, recall)| *recall >= FROM).map(|tried| tried.0).collect();
    // The last one below, where the curve starts.
    chosen.extend(tried.iter().rev().find(|(_, recall)| *recall < FROM).map(|tried| tried.0));
    for &target in targets {
        let crossed = tried.windows(2).find(|pair| pair[0].1 < target && pair[1].1 >= target);
        if let Some([(below_ef, below), (above_ef, above)]) = crossed {
            let ef = below_ef + (above_ef - below_ef) * (target - below) / (above - below);
            // Probes close to the two new values add nothing.
            chosen.retain(|other| (other / ef - 1.0).abs() > MARGIN);
            chosen.extend([(ef * (1.0 - MARGIN)).floor().max(tried[0].0), (ef * (1.0 + MARGIN)).ceil()]);
        }
    }
    let mut chosen: Vec<usize> = chosen.into_iter().map(|ef| ef as usize).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_two_values_around_each_target_and_keeps_the_other_probes() {
        let tried =
            [(10.0, 0.6), (14.0, 0.7), (20.0, 0.81), (28.0, 0.91), (40.0, 0.93), (57.0, 0.97), (80.0, 0.98)];
        // .95 is half way between 40 and 57: 48.5.
        assert_eq!(choose(&tried, &[0.95]), [14, 20, 28, 40, 44, 53, 57, 80]);
        // The target is not reached: only the probes remain.
        assert_eq!(choose(&tried, &[0.99]), [14, 20, 28, 40, 57, 80]);
        // 28 is too close to the two values around 27.2.
        assert_eq!(choose(&tried, &[0.9]), [14, 20, 25, 30, 40, 57, 80]);
        assert_eq!(choose(&[(10.0, 0.99)], &[0.95]), [10]);
    }
}
