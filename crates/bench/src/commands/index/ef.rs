//! Recall and queries a second by `ef_search`, the article's table 8.2, beside the libraries with the
//! same parameters.

use anyhow::Result;
use serde_json::Value;

use super::{
    Arguments, Questions,
    curve::{Curve, Point},
    library::Library,
    lineup::Lineup,
    packages,
    turns::{self, Turn},
};
use crate::{
    machine::Pinned,
    report::{Format, Report, Row},
    setting::Setting,
};

/// How far recall may be below hnswlib's at equal parameters.
const RECALL_BELOW_MAX: f64 = 0.005;

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, setting)?;
    let questions = Questions::all(&corpus, queries, setting)?;
    let _pinned = Pinned::to(arguments.core)?;
    let mut lineup = Lineup::build(&corpus, arguments, setting)?;
    let mut measured: Vec<Turn<'_>> = lineup
        .contenders
        .iter_mut()
        .map(|contender| Turn::new(contender, &questions, &arguments.ef))
        .collect();
    turns::take(&mut measured, arguments.runs)?;
    let curves: Vec<Curve> = measured.iter().map(Turn::curve).collect();
    let yardstick = lineup.contenders.iter().position(|contender| contender.is(Library::Hnswlib));

    let mut report = Report::new(format, "index ef");
    for (place, &ef) in arguments.ef.iter().enumerate() {
        let points: Vec<Point> = curves.iter().map(|curve| curve.points()[place]).collect();
        let expected = yardstick.map(|yardstick| points[yardstick].recall_at_10);
        for (contender, point) in lineup.contenders.iter().zip(&points) {
            let row = contender
                .label
                .name(Row::new())
                .with("documents", corpus.rows())
                .with("core", arguments.core)
                .with("runs", arguments.runs)
                .with("m", contender.m)
                .with("ef_construction", contender.ef_construction)
                .with("ef_search", ef);
            let verdict = expected.map_or(Value::Null, |expected| verdict(point.recall_at_10 - expected));
            report
                .push(contender.cost(point.tell(row)).with("recall_at_most_0.005_below_hnswlib", verdict))?;
        }
    }
    report.finish()
}

fn verdict(difference: f64) -> Value {
    let met = if difference >= -RECALL_BELOW_MAX { "met" } else { "not met" };
    Value::from(met)
}
