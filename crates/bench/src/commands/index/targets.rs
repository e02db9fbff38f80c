//! Rate and times of every engine at equal recall.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Arguments, Questions,
    contender::{Contender, Label},
    curve::{Curve, Point, Reached},
    library::Library,
    lineup::Lineup,
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
    let mut lineup = Lineup::build(&corpus, arguments, setting)?;
    let mut breadths = Vec::new();
    for contender in &mut lineup.contenders {
        breadths.push(tuning::breadths(contender, &tuned, &arguments.target)?);
        eprintln!("{} is tuned", contender.label.legend());
    }
    let mut measured: Vec<Turn<'_>> = lineup
        .contenders
        .iter_mut()
        .zip(&breadths)
        .map(|(contender, breadths)| Turn::new(contender, &reported, breadths))
        .collect();
    turns::take(&mut measured, arguments.runs)?;
    let curves: Vec<Curve> = measured.iter().map(Turn::curve).collect();
    if let Some(path) = &arguments.plot {
        let svg = plot::svg(&[draw(&lineup, &curves, &corpus)]);
        fs::write(path, svg).with_context(|| format!("write {}", path.display()))?;
    }
    print(&lineup, &curves, &corpus, &reported, arguments, format)
}

fn print(
    lineup: &Lineup,
    curves: &[Curve],
    corpus: &Vectors,
    reported: &Questions,
    arguments: &Arguments,
    format: Format,
) -> Result<()> {
    let of = |library: Library| lineup.contenders.iter().position(|contender| contender.is(library));
    let yardsticks = [of(Library::Hnswlib), of(Library::Symphonyqg)];
    let mut report = Report::new(format, "index targets");
    for &target in &arguments.target {
        let reached: Vec<Option<Reached>> = curves.iter().map(|curve| curve.at(target)).collect();
        let qps = yardsticks.map(|yardstick| match reached[yardstick?]? {
            Reached::Between(point) => Some(point.qps()),
            _ => None,
        });
        let ours_and_theirs = lineup
            .contenders
            .iter()
            .zip(&reached)
            .map(|(contender, reached)| Line::of(contender, reached.as_ref(), qps));
        let absent = lineup.absent.iter().map(|(label, why)| Line::of_absent(label, why));
        for line in ours_and_theirs.chain(absent) {
            let row = line
                .label
                .name(Row::new())
                .with("documents", corpus.rows())
                .with("queries", reported.count())
                .with("core", arguments.core)
                .with("runs", arguments.runs)
                .with("target_recall", target);
            report.push(line.finish(row))?;
        }
    }
    report.finish()
}

/// What is printed of an engine at a recall.
struct Line<'a> {
    label: &'a Label,
    /// `None` of an engine that could not be had.
    contender: Option<&'a Contender>,
    /// `None` where the recall was not reached.
    point: Option<Point>,
    /// To hnswlib's and SymphonyQG's rate at the same recall.
    ratios: [Option<f64>; 2],
    result: String,
}

impl<'a> Line<'a> {
    /// Of an engine, beside the rates of hnswlib and SymphonyQG at the same recall.
    fn of(contender: &'a Contender, reached: Option<&Reached>, yardsticks: [Option<f64>; 2]) -> Line<'a> {
        let line = |point, ratios, result| Line {
            label: &contender.label,
            contender: Some(contender),
            point,
            ratios,
            result,
        };
        let says = |point: &Point| format!("recall {:.4} at ef {}", point.recall_at_10, point.ef);
        match reached {
            Some(Reached::Between(point)) => {
                let ratios = yardsticks.map(|qps| Some(point.qps() / qps?));
                line(Some(*point), ratios, "measured".to_owned())
            }
            // At another recall: no ratio.
            Some(Reached::Exceeded(point)) => line(Some(*point), [None; 2], says(point)),
            Some(Reached::Never(best)) => {
                line(None, [None; 2], format!("not reached: {} at best", says(best)))
            }
            None => line(None, [None; 2], "not measured".to_owned()),
        }
    }

    fn of_absent(label: &'a Label, why: &str) -> Line<'a> {
        Line { label, contender: None, point: None, ratios: [None; 2], result: why.to_owned() }
    }

    fn finish(&self, row: Row) -> Row {
        let of = |value: fn(&Point) -> f64| self.point.as_ref().map_or(f64::NAN, value);
        let row = match self.contender {
            Some(contender) => row.with("m", contender.m).with("ef_construction", contender.ef_construction),
            None => row.with("m", Value::Null).with("ef_construction", Value::Null),
        };
        let row = row
            .with_rounded("ef_search", of(|point| point.ef), 1)
            .with_rounded("qps", of(Point::qps), 0)
            .with_rounded("p50_us", of(|point| point.p50_us), 1)
            .with_rounded("p99_us", of(|point| point.p99_us), 1);
        let row = match self.contender {
            Some(contender) => contender.cost(row),
            None => ["bytes_per_vector", "build_s", "link_s", "refine_s"]
                .into_iter()
                .fold(row, |row, name| row.with(name, Value::Null)),
        };
        let [to_hnswlib, to_symphonyqg] = self.ratios.map(|ratio| ratio.unwrap_or(f64::NAN));
        row.with_rounded("ratio_to_hnswlib", to_hnswlib, 2)
            .with_rounded("ratio_to_symphonyqg", to_symphonyqg, 2)
            .with("live", self.label.live)
            .with("result", self.result.as_str())
    }
}

fn draw(lineup: &Lineup, curves: &[Curve], corpus: &Vectors) -> Plot {
    let series = lineup.contenders.iter().zip(curves).map(|(contender, curve)| Series {
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
