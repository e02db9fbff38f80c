//! Rows of an input: those to send, and those rejected.

use std::{collections::HashSet, sync::Arc};

use serde::Serialize;

/// Maximum size of a row. A larger one is probably an unclosed quote or a missing line break.
pub(crate) const ROW_BYTES_MAX: usize = 32 << 20;

/// The position of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowLocation {
    /// File as given; `-` for standard input.
    pub(crate) file: Arc<str>,
    /// Line of its first byte, from 1.
    pub(crate) line: u64,
}

/// A row to send.
#[derive(Clone, Debug)]
pub(crate) struct DocumentRow {
    pub(crate) location: RowLocation,
    pub(crate) id: String,
    /// The document as one line of JSON, without a line break.
    pub(crate) json: String,
    /// The unparsed row, kept in case it is rejected.
    pub(crate) raw: Option<String>,
}

/// A rejected row.
#[derive(Clone, Debug)]
pub(crate) struct RejectedRow {
    pub(crate) location: RowLocation,
    pub(crate) id: Option<String>,
    pub(crate) reason: String,
    pub(crate) raw: Option<String>,
}

/// A line of the rejects file.
#[derive(Serialize)]
struct RejectsLine<'a> {
    file: &'a str,
    line: u64,
    id: Option<&'a str>,
    reason: &'a str,
    row: Option<&'a str>,
}

impl RejectedRow {
    /// The row as a line of the rejects file.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&RejectsLine {
            file: &self.location.file,
            line: self.location.line,
            id: self.id.as_deref(),
            reason: &self.reason,
            row: self.raw.as_deref(),
        })
    }
}

/// Builds a document as a line of JSON.
pub(crate) struct DocumentBuilder {
    json: String,
    names: HashSet<String>,
}

impl DocumentBuilder {
    /// A document with an id and, if given, a time to live.
    pub(crate) fn new(id: &str, ttl_s: Option<f64>) -> DocumentBuilder {
        let mut line = DocumentBuilder { json: String::from("{"), names: HashSet::new() };
        line.push("id", &json_string(id));
        if let Some(ttl_s) = ttl_s {
            line.push("ttl_s", &ttl_s.to_string());
        }
        line
    }

    /// Adds a member whose value is JSON; `false` if the name exists already.
    pub(crate) fn push(&mut self, name: &str, value: &str) -> bool {
        if !self.names.insert(name.to_owned()) {
            return false;
        }
        if self.json.len() > 1 {
            self.json.push(',');
        }
        self.json.push_str(&json_string(name));
        self.json.push(':');
        self.json.push_str(value);
        true
    }

    /// The line, without a line break.
    pub(crate) fn finish(mut self) -> String {
        self.json.push('}');
        self.json
    }
}

/// A text as a JSON string.
pub(crate) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A row, or why it was rejected.
pub(crate) type RowResult = Result<DocumentRow, RejectedRow>;

/// A source of rows.
pub(crate) trait RowReader: Send {
    /// The next row; `None` at the end. An error concerns the whole input: reading cannot continue.
    fn next(&mut self) -> anyhow::Result<Option<RowResult>>;

    /// Input bytes read so far, if known.
    fn bytes_read(&self) -> u64 {
        0
    }
}
