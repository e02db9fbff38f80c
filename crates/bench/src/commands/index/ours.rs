//! Our index, as it is served: every vector inserted by itself, the graph refined by its own pass.

use std::time::Instant;

use ::index::{Cpu, Index, Options, SearchParams};
use anyhow::{Context, Result, ensure};

use super::{Built, Questions, Round};
use crate::{sample::Sample, truth, vectors::Vectors};

/// Vectors refined in one go, as the service does.
const REFINED: usize = 64;
/// Asked before anything is timed: what ran on this core meanwhile has emptied its caches.
const WARM_UP: usize = 100;

/// Builds an index on this thread, vector by vector; the row is the label.
pub(crate) fn build(corpus: &Vectors, options: Options, cpu: Cpu) -> Result<(Index, Built)> {
    let index = Index::new(options, cpu);
    let started = Instant::now();
    for row in 0..corpus.rows() {
        insert(&index, corpus, row)?;
    }
    let link_s = started.elapsed().as_secs_f64();
    refine(&index);
    let refine_s = started.elapsed().as_secs_f64() - link_s;
    let bytes_per_vector = bytes_per_vector(&index, corpus.rows())?;
    Ok((index, Built { link_s, refine_s, bytes_per_vector }))
}

/// Inserts a row under its number, into the graph.
pub(super) fn insert(index: &Index, corpus: &Vectors, row: usize) -> Result<()> {
    let label = u32::try_from(row).context("labels are 32-bit numbers")?;
    index.upsert(label, corpus.row(row));
    index.drain(usize::MAX);
    Ok(())
}

/// The background pass, until there is nothing left to do.
pub(super) fn refine(index: &Index) {
    while index.refine(REFINED) > 0 {}
}

/// What the index holds, of which every one of `rows` must be in the graph.
pub(super) fn bytes_per_vector(index: &Index, rows: usize) -> Result<f64> {
    let stats = index.stats();
    ensure!(stats.vectors == rows && stats.tail == 0, "not everything is in the graph: {stats:?}");
    Ok(stats.bytes as f64 / rows as f64)
}

/// One search for each query on this thread, and how much of the truth it found.
pub(crate) fn search(index: &Index, questions: &Questions, ef: usize) -> Round {
    let search = SearchParams { k: truth::K, ef, allowed: None, exact: false };
    for query in questions.rows().take(WARM_UP) {
        std::hint::black_box(index.search(query, &search));
    }
    let mut found = Vec::with_capacity(questions.truth.len());
    let mut times = Vec::with_capacity(questions.count());
    let started = Instant::now();
    for query in questions.rows() {
        let begun = Instant::now();
        let neighbours = index.search(query, &search);
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        let labels = neighbours.iter().map(|neighbour| neighbour.label);
        found.extend(labels.chain(std::iter::repeat(u32::MAX)).take(truth::K));
    }
    let seconds = started.elapsed().as_secs_f64();
    let qps = times.len() as f64 / seconds;
    let times = Sample::new(times);
    Round {
        qps,
        p50_us: times.median(),
        p99_us: times.quantile(0.99),
        recall_at_10: truth::recall(&questions.truth, &found),
    }
}
