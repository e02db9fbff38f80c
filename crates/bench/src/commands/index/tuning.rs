//! Which breadths to measure, found with queries that are not reported.

use anyhow::Result;

use super::{Questions, contender::Contender};

/// Breadths tried: each `STEP` times the one before, up to `LAST`.
const STEP: f64 = std::f64::consts::SQRT_2;
const LAST: f64 = 4096.0;
/// A recall that grew by less over twice the breadth grows no more.
const FLAT: f64 = 0.0003;
/// How far beyond the highest recall asked for the breadths go: the other queries may be harder.
const BEYOND: f64 = 0.001;
/// How far below and above the breadth that the tuning queries need the others are asked, as a share.
const ASIDE: f64 = 0.08;
/// Breadths from this recall on are measured besides, for the plot and in case the other queries need
/// quite another breadth.
const FROM: f64 = 0.8;

/// Breadth and recall of the tuning queries.
type Tried = (f64, f64);

/// The breadths between which an engine gets to the recalls `targets`, ascending.
pub(super) fn breadths(contender: &mut Contender, tuning: &Questions, targets: &[f64]) -> Result<Vec<usize>> {
    let highest = targets.iter().copied().fold(0.0, f64::max);
    let mut tried: Vec<Tried> = Vec::new();
    let mut ef = contender.ef_min as f64;
    while ef <= LAST {
        let recall = contender.search(tuning, ef.round() as usize, false)?.recall_at_10;
        tried.push((ef.round(), recall));
        let is_flat = tried.len() > 2 && recall - tried[tried.len() - 3].1 < FLAT;
        if is_flat || recall >= (highest + BEYOND).min(1.0) {
            break;
        }
        ef *= STEP;
    }
    Ok(choose(&tried, targets))
}

/// Two breadths around each target's, and those tried in their range.
fn choose(tried: &[Tried], targets: &[f64]) -> Vec<usize> {
    let mut chosen: Vec<f64> =
        tried.iter().filter(|(_, recall)| *recall >= FROM).map(|tried| tried.0).collect();
    // The one before, from which the curve comes.
    chosen.extend(tried.iter().rev().find(|(_, recall)| *recall < FROM).map(|tried| tried.0));
    for &target in targets {
        let crossed = tried.windows(2).find(|pair| pair[0].1 < target && pair[1].1 >= target);
        if let Some([(below_ef, below), (above_ef, above)]) = crossed {
            let ef = below_ef + (above_ef - below_ef) * (target - below) / (above - below);
            // What was tried nearby says no more than these two do.
            chosen.retain(|other| (other / ef - 1.0).abs() > ASIDE);
            chosen.extend([(ef * (1.0 - ASIDE)).floor().max(tried[0].0), (ef * (1.0 + ASIDE)).ceil()]);
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
    fn two_breadths_stand_around_each_target_and_the_tried_ones_beside_them() {
        let tried =
            [(10.0, 0.6), (14.0, 0.7), (20.0, 0.81), (28.0, 0.91), (40.0, 0.93), (57.0, 0.97), (80.0, 0.98)];
        // .95 is half way from 40 to 57: 48.5.
        assert_eq!(choose(&tried, &[0.95]), [14, 20, 28, 40, 44, 53, 57, 80]);
        // Never reached: what was tried must do.
        assert_eq!(choose(&tried, &[0.99]), [14, 20, 28, 40, 57, 80]);
        // 28 lies too near to what stands around 27.2.
        assert_eq!(choose(&tried, &[0.9]), [14, 20, 25, 30, 40, 57, 80]);
        assert_eq!(choose(&[(10.0, 0.99)], &[0.95]), [10]);
    }
}
