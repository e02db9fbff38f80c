//! Snapshots: the speed of writing and reading, and whether search results are unchanged afterwards.

use std::time::Instant;

use ::index::{Index, SearchParams};
use anyhow::Result;

use super::{
    live::{EF, Finding, LiveBench},
    ours,
};
use crate::{ground_truth, sample::median};

/// Writes a snapshot to memory, so that the disk is not measured, and reads it back.
pub(super) fn run(bench: &LiveBench<'_>) -> Result<Vec<Finding>> {
    let LiveBench { corpus, query_set, .. } = bench;
    let (index, _) = ours::build(corpus, bench.options, bench.global.cpu())?;
    let mut bytes = Vec::new();
    // Grows the buffer, so that its growth is not measured.
    index.save(&mut bytes)?;
    let (mut written, mut read) = (Vec::new(), Vec::new());
    let mut restored = None;
    for _ in 0..bench.arguments.runs {
        drop(restored.take());
        bytes.clear();
        let started = Instant::now();
        index.save(&mut bytes)?;
        written.push(gigabytes_per_second(bytes.len(), started));
        let started = Instant::now();
        restored = Some(Index::load(&mut &bytes[..], bench.options, bench.global.cpu())?);
        read.push(gigabytes_per_second(bytes.len(), started));
    }
    let restored = restored.expect("--runs is at least 1");
    let search = SearchParams { k: ground_truth::K, ef: EF, allowed: None, exact: false };
    let searched = query_set.count();
    let same = query_set
        .rows()
        .filter(|query| index.search(query, &search) == restored.search(query, &search))
        .count();
    let (written, read) = (median(&written), median(&read));
    Ok(vec![
        Finding {
            metric: "snapshot",
            value: bytes.len() as f64 / corpus.rows() as f64,
            unit: "bytes per vector",
            baseline: Some(("in memory", ours::bytes_per_vector(&index, corpus.rows())?)),
            requirement: None,
        },
        Finding {
            metric: "snapshot written to memory",
            value: written,
            unit: "GB/s",
            baseline: None,
            requirement: None,
        },
        Finding {
            metric: "snapshot read from memory",
            value: read,
            unit: "GB/s",
            baseline: None,
            requirement: Some((">= 1 GB/s", read >= 1.0)),
        },
        Finding {
            metric: "identical results after reading back",
            value: same as f64,
            unit: "queries",
            baseline: Some(("searched", searched as f64)),
            requirement: Some(("all", same == searched)),
        },
    ])
}

fn gigabytes_per_second(bytes: usize, started: Instant) -> f64 {
    bytes as f64 / 1e9 / started.elapsed().as_secs_f64()
}
