//! Bulk loading with ready vectors.

use std::time::Instant;

use anyhow::Result;
use nearfield::service::Algorithm;
use serde_json::json;

use super::{Client, Stand};
use crate::{
    machine, packages,
    redis_py::Spent,
    report::{Format, Report, Row},
};

/// What is loaded into: a name for people, the index, and the collection of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) algorithm: Algorithm,
    pub(crate) collection: &'static str,
}

/// Adding a vector costs the server next to nothing: the client shows.
pub(crate) const FLAT: Target = Target { name: "FLAT", algorithm: Algorithm::Flat, collection: "ours_flat" };
/// The article's index.
pub(crate) const HNSW: Target = Target { name: "HNSW", algorithm: packages::HNSW, collection: "ours_hnsw" };

/// What loading by one client took.
#[derive(Clone, Debug, Default)]
struct Taken {
    spent: Spent,
    server_cpu_s: f64,
    used_memory: f64,
}

/// What our documents take in the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    /// How much `used_memory` grew while ours loaded them.
    pub(super) used_memory: f64,
}

/// Measures and prints. Each client loads the same documents into an index of its own, part by
/// part in turn, so that all meet indexes of the same sizes.
pub(super) fn run(stand: &mut Stand<'_>, target: Target, format: Format) -> Result<Loaded> {
    let (rows, dim) = (stand.documents.len(), stand.vectors.dim);
    let clients = stand.clients();
    let names: Vec<String> = clients
        .iter()
        .map(|client| match client {
            Client::Ours => target.collection.to_owned(),
            Client::Python(place) => format!("python_{place}_{}", target.name.to_lowercase()),
        })
        .collect();
    for (client, name) in clients.iter().zip(&names) {
        match client {
            Client::Ours => stand.create(name, target.algorithm, dim)?,
            Client::Python(_) => stand.create_in_python(name, target.algorithm, dim)?,
        }
        stand.pythons[0].wait_until_scanned(name)?;
    }
    let mut taken = vec![Taken::default(); clients.len()];
    let slices = stand.arguments.slices.get();
    for slice in 0..slices {
        let (first, last) = (rows * slice / slices, rows * (slice + 1) / slices);
        for turn in 0..clients.len() {
            let place = (slice + turn) % clients.len();
            let before = (stand.pythons[0].memory("used_memory")?, machine::cpu_seconds(stand.server.pid())?);
            let spent = match clients[place] {
                Client::Ours => ours(stand, target.collection, first, last)?,
                Client::Python(python) => stand.pythons[python].spend(&json!({
                    "do": "load", "prefix": format!("{}:", names[place]), "first": first, "last": last,
                    "batch": stand.arguments.batch,
                }))?,
            };
            let taken = &mut taken[place];
            taken.spent.seconds += spent.seconds;
            taken.spent.cpu_s += spent.cpu_s;
            taken.server_cpu_s += machine::cpu_seconds(stand.server.pid())? - before.1;
            taken.used_memory += stand.pythons[0].memory("used_memory")? - before.0;
        }
        eprintln!("{}: {last} of {rows} documents loaded by each", target.name);
    }
    for name in &names {
        stand.pythons[0].index(name, rows)?;
    }
    let mut report = Report::new(format, "redis load");
    for (client, Taken { spent, server_cpu_s, used_memory }) in clients.iter().zip(&taken) {
        report.push(
            Row::new()
                .with("client", stand.name(*client))
                .with("index", target.name)
                .with("documents", rows)
                .with("batch", stand.arguments.batch.get())
                .with_rounded("seconds", spent.seconds, 2)
                .with_rounded("documents_per_s", rows as f64 / spent.seconds, 0)
                .with_rounded("times_redis_py", taken[1].spent.seconds / spent.seconds, 2)
                .with_rounded("client_cpu_s", spent.cpu_s, 2)
                .with_rounded("server_cpu_pct", server_cpu_s / spent.seconds * 100.0, 0)
                .with_rounded("used_memory_bytes_per_document", used_memory / rows as f64, 0),
        )?;
    }
    report.finish()?;
    Ok(Loaded { used_memory: taken[0].used_memory })
}

fn ours(stand: &Stand<'_>, collection: &'static str, first: usize, last: usize) -> Result<Spent> {
    let (started, cpu) = (Instant::now(), machine::process_cpu());
    stand.runtime.block_on(packages::write(
        &stand.service,
        collection,
        &stand.documents[first..last],
        Some((&stand.vectors, first)),
        stand.arguments.batch,
    ))?;
    Ok(Spent {
        seconds: started.elapsed().as_secs_f64(),
        cpu_s: (machine::process_cpu() - cpu).as_secs_f64(),
    })
}
