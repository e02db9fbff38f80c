//! Nearest-neighbour searches over the wire, with many queries in flight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::{Result, ensure};
use nearfield::service::{Context, Service};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Client, REDIS_PY, RedisBench, load};
use crate::{
    global_options::GlobalOptions,
    machine, packages,
    redis_py::Elapsed,
    report::{Format, Report, Row},
    sample::median,
    vectors::{self, Vectors},
};

/// Measures and prints. All clients send the same queries to the same index.
pub(super) fn run(bench: &mut RedisBench<'_>, global: &GlobalOptions, format: Format) -> Result<()> {
    let clients = bench.clients();
    let mut times = vec![Vec::new(); clients.len()];
    let mut found = vec![Vec::new(); clients.len()];
    for run in 0..bench.arguments.runs {
        for offset in 0..clients.len() {
            let position = (run + offset) % clients.len();
            let (elapsed, ids) = match clients[position] {
                Client::Nearfield => search_with_nearfield(bench)?,
                Client::Python(python) => search_with_redis_py(bench, python, global)?,
            };
            times[position].push(elapsed);
            found[position] = ids;
        }
        eprintln!("round {} of queries done", run + 1);
    }
    let queries = bench.queries.rows();
    let medians: Vec<Elapsed> = times
        .iter()
        .map(|times| Elapsed {
            seconds: median(&times.iter().map(|elapsed| elapsed.seconds).collect::<Vec<_>>()),
            cpu_s: median(&times.iter().map(|elapsed| elapsed.cpu_s).collect::<Vec<_>>()),
        })
        .collect();
    let mut report = Report::new(format, "redis knn");
    for (position, (client, Elapsed { seconds, cpu_s })) in clients.iter().zip(&medians).enumerate() {
        let cpu_ratio = medians.get(REDIS_PY).map_or(f64::NAN, |redis_py| cpu_s / redis_py.cpu_s);
        let agreement =
            found.get(REDIS_PY).map_or(f64::NAN, |ids| agreement(&found[position], ids, bench.arguments.k));
        report.push(
            Row::new()
                .with("client", bench.name(*client))
                .with("documents", bench.documents.len())
                .with("queries", queries)
                .with("in_flight", bench.arguments.in_flight)
                .with("k", bench.arguments.k)
                .with("ef_search", bench.arguments.ef)
                .with("runs", bench.arguments.runs)
                .with_rounded("qps", queries as f64 / seconds, 0)
                .with_rounded("client_cpu_s_per_10k", cpu_s * 1e4 / queries as f64, 3)
                .with_rounded("cpu_to_redis_py", cpu_ratio, 3)
                .with_rounded("same_results_as_redis_py", agreement, 4),
        )?;
    }
    report.finish()
}

/// The share of queries with the same `k` documents, in any order, since ties have no defined order.
fn agreement(a: &[u32], b: &[u32], k: usize) -> f64 {
    assert_eq!(a.len(), b.len(), "both lists must hold k ids per query");
    let sorted = |ids: &[u32]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    let equal = a.chunks_exact(k).zip(b.chunks_exact(k)).filter(|(a, b)| sorted(a) == sorted(b)).count();
    equal as f64 / (a.len() / k) as f64
}

fn search_with_nearfield(bench: &RedisBench<'_>) -> Result<(Elapsed, Vec<u32>)> {
    let queries = Arc::new(bench.queries.clone());
    let next = Arc::new(AtomicUsize::new(0));
    let (k, ef) = (bench.arguments.k, bench.arguments.ef);
    let (started, cpu) = (Instant::now(), machine::process_cpu());
    let responses: Vec<(usize, Vec<u32>)> = bench.runtime.block_on(async {
        let mut workers = JoinSet::new();
        for _ in 0..bench.arguments.in_flight {
            workers.spawn(search_remaining(bench.service.clone(), queries.clone(), next.clone(), k, ef));
        }
        let mut responses = Vec::new();
        while let Some(worker_responses) = workers.join_next().await {
            responses.extend(worker_responses??);
        }
        anyhow::Ok(responses)
    })?;
    let elapsed = Elapsed {
        seconds: started.elapsed().as_secs_f64(),
        cpu_s: (machine::process_cpu() - cpu).as_secs_f64(),
    };
    let mut found = vec![u32::MAX; queries.rows() * k];
    for (row, ids) in responses {
        found[row * k..][..ids.len()].copy_from_slice(&ids);
    }
    Ok((elapsed, found))
}

/// Sends queries one after the other until none are left.
async fn search_remaining(
    service: Service,
    queries: Arc<Vectors>,
    next: Arc<AtomicUsize>,
    k: usize,
    ef: usize,
) -> Result<Vec<(usize, Vec<u32>)>> {
    let mut responses = Vec::new();
    loop {
        let row = next.fetch_add(1, Relaxed);
        if row >= queries.rows() {
            return Ok(responses);
        }
        let search = packages::nearest(load::HNSW.collection, queries.row(row), k, Some(ef));
        let response = service.search(&Context::local(), search).await?;
        responses.push((row, packages::ids(&response)?));
    }
}

fn search_with_redis_py(
    bench: &mut RedisBench<'_>,
    python: usize,
    global: &GlobalOptions,
) -> Result<(Elapsed, Vec<u32>)> {
    let file = tempfile::NamedTempFile::new_in(&global.cache_dir)?;
    let collection = load::HNSW.collection;
    let (rows, k) = (bench.queries.rows(), bench.arguments.k);
    let elapsed = bench.pythons[python].timed_request(&json!({
        "do": "knn", "index": collection, "prefix": format!("{collection}:"),
        "queries": std::path::absolute(&bench.queries.path)?, "rows": rows, "dim": bench.queries.dim,
        "k": k, "ef": bench.arguments.ef, "in_flight": bench.arguments.in_flight,
        "ids": std::path::absolute(file.path())?,
    }))?;
    let found = vectors::read_ids(file.path())?;
    ensure!(found.len() == rows * k, "redis-py returned {} ids instead of {}", found.len(), rows * k);
    Ok((elapsed, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_agree_regardless_of_order_within_a_query() {
        assert_eq!(agreement(&[1, 2, 3, 4], &[2, 1, 3, 4], 2), 1.0);
        assert_eq!(agreement(&[1, 2, 3, 4], &[1, 3, 2, 4], 2), 0.0);
        assert_eq!(agreement(&[1, 2, 3, 4], &[1, 2, 3, 5], 2), 0.5);
    }
}
