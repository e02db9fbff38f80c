//! Build time, memory and throughput by index size.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{
    IndexArguments, QuerySet,
    competitor::{Competitor, EngineLabel},
    curve::{Crossing, Curve, CurvePoint},
    measurement::{Measurement, measure_in_rounds},
    packages, tuning,
};
use crate::{
    corpus,
    global_options::GlobalOptions,
    machine::{self, CorePin},
    plot::{self, Axis, Plot, Scale, Series},
    report::{Format, Report, Row},
    vectors::{self, Vectors},
};

/// The recall at which sizes are compared.
const TARGET: f64 = 0.95;

/// An index of one size.
struct SizedIndex {
    rows: usize,
    competitor: Competitor,
    /// The queries whose results are reported.
    reported: QuerySet,
    efs: Vec<usize>,
}

/// Measures, prints and draws.
pub(super) fn run(arguments: &IndexArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let largest = arguments.sizes.iter().copied().max().context("--sizes names no size")?;
    let (corpus, queries) = all(arguments, largest, global)?;
    ensure!(
        largest <= corpus.rows(),
        "--sizes contains {largest}, but there are only {} vectors (packages, then --more FILE): remove that size \
         or add texts",
        corpus.rows()
    );
    let _pin = CorePin::to_core(arguments.core)?;
    let mut indexes = Vec::new();
    for &rows in &arguments.sizes {
        let corpus = corpus.head(rows);
        let [tuned, reported] = QuerySet::all(&corpus, queries.clone(), global)?.halves();
        for &vector_type in &arguments.vector_type {
            for &quantization in &arguments.quantization {
                let mut competitor =
                    Competitor::nearfield(&corpus, vector_type, quantization, arguments, global)?;
                let efs = tuning::efs(&mut competitor, &tuned, &[TARGET])?;
                indexes.push(SizedIndex { rows, competitor, reported: reported.clone(), efs });
            }
        }
    }
    let mut measured: Vec<Measurement<'_>> = indexes
        .iter_mut()
        .map(|index| Measurement::new(&mut index.competitor, &index.reported, &index.efs))
        .collect();
    measure_in_rounds(&mut measured, arguments.runs)?;
    let curves: Vec<Curve> = measured.iter().map(Measurement::curve).collect();
    let points: Vec<Option<CurvePoint>> = curves
        .iter()
        .map(|curve| match curve.at(TARGET) {
            Some(Crossing::Interpolated(point) | Crossing::AlreadyAbove(point)) => Some(point),
            _ => None,
        })
        .collect();
    if let Some(path) = &arguments.plot {
        fs::write(path, plot::svg(&draw(&indexes, &points))?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    print(&indexes, &points, arguments, format)
}

/// The vectors of the packages, then of the additional files, at most `limit`.
fn all(arguments: &IndexArguments, limit: usize, global: &GlobalOptions) -> Result<(Vectors, Vectors)> {
    let (mut corpus, queries) = packages(limit.min(arguments.limit), arguments.queries, global)?;
    for path in &arguments.more {
        let texts = corpus::texts(path)?;
        let wanted = limit.saturating_sub(corpus.rows()).min(texts.len());
        if wanted > 0 {
            let texts: Vec<&str> = texts[..wanted].iter().map(String::as_str).collect();
            let more = vectors::of_texts(&global.cache_dir, &global.model()?, path, &texts)?;
            corpus.key = format!("{}+{}", corpus.key, more.key);
            corpus.values.extend(more.values);
        }
    }
    Ok((corpus, queries))
}

fn print(
    indexes: &[SizedIndex],
    points: &[Option<CurvePoint>],
    arguments: &IndexArguments,
    format: Format,
) -> Result<()> {
    let find = |rows: usize, competitor: &Competitor| {
        indexes.iter().position(|other| other.rows == rows && other.competitor.label == competitor.label)
    };
    let mut report = Report::new(format, "index growth");
    for (index, point) in indexes.iter().zip(points) {
        let of = |value: fn(&CurvePoint) -> f64| point.as_ref().map_or(f64::NAN, value);
        let row = index
            .competitor
            .label
            .name(Row::new())
            .with("documents", index.rows)
            .with("queries", index.reported.count())
            .with("core", arguments.core)
            .with("runs", arguments.runs)
            .with("m", arguments.m)
            .with("ef_construction", arguments.ef_construction)
            .with("target_recall", TARGET)
            .with_rounded("recall_at_10", of(|point| point.recall_at_10), 4)
            .with_rounded("ef_search", of(|point| point.ef), 1)
            .with_rounded("qps", of(CurvePoint::qps), 0)
            .with_rounded("p50_us", of(|point| point.p50_us), 1)
            .with_rounded("p99_us", of(|point| point.p99_us), 1);
        let quarter = find(index.rows / 4, &index.competitor).and_then(|quarter| points[quarter]);
        let share = quarter.map_or(f64::NAN, |quarter| of(CurvePoint::qps) / quarter.qps());
        report.push(index.competitor.cost(row).with_rounded("qps_to_quarter_size", share, 2))?;
    }
    report.finish()
}

/// Build time, memory and throughput by size, one plot each.
fn draw(indexes: &[SizedIndex], points: &[Option<CurvePoint>]) -> Vec<Plot> {
    let mut labels: Vec<EngineLabel> = Vec::new();
    for index in indexes {
        if !labels.contains(&index.competitor.label) {
            labels.push(index.competitor.label.clone());
        }
    }
    let plot = |name: &str, scale: Scale, value: &dyn Fn(&SizedIndex, Option<&CurvePoint>) -> f64| Plot {
        title: format!("{name} by number of vectors"),
        note: format!("{}, one core used; revision {}", machine::description(), machine::revision()),
        x: Axis { label: "vectors".to_owned(), scale: Scale::Log, range: None },
        y: Axis { label: name.to_owned(), scale, range: None },
        series: labels
            .iter()
            .map(|label| Series {
                name: label.legend(),
                points: indexes
                    .iter()
                    .zip(points)
                    .filter(|(index, _)| index.competitor.label == *label)
                    .map(|(index, point)| (index.rows as f64, value(index, point.as_ref())))
                    .collect(),
                is_ours: true,
            })
            .collect(),
    };
    vec![
        plot("seconds to build on one core", Scale::Log, &|index, _| index.competitor.built.build_s()),
        plot("bytes per vector", Scale::Linear, &|index, _| index.competitor.built.bytes_per_vector),
        plot("queries per second at recall@10 .95", Scale::Linear, &|_, point| {
            point.map_or(f64::NAN, CurvePoint::qps)
        }),
    ]
}
