//! Throughput and latency of every engine at equal recall.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    IndexArguments, QuerySet,
    competitor::{Competitor, EngineLabel},
    competitors::Competitors,
    curve::{Crossing, Curve, CurvePoint},
    library::Library,
    measurement::{Measurement, measure_in_rounds},
    packages, tuning,
};
use crate::{
    global_options::GlobalOptions,
    machine::{self, CorePin},
    plot::{self, Axis, Plot, Scale, Series},
    report::{Format, Report, Row},
    vectors::Vectors,
};

/// The lowest recall in the plot.
const FROM: f64 = 0.85;

/// Measures, prints and draws.
pub(super) fn run(arguments: &IndexArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, global)?;
    let [tuned, reported] = QuerySet::all(&corpus, queries, global)?.halves();
    let _pin = CorePin::to_core(arguments.core)?;
    let mut competitors = Competitors::build(&corpus, arguments, global)?;
    let mut efs = Vec::new();
    for competitor in &mut competitors.competitors {
        efs.push(tuning::efs(competitor, &tuned, &arguments.target)?);
        eprintln!("{} is tuned", competitor.label.legend());
    }
    let mut measured: Vec<Measurement<'_>> = competitors
        .competitors
        .iter_mut()
        .zip(&efs)
        .map(|(competitor, efs)| Measurement::new(competitor, &reported, efs))
        .collect();
    measure_in_rounds(&mut measured, arguments.runs)?;
    let curves: Vec<Curve> = measured.iter().map(Measurement::curve).collect();
    if let Some(path) = &arguments.plot {
        let svg = plot::svg(&[draw(&competitors, &curves, &corpus)])?;
        fs::write(path, svg).with_context(|| format!("write {}", path.display()))?;
    }
    print(&competitors, &curves, &corpus, &reported, arguments, format)
}

fn print(
    competitors: &Competitors,
    curves: &[Curve],
    corpus: &Vectors,
    reported: &QuerySet,
    arguments: &IndexArguments,
    format: Format,
) -> Result<()> {
    let of = |library: Library| competitors.competitors.iter().position(|competitor| competitor.is(library));
    let baselines = [of(Library::Hnswlib), of(Library::Symphonyqg)];
    let mut report = Report::new(format, "index targets");
    for &target in &arguments.target {
        let reached: Vec<Option<Crossing>> = curves.iter().map(|curve| curve.at(target)).collect();
        let qps = baselines.map(|baseline| match reached[baseline?]? {
            Crossing::Interpolated(point) => Some(point.qps()),
            _ => None,
        });
        let rows = competitors
            .competitors
            .iter()
            .zip(&reached)
            .map(|(competitor, reached)| TargetRow::of(competitor, reached.as_ref(), qps));
        let unavailable =
            competitors.unavailable.iter().map(|(label, why)| TargetRow::of_unavailable(label, why));
        for line in rows.chain(unavailable) {
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

/// The printed row of an engine at a target recall.
struct TargetRow<'a> {
    label: &'a EngineLabel,
    /// `None` if the engine is unavailable.
    competitor: Option<&'a Competitor>,
    /// `None` if the recall was not reached.
    point: Option<CurvePoint>,
    /// Throughput relative to hnswlib's and SymphonyQG's at the same recall.
    ratios: [Option<f64>; 2],
    result: String,
}

impl<'a> TargetRow<'a> {
    /// The row of an engine, given the throughput of hnswlib and of SymphonyQG at the same recall.
    fn of(
        competitor: &'a Competitor,
        reached: Option<&Crossing>,
        baselines: [Option<f64>; 2],
    ) -> TargetRow<'a> {
        let line = |point, ratios, result| TargetRow {
            label: &competitor.label,
            competitor: Some(competitor),
            point,
            ratios,
            result,
        };
        let describe = |point: &CurvePoint| format!("recall {:.4} at ef {}", point.recall_at_10, point.ef);
        match reached {
            Some(Crossing::Interpolated(point)) => {
                let ratios = baselines.map(|qps| Some(point.qps() / qps?));
                line(Some(*point), ratios, "measured".to_owned())
            }
            // The recall differs, so there is no ratio.
            Some(Crossing::AlreadyAbove(point)) => line(Some(*point), [None; 2], describe(point)),
            Some(Crossing::NotReached(best)) => {
                line(None, [None; 2], format!("not reached: {} at best", describe(best)))
            }
            None => line(None, [None; 2], "not measured".to_owned()),
        }
    }

    fn of_unavailable(label: &'a EngineLabel, why: &str) -> TargetRow<'a> {
        TargetRow { label, competitor: None, point: None, ratios: [None; 2], result: why.to_owned() }
    }

    fn finish(&self, row: Row) -> Row {
        let of = |value: fn(&CurvePoint) -> f64| self.point.as_ref().map_or(f64::NAN, value);
        let row = match self.competitor {
            Some(competitor) => {
                row.with("m", competitor.m).with("ef_construction", competitor.ef_construction)
            }
            None => row.with("m", Value::Null).with("ef_construction", Value::Null),
        };
        let row = row
            .with_rounded("ef_search", of(|point| point.ef), 1)
            .with_rounded("qps", of(CurvePoint::qps), 0)
            .with_rounded("p50_us", of(|point| point.p50_us), 1)
            .with_rounded("p99_us", of(|point| point.p99_us), 1);
        let row = match self.competitor {
            Some(competitor) => competitor.cost(row),
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

fn draw(competitors: &Competitors, curves: &[Curve], corpus: &Vectors) -> Plot {
    let series = competitors.competitors.iter().zip(curves).map(|(competitor, curve)| Series {
        name: competitor.label.legend(),
        points: curve.points().iter().map(|point| (point.recall_at_10, point.qps())).collect(),
        is_ours: competitor.is_nearfield(),
    });
    Plot {
        title: format!(
            "{} package descriptions, {} dimensions, one query at a time",
            corpus.rows(),
            corpus.dim
        ),
        note: format!("{}, one core used; revision {}", machine::description(), machine::revision()),
        x: Axis { label: "recall@10".to_owned(), scale: Scale::Nines, range: Some((FROM, 0.9995)) },
        y: Axis { label: "queries per second".to_owned(), scale: Scale::Log, range: None },
        series: series.collect(),
    }
}
