//! `nearfield index`: indexes documents of CSV and JSONL files.

mod batch;
mod columns;
mod csv;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod input;
mod jsonl;
mod outcomes;
mod pipeline;
mod progress;
mod row;
mod sender;
mod target;

use std::{collections::VecDeque, fs, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use serde::Serialize;

pub(crate) use self::{
    batch::BatchOptions,
    columns::{ColumnMapping, SchemaFields},
    csv::CsvReader,
    input::{Format, Input},
    jsonl::JsonlReader,
    outcomes::{OutcomeRecorder, RowCounts},
    pipeline::{IndexJob, IndexOutcome, run},
    row::{DocumentRow, RowLocation, RowReader, RowResult},
    target::TargetCollection,
};
use super::{
    client::{Client, ClientFlags},
    duration::TimeSpan,
    error::UsageError,
    exit::{Exit, ignore_closed_output},
    model::{self, HubFlags},
    output_file::{Existing, FileIdentity, OutputFile, OutputRules},
    session::Session,
    terminal::Terminal,
};
use crate::models::{DEFAULT_NAME, ModelSource};

/// What to do at a rejected row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    /// Leave the row out and continue
    Skip,
    /// Stop
    #[default]
    Fail,
}

/// Index documents from CSV or JSONL files
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The default model is fetched on first use. Unchanged documents are recognised and not embedded again: if a run is
interrupted, run it again. The last line accounts for all rows:
  rows in 1000 = indexed 980 + unchanged 15 + rejected 5
If several rows have the same id, the last one stands, and the line also counts the rows that it replaced.

One column can have several roles, such as --id question --title question --content answer.
Columns (or members) other than id, title and content (or body) become fields with the same name. An empty cell of a
TAG or NUMERIC field means no value.

Examples:
  nearfield index articles.csv
  nearfield index kb.csv --tag category --numeric year --on-error skip --rejects bad.jsonl
  nearfield index products.tsv.gz --collection products --id sku --title name --content description
  zcat dump.jsonl.gz | nearfield index - --format jsonl --ttl 7d")]
pub(crate) struct IndexArgs {
    /// CSV or JSONL files, optionally gzipped; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Collection to index into; created with the fields title and content (and those of --tag and --numeric) if it
    /// does not exist
    #[arg(long, short, default_value = "articles", value_name = "NAME")]
    collection: String,
    #[command(flatten)]
    mapping: ColumnMapping,
    /// Format of the files, if their names (.csv, .tsv, .jsonl, .ndjson, optionally followed by .gz) do not tell
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Delimiter of CSV files: one character, or \t [default: comma, tab for .tsv; if the header
    /// has none: semicolon, tab, bar or comma, whichever it has most]
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Embedding model of the collection, if it is created
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    model: String,
    /// Documents per request
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5000))]
    batch_size: u16,
    /// Time to live of the documents, such as 90s, 30m, 12h or 7d
    #[arg(long, value_name = "DURATION")]
    ttl: Option<TimeSpan>,
    /// What to do at a rejected row
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// File for rejected rows, one JSON object per line: file, line, id, reason, row
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Replace an existing --rejects file
    #[arg(long, requires = "rejects")]
    force: bool,
    /// File to which the id of each document is appended once it is committed
    #[arg(long, value_name = "FILE")]
    acks: Option<PathBuf>,
    #[command(flatten)]
    hub: HubFlags,
    #[command(flatten)]
    client: ClientFlags,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "\\t" | "tab" => Ok(b'\t'),
        _ => match text.as_bytes() {
            [byte] if byte.is_ascii() && !b"\"\r\n".contains(byte) => Ok(*byte),
            _ => Err("expected one ASCII character, or \\t".to_owned()),
        },
    }
}

impl IndexArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let settings = session.command_settings()?;
        let inputs: Vec<FileIdentity> =
            self.files.iter().filter_map(|file| FileIdentity::of_input(file)).collect();
        let rules = OutputRules {
            data_dirs: &[&settings.server.service.data_dir],
            inputs: &inputs,
            existing: Existing::replace_if(self.force),
        };
        let rejects = self.rejects.as_ref().map(|path| OutputFile::new(path, rules)).transpose()?;
        let appended = OutputRules { existing: Existing::Change, ..rules };
        let acks = self.acks.as_ref().map(|path| OutputFile::new(path, appended)).transpose()?;
        let client = Arc::new(Client::open(&settings, &self.client)?);
        let target = TargetCollection::find(&client, &self.collection, &self.mapping, &self.model)?;
        let has_kinds = !self.mapping.tags.is_empty() || !self.mapping.numerics.is_empty();
        if has_kinds && !target.is_new() {
            session.terminal.note(format_args!(
                "the collection {} already exists: --tag and --numeric have no effect on its schema",
                self.collection
            ));
        }
        let rows = FilesReader::new(&self, target.schema_fields(), session.terminal);
        rows.check()?;
        // A server has its own models, and fetches none.
        if client.url().is_none() && target.embeds_with(DEFAULT_NAME) {
            model::pull_if_missing(&settings, session.terminal, ModelSource::Auto, &self.hub)?;
        }
        let recorder = OutcomeRecorder::open(rejects, acks, session.terminal)?;
        target.create(&client)?;
        let stop_at_rejected = self.on_error == OnError::Fail;
        let outcome = run(
            IndexJob {
                client,
                collection: &self.collection,
                options: BatchOptions { rows_max: self.batch_size.into(), stop_at_rejected },
                bytes: rows.bytes_on_disk(),
                recorder,
                terminal: session.terminal,
            },
            rows,
        )?;
        report(session, &self.collection, outcome, stop_at_rejected)
    }
}

/// The result as JSON.
#[derive(Serialize)]
struct IndexReport<'a> {
    collection: &'a str,
    #[serde(flatten)]
    counts: RowCounts,
    seconds: f64,
    interrupted: bool,
    error: Option<String>,
}

/// Prints the result of a run and returns the exit code.
pub(crate) fn report(
    session: &Session,
    collection: &str,
    outcome: IndexOutcome,
    stop_at_rejected: bool,
) -> anyhow::Result<Exit> {
    let IndexOutcome { counts, seconds, interrupted, failure } = outcome;
    let terminal = session.terminal;
    if counts.truncated > 0 {
        terminal.note(format_args!(
            "{} documents are longer than the model's input: only their beginning is searchable",
            counts.truncated
        ));
    }
    if terminal.json {
        let error = failure.as_ref().map(|failure| format!("{failure:#}"));
        ignore_closed_output(terminal.json(&IndexReport {
            collection,
            counts,
            seconds,
            interrupted,
            error,
        }))?;
    } else {
        let rate = counts.rows as f64 / seconds.max(1e-3);
        terminal.note(format_args!("{seconds:.1} s, {rate:.0} rows per second"));
        ignore_closed_output(terminal.line(counts))?;
    }
    match failure {
        Some(failure) => Err(failure),
        None if interrupted => Ok(Exit::Interrupted),
        None if stop_at_rejected && counts.rejected > 0 => {
            anyhow::bail!(
                "stopped at a rejected row; the rows before it are indexed (--on-error skip continues instead)"
            )
        }
        None => Ok(Exit::Done),
    }
}

/// How rows are read from files.
#[derive(Clone)]
struct ReadOptions {
    format: Option<Format>,
    delimiter: Option<u8>,
    mapping: ColumnMapping,
    schema_fields: SchemaFields,
    ttl_s: Option<f64>,
    keep_raw: bool,
    terminal: Terminal,
}

impl ReadOptions {
    /// Opens a file; `is_reported`: tells what was detected.
    fn open(&self, path: &str, is_reported: bool) -> anyhow::Result<Box<dyn RowReader>> {
        let input = Input::open(path, self.format)?;
        Ok(match input.format {
            Format::Csv => {
                let rows = CsvReader::new(
                    input,
                    self.delimiter,
                    &self.mapping,
                    &self.schema_fields,
                    self.ttl_s,
                    self.keep_raw,
                )?;
                if let Some(delimiter) = rows.found_delimiter.filter(|_| is_reported) {
                    self.terminal.note(format_args!(
                        "{path}: the delimiter is {delimiter:?} (choose another with --delimiter)"
                    ));
                }
                Box::new(rows)
            }
            Format::Jsonl => Box::new(JsonlReader::new(
                input,
                &self.mapping,
                &self.schema_fields,
                self.ttl_s,
                self.keep_raw,
            )),
        })
    }
}

/// Rows of several files, one after the other.
struct FilesReader {
    reading: ReadOptions,
    files: VecDeque<String>,
    current: Option<Box<dyn RowReader>>,
    /// Bytes of the files before the current one.
    bytes_before: u64,
}

impl FilesReader {
    fn new(args: &IndexArgs, schema_fields: SchemaFields, terminal: Terminal) -> FilesReader {
        let reading = ReadOptions {
            format: args.format,
            delimiter: args.delimiter,
            mapping: args.mapping.clone(),
            schema_fields,
            ttl_s: args.ttl.map(|ttl| ttl.seconds()),
            keep_raw: args.rejects.is_some(),
            terminal,
        };
        FilesReader { reading, files: args.files.clone().into(), current: None, bytes_before: 0 }
    }

    /// Opens every file once, so that a wrong name or header in the last file is reported before the first is indexed.
    fn check(&self) -> anyhow::Result<()> {
        if self.files.iter().filter(|file| *file == "-").count() > 1 {
            return Err(UsageError("- (standard input) can be given only once".to_owned()).into());
        }
        self.files
            .iter()
            .filter(|file| *file != "-")
            .try_for_each(|file| self.reading.open(file, false).map(drop))
    }

    /// Total size of the files; `None` if one of them is not a regular file.
    fn bytes_on_disk(&self) -> Option<u64> {
        let bytes =
            |file: &String| fs::metadata(file).ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        self.files.iter().map(bytes).sum()
    }
}

impl RowReader for FilesReader {
    fn next(&mut self) -> anyhow::Result<Option<RowResult>> {
        loop {
            if let Some(rows) = &mut self.current {
                if let Some(item) = rows.next()? {
                    return Ok(Some(item));
                }
                self.bytes_before += rows.bytes_read();
                self.current = None;
            }
            let Some(file) = self.files.pop_front() else { return Ok(None) };
            self.current = Some(self.reading.open(&file, true).with_context(|| format!("opening {file}"))?);
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_before + self.current.as_ref().map_or(0, |rows| rows.bytes_read())
    }
}
