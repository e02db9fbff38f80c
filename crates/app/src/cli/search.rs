//! `nearfield search`.

use std::io::Write as _;

use axum::http::Method;
use comfy_table::{Attribute, Cell, CellAlignment, Color};
use serde::Deserialize;

use super::{
    client::{ApiPath, ApiRequest, ClientFlags},
    exit::Exit,
    session::Session,
    terminal::{self, DIM, Terminal},
};

/// Characters of a document's content to show.
const SNIPPET_CHARS: usize = 160;

/// Find the documents closest in meaning to a query
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Filters use RediSearch syntax: @category:{billing|refunds}, @year:[2020 +inf], -@category:{old}.
With --json: {query, took_ms, results: [{id, title, content, score, distance}], timing}.

Examples:
  nearfield search \"how do I reset my password\"
  nearfield search -k 3 --filter '@category:{billing} @year:[2024 +inf]' refunds
  nearfield search --json \"late delivery\" | jq -r '.results[].id'")]
pub(crate) struct SearchArgs {
    /// Query; several words need no quotes
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,
    /// Maximum number of documents to return
    #[arg(short, long = "limit", default_value_t = service::limits::K_DEFAULT, value_name = "K")]
    k: usize,
    /// Collection; optional if there is only one
    #[arg(long, short, value_name = "NAME")]
    collection: Option<String>,
    /// Search only the documents that match this filter
    #[arg(long, short, value_name = "FILTER", allow_hyphen_values = true)]
    filter: Option<String>,
    /// Candidates the graph search keeps, overriding the collection's value; more are slower and more accurate
    #[arg(long, value_name = "N")]
    ef_search: Option<usize>,
    /// Compare the query with every document instead of using the graph
    #[arg(long)]
    exact: bool,
    /// Leave out documents with a lower score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    min_score: Option<f32>,
    /// Number of documents to skip
    #[arg(long, value_name = "N")]
    offset: Option<usize>,
    /// Return the hits of the reachable servers if some servers of a Redis Cluster do not respond
    #[arg(long)]
    allow_partial: bool,
    #[command(flatten)]
    client: ClientFlags,
}

/// A search response; the members that are shown.
#[derive(Debug, Deserialize)]
pub(super) struct SearchResults {
    #[serde(default)]
    pub(super) took_ms: f64,
    pub(super) results: Vec<SearchHit>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    unanswered: Vec<String>,
    timing: SearchTiming,
}

#[derive(Debug, Deserialize)]
pub(super) struct SearchHit {
    pub(super) id: String,
    #[serde(default)]
    pub(super) title: String,
    #[serde(default)]
    content: String,
    pub(super) score: f64,
}

#[derive(Debug, Deserialize)]
struct SearchTiming {
    queue_us: u64,
    embed_us: u64,
    filter_us: u64,
    search_us: u64,
    fetch_us: u64,
    total_us: u64,
}

impl std::fmt::Display for SearchTiming {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| us as f64 / 1e3;
        write!(
            formatter,
            "{:.2} ms = queue {:.2} + embed {:.2} + filter {:.2} + search {:.2} + fetch {:.2}",
            ms(self.total_us),
            ms(self.queue_us),
            ms(self.embed_us),
            ms(self.filter_us),
            ms(self.search_us),
            ms(self.fetch_us),
        )
    }
}

impl SearchArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let client = session.connect(&self.client)?;
        let path = ApiPath::new("/search")
            .query("q", Some(self.query.join(" ")))
            .query("k", Some(self.k))
            .query("collection", self.collection)
            .query("filter", self.filter)
            .query("ef_search", self.ef_search)
            .query("exact", self.exact.then_some(true))
            .query("min_score", self.min_score)
            .query("offset", self.offset)
            .query("allow_partial", self.allow_partial.then_some(true));
        let response = client
            .execute(&ApiRequest { method: Method::GET, path: path.as_ref(), body: None })?
            .error_for_status()?;
        if session.terminal.json {
            let line = [response.body.trim_ascii_end(), b"\n"].concat();
            session.terminal.output().write_all(&line)?;
        } else {
            show(session.terminal, &response.json()?)?;
        }
        Ok(Exit::Done)
    }
}

fn show(terminal: Terminal, results: &SearchResults) -> anyhow::Result<()> {
    if results.results.is_empty() {
        terminal.line("no results")?;
    } else {
        let mut table = terminal::table(&["score", "title", "snippet"]);
        for hit in &results.results {
            let title = if hit.title.is_empty() { &hit.id } else { &hit.title };
            table.add_row(vec![
                Cell::new(format!("{:.3}", hit.score)).set_alignment(CellAlignment::Right).fg(Color::Cyan),
                Cell::new(format!(
                    "{}\n({})",
                    terminal::one_line(title, 80),
                    terminal::one_line(&hit.id, 80)
                ))
                .add_attribute(Attribute::Bold),
                Cell::new(terminal::one_line(&hit.content, SNIPPET_CHARS)),
            ]);
        }
        terminal.line(table)?;
    }
    if results.truncated {
        terminal.warn("the query is longer than the model's input: only its beginning was used");
    }
    for unanswered in &results.unanswered {
        terminal.warn(format_args!("some hits may be missing: {unanswered}"));
    }
    terminal.line(format_args!("{DIM}{}{DIM:#}", results.timing))?;
    Ok(())
}
