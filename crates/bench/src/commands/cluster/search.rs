//! One search at a time: what is found, and what asking several primaries costs.

use std::time::Instant;

use anyhow::Result;
use nearfield::service::Context;

use super::{Contender, Stand, node::Counts};
use crate::{
    commands::redis::load::{FLAT, HNSW, Target},
    machine, packages,
    report::{Format, Report, Row},
    sample::Sample,
    setting::Setting,
    truth::{self, K},
    vectors::Vectors,
};

/// Scores no further apart than this are equal: float32 sums of another order.
const EQUAL: f64 = 1e-6;

/// What a store was asked and answered.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// [`K`] a query, `u32::MAX` in empty places; of the last round.
    ids: Vec<u32>,
    /// Microseconds of each query: from the call to the answer, and the two stages as the service
    /// tells them.
    total_us: Vec<f64>,
    search_us: Vec<f64>,
    fetch_us: Vec<f64>,
    client_cpu_s: f64,
    /// Of its nodes.
    counts: Vec<Counts>,
}

/// Measures and prints. All stores are asked the same queries, one in flight, round by round in turn.
/// The first round is not counted: it brings the index into the caches.
pub(super) fn run(stand: &Stand<'_>, setting: &Setting, format: Format) -> Result<()> {
    let truth = truth::neighbours(&setting.cache_dir, &stand.corpus.vectors, &stand.corpus.queries)?;
    let mut report = Report::new(format, "cluster search");
    let of_hnsw = stand.arguments.ef.iter().map(|ef| (HNSW, Some(*ef)));
    for (target, ef) in std::iter::once((FLAT, None)).chain(of_hnsw) {
        let mut asked = vec![Asked::default(); stand.stores.len()];
        for run in 0..=stand.arguments.runs.get() {
            for turn in 0..stand.stores.len() {
                let place = (run + turn) % stand.stores.len();
                ask(stand, &stand.stores[place], target, ef, &mut asked[place])?;
                if run == 0 {
                    asked[place] = Asked::default();
                }
            }
        }
        eprintln!("{} with ef_search {ef:?}: done", target.name);
        for (store, asked) in stand.stores.iter().zip(&asked) {
            report.push(row(stand, store, target, ef, asked, &truth))?;
        }
    }
    report.finish()
}

/// Asks a store all queries once.
fn ask(
    stand: &Stand<'_>,
    store: &Contender,
    target: Target,
    ef: Option<usize>,
    asked: &mut Asked,
) -> Result<()> {
    let queries = &stand.corpus.queries;
    let before = store.looks()?;
    let cpu = machine::process_cpu();
    asked.ids = vec![u32::MAX; queries.rows() * K];
    for row in 0..queries.rows() {
        let search = packages::nearest(target.collection, queries.row(row), K, ef);
        let started = Instant::now();
        let answer = stand.runtime.block_on(store.service.search(&Context::local(), search))?;
        asked.total_us.push(started.elapsed().as_secs_f64() * 1e6);
        asked.search_us.push(answer.timing.search_us as f64);
        asked.fetch_us.push(answer.timing.fetch_us as f64);
        let ids = packages::ids(&answer)?;
        asked.ids[row * K..][..ids.len()].copy_from_slice(&ids);
    }
    asked.client_cpu_s += (machine::process_cpu() - cpu).as_secs_f64();
    let counts = store.looks()?.into_iter().zip(before).map(|(after, before)| after - before);
    asked.counts.resize(store.nodes.len(), Counts::default());
    for (sum, counts) in asked.counts.iter_mut().zip(counts) {
        *sum = *sum + counts;
    }
    Ok(())
}

fn row(
    stand: &Stand<'_>,
    store: &Contender,
    target: Target,
    ef: Option<usize>,
    asked: &Asked,
    truth: &[u32],
) -> Row {
    let count = asked.total_us.len() as f64;
    let [total, search, fetch] =
        [&asked.total_us, &asked.search_us, &asked.fetch_us].map(|us| Sample::new(us.clone()));
    let in_search = asked.counts.iter().map(|counts| counts.search_us / counts.searches);
    let bytes = |of: fn(&Counts) -> f64| asked.counts.iter().map(of).sum::<f64>() / count;
    Row::new()
        .with("store", store.name)
        .with("primaries", store.nodes.len())
        .with("index", target.name)
        .with("ef_search", ef)
        .with("documents", stand.corpus.documents.len())
        .with("queries", stand.corpus.queries.rows())
        .with("runs", stand.arguments.runs.get())
        .with_rounded("recall_at_10", truth::recall(truth, &asked.ids), 4)
        .with_rounded(
            "equal_to_exact",
            equal(&stand.corpus.vectors, &stand.corpus.queries, truth, &asked.ids),
            4,
        )
        .with_rounded("p50_us", total.median(), 0)
        .with_rounded("p99_us", total.quantile(0.99), 0)
        .with_rounded("search_p50_us", search.median(), 0)
        .with_rounded("search_p99_us", search.quantile(0.99), 0)
        .with_rounded("fetch_p50_us", fetch.median(), 0)
        .with_rounded("fetch_p99_us", fetch.quantile(0.99), 0)
        .with_rounded("slowest_node_us", in_search.fold(0.0, f64::max), 0)
        .with_rounded("client_cpu_us", asked.client_cpu_s * 1e6 / count, 0)
        .with_rounded("bytes_sent", bytes(|counts| counts.bytes_in), 0)
        .with_rounded("bytes_received", bytes(|counts| counts.bytes_out), 0)
}

/// The share of queries that found [`K`] nearest documents: those of `truth`, or as near as its last.
fn equal(documents: &Vectors, queries: &Vectors, truth: &[u32], found: &[u32]) -> f64 {
    let score = |query: usize, id: u32| -> f64 {
        let (query, document) = (queries.row(query), documents.row(id as usize));
        query.iter().zip(document).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lists = truth.chunks_exact(K).zip(found.chunks_exact(K)).enumerate();
    let equal = lists.filter(|(query, (truth, found))| {
        let last = score(*query, truth[K - 1]);
        let distinct = (1..K).all(|place| !found[..place].contains(&found[place]));
        distinct && found.iter().all(|id| *id != u32::MAX && score(*query, *id) >= last - EQUAL)
    });
    equal.count() as f64 / (found.len() / K) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_at_the_end_is_equal_and_anything_else_that_is_missed_is_not() {
        let vectors = |values: Vec<f32>| Vectors { path: "none".into(), dim: 1, values, key: String::new() };
        // The scores of twelve documents: the tenth and the eleventh tie.
        let documents = vectors([12., 11., 10., 9., 8., 7., 6., 5., 4., 3., 3., 2.].to_vec());
        let query = vectors(vec![1.0]);
        let truth: Vec<u32> = (0..10).collect();
        let with = |place: usize, id: u32| {
            let mut found = truth.clone();
            found[place] = id;
            equal(&documents, &query, &truth, &found)
        };
        assert_eq!(with(0, 0), 1.0);
        assert_eq!(with(9, 10), 1.0);
        assert_eq!(with(9, 11), 0.0);
        assert_eq!(with(9, 8), 0.0);
        assert_eq!(with(9, u32::MAX), 0.0);
    }
}
