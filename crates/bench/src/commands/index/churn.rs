//! Half of the collection deleted and inserted again, many times over.

use anyhow::{Context, Result};

use super::{
    live::{Bench, EF, Finding},
    ours,
};
use crate::random::Random;

/// Recall may be less than a fresh graph's by so much.
const RECALL_LOST_MAX: f64 = 0.01;
/// Memory may be so many times a fresh index's.
const MEMORY_MAX: f64 = 1.1;
/// Of the choice of what is deleted.
const SEED: u64 = 5;

/// Deletes and inserts again, sweeping and refining as the background of the service does.
pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let Bench { corpus, questions, arguments, .. } = bench;
    let (index, built) = ours::build(corpus, bench.options, bench.setting.cpu())?;
    let fresh = ours::search(&index, questions, EF).recall_at_10;
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
    let recall = ours::search(&index, questions, EF).recall_at_10;
    let bytes = ours::bytes_per_vector(&index, corpus.rows())?;
    Ok(vec![
        Finding {
            what: "recall@10 after churn",
            value: recall,
            unit: "share",
            beside: Some(("fresh", fresh)),
            demanded: Some(("within 0.01", recall >= fresh - RECALL_LOST_MAX)),
        },
        Finding {
            what: "bytes a vector after churn",
            value: bytes,
            unit: "bytes",
            beside: Some(("fresh", built.bytes_per_vector)),
            demanded: Some(("within 10 %", bytes <= MEMORY_MAX * built.bytes_per_vector)),
        },
    ])
}

/// All in random order (Fisher and Yates).
fn shuffled<'a>(rows: &'a mut [usize], random: &mut Random) -> &'a [usize] {
    for end in (1..rows.len()).rev() {
        rows.swap(end, random.below(end + 1));
    }
    rows
}
