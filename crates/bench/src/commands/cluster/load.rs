//! Bulk loading of documents with their vectors, and the cost per document on each primary.

use std::time::Instant;

use anyhow::{Result, ensure};
use nearfield::service::Context;

use super::{
    ClusterBench, StoreUnderTest,
    counters::{self, NodeCounters},
};
use crate::{
    commands::redis::load::IndexTarget,
    machine, packages,
    report::{Format, Report, Row},
};

/// The cost of loading into one store.
#[derive(Clone, Debug, Default)]
struct StoreCost {
    seconds: f64,
    client_cpu_s: f64,
    /// Counters of its nodes.
    counts: Vec<NodeCounters>,
}

/// Measures and prints. The same documents are loaded into each store, slice by slice in turn, so that all
/// writes go to indexes of equal size.
pub(super) fn run(bench: &ClusterBench<'_>, target: IndexTarget, format: Format) -> Result<()> {
    let rows = bench.corpus.documents.len();
    let schema = packages::schema(target.collection, target.algorithm, bench.corpus.vectors.dim, None);
    let local = Context::local();
    let mut before = Vec::with_capacity(bench.stores.len());
    for store in &bench.stores {
        let creation = store.service.put_collection(&local, target.collection, schema.clone(), false);
        bench.runtime.block_on(creation)?;
        before.push(store.counters()?);
    }
    let mut costs = vec![StoreCost::default(); bench.stores.len()];
    let slices = bench.arguments.slices.get();
    for slice in 0..slices {
        let (first, last) = (rows * slice / slices, rows * (slice + 1) / slices);
        for offset in 0..bench.stores.len() {
            let position = (slice + offset) % bench.stores.len();
            let (started, cpu) = (Instant::now(), machine::process_cpu());
            bench.runtime.block_on(packages::write(
                &bench.stores[position].service,
                target.collection,
                &bench.corpus.documents[first..last],
                Some((&bench.corpus.vectors, first)),
                bench.arguments.batch,
            ))?;
            costs[position].seconds += started.elapsed().as_secs_f64();
            costs[position].client_cpu_s += (machine::process_cpu() - cpu).as_secs_f64();
        }
        eprintln!("{}: {last} of {rows} documents loaded into each store", target.name);
    }
    for ((store, costs), before) in bench.stores.iter().zip(&mut costs).zip(before) {
        let info = store.service.collection(&local, target.collection);
        let info = bench.runtime.block_on(info)?;
        ensure!(
            info.documents == rows as u64 && info.vectors == info.documents,
            "{} holds {} documents and {} vectors, expected {rows}",
            store.name,
            info.documents,
            info.vectors
        );
        costs.counts =
            store.counters()?.into_iter().zip(before).map(|(after, before)| after - before).collect();
    }
    rates(bench, target, &costs, format)?;
    nodes(bench, target, &costs, format)
}

fn rates(bench: &ClusterBench<'_>, target: IndexTarget, costs: &[StoreCost], format: Format) -> Result<()> {
    let rows = bench.corpus.documents.len() as f64;
    let mut report = Report::new(format, "cluster load");
    for (store, StoreCost { seconds, client_cpu_s, counts }) in bench.stores.iter().zip(costs) {
        let nodes_cpu_s: f64 = counts.iter().map(|counts| counts.cpu_s).sum();
        let busiest = counts.iter().map(|counts| counts.cpu_s).fold(0.0, f64::max);
        report.push(
            Row::new()
                .with("store", store.name)
                .with("primaries", store.nodes.len())
                .with("index", target.name)
                .with("documents", bench.corpus.documents.len())
                .with("batch", bench.arguments.batch.get())
                .with_rounded("seconds", *seconds, 2)
                .with_rounded("documents_per_s", rows / seconds, 0)
                .with_rounded("client_cpu_s", *client_cpu_s, 2)
                .with_rounded("nodes_cpu_s", nodes_cpu_s, 2)
                .with_rounded("busiest_node_cpu_s", busiest, 2)
                .with_rounded("documents_per_s_of_busiest_node", rows / busiest, 0),
        )?;
    }
    report.finish()
}

fn nodes(bench: &ClusterBench<'_>, target: IndexTarget, costs: &[StoreCost], format: Format) -> Result<()> {
    let mut report = Report::new(format, "cluster nodes");
    for (store, costs) in bench.stores.iter().zip(costs) {
        for (number, counts) in costs.counts.iter().enumerate() {
            report.push(
                Row::new()
                    .with("store", store.name)
                    .with("primaries", store.nodes.len())
                    .with("index", target.name)
                    .with("node", number + 1)
                    .with_rounded("documents", counts.keys, 0)
                    .with_rounded("cpu_s", counts.cpu_s, 2)
                    .with_rounded("cpu_us_per_document", counts.cpu_s * 1e6 / counts.keys, 0)
                    .with_rounded("memory_mib", counts.used_memory / 1_048_576.0, 1)
                    .with_rounded("used_memory_bytes_per_document", counts.used_memory / counts.keys, 0),
            )?;
        }
    }
    report.finish()
}

impl StoreUnderTest {
    /// The counters of each node.
    pub(super) fn counters(&self) -> Result<Vec<NodeCounters>> {
        self.nodes.iter().map(counters::read).collect()
    }
}
