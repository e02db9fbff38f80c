//! `nearfield export`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader, BufWriter, Seek, Write},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    client::{ApiPath, Client, ClientFlags},
    collection::{self, CollectionInfo},
    error::UsageError,
    exit::Exit,
    index::Format,
    output_file::{Existing, OutputFile, OutputRules},
    session::Session,
    terminal::{Terminal, thousands},
};

/// Documents per request; fewer with vectors, which are long.
const PAGE_LEN: usize = 500;
const PAGE_LEN_WITH_VECTORS: usize = 100;

/// Write documents to a file or standard output, in a format that index reads
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSONL contains complete documents: id, fields (binary values as {\"base64\": ...}) and, if the document expires, ttl_s,
the remaining seconds. The vectors of fields for which a model computes them are in it only with --vectors: indexing the
file computes them again.

CSV has one column per field, and ttl_s; tags are joined. It keeps less than JSONL: no vectors; binary values become
text (base64), an empty list of tags no value, and a missing text an empty one.

Examples:
  nearfield export -o articles.jsonl
  nearfield export --filter '@category:{billing}' --format csv > billing.csv
  nearfield export --vectors | gzip > backup.jsonl.gz")]
pub(crate) struct ExportArgs {
    /// Collection; optional if there is only one
    #[arg(long, short, value_name = "NAME")]
    collection: Option<String>,
    /// Export only the documents that match this filter
    #[arg(long, short, value_name = "FILTER", allow_hyphen_values = true)]
    filter: Option<String>,
    /// Include vectors that a model computes; JSONL only
    #[arg(long)]
    vectors: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// File to write; it appears only when complete [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "output")]
    force: bool,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Deserialize)]
struct DocumentPage {
    documents: Vec<ExportedDocument>,
    next: Option<Value>,
}

#[derive(Deserialize)]
struct ExportedDocument {
    id: String,
    expires_at_ms: Option<u64>,
    fields: Map<String, Value>,
}

impl ExportedDocument {
    /// The document as one flat object, the form that `index` and the server read.
    fn into_row(self, now_ms: u64) -> Map<String, Value> {
        let mut row = self.fields;
        row.insert("id".to_owned(), Value::from(self.id));
        if let Some(expires_at_ms) = self.expires_at_ms {
            let left_ms = expires_at_ms.saturating_sub(now_ms).max(1);
            row.insert("ttl_s".to_owned(), Value::from(left_ms as f64 / 1e3));
        }
        row
    }
}

impl ExportArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        if self.vectors && self.format == Format::Csv {
            return Err(
                UsageError("CSV cannot hold vectors: use --vectors with --format jsonl".to_owned()).into()
            );
        }
        let settings = session.command_settings()?;
        let existing = Existing::replace_if(self.force);
        let rules = OutputRules { data_dirs: &[&settings.server.service.data_dir], inputs: &[], existing };
        let output = self.output.as_ref().map(|path| OutputFile::new(path, rules)).transpose()?;
        let client = Client::open(&settings, &self.client)?;
        let info = collection::named_or_only(&client, self.collection.as_deref())?;
        let written = match output {
            None => {
                self.write(&client, &info, &mut BufWriter::new(session.terminal.output()), session.terminal)?
            }
            Some(output) => output.write(|to| self.write(&client, &info, to, session.terminal))?,
        };
        session.terminal.note(format_args!("exported {} documents from {}", thousands(written), info.name));
        Ok(Exit::Done)
    }

    fn write(
        &self,
        client: &Client,
        info: &CollectionInfo,
        to: &mut dyn Write,
        terminal: Terminal,
    ) -> anyhow::Result<u64> {
        let written = match self.format {
            Format::Jsonl => self.write_jsonl(client, info, to)?,
            Format::Csv => self.write_csv(client, info, to, terminal)?,
        };
        to.flush()?;
        Ok(written)
    }

    fn write_jsonl(&self, client: &Client, info: &CollectionInfo, to: &mut dyn Write) -> anyhow::Result<u64> {
        let has_given_vectors = vector_fields(info, Vectors::Given).next().is_some();
        self.for_each_document(client, info, self.vectors || has_given_vectors, |mut document| {
            if !self.vectors {
                for name in vector_fields(info, Vectors::Computed) {
                    document.remove(name);
                }
            }
            serde_json::to_writer(&mut *to, &document).map_err(io::Error::from)?;
            Ok(to.write_all(b"\n")?)
        })
    }

    /// Documents are buffered in a temporary file, because the columns are known only after the last one.
    fn write_csv(
        &self,
        client: &Client,
        info: &CollectionInfo,
        to: &mut dyn Write,
        terminal: Terminal,
    ) -> anyhow::Result<u64> {
        let mut spool = BufWriter::new(tempfile::tempfile().context("a temporary file")?);
        let mut names = BTreeSet::new();
        let written = self.for_each_document(client, info, false, |document| {
            names.extend(document.keys().cloned());
            serde_json::to_writer(&mut spool, &document).map_err(io::Error::from)?;
            Ok(spool.write_all(b"\n")?)
        })?;
        let mut spool = spool.into_inner().map_err(io::IntoInnerError::into_error)?;
        spool.rewind()?;
        // The id, then the fields of the schema in its order, then all others.
        let of_schema = info.schema.fields.iter().filter(|field| field.kind != "vector");
        let mut columns = vec!["id".to_owned()];
        columns.extend(of_schema.map(|field| field.name.clone()));
        names.retain(|name| !columns.contains(name));
        columns.extend(names);
        let mut writer = csv::Writer::from_writer(to);
        writer.write_record(&columns)?;
        let mut changed: BTreeMap<&str, u64> = BTreeMap::new();
        for line in BufReader::new(spool).lines() {
            let document: Map<String, Value> = serde_json::from_str(&line?)?;
            for name in &columns {
                let value = document.get(name);
                if value.is_some_and(changes_in_csv) {
                    *changed.entry(name).or_default() += 1;
                }
                writer.write_field(csv_cell(value, info, name))?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        writer.flush()?;
        for name in vector_fields(info, Vectors::Given) {
            terminal.warn(format_args!(
                "the vectors of the field {name:?} are left out, and indexing the file would remove them: JSONL keeps them"
            ));
        }
        for (name, count) in changed {
            terminal.warn(format_args!(
                "{} documents have a binary value or an empty list in the field {name:?}, which CSV cannot hold: \
                 indexing the file would change it; JSONL keeps it",
                thousands(count)
            ));
        }
        Ok(written)
    }

    /// Calls `each` with every document, with vector fields if `vectors`, page by page.
    fn for_each_document(
        &self,
        client: &Client,
        info: &CollectionInfo,
        vectors: bool,
        mut each: impl FnMut(Map<String, Value>) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut written = 0;
        let mut after: Option<Value> = None;
        loop {
            let cursor = after
                .as_ref()
                .map(|cursor| cursor.as_str().map_or_else(|| cursor.to_string(), str::to_owned));
            let path = ApiPath::collection(&info.name)
                .segment("documents")
                .query("filter", self.filter.as_deref())
                .query("limit", Some(if vectors { PAGE_LEN_WITH_VECTORS } else { PAGE_LEN }))
                .query("vectors", vectors.then_some(true))
                .query("after", cursor);
            let page: DocumentPage = client.get(path)?;
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            for document in page.documents {
                each(document.into_row(now_ms))?;
                written += 1;
            }
            match page.next {
                None => return Ok(written),
                next => after = next,
            }
        }
    }
}

/// Where the vectors of a field come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vectors {
    /// Clients give them.
    Given,
    /// A model computes them.
    Computed,
}

/// The names of the vector fields with such vectors.
fn vector_fields(info: &CollectionInfo, vectors: Vectors) -> impl Iterator<Item = &str> {
    let fields = info.schema.fields.iter().filter(move |field| {
        field.kind == "vector" && field.embed.is_some() == (vectors == Vectors::Computed)
    });
    fields.map(|field| &*field.name)
}

/// Whether a value differs after it was written to and read from CSV.
fn changes_in_csv(value: &Value) -> bool {
    match value {
        Value::Array(tags) => tags.is_empty(),
        Value::Object(_) => true,
        _ => false,
    }
}

/// A value as a CSV cell.
fn csv_cell(value: Option<&Value>, info: &CollectionInfo, name: &str) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(tags)) => {
            let field = info.schema.fields.iter().find(|field| field.name == name);
            let separator = field.and_then(|field| field.separator.as_deref()).unwrap_or(",");
            let tags = tags.iter().map(|tag| tag.as_str().map_or_else(|| tag.to_string(), str::to_owned));
            tags.collect::<Vec<_>>().join(separator)
        }
        Some(Value::Object(binary)) => match binary.get("base64") {
            Some(Value::String(text)) => text.clone(),
            _ => Value::from(binary.clone()).to_string(),
        },
        Some(other) => other.to_string(),
    }
}
