//! The index at work: searched while it is written, built on two cores, deleted from and inserted into
//! again and again, saved and read back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{thread, time::Instant};

use ::index::{Index, Options, SearchParams};
use anyhow::Result;
use serde_json::Value;

use super::{
    Arguments, Questions, Round, churn,
    contender::{self, Label},
    ours, packages, reloading,
};
use crate::{
    machine::Pinned,
    report::{Format, Report, Row},
    sample::Sample,
    setting::Setting,
    truth,
    vectors::Vectors,
};

/// Everything is searched with the default of a collection.
pub(super) const EF: usize = 80;
/// The share of the vectors that is inserted while others search: one in so many.
const INSERTED: usize = 4;

/// What was found, beside what it is to be compared with.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What the value stands beside.
    pub(super) beside: Option<(&'static str, f64)>,
    /// What was asked for, and whether it was reached.
    pub(super) demanded: Option<(&'static str, bool)>,
}

/// What the parts work with.
pub(super) struct Bench<'a> {
    pub(super) corpus: &'a Vectors,
    pub(super) questions: &'a Questions,
    pub(super) options: Options,
    pub(super) arguments: &'a Arguments,
    pub(super) setting: &'a Setting,
}

type Part = fn(&Bench<'_>) -> Result<Vec<Finding>>;

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, setting)?;
    let questions = Questions::all(&corpus, queries, setting)?;
    let _pinned = Pinned::to(arguments.core)?;
    let mut report = Report::new(format, "index live");
    for &vector_type in &arguments.vector_type {
        for &quantization in &arguments.quantization {
            let label = Label::ours(vector_type, quantization);
            let options = contender::options(corpus.dim, arguments, vector_type, quantization);
            let bench = Bench { corpus: &corpus, questions: &questions, options, arguments, setting };
            let parts: [(&str, Part); 4] = [
                ("searching while inserting", searching_while_inserting),
                ("building on two cores", building_on_two_cores),
                ("churn", churn::run),
                ("snapshots", reloading::run),
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
    fn row(&self, label: &Label, bench: &Bench<'_>) -> Row {
        let (name, beside) =
            self.beside.map_or((Value::Null, f64::NAN), |(name, value)| (name.into(), value));
        let (demanded, met) = self.demanded.map_or((Value::Null, Value::Null), |(demanded, met)| {
            (demanded.into(), if met { "met" } else { "not met" }.into())
        });
        label
            .name(Row::new())
            .with("documents", bench.corpus.rows())
            .with("m", bench.arguments.m)
            .with("ef_construction", bench.arguments.ef_construction)
            .with("ef_search", EF)
            .with("what", self.what)
            .with_rounded("value", self.value, 4)
            .with("unit", self.unit)
            .with("beside", name)
            .with_rounded("beside_value", beside, 4)
            .with_rounded("ratio", self.value / beside, 3)
            .with("demanded", demanded)
            .with("met", met)
    }
}

/// Searches on one core, idle and while the other inserts at full speed.
fn searching_while_inserting(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let Bench { corpus, questions, arguments, .. } = bench;
    let kept = corpus.rows() - corpus.rows() / INSERTED;
    let (index, _) = ours::build(&corpus.head(kept), bench.options, bench.setting.cpu())?;
    let before = ours::search(&index, questions, EF);
    let is_done = AtomicBool::new(false);
    let (times, rate) = thread::scope(|scope| {
        let inserting = scope.spawn(|| {
            let inserted = Pinned::to(arguments.other_core).and_then(|_pinned| {
                let started = Instant::now();
                for row in kept..corpus.rows() {
                    ours::insert(&index, corpus, row)?;
                }
                Ok((corpus.rows() - kept) as f64 / started.elapsed().as_secs_f64())
            });
            is_done.store(true, Relaxed);
            inserted
        });
        let search = SearchParams { k: truth::K, ef: EF, allowed: None, exact: false };
        let mut times = Vec::new();
        for query in questions.rows().collect::<Vec<_>>().into_iter().cycle() {
            let begun = Instant::now();
            std::hint::black_box(index.search(query, &search));
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            if is_done.load(Relaxed) {
                break;
            }
        }
        (Sample::new(times), inserting.join().expect("the inserting thread does not panic"))
    });
    // The graph has grown: idle is before and after.
    let after = ours::search(&index, questions, EF);
    let idle = |of: fn(&Round) -> f64| (of(&before) + of(&after)) / 2.0;
    let (idle_p50, idle_p99) = (idle(|round| round.p50_us), idle(|round| round.p99_us));
    let (p50, p99) = (times.median(), times.quantile(0.99));
    Ok(vec![
        Finding {
            what: "p50 of searches while the other core inserts",
            value: p50,
            unit: "us",
            beside: Some(("idle", idle_p50)),
            demanded: None,
        },
        Finding {
            what: "p99 of searches while the other core inserts",
            value: p99,
            unit: "us",
            beside: Some(("idle", idle_p99)),
            demanded: Some(("<= 3 times idle", p99 <= 3.0 * idle_p99)),
        },
        Finding { what: "inserts meanwhile", value: rate?, unit: "a second", beside: None, demanded: None },
    ])
}

/// Inserts all vectors from two threads on two cores, and from one.
fn building_on_two_cores(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let Bench { corpus, questions, arguments, .. } = bench;
    let (alone, built) = ours::build(corpus, bench.options, bench.setting.cpu())?;
    let recall_alone = ours::search(&alone, questions, EF).recall_at_10;
    drop(alone);
    let index = Index::new(bench.options, bench.setting.cpu());
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    thread::scope(|scope| {
        let threads = [arguments.core, arguments.other_core].map(|core| {
            let (index, next) = (&index, &next);
            scope.spawn(move || -> Result<()> {
                let _pinned = Pinned::to(core)?;
                loop {
                    let row = next.fetch_add(1, Relaxed);
                    if row >= corpus.rows() {
                        return Ok(());
                    }
                    ours::insert(index, corpus, row)?;
                }
            })
        });
        threads.into_iter().try_for_each(|thread| thread.join().expect("a building thread does not panic"))
    })?;
    let link_s = started.elapsed().as_secs_f64();
    ours::refine(&index);
    let build_s = started.elapsed().as_secs_f64();
    ours::bytes_per_vector(&index, corpus.rows())?;
    let recall = ours::search(&index, questions, EF).recall_at_10;
    Ok(vec![
        Finding {
            what: "linking on one core",
            value: built.link_s,
            unit: "s",
            beside: Some(("on two", link_s)),
            demanded: Some((">= 1.8 times two", built.link_s >= 1.8 * link_s)),
        },
        Finding {
            what: "linking and refining on one core",
            value: built.build_s(),
            unit: "s",
            beside: Some(("linking on two, refining on one", build_s)),
            demanded: None,
        },
        Finding {
            what: "recall@10 of what two cores built",
            value: recall,
            unit: "share",
            beside: Some(("of what one built", recall_alone)),
            demanded: Some(("within 0.005", (recall - recall_alone).abs() <= 0.005)),
        },
    ])
}
