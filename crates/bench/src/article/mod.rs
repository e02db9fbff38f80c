//! `article`: the claims of the article as executable checks. One row for every code block, table row, strategy,
//! pitfall and claim, with what the article says, what its own stack was measured to do, and what Nearfield does,
//! checked in this run.

mod api;
mod bm25;
mod cluster;
mod fixtures;
mod graph;
mod introduction;
mod redis;
mod section_1;
mod section_10;
mod section_2;
mod section_3;
mod section_3_filters;
mod section_4;
mod section_5;
mod section_6;
mod section_7;
mod section_8;
mod section_9;

use std::num::NonZero;

use anyhow::{Result, ensure};

use crate::{
    global_options::GlobalOptions,
    peer::Peers,
    report::{self, Format, Report},
};
use fixtures::Fixtures;

/// Arguments of `article`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Packages searched in the rows about speed, memory and recall; the article has 250,000
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    documents: usize,
    /// Vectors in each of the small indexes that vary M, ef_construction and types
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sweep: usize,
    /// Length of a load step in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Searches per measurement of latency
    #[arg(long, value_name = "N", default_value = "1000", hide = true)]
    searches: NonZero<usize>,
    /// Only rows whose id starts with this prefix; may be repeated
    #[arg(long, value_name = "PREFIX")]
    row: Vec<String>,
    /// Whether to run redis-py as well; without it, rows that need it are not checked
    #[arg(long, value_enum, default_value = "all")]
    peers: Peers,
}

/// One claim of the article.
struct Row {
    /// Section and subject.
    id: &'static str,
    /// What the article says.
    article: &'static str,
    /// What the article's own stack was measured to do, with the source; empty if not measured.
    peer: &'static str,
    /// Checks what Nearfield does.
    check: fn(&mut Fixtures<'_>) -> Result<Verdict>,
}

/// Whether Nearfield fulfils the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Met,
    NotMet,
    NotChecked,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Status::Met => "yes",
            Status::NotMet => "no",
            Status::NotChecked => "not checked",
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug)]
struct Verdict {
    ours: String,
    status: Status,
}

impl Verdict {
    fn new(met: bool, ours: impl Into<String>) -> Verdict {
        Verdict { ours: ours.into(), status: if met { Status::Met } else { Status::NotMet } }
    }

    fn not_checked(ours: impl Into<String>) -> Verdict {
        Verdict { ours: ours.into(), status: Status::NotChecked }
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    [
        introduction::ROWS,
        section_1::ROWS,
        section_2::ROWS,
        section_3::ROWS,
        section_3_filters::ROWS,
        redis::ROWS,
        cluster::ROWS,
        section_4::ROWS,
        section_5::ROWS,
        section_6::ROWS,
        section_7::ROWS,
        section_8::ROWS,
        section_9::ROWS,
        section_10::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// Checks every row and prints them.
pub(crate) fn run(arguments: &Arguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let chosen: Vec<&Row> = rows()
        .filter(|row| {
            arguments.row.is_empty() || arguments.row.iter().any(|prefix| row.id.starts_with(prefix))
        })
        .collect();
    ensure!(!chosen.is_empty(), "no row id starts with {}", arguments.row.join(" or "));
    let mut fixtures = Fixtures::new(arguments, global)?;
    let mut report = Report::new(format, "article");
    let mut tally = [0usize; 3];
    for row in chosen {
        let verdict = (row.check)(&mut fixtures)
            .unwrap_or_else(|error| Verdict::new(false, format!("the check failed: {error:#}")));
        tally[verdict.status as usize] += 1;
        eprintln!("{:32} {}", row.id, verdict.status.text());
        report.push(
            report::Row::new()
                .with("row", row.id)
                .with("article", row.article)
                .with("peer", row.peer)
                .with("ours", verdict.ours)
                .with("met", verdict.status.text()),
        )?;
    }
    report.finish()?;
    eprintln!("met: {}, not met: {}, not checked: {}", tally[0], tally[1], tally[2]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn row_ids_are_unique_and_start_with_their_section() {
        let ids: Vec<&str> = rows().map(|row| row.id).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        for row in rows() {
            let section = row.id.split('-').next().unwrap_or_default();
            assert!(section.parse::<f32>().is_ok(), "{}", row.id);
            assert!(!row.article.is_empty(), "{}", row.id);
        }
        assert!(ids.len() >= 70, "{} rows", ids.len());
    }
}
