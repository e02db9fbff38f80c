//! Churn: half of the collection is deleted and inserted again, repeatedly.

use anyhow::{Context, Result};

use super::{
    live::{EF, Finding, LiveBench},
    ours,
};
use crate::random::Random;

/// Accepted loss of recall compared with a fresh graph.
const RECALL_LOST_MAX: f64 = 0.01;
/// Accepted memory relative to a fresh index.
const MEMORY_MAX: f64 = 1.1;
/// Seed of the choice of deleted rows.
const SEED: u64 = 5;

/// Deletes and inserts again, vacuuming and refining as the service's background thread does.
pub(super) fn run(bench: &LiveBench<'_>) -> Result<Vec<Finding>> {
    let LiveBench { corpus, query_set, arguments, .. } = bench;
    let (index, built) = ours::build(corpus, bench.options, bench.global.cpu())?;
    let fresh = ours::search(&index, query_set, EF).recall_at_10;
    let mut random = Random::new(SEED);
    let mut rows: Vec<usize> = (0..corpus.rows()).collect();
    for churn in 0..arguments.churns {
        let (half, _) = shuffled(&mut rows, &mut random).split_at(corpus.rows() / 2);
        for &row in half {
            index.remove(u32::try_from(row).context("labels are 32-bit numbers")?);
        }
        index.vacuum();
        for &row in half {
            ours::insert(&index, corpus, row)?;
        }
        index.vacuum();
        ours::refine(&index);
        eprintln!("churn {} of {} done", churn + 1, arguments.churns);
    }
    let recall = ours::search(&index, query_set, EF).recall_at_10;
    let bytes = ours::bytes_per_vector(&index, corpus.rows())?;
    Ok(vec![
        Finding {
            metric: "recall@10 after churn",
            value: recall,
            unit: "share",
            baseline: Some(("fresh", fresh)),
            requirement: Some(("within 0.01", recall >= fresh - RECALL_LOST_MAX)),
        },
        Finding {
            metric: "bytes per vector after churn",
            value: bytes,
            unit: "bytes",
            baseline: Some(("fresh", built.bytes_per_vector)),
            requirement: Some(("within 10 %", bytes <= MEMORY_MAX * built.bytes_per_vector)),
        },
    ])
}

/// The rows in random order (Fisher and Yates).
fn shuffled<'a>(rows: &'a mut [usize], random: &mut Random) -> &'a [usize] {
    for end in (1..rows.len()).rev() {
        rows.swap(end, random.below(end + 1));
    }
    rows
}
