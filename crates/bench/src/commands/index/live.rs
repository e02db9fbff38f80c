//! The index in use: searching while inserting, building on two cores, churn, snapshots.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{thread, time::Instant};

use ::index::{Index, Options, SearchParams};
use anyhow::Result;
use serde_json::Value;

use super::{
    IndexArguments, QuerySet, RoundResult, churn,
    competitor::{self, EngineLabel},
    ours, packages, snapshots,
};
use crate::{
    global_options::GlobalOptions,
    ground_truth,
    machine::CorePin,
    report::{Format, Report, Row},
    sample::Sample,
    vectors::Vectors,
};

/// The default ef_search of a collection.
pub(super) const EF: usize = 80;
/// One in this many vectors is inserted during the searches.
const INSERTED: usize = 4;

/// A measured value, with a baseline and a requirement.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) metric: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// The name and the value of the baseline.
    pub(super) baseline: Option<(&'static str, f64)>,
    /// The requirement, and whether it is met.
    pub(super) requirement: Option<(&'static str, bool)>,
}

/// The inputs of the parts.
pub(super) struct LiveBench<'a> {
    pub(super) corpus: &'a Vectors,
    pub(super) query_set: &'a QuerySet,
    pub(super) options: Options,
    pub(super) arguments: &'a IndexArguments,
    pub(super) global: &'a GlobalOptions,
}

type MeasureFn = fn(&LiveBench<'_>) -> Result<Vec<Finding>>;

/// Measures and prints.
pub(super) fn run(arguments: &IndexArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, global)?;
    let query_set = QuerySet::all(&corpus, queries, global)?;
    let _pin = CorePin::to_core(arguments.core)?;
    let mut report = Report::new(format, "index live");
    for &vector_type in &arguments.vector_type {
        for &quantization in &arguments.quantization {
            let label = EngineLabel::nearfield(vector_type, quantization);
            let options = competitor::options(corpus.dim, arguments, vector_type, quantization);
            let bench = LiveBench { corpus: &corpus, query_set: &query_set, options, arguments, global };
            let parts: [(&str, MeasureFn); 4] = [
                ("searching while inserting", search_while_inserting),
                ("building on two cores", build_on_two_cores),
                ("churn", churn::run),
                ("snapshots", snapshots::run),
            ];
            for (name, part) in parts {
                eprintln!("{}: {name}", label.legend());
                for finding in part(&bench)? {
                    report.push(finding.row(&label, &bench))?;
                }
            }
        }
    }
    report.finish()
}

impl Finding {
    fn row(&self, label: &EngineLabel, bench: &LiveBench<'_>) -> Row {
        let (name, baseline) =
            self.baseline.map_or((Value::Null, f64::NAN), |(name, value)| (name.into(), value));
        let (requirement, met) = self.requirement.map_or((Value::Null, Value::Null), |(requirement, met)| {
            (requirement.into(), if met { "met" } else { "not met" }.into())
        });
        label
            .name(Row::new())
            .with("documents", bench.corpus.rows())
            .with("m", bench.arguments.m)
            .with("ef_construction", bench.arguments.ef_construction)
            .with("ef_search", EF)
            .with("metric", self.metric)
            .with_rounded("value", self.value, 4)
            .with("unit", self.unit)
            .with("baseline", name)
            .with_rounded("baseline_value", baseline, 4)
            .with_rounded("ratio", self.value / baseline, 3)
            .with("requirement", requirement)
            .with("met", met)
    }
}

/// Searches on one core, while idle and while the other core inserts at full speed.
fn search_while_inserting(bench: &LiveBench<'_>) -> Result<Vec<Finding>> {
    let LiveBench { corpus, query_set, arguments, .. } = bench;
    let initial = corpus.rows() - corpus.rows() / INSERTED;
    let (index, _) = ours::build(&corpus.head(initial), bench.options, bench.global.cpu())?;
    let before = ours::search(&index, query_set, EF);
    let is_done = AtomicBool::new(false);
    let (times, rate) = thread::scope(|scope| {
        let inserting = scope.spawn(|| {
            let inserted = CorePin::to_core(arguments.other_core).and_then(|_pin| {
                let started = Instant::now();
                for row in initial..corpus.rows() {
                    ours::insert(&index, corpus, row)?;
                }
                Ok((corpus.rows() - initial) as f64 / started.elapsed().as_secs_f64())
            });
            is_done.store(true, Relaxed);
            inserted
        });
        let search = SearchParams { k: ground_truth::K, ef: EF, allowed: None, exact: false };
        let mut times = Vec::new();
        for query in query_set.rows().collect::<Vec<_>>().into_iter().cycle() {
            let began = Instant::now();
            std::hint::black_box(index.search(query, &search));
            times.push(began.elapsed().as_secs_f64() * 1e6);
            if is_done.load(Relaxed) {
                break;
            }
        }
        (Sample::new(times), inserting.join().expect("the inserting thread panicked"))
    });
    // The graph has grown meanwhile, so the idle figure is the mean of before and after.
    let after = ours::search(&index, query_set, EF);
    let idle = |of: fn(&RoundResult) -> f64| (of(&before) + of(&after)) / 2.0;
    let (idle_p50, idle_p99) = (idle(|round| round.p50_us), idle(|round| round.p99_us));
    let (p50, p99) = (times.median(), times.quantile(0.99));
    Ok(vec![
        Finding {
            metric: "p50 of searches while the other core inserts",
            value: p50,
            unit: "us",
            baseline: Some(("idle", idle_p50)),
            requirement: None,
        },
        Finding {
            metric: "p99 of searches while the other core inserts",
            value: p99,
            unit: "us",
            baseline: Some(("idle", idle_p99)),
            requirement: Some(("<= 3 times idle", p99 <= 3.0 * idle_p99)),
        },
        Finding {
            metric: "inserts meanwhile",
            value: rate?,
            unit: "per second",
            baseline: None,
            requirement: None,
        },
    ])
}

/// Inserts all vectors with two threads on two cores, and with one.
fn build_on_two_cores(bench: &LiveBench<'_>) -> Result<Vec<Finding>> {
    let LiveBench { corpus, query_set, arguments, .. } = bench;
    let (single, built) = ours::build(corpus, bench.options, bench.global.cpu())?;
    let single_recall = ours::search(&single, query_set, EF).recall_at_10;
    drop(single);
    let index = Index::new(bench.options, bench.global.cpu());
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    thread::scope(|scope| {
        let threads = [arguments.core, arguments.other_core].map(|core| {
            let (index, next) = (&index, &next);
            scope.spawn(move || -> Result<()> {
                let _pin = CorePin::to_core(core)?;
                loop {
                    let row = next.fetch_add(1, Relaxed);
                    if row >= corpus.rows() {
                        return Ok(());
                    }
                    ours::insert(index, corpus, row)?;
                }
            })
        });
        threads.into_iter().try_for_each(|thread| thread.join().expect("a building thread panicked"))
    })?;
    let link_s = started.elapsed().as_secs_f64();
    ours::refine(&index);
    let build_s = started.elapsed().as_secs_f64();
    ours::bytes_per_vector(&index, corpus.rows())?;
    let recall = ours::search(&index, query_set, EF).recall_at_10;
    Ok(vec![
        Finding {
            metric: "linking on one core",
            value: built.link_s,
            unit: "s",
            baseline: Some(("on two", link_s)),
            requirement: Some((">= 1.8 times on two", built.link_s >= 1.8 * link_s)),
        },
        Finding {
            metric: "linking and refining on one core",
            value: built.build_s(),
            unit: "s",
            baseline: Some(("linking on two, refining on one", build_s)),
            requirement: None,
        },
        Finding {
            metric: "recall@10 of the index built on two cores",
            value: recall,
            unit: "share",
            baseline: Some(("built on one", single_recall)),
            requirement: Some(("within 0.005", (recall - single_recall).abs() <= 0.005)),
        },
    ])
}
