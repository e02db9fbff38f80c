//! What an index takes and does as it grows.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{
    Arguments, Questions,
    contender::{Contender, Label},
    curve::{Curve, Point, Reached},
    packages, tuning,
    turns::{self, Turn},
};
use crate::{
    corpus,
    machine::{self, Pinned},
    plot::{self, Axis, Plot, Scale, Series},
    report::{Format, Report, Row},
    setting::Setting,
    vectors::{self, Vectors},
};

/// The recall at which sizes are compared.
const TARGET: f64 = 0.95;

/// An index of one size.
struct Grown {
    rows: usize,
    contender: Contender,
    /// The queries that are reported.
    reported: Questions,
    breadths: Vec<usize>,
}

/// Measures, prints and draws.
pub(super) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let largest = arguments.sizes.iter().copied().max().context("--sizes names no size")?;
    let (corpus, queries) = all(arguments, largest, setting)?;
    ensure!(
        largest <= corpus.rows(),
        "--sizes asks for {largest} vectors, and there are {} (packages, then --more FILE): leave it out, \
         or give more texts",
        corpus.rows()
    );
    let _pinned = Pinned::to(arguments.core)?;
    let mut grown = Vec::new();
    for &rows in &arguments.sizes {
        let corpus = corpus.head(rows);
        let [tuned, reported] = Questions::all(&corpus, queries.clone(), setting)?.halves();
        for &vector_type in &arguments.vector_type {
            for &quantization in &arguments.quantization {
                let mut contender = Contender::ours(&corpus, vector_type, quantization, arguments, setting)?;
                let breadths = tuning::breadths(&mut contender, &tuned, &[TARGET])?;
                grown.push(Grown { rows, contender, reported: reported.clone(), breadths });
            }
        }
    }
    let mut measured: Vec<Turn<'_>> = grown
        .iter_mut()
        .map(|grown| Turn::new(&mut grown.contender, &grown.reported, &grown.breadths))
        .collect();
    turns::take(&mut measured, arguments.runs)?;
    let curves: Vec<Curve> = measured.iter().map(Turn::curve).collect();
    let points: Vec<Option<Point>> = curves
        .iter()
        .map(|curve| match curve.at(TARGET) {
            Some(Reached::Between(point) | Reached::Exceeded(point)) => Some(point),
            _ => None,
        })
        .collect();
    if let Some(path) = &arguments.plot {
        fs::write(path, plot::svg(&draw(&grown, &points)))
            .with_context(|| format!("write {}", path.display()))?;
    }
    print(&grown, &points, arguments, format)
}

/// The vectors of the packages, then of the further files, at most `limit`.
fn all(arguments: &Arguments, limit: usize, setting: &Setting) -> Result<(Vectors, Vectors)> {
    let (mut corpus, queries) = packages(limit.min(arguments.limit), arguments.queries, setting)?;
    for path in &arguments.more {
        let texts = corpus::texts(path)?;
        let wanted = limit.saturating_sub(corpus.rows()).min(texts.len());
        if wanted > 0 {
            let texts: Vec<&str> = texts[..wanted].iter().map(String::as_str).collect();
            let more = vectors::of_texts(&setting.cache_dir, &setting.model()?, path, &texts)?;
            corpus.key = format!("{}+{}", corpus.key, more.key);
            corpus.values.extend(more.values);
        }
    }
    Ok((corpus, queries))
}

fn print(grown: &[Grown], points: &[Option<Point>], arguments: &Arguments, format: Format) -> Result<()> {
    let grown_to = |rows: usize, like: &Contender| {
        grown.iter().position(|other| other.rows == rows && other.contender.label == like.label)
    };
    let mut report = Report::new(format, "index growth");
    for (grown, point) in grown.iter().zip(points) {
        let of = |value: fn(&Point) -> f64| point.as_ref().map_or(f64::NAN, value);
        let row = grown
            .contender
            .label
            .name(Row::new())
            .with("documents", grown.rows)
            .with("queries", grown.reported.count())
            .with("core", arguments.core)
            .with("runs", arguments.runs)
            .with("m", arguments.m)
            .with("ef_construction", arguments.ef_construction)
            .with("target_recall", TARGET)
            .with_rounded("recall_at_10", of(|point| point.recall_at_10), 4)
            .with_rounded("ef_search", of(|point| point.ef), 1)
            .with_rounded("qps", of(Point::qps), 0)
            .with_rounded("p50_us", of(|point| point.p50_us), 1)
            .with_rounded("p99_us", of(|point| point.p99_us), 1);
        let quarter = grown_to(grown.rows / 4, &grown.contender).and_then(|quarter| points[quarter]);
        let share = quarter.map_or(f64::NAN, |quarter| of(Point::qps) / quarter.qps());
        report.push(grown.contender.cost(row).with_rounded("qps_to_a_quarter_as_many", share, 2))?;
    }
    report.finish()
}

/// Build time, memory and rate by size, below one another.
fn draw(grown: &[Grown], points: &[Option<Point>]) -> Vec<Plot> {
    let mut labels: Vec<Label> = Vec::new();
    for grown in grown {
        if !labels.contains(&grown.contender.label) {
            labels.push(grown.contender.label.clone());
        }
    }
    let plot = |name: &str, scale: Scale, value: &dyn Fn(&Grown, Option<&Point>) -> f64| Plot {
        title: format!("{name} by number of vectors"),
        note: format!("{}, one core of them; revision {}", machine::description(), machine::revision()),
        x: Axis { label: "vectors".to_owned(), scale: Scale::Log, within: None },
        y: Axis { label: name.to_owned(), scale, within: None },
        series: labels
            .iter()
            .map(|label| Series {
                name: label.legend(),
                points: grown
                    .iter()
                    .zip(points)
                    .filter(|(grown, _)| grown.contender.label == *label)
                    .map(|(grown, point)| (grown.rows as f64, value(grown, point.as_ref())))
                    .collect(),
                is_ours: true,
            })
            .collect(),
    };
    vec![
        plot("seconds to build on one core", Scale::Log, &|grown, _| grown.contender.built.build_s()),
        plot("bytes a vector", Scale::Linear, &|grown, _| grown.contender.built.bytes_per_vector),
        plot("queries a second at recall@10 .95", Scale::Linear, &|_, point| {
            point.map_or(f64::NAN, Point::qps)
        }),
    ]
}
