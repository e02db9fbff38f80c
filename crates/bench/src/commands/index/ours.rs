//! Nearfield's index as the service uses it: vectors are inserted one by one, then the graph is refined.

use std::time::Instant;

use ::index::{Cpu, Index, Options, SearchParams};
use anyhow::{Context, Result, ensure};

use super::{BuildResult, QuerySet, RoundResult};
use crate::{ground_truth, sample::Sample, vectors::Vectors};

/// Vectors refined per step, as in the service.
const REFINED: usize = 64;
/// Warm-up queries, since other work on this core has evicted the index from its caches.
const WARM_UP: usize = 100;

/// Builds an index on this thread, vector by vector; the row number is the label.
pub(crate) fn build(corpus: &Vectors, options: Options, cpu: Cpu) -> Result<(Index, BuildResult)> {
    let index = Index::new(options, cpu);
    let started = Instant::now();
    for row in 0..corpus.rows() {
        insert(&index, corpus, row)?;
    }
    let link_s = started.elapsed().as_secs_f64();
    refine(&index);
    let refine_s = started.elapsed().as_secs_f64() - link_s;
    let bytes_per_vector = bytes_per_vector(&index, corpus.rows())?;
    Ok((index, BuildResult { link_s, refine_s, bytes_per_vector }))
}

/// Inserts a row into the graph, labelled with its number.
pub(super) fn insert(index: &Index, corpus: &Vectors, row: usize) -> Result<()> {
    let label = u32::try_from(row).context("labels are 32-bit numbers")?;
    index.upsert(label, corpus.row(row));
    index.drain(usize::MAX);
    Ok(())
}

/// Refines the whole graph.
pub(super) fn refine(index: &Index) {
    while index.refine(REFINED) > 0 {}
}

/// The memory of the index per vector; an error unless all `rows` vectors are in the graph.
pub(super) fn bytes_per_vector(index: &Index, rows: usize) -> Result<f64> {
    let stats = index.stats();
    ensure!(stats.vectors == rows && stats.tail == 0, "some vectors are not in the graph: {stats:?}");
    Ok(stats.bytes as f64 / rows as f64)
}

/// Searches for each query on this thread.
pub(crate) fn search(index: &Index, query_set: &QuerySet, ef: usize) -> RoundResult {
    let search = SearchParams { k: ground_truth::K, ef, allowed: None, exact: false };
    for query in query_set.rows().take(WARM_UP) {
        std::hint::black_box(index.search(query, &search));
    }
    let mut found = Vec::with_capacity(query_set.truth.len());
    let mut times = Vec::with_capacity(query_set.count());
    let started = Instant::now();
    for query in query_set.rows() {
        let began = Instant::now();
        let neighbours = index.search(query, &search);
        times.push(began.elapsed().as_secs_f64() * 1e6);
        let labels = neighbours.iter().map(|neighbour| neighbour.label);
        found.extend(labels.chain(std::iter::repeat(u32::MAX)).take(ground_truth::K));
    }
    let seconds = started.elapsed().as_secs_f64();
    let qps = times.len() as f64 / seconds;
    let times = Sample::new(times);
    RoundResult {
        qps,
        p50_us: times.median(),
        p99_us: times.quantile(0.99),
        recall_at_10: ground_truth::recall(&query_set.truth, &found),
    }
}
