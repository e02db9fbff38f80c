//! Bulk loading of documents with their vectors.

use std::time::Instant;

use anyhow::Result;
use nearfield::service::Algorithm;
use serde_json::json;

use super::{Client, REDIS_PY, RedisBench};
use crate::{
    machine, packages,
    redis_py::Elapsed,
    report::{Format, Report, Row},
};

/// An index to load into: its printed name, its parameters, and Nearfield's collection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexTarget {
    pub(crate) name: &'static str,
    pub(crate) algorithm: Algorithm,
    pub(crate) collection: &'static str,
}

/// Adding a vector costs the server almost nothing, so the cost of the client shows.
pub(crate) const FLAT: IndexTarget =
    IndexTarget { name: "FLAT", algorithm: Algorithm::Flat, collection: "ours_flat" };
/// The article's index.
pub(crate) const HNSW: IndexTarget =
    IndexTarget { name: "HNSW", algorithm: packages::HNSW, collection: "ours_hnsw" };

/// The cost of loading with one client.
#[derive(Clone, Debug, Default)]
struct ClientCost {
    elapsed: Elapsed,
    server_cpu_s: f64,
    used_memory: f64,
}

/// Measures and prints; returns how much `used_memory` grew while Nearfield loaded. Each client loads the same
/// documents into an index of its own, slice by slice in turn, so that all write to indexes of equal size.
pub(super) fn run(bench: &mut RedisBench<'_>, target: IndexTarget, format: Format) -> Result<f64> {
    let (rows, dim) = (bench.documents.len(), bench.vectors.dim);
    let clients = bench.clients();
    let names: Vec<String> = clients
        .iter()
        .map(|client| match client {
            Client::Nearfield => target.collection.to_owned(),
            Client::Python(position) => format!("python_{position}_{}", target.name.to_lowercase()),
        })
        .collect();
    for (client, name) in clients.iter().zip(&names) {
        match client {
            Client::Nearfield => bench.create_collection(name, target.algorithm, dim)?,
            Client::Python(_) => bench.create_index(name, target.algorithm, dim)?,
        }
        bench.server.wait_until_scanned(name)?;
    }
    let mut costs = vec![ClientCost::default(); clients.len()];
    let slices = bench.arguments.slices.get();
    for slice in 0..slices {
        let (first, last) = (rows * slice / slices, rows * (slice + 1) / slices);
        for offset in 0..clients.len() {
            let position = (slice + offset) % clients.len();
            let memory = bench.server.memory("used_memory")?;
            let server_cpu_s = machine::cpu_seconds(bench.server.pid())?;
            let elapsed = match clients[position] {
                Client::Nearfield => load_with_nearfield(bench, target.collection, first, last)?,
                Client::Python(python) => bench.pythons[python].timed_request(&json!({
                    "do": "load", "prefix": format!("{}:", names[position]), "first": first, "last": last,
                    "batch": bench.arguments.batch,
                }))?,
            };
            let cost = &mut costs[position];
            cost.elapsed.seconds += elapsed.seconds;
            cost.elapsed.cpu_s += elapsed.cpu_s;
            cost.server_cpu_s += machine::cpu_seconds(bench.server.pid())? - server_cpu_s;
            cost.used_memory += bench.server.memory("used_memory")? - memory;
        }
        eprintln!("{}: {last} of {rows} documents loaded by each client", target.name);
    }
    for name in &names {
        bench.server.index_info(name, rows)?;
    }
    let redis_py_s = costs.get(REDIS_PY).map_or(f64::NAN, |cost| cost.elapsed.seconds);
    let mut report = Report::new(format, "redis load");
    for (client, ClientCost { elapsed, server_cpu_s, used_memory }) in clients.iter().zip(&costs) {
        report.push(
            Row::new()
                .with("client", bench.name(*client))
                .with("index", target.name)
                .with("documents", rows)
                .with("batch", bench.arguments.batch.get())
                .with_rounded("seconds", elapsed.seconds, 2)
                .with_rounded("documents_per_s", rows as f64 / elapsed.seconds, 0)
                .with_rounded("times_redis_py", redis_py_s / elapsed.seconds, 2)
                .with_rounded("client_cpu_s", elapsed.cpu_s, 2)
                .with_rounded("server_cpu_pct", server_cpu_s / elapsed.seconds * 100.0, 0)
                .with_rounded("used_memory_bytes_per_document", used_memory / rows as f64, 0),
        )?;
    }
    report.finish()?;
    Ok(costs[0].used_memory)
}

fn load_with_nearfield(
    bench: &RedisBench<'_>,
    collection: &'static str,
    first: usize,
    last: usize,
) -> Result<Elapsed> {
    let (started, cpu) = (Instant::now(), machine::process_cpu());
    bench.runtime.block_on(packages::write(
        &bench.service,
        collection,
        &bench.documents[first..last],
        Some((&bench.vectors, first)),
        bench.arguments.batch,
    ))?;
    Ok(Elapsed {
        seconds: started.elapsed().as_secs_f64(),
        cpu_s: (machine::process_cpu() - cpu).as_secs_f64(),
    })
}
