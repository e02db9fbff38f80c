//! Nearest neighbours over the wire, many queries under way at once.

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

use super::{Client, Stand, load};
use crate::{
    machine, packages,
    redis_py::Spent,
    report::{Format, Report, Row},
    sample::median,
    setting::Setting,
    vectors::{self, Vectors},
};

/// Measures and prints. All clients ask the same queries of the same index.
pub(super) fn run(stand: &mut Stand<'_>, setting: &Setting, format: Format) -> Result<()> {
    let clients = stand.clients();
    let mut spent = vec![Vec::new(); clients.len()];
    let mut found = vec![Vec::new(); clients.len()];
    for run in 0..stand.arguments.runs {
        for turn in 0..clients.len() {
            let place = (run + turn) % clients.len();
            let (took, ids) = match clients[place] {
                Client::Ours => ours(stand)?,
                Client::Python(python) => theirs(stand, python, setting)?,
            };
            spent[place].push(took);
            found[place] = ids;
        }
        eprintln!("round {} of queries done", run + 1);
    }
    let queries = stand.queries.rows();
    let medians: Vec<Spent> = spent
        .iter()
        .map(|spent| Spent {
            seconds: median(&spent.iter().map(|spent| spent.seconds).collect::<Vec<_>>()),
            cpu_s: median(&spent.iter().map(|spent| spent.cpu_s).collect::<Vec<_>>()),
        })
        .collect();
    let mut report = Report::new(format, "redis knn");
    for (place, (client, Spent { seconds, cpu_s })) in clients.iter().zip(&medians).enumerate() {
        report.push(
            Row::new()
                .with("client", stand.name(*client))
                .with("documents", stand.documents.len())
                .with("queries", queries)
                .with("in_flight", stand.arguments.in_flight)
                .with("k", stand.arguments.k)
                .with("ef_search", stand.arguments.ef)
                .with("runs", stand.arguments.runs)
                .with_rounded("qps", queries as f64 / seconds, 0)
                .with_rounded("client_cpu_s_per_10k", cpu_s * 1e4 / queries as f64, 3)
                .with_rounded("cpu_to_redis_py", cpu_s / medians[1].cpu_s, 3)
                .with_rounded(
                    "same_results_as_redis_py",
                    same(&found[place], &found[1], stand.arguments.k),
                    4,
                ),
        )?;
    }
    report.finish()
}

/// The share of queries that found the same documents, in any order: equal distances have none.
fn same(a: &[u32], b: &[u32], k: usize) -> f64 {
    assert_eq!(a.len(), b.len(), "both lists hold k ids for each query");
    let sorted = |ids: &[u32]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    let equal = a.chunks_exact(k).zip(b.chunks_exact(k)).filter(|(a, b)| sorted(a) == sorted(b)).count();
    equal as f64 / (a.len() / k) as f64
}

fn ours(stand: &Stand<'_>) -> Result<(Spent, Vec<u32>)> {
    let queries = Arc::new(stand.queries.clone());
    let next = Arc::new(AtomicUsize::new(0));
    let (k, ef) = (stand.arguments.k, stand.arguments.ef);
    let (started, cpu) = (Instant::now(), machine::process_cpu());
    let answers: Vec<(usize, Vec<u32>)> = stand.runtime.block_on(async {
        let mut workers = JoinSet::new();
        for _ in 0..stand.arguments.in_flight {
            workers.spawn(ask(stand.service.clone(), queries.clone(), next.clone(), k, ef));
        }
        let mut answers = Vec::new();
        while let Some(answered) = workers.join_next().await {
            answers.extend(answered??);
        }
        anyhow::Ok(answers)
    })?;
    let spent = Spent {
        seconds: started.elapsed().as_secs_f64(),
        cpu_s: (machine::process_cpu() - cpu).as_secs_f64(),
    };
    let mut found = vec![u32::MAX; queries.rows() * k];
    for (row, ids) in answers {
        found[row * k..][..ids.len()].copy_from_slice(&ids);
    }
    Ok((spent, found))
}

/// Asks the queries nobody has asked yet, one after the other.
async fn ask(
    service: Service,
    queries: Arc<Vectors>,
    next: Arc<AtomicUsize>,
    k: usize,
    ef: usize,
) -> Result<Vec<(usize, Vec<u32>)>> {
    let mut answers = Vec::new();
    loop {
        let row = next.fetch_add(1, Relaxed);
        if row >= queries.rows() {
            return Ok(answers);
        }
        let search = packages::nearest(load::HNSW.collection, queries.row(row), k, Some(ef));
        let answer = service.search(&Context::local(), search).await?;
        answers.push((row, packages::ids(&answer)?));
    }
}

fn theirs(stand: &mut Stand<'_>, python: usize, setting: &Setting) -> Result<(Spent, Vec<u32>)> {
    let file = tempfile::NamedTempFile::new_in(&setting.cache_dir)?;
    let collection = load::HNSW.collection;
    let (rows, k) = (stand.queries.rows(), stand.arguments.k);
    let spent = stand.pythons[python].spend(&json!({
        "do": "knn", "index": collection, "prefix": format!("{collection}:"),
        "queries": std::path::absolute(&stand.queries.path)?, "rows": rows, "dim": stand.queries.dim,
        "k": k, "ef": stand.arguments.ef, "in_flight": stand.arguments.in_flight,
        "ids": std::path::absolute(file.path())?,
    }))?;
    let found = vectors::read_ids(file.path())?;
    ensure!(found.len() == rows * k, "{} ids came back where {} were asked for", found.len(), rows * k);
    Ok((spent, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_the_same_whatever_the_order_within_a_query() {
        assert_eq!(same(&[1, 2, 3, 4], &[2, 1, 3, 4], 2), 1.0);
        assert_eq!(same(&[1, 2, 3, 4], &[1, 3, 2, 4], 2), 0.0);
        assert_eq!(same(&[1, 2, 3, 4], &[1, 2, 3, 5], 2), 0.5);
    }
}
