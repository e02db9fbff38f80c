//! The article made executable: one row for every code block, table row, strategy, pitfall and
//! claim, with what the article says, what its own stack was measured to do, and what Nearfield
//! does, checked in this run.

mod graph;
mod introduction;
mod on_cluster;
mod on_redis;
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
mod site;
mod words;
mod world;

use anyhow::{Result, ensure};

use crate::{
    report::{self, Format, Report},
    setting::Setting,
};
use world::World;

/// Arguments of `article`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Packages searched in rows about speed, memory and recall; the article speaks of 250,000
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    documents: usize,
    /// Vectors in each of the small indexes built to see what M, ef_construction and types do
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sweep: usize,
    /// Seconds a step of load lasts
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Only rows whose name begins so; may be repeated
    #[arg(long, value_name = "PREFIX")]
    row: Vec<String>,
}

/// One thing the article says.
struct Row {
    /// Section and subject.
    id: &'static str,
    /// What the article says.
    article: &'static str,
    /// What its own stack was measured to do, with the source; empty where nobody measured.
    peer: &'static str,
    /// What we do.
    check: fn(&mut World<'_>) -> Result<Verdict>,
}

/// Whether what the article promises is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Yes,
    No,
    NotYet,
}

impl Met {
    fn text(self) -> &'static str {
        match self {
            Met::Yes => "yes",
            Met::No => "no",
            Met::NotYet => "not yet",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug)]
struct Verdict {
    ours: String,
    met: Met,
}

impl Verdict {
    fn new(met: bool, ours: impl Into<String>) -> Verdict {
        Verdict { ours: ours.into(), met: if met { Met::Yes } else { Met::No } }
    }

    fn not_yet(ours: impl Into<String>) -> Verdict {
        Verdict { ours: ours.into(), met: Met::NotYet }
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    [
        introduction::ROWS,
        section_1::ROWS,
        section_2::ROWS,
        section_3::ROWS,
        section_3_filters::ROWS,
        on_redis::ROWS,
        on_cluster::ROWS,
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
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let chosen: Vec<&Row> = rows()
        .filter(|row| {
            arguments.row.is_empty() || arguments.row.iter().any(|prefix| row.id.starts_with(prefix))
        })
        .collect();
    ensure!(!chosen.is_empty(), "no row begins with {}", arguments.row.join(" or "));
    let mut world = World::new(arguments, setting)?;
    let mut report = Report::new(format, "article");
    let mut tally = [0usize; 3];
    for row in chosen {
        let verdict = (row.check)(&mut world)
            .unwrap_or_else(|error| Verdict::new(false, format!("could not be checked: {error:#}")));
        tally[verdict.met as usize] += 1;
        eprintln!("{:32} {}", row.id, verdict.met.text());
        report.push(
            report::Row::new()
                .with("row", row.id)
                .with("article", row.article)
                .with("peer", row.peer)
                .with("ours", verdict.ours)
                .with("met", verdict.met.text()),
        )?;
    }
    report.finish()?;
    eprintln!("met: {}, not met: {}, not yet: {}", tally[0], tally[1], tally[2]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_have_names_of_their_own_that_begin_with_their_section() {
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
