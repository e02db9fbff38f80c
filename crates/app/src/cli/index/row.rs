//! What comes out of an input: rows that can be sent, and rows that cannot.

use std::{collections::HashSet, sync::Arc};

use serde::Serialize;

/// Most bytes of one row: beyond it, a quote was never closed or a line never ended.
pub(crate) const ROW_BYTES_MAX: usize = 32 << 20;

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowLocation {
    /// File, as it was named; `-` for standard input.
    pub(crate) file: Arc<str>,
    /// Line its first byte is in, from 1.
    pub(crate) line: u64,
}

/// A row that can be sent.
#[derive(Clone, Debug)]
pub(crate) struct DocumentRow {
    pub(crate) location: RowLocation,
    pub(crate) id: String,
    /// The document as one line of JSON, without the line's end.
    pub(crate) json: String,
    /// The row as it was, if it is to be kept in case it is rejected.
    pub(crate) raw: Option<String>,
}

/// A row that cannot.
#[derive(Clone, Debug)]
pub(crate) struct RejectedRow {
    pub(crate) location: RowLocation,
    pub(crate) id: Option<String>,
    pub(crate) reason: String,
    pub(crate) raw: Option<String>,
}

/// A line of the file of rejected rows.
#[derive(Serialize)]
struct RejectsLine<'a> {
    file: &'a str,
    line: u64,
    id: Option<&'a str>,
    reason: &'a str,
    row: Option<&'a str>,
}

impl RejectedRow {
    /// As a line of JSON: `{"file","line","id","reason","row"}`.
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

/// A document as a line of JSON, in the making.
pub(crate) struct DocumentBuilder {
    json: String,
    names: HashSet<String>,
}

impl DocumentBuilder {
    /// A document with an id and, if `ttl_s` is given, an end.
    pub(crate) fn new(id: &str, ttl_s: Option<f64>) -> DocumentBuilder {
        let mut line = DocumentBuilder { json: String::from("{"), names: HashSet::new() };
        line.push("id", &json_string(id));
        if let Some(ttl_s) = ttl_s {
            line.push("ttl_s", &ttl_s.to_string());
        }
        line
    }

    /// Adds a member, given its value as JSON; `false` if it is there already.
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

    /// The line, without its end.
    pub(crate) fn finish(mut self) -> String {
        self.json.push('}');
        self.json
    }
}

/// A text as JSON.
pub(crate) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// One row of an input.
pub(crate) type RowResult = Result<DocumentRow, RejectedRow>;

/// RowReader, one after the other.
pub(crate) trait RowReader: Send {
    /// The next row; `None` at the end. An error is the input's, not the row's: nothing more can be read.
    fn next(&mut self) -> anyhow::Result<Option<RowResult>>;

    /// Bytes of the input behind the last row, where that is known.
    fn bytes_read(&self) -> u64 {
        0
    }
}
