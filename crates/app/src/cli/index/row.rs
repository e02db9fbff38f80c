//! What comes out of an input: rows that can be sent, and rows that cannot.

use std::sync::Arc;

use serde::Serialize;

/// Most bytes of one row: beyond it, a quote was never closed or a line never ended.
pub(crate) const ROW_BYTES_MAX: usize = 32 << 20;

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// File, as it was named; `-` for standard input.
    pub(crate) file: Arc<str>,
    /// Line its first byte is in, from 1.
    pub(crate) line: u64,
}

/// A row that can be sent.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) id: String,
    /// The document as one line of JSON, without the line's end.
    pub(crate) json: String,
    /// The row as it was, if it is to be kept in case it is rejected.
    pub(crate) raw: Option<String>,
}

/// A row that cannot.
#[derive(Clone, Debug)]
pub(crate) struct Rejected {
    pub(crate) place: Place,
    pub(crate) id: Option<String>,
    pub(crate) reason: String,
    pub(crate) raw: Option<String>,
}

/// A line of the file of rejected rows.
#[derive(Serialize)]
struct RejectedLine<'a> {
    file: &'a str,
    line: u64,
    id: Option<&'a str>,
    reason: &'a str,
    row: Option<&'a str>,
}

impl Rejected {
    /// As a line of JSON: `{"file","line","id","reason","row"}`.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&RejectedLine {
            file: &self.place.file,
            line: self.place.line,
            id: self.id.as_deref(),
            reason: &self.reason,
            row: self.raw.as_deref(),
        })
    }
}

/// One row of an input.
pub(crate) type Item = Result<Row, Rejected>;

/// Rows, one after the other.
pub(crate) trait Rows: Send {
    /// The next row; `None` at the end. An error is the input's, not the row's: nothing more can be read.
    fn next(&mut self) -> anyhow::Result<Option<Item>>;

    /// Bytes of the input behind the last row, where that is known.
    fn bytes_read(&self) -> u64 {
        0
    }
}
