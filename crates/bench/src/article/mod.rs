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
pub(crate) struct ArticleArguments {
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

/// One claim of the article, which is one row of the table.
struct Claim {
    /// Section and subject.
    id: &'static str,
    /// What the article says.
    article: &'static str,
    /// The measured behaviour of the article's own stack, with the source; empty if not measured.
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

fn claims() -> impl Iterator<Item = &'static Claim> {
    [
        introduction::CLAIMS,
        section_1::CLAIMS,
        section_2::CLAIMS,
        section_3::CLAIMS,
        section_3_filters::CLAIMS,
        redis::CLAIMS,
        cluster::CLAIMS,
        section_4::CLAIMS,
        section_5::CLAIMS,
        section_6::CLAIMS,
        section_7::CLAIMS,
        section_8::CLAIMS,
        section_9::CLAIMS,
        section_10::CLAIMS,
    ]
    .into_iter()
    .flatten()
}

/// Checks every claim and prints the results.
pub(crate) fn run(arguments: &ArticleArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let chosen: Vec<&Claim> = claims()
        .filter(|claim| {
            arguments.row.is_empty() || arguments.row.iter().any(|prefix| claim.id.starts_with(prefix))
        })
        .collect();
    ensure!(!chosen.is_empty(), "no row id starts with {}", arguments.row.join(" or "));
    let mut fixtures = Fixtures::new(arguments, global)?;
    let mut report = Report::new(format, "article");
    let mut counts = [0usize; 3];
    for claim in chosen {
        let verdict = (claim.check)(&mut fixtures)
            .unwrap_or_else(|error| Verdict::new(false, format!("the check failed: {error:#}")));
        counts[verdict.status as usize] += 1;
        eprintln!("{:32} {}", claim.id, verdict.status.text());
        report.push(
            report::Row::new()
                .with("row", claim.id)
                .with("article", claim.article)
                .with("peer", claim.peer)
                .with("ours", verdict.ours)
                .with("met", verdict.status.text()),
        )?;
    }
    report.finish()?;
    eprintln!("met: {}, not met: {}, not checked: {}", counts[0], counts[1], counts[2]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn claim_ids_are_unique_and_start_with_their_section() {
        let ids: Vec<&str> = claims().map(|claim| claim.id).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        for claim in claims() {
            let section = claim.id.split('-').next().unwrap_or_default();
            assert!(section.parse::<f32>().is_ok(), "{}", claim.id);
            assert!(!claim.article.is_empty(), "{}", claim.id);
        }
        assert!(ids.len() >= 70, "{} claims", ids.len());
    }
}
