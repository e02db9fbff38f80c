//! Snapshots: how fast they are written and read, and whether the same is found afterwards.

use std::time::Instant;

use ::index::{Index, SearchParams};
use anyhow::Result;

use super::{
    live::{Bench, EF, Finding},
    ours,
};
use crate::{sample::median, truth};

/// Writes into memory, so that no disk is measured, and reads back from there.
pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let Bench { corpus, questions, .. } = bench;
    let (index, _) = ours::build(corpus, bench.options, bench.setting.cpu())?;
    let mut bytes = Vec::new();
    // Grown once, so that growing is not measured.
    index.save(&mut bytes)?;
    let (mut written, mut read) = (Vec::new(), Vec::new());
    let mut restored = None;
    for _ in 0..bench.arguments.runs {
        drop(restored.take());
        bytes.clear();
        let started = Instant::now();
        index.save(&mut bytes)?;
        written.push(gigabytes_a_second(bytes.len(), started));
        let started = Instant::now();
        restored = Some(Index::load(&mut &bytes[..], bench.options, bench.setting.cpu())?);
        read.push(gigabytes_a_second(bytes.len(), started));
    }
    let restored = restored.expect("--runs is at least 1");
    let search = SearchParams { k: truth::K, ef: EF, allowed: None, exact: false };
    let asked = questions.count();
    let same = questions
        .rows()
        .filter(|query| index.search(query, &search) == restored.search(query, &search))
        .count();
    let (written, read) = (median(&written), median(&read));
    Ok(vec![
        Finding {
            what: "snapshot",
            value: bytes.len() as f64 / corpus.rows() as f64,
            unit: "bytes a vector",
            beside: Some(("in memory", ours::bytes_per_vector(&index, corpus.rows())?)),
            demanded: None,
        },
        Finding {
            what: "snapshot written into memory",
            value: written,
            unit: "GB/s",
            beside: None,
            demanded: None,
        },
        Finding {
            what: "snapshot read from memory",
            value: read,
            unit: "GB/s",
            beside: None,
            demanded: Some((">= 1 GB/s", read >= 1.0)),
        },
        Finding {
            what: "identical answers after reading back",
            value: same as f64,
            unit: "queries",
            beside: Some(("asked", asked as f64)),
            demanded: Some(("all", same == asked)),
        },
    ])
}

fn gigabytes_a_second(bytes: usize, started: Instant) -> f64 {
    bytes as f64 / 1e9 / started.elapsed().as_secs_f64()
}
