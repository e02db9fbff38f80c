//! Bulk loading with ready vectors, and what a document costs each primary.

use std::time::Instant;

use anyhow::{Result, ensure};
use nearfield::service::Context;

use super::{
    Contender, Stand,
    node::{self, Counts},
};
use crate::{
    commands::redis::load::Target,
    machine, packages,
    report::{Format, Report, Row},
};

/// What loading into one store took.
#[derive(Clone, Debug, Default)]
struct Taken {
    seconds: f64,
    client_cpu_s: f64,
    /// Of its nodes.
    counts: Vec<Counts>,
}

/// Measures and prints. The same documents go into each store, part by part in turn, so that all meet
/// indexes that hold as many.
pub(super) fn run(stand: &Stand<'_>, target: Target, format: Format) -> Result<()> {
    let rows = stand.corpus.documents.len();
    let schema = packages::schema(target.collection, target.algorithm, stand.corpus.vectors.dim, None);
    let local = Context::local();
    let mut before = Vec::with_capacity(stand.stores.len());
    for store in &stand.stores {
        let made = store.service.put_collection(&local, target.collection, schema.clone(), false);
        stand.runtime.block_on(made)?;
        before.push(store.looks()?);
    }
    let mut taken = vec![Taken::default(); stand.stores.len()];
    let slices = stand.arguments.slices.get();
    for slice in 0..slices {
        let (first, last) = (rows * slice / slices, rows * (slice + 1) / slices);
        for turn in 0..stand.stores.len() {
            let place = (slice + turn) % stand.stores.len();
            let (started, cpu) = (Instant::now(), machine::process_cpu());
            stand.runtime.block_on(packages::write(
                &stand.stores[place].service,
                target.collection,
                &stand.corpus.documents[first..last],
                Some((&stand.corpus.vectors, first)),
                stand.arguments.batch,
            ))?;
            taken[place].seconds += started.elapsed().as_secs_f64();
            taken[place].client_cpu_s += (machine::process_cpu() - cpu).as_secs_f64();
        }
        eprintln!("{}: {last} of {rows} documents loaded into each", target.name);
    }
    for ((store, taken), before) in stand.stores.iter().zip(&mut taken).zip(before) {
        let info = store.service.collection(&local, target.collection);
        let info = stand.runtime.block_on(info)?;
        ensure!(
            info.documents == rows as u64 && info.vectors == info.documents,
            "{} holds {} documents and {} vectors where {rows} were written",
            store.name,
            info.documents,
            info.vectors
        );
        taken.counts = store.looks()?.into_iter().zip(before).map(|(after, before)| after - before).collect();
    }
    rates(stand, target, &taken, format)?;
    nodes(stand, target, &taken, format)
}

fn rates(stand: &Stand<'_>, target: Target, taken: &[Taken], format: Format) -> Result<()> {
    let rows = stand.corpus.documents.len() as f64;
    let mut report = Report::new(format, "cluster load");
    for (store, Taken { seconds, client_cpu_s, counts }) in stand.stores.iter().zip(taken) {
        let of_nodes: f64 = counts.iter().map(|counts| counts.cpu_s).sum();
        let busiest = counts.iter().map(|counts| counts.cpu_s).fold(0.0, f64::max);
        report.push(
            Row::new()
                .with("store", store.name)
                .with("primaries", store.nodes.len())
                .with("index", target.name)
                .with("documents", stand.corpus.documents.len())
                .with("batch", stand.arguments.batch.get())
                .with_rounded("seconds", *seconds, 2)
                .with_rounded("documents_per_s", rows / seconds, 0)
                .with_rounded("client_cpu_s", *client_cpu_s, 2)
                .with_rounded("nodes_cpu_s", of_nodes, 2)
                .with_rounded("busiest_node_cpu_s", busiest, 2)
                .with_rounded("documents_per_s_of_busiest_node", rows / busiest, 0),
        )?;
    }
    report.finish()
}

fn nodes(stand: &Stand<'_>, target: Target, taken: &[Taken], format: Format) -> Result<()> {
    let mut report = Report::new(format, "cluster nodes");
    for (store, taken) in stand.stores.iter().zip(taken) {
        for (number, counts) in taken.counts.iter().enumerate() {
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

impl Contender {
    /// A look at each node.
    pub(super) fn looks(&self) -> Result<Vec<Counts>> {
        self.nodes.iter().map(node::look).collect()
    }
}
