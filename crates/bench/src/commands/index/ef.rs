//! Recall and throughput by `ef_search` (table 8.2 of the article), compared with the libraries at the same parameters.

use anyhow::Result;
use serde_json::Value;

use super::{
    IndexArguments, QuerySet,
    competitors::Competitors,
    curve::{Curve, CurvePoint},
    library::Library,
    measurement::{Measurement, measure_in_rounds},
    packages,
};
use crate::{
    global_options::GlobalOptions,
    machine::CorePin,
    report::{Format, Report, Row},
};

/// Accepted loss of recall compared with hnswlib at equal parameters.
const RECALL_BELOW_MAX: f64 = 0.005;

/// Measures and prints.
pub(super) fn run(arguments: &IndexArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, global)?;
    let query_set = QuerySet::all(&corpus, queries, global)?;
    let _pin = CorePin::to_core(arguments.core)?;
    let mut competitors = Competitors::build(&corpus, arguments, global)?;
    let mut measured: Vec<Measurement<'_>> = competitors
        .competitors
        .iter_mut()
        .map(|competitor| Measurement::new(competitor, &query_set, &arguments.ef))
        .collect();
    measure_in_rounds(&mut measured, arguments.runs)?;
    let curves: Vec<Curve> = measured.iter().map(Measurement::curve).collect();
    let baseline = competitors.competitors.iter().position(|competitor| competitor.is(Library::Hnswlib));

    let mut report = Report::new(format, "index ef");
    for (position, &ef) in arguments.ef.iter().enumerate() {
        let points: Vec<CurvePoint> = curves.iter().map(|curve| curve.points()[position]).collect();
        let expected = baseline.map(|baseline| points[baseline].recall_at_10);
        for (competitor, point) in competitors.competitors.iter().zip(&points) {
            let row = competitor
                .label
                .name(Row::new())
                .with("documents", corpus.rows())
                .with("core", arguments.core)
                .with("runs", arguments.runs)
                .with("m", competitor.m)
                .with("ef_construction", competitor.ef_construction)
                .with("ef_search", ef);
            let verdict = expected.map_or(Value::Null, |expected| verdict(point.recall_at_10 - expected));
            report.push(
                competitor.cost(point.add_to(row)).with("recall_at_most_0.005_below_hnswlib", verdict),
            )?;
        }
    }
    report.finish()
}

fn verdict(difference: f64) -> Value {
    let met = if difference >= -RECALL_BELOW_MAX { "met" } else { "not met" };
    Value::from(met)
}
