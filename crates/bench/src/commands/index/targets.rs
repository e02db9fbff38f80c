//! Rate and times of every engine at equal recall.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Arguments, Questions,
    contender::{Contender, Label},
    curve::{Curve, Point, Reached},
    field::Field,
    library::Library,
    packages, tuning,
    turns::{self, Turn},
};
use crate::{
    machine::{self, Pinned},
    plot::{self, Axis, Plot, Scale, Series},
    report::{Format, Report, Row},
    setting::Setting,
    vectors::Vectors,
};

/// The plot begins at this recall.
const FROM: f64 = 0.85;

/// Measures, prints and draws.
pub(super) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, setting)?;
    let [tuned, reported] = Questions::all(&corpus, queries, setting)?.halves();
    let _pinned = Pinned::to(arguments.core)?;
    let mut field = Field::build(&corpus, arguments, setting)?;
    let mut breadths = Vec::new();
    for contender in &mut field.contenders {
        breadths.push(tuning::breadths(contender, &tuned, &arguments.target)?);
        eprintln!("{} is tuned", contender.label.legend());
    }
    let mut measured: Vec<Turn<'_>> = field
        .contenders
        .iter_mut()
        .zip(&breadths)
        .map(|(contender, breadths)| Turn::new(contender, &reported, breadths))
        .collect();
    turns::take(&mut measured, arguments.runs)?;
    let curves: Vec<Curve> = measured.iter().map(Turn::curve).collect();
    if let Some(path) = &arguments.plot {
        let svg = plot::svg(&[draw(&field, &curves, &corpus)]);
        fs::write(path, svg).with_context(|| format!("write {}", path.display()))?;
    }
    print(&field, &curves, &corpus, arguments, format)
}

fn print(
    field: &Field,
    curves: &[Curve],
    corpus: &Vectors,
    arguments: &Arguments,
    format: Format,
) -> Result<()> {
    let of = |library: Library| field.contenders.iter().position(|contender| contender.is(library));
    let yardsticks = [of(Library::Hnswlib), of(Library::Symphonyqg)];
    let mut report = Report::new(format, "index targets");
    for &target in &arguments.target {
        let reached: Vec<Option<Reached>> = curves.iter().map(|curve| curve.at(target)).collect();
        let ratios = |point: &Point| {
            yardsticks.map(|yardstick| match reached[yardstick?]? {
                Reached::Between(of) => Some(point.qps() / of.qps()),
                _ => None,
            })
        };
        for (contender, reached) in field.contenders.iter().zip(&reached) {
            let (point, ratios, result) = match reached {
                Some(Reached::Between(point)) => (Some(point), ratios(point), "measured".to_owned()),
                Some(Reached::Exceeded(point)) => {
                    (Some(point), [None; 2], format!("recall {:.4} at ef {}", point.recall_at_10, point.ef))
                }
                Some(Reached::Never(best)) => {
                    let result =
                        format!("not reached: recall {:.4} at ef {} at best", best.recall_at_10, best.ef);
                    (None, [None; 2], result)
                }
                None => (None, [None; 2], "not measured".to_owned()),
            };
            let row = start(&contender.label, Some(contender), corpus, arguments, target);
            report.push(finish(row, &contender.label, Some(contender), point, ratios, &result))?;
        }
        for (label, why) in &field.absent {
            let row = start(label, None, corpus, arguments, target);
            report.push(finish(row, label, None, None, [None; 2], why))?;
        }
    }
    report.finish()
}

fn start(
    label: &Label,
    contender: Option<&Contender>,
    corpus: &Vectors,
    arguments: &Arguments,
    target: f64,
) -> Row {
    let of = |number: fn(&Contender) -> u64| contender.map_or(Value::Null, |of| Value::from(number(of)));
    label
        .name(Row::new())
        .with("documents", corpus.rows())
        .with("queries", arguments.queries)
        .with("core", arguments.core)
        .with("runs", arguments.runs)
        .with("m", of(|contender| contender.m))
        .with("ef_construction", of(|contender| contender.ef_construction))
        .with("target_recall", target)
}

fn finish(
    row: Row,
    label: &Label,
    contender: Option<&Contender>,
    point: Option<&Point>,
    [to_hnswlib, to_symphonyqg]: [Option<f64>; 2],
    result: &str,
) -> Row {
    let of = |value: fn(&Point) -> f64| point.map_or(f64::NAN, value);
    let row = row
        .with_rounded("ef_search", of(|point| point.ef), 1)
        .with_rounded("qps", of(Point::qps), 0)
        .with_rounded("p50_us", of(|point| point.p50_us), 1)
        .with_rounded("p99_us", of(|point| point.p99_us), 1);
    let row = match contender {
        Some(contender) => contender.cost(row),
        None => ["bytes_per_vector", "build_s", "link_s", "refine_s"]
            .into_iter()
            .fold(row, |row, name| row.with(name, Value::Null)),
    };
    row.with_rounded("ratio_to_hnswlib", to_hnswlib.unwrap_or(f64::NAN), 2)
        .with_rounded("ratio_to_symphonyqg", to_symphonyqg.unwrap_or(f64::NAN), 2)
        .with("live", label.live)
        .with("result", result)
}

fn draw(field: &Field, curves: &[Curve], corpus: &Vectors) -> Plot {
    let series = field.contenders.iter().zip(curves).map(|(contender, curve)| Series {
        name: contender.label.legend(),
        points: curve.points().iter().map(|point| (point.recall_at_10, point.qps())).collect(),
        is_ours: contender.is_ours(),
    });
    Plot {
        title: format!(
            "{} package descriptions, {} dimensions, one query at a time",
            corpus.rows(),
            corpus.dim
        ),
        note: format!("{}, one core of them; revision {}", machine::description(), machine::revision()),
        x: Axis { label: "recall@10".to_owned(), scale: Scale::Nines, within: Some((FROM, 0.9995)) },
        y: Axis { label: "queries a second".to_owned(), scale: Scale::Log, within: None },
        series: series.collect(),
    }
}
