//! One search at a time: the results, and the cost of searching several primaries.

use std::time::Instant;

use anyhow::Result;
use nearfield::service::Context;

use super::{ClusterBench, StoreUnderTest, counters::NodeCounters};
use crate::{
    commands::redis::load::{FLAT, HNSW, IndexTarget},
    global_options::GlobalOptions,
    ground_truth::{self, K},
    machine, packages,
    report::{Format, Report, Row},
    sample::Sample,
    vectors::Vectors,
};

/// Scores that differ by less are ties: float32 sums depend on the order of summation.
const TIE: f64 = 1e-6;

/// The results of a store, and what they cost.
#[derive(Clone, Debug, Default)]
struct SearchSamples {
    /// The ids found in the last round, [`K`] per query, padded with `u32::MAX`.
    ids: Vec<u32>,
    /// Microseconds of each query: from call to response, and in the two stages that the service reports.
    total_us: Vec<f64>,
    search_us: Vec<f64>,
    fetch_us: Vec<f64>,
    client_cpu_s: f64,
    /// Counters of its nodes.
    counts: Vec<NodeCounters>,
}

/// Measures and prints. All stores get the same queries, one in flight, round by round in turn. The first round
/// warms the caches and is not counted.
pub(super) fn run(bench: &ClusterBench<'_>, global: &GlobalOptions, format: Format) -> Result<()> {
    let truth =
        ground_truth::exact_neighbours(&global.cache_dir, &bench.corpus.vectors, &bench.corpus.queries)?;
    let mut report = Report::new(format, "cluster search");
    let hnsw_runs = bench.arguments.ef.iter().map(|ef| (HNSW, Some(*ef)));
    for (target, ef) in std::iter::once((FLAT, None)).chain(hnsw_runs) {
        let mut samples = vec![SearchSamples::default(); bench.stores.len()];
        for run in 0..=bench.arguments.runs.get() {
            for offset in 0..bench.stores.len() {
                let position = (run + offset) % bench.stores.len();
                search_all(bench, &bench.stores[position], target, ef, &mut samples[position])?;
                if run == 0 {
                    samples[position] = SearchSamples::default();
                }
            }
        }
        eprintln!("{} with ef_search {ef:?}: done", target.name);
        for (store, samples) in bench.stores.iter().zip(&samples) {
            report.push(row(bench, store, target, ef, samples, &truth))?;
        }
    }
    report.finish()
}

/// Sends all queries to a store once.
fn search_all(
    bench: &ClusterBench<'_>,
    store: &StoreUnderTest,
    target: IndexTarget,
    ef: Option<usize>,
    samples: &mut SearchSamples,
) -> Result<()> {
    let queries = &bench.corpus.queries;
    let before = store.counters()?;
    let cpu = machine::process_cpu();
    samples.ids = vec![u32::MAX; queries.rows() * K];
    for row in 0..queries.rows() {
        let search = packages::nearest(target.collection, queries.row(row), K, ef);
        let started = Instant::now();
        let response = bench.runtime.block_on(store.service.search(&Context::local(), search))?;
        samples.total_us.push(started.elapsed().as_secs_f64() * 1e6);
        samples.search_us.push(response.timing.search_us as f64);
        samples.fetch_us.push(response.timing.fetch_us as f64);
        let ids = packages::ids(&response)?;
        samples.ids[row * K..][..ids.len()].copy_from_slice(&ids);
    }
    samples.client_cpu_s += (machine::process_cpu() - cpu).as_secs_f64();
    let counts = store.counters()?.into_iter().zip(before).map(|(after, before)| after - before);
    samples.counts.resize(store.nodes.len(), NodeCounters::default());
    for (sum, counts) in samples.counts.iter_mut().zip(counts) {
        *sum = *sum + counts;
    }
    Ok(())
}

fn row(
    bench: &ClusterBench<'_>,
    store: &StoreUnderTest,
    target: IndexTarget,
    ef: Option<usize>,
    samples: &SearchSamples,
    truth: &[u32],
) -> Row {
    let count = samples.total_us.len() as f64;
    let [total, search, fetch] =
        [&samples.total_us, &samples.search_us, &samples.fetch_us].map(|us| Sample::new(us.clone()));
    let in_search = samples.counts.iter().map(|counts| counts.search_us / counts.searches);
    let bytes = |of: fn(&NodeCounters) -> f64| samples.counts.iter().map(of).sum::<f64>() / count;
    Row::new()
        .with("store", store.name)
        .with("primaries", store.nodes.len())
        .with("index", target.name)
        .with("ef_search", ef)
        .with("documents", bench.corpus.documents.len())
        .with("queries", bench.corpus.queries.rows())
        .with("runs", bench.arguments.runs.get())
        .with_rounded("recall_at_10", ground_truth::recall(truth, &samples.ids), 4)
        .with_rounded(
            "equal_to_exact",
            equal(&bench.corpus.vectors, &bench.corpus.queries, truth, &samples.ids),
            4,
        )
        .with_rounded("p50_us", total.median(), 0)
        .with_rounded("p99_us", total.quantile(0.99), 0)
        .with_rounded("search_p50_us", search.median(), 0)
        .with_rounded("search_p99_us", search.quantile(0.99), 0)
        .with_rounded("fetch_p50_us", fetch.median(), 0)
        .with_rounded("fetch_p99_us", fetch.quantile(0.99), 0)
        .with_rounded("slowest_node_us", in_search.fold(0.0, f64::max), 0)
        .with_rounded("client_cpu_us", samples.client_cpu_s * 1e6 / count, 0)
        .with_rounded("bytes_sent", bytes(|counts| counts.bytes_in), 0)
        .with_rounded("bytes_received", bytes(|counts| counts.bytes_out), 0)
}

/// The share of queries that found [`K`] nearest documents: those in `truth`, or ones as near as its last.
fn equal(documents: &Vectors, queries: &Vectors, truth: &[u32], found: &[u32]) -> f64 {
    let score = |query: usize, id: u32| -> f64 {
        let (query, document) = (queries.row(query), documents.row(id as usize));
        query.iter().zip(document).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lists = truth.chunks_exact(K).zip(found.chunks_exact(K)).enumerate();
    let equal = lists.filter(|(query, (truth, found))| {
        let last = score(*query, truth[K - 1]);
        let distinct = (1..K).all(|position| !found[..position].contains(&found[position]));
        distinct && found.iter().all(|id| *id != u32::MAX && score(*query, *id) >= last - TIE)
    });
    equal.count() as f64 / (found.len() / K) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_tied_with_the_last_neighbour_may_replace_it() {
        let vectors = |values: Vec<f32>| Vectors { path: "none".into(), dim: 1, values, key: String::new() };
        // The scores of twelve documents; the tenth and the eleventh are tied.
        let documents = vectors([12., 11., 10., 9., 8., 7., 6., 5., 4., 3., 3., 2.].to_vec());
        let query = vectors(vec![1.0]);
        let truth: Vec<u32> = (0..10).collect();
        let with = |position: usize, id: u32| {
            let mut found = truth.clone();
            found[position] = id;
            equal(&documents, &query, &truth, &found)
        };
        assert_eq!(with(0, 0), 1.0);
        assert_eq!(with(9, 10), 1.0);
        assert_eq!(with(9, 11), 0.0);
        assert_eq!(with(9, 8), 0.0);
        assert_eq!(with(9, u32::MAX), 0.0);
    }
}
