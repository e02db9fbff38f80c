//! Groups rows into requests.

use std::collections::HashSet;

use super::row::{DocumentRow, RejectedRow, RowReader, RowResult};

/// Bytes per request: well below the server's limit, so that only a single oversized row can exceed that.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Rows of one request, and the rejected rows between them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Sequence number, from 0.
    pub(crate) number: u64,
    pub(crate) rows: Vec<DocumentRow>,
    pub(crate) rejected: Vec<RejectedRow>,
    /// Input bytes read after its last row.
    pub(crate) bytes_read: u64,
    /// Ids of its rows.
    pub(crate) ids: HashSet<String>,
    body_bytes: usize,
}

impl Batch {
    fn push(&mut self, item: RowResult) {
        match item {
            Ok(row) => {
                self.body_bytes += row.json.len() + 1;
                self.ids.insert(row.id.clone());
                self.rows.push(row);
            }
            Err(rejected) => self.rejected.push(rejected),
        }
    }
}

/// Limits of batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchOptions {
    /// Maximum number of rows.
    pub(crate) rows_max: usize,
    /// Whether reading stops at the first rejected row.
    pub(crate) stop_at_rejected: bool,
}

/// Groups the rows of a reader into batches.
pub(crate) struct BatchReader<R> {
    rows: R,
    options: BatchOptions,
    number: u64,
    ended: bool,
    failure: Option<anyhow::Error>,
}

impl<R: RowReader> BatchReader<R> {
    /// Batches of `rows`.
    pub(crate) fn new(rows: R, options: BatchOptions) -> BatchReader<R> {
        BatchReader { rows, options, number: 0, ended: false, failure: None }
    }

    /// The next batch; `None` at the end. Rows before an error form a batch; the error follows it.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut batch = Batch { number: self.number, ..Batch::default() };
        self.number += 1;
        while !self.ended && batch.rows.len() < self.options.rows_max && batch.body_bytes < BODY_BYTES_MAX {
            match self.rows.next() {
                Ok(Some(item)) => {
                    self.ended = item.is_err() && self.options.stop_at_rejected;
                    batch.push(item);
                }
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.failure = Some(error);
                }
            }
            // Bounds the memory of rejected rows.
            if batch.rejected.len() >= self.options.rows_max {
                break;
            }
        }
        batch.bytes_read = self.rows.bytes_read();
        if !batch.rows.is_empty() || !batch.rejected.is_empty() {
            return Ok(Some(batch));
        }
        self.failure.take().map_or(Ok(None), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::row::RowLocation, *};

    /// `a` to `z` are rows, `!` is a rejected row, `#` an input error.
    struct ScriptedRows(std::vec::IntoIter<char>);

    impl RowReader for ScriptedRows {
        fn next(&mut self) -> anyhow::Result<Option<RowResult>> {
            let location = RowLocation { file: "x".into(), line: 1 };
            Ok(match self.0.next() {
                None => None,
                Some('#') => anyhow::bail!("broken"),
                Some('!') => Some(Err(RejectedRow { location, id: None, reason: "no".into(), raw: None })),
                Some(id) => {
                    let json = if id == 'B' { "x".repeat(BODY_BYTES_MAX) } else { "{}".into() };
                    Some(Ok(DocumentRow { location, id: id.into(), json, raw: None }))
                }
            })
        }
    }

    fn read_batches(letters: &str, stop_at_rejected: bool) -> String {
        let rows = ScriptedRows(letters.chars().collect::<Vec<_>>().into_iter());
        let mut batches = BatchReader::new(rows, BatchOptions { rows_max: 3, stop_at_rejected });
        let mut text = String::new();
        loop {
            match batches.next() {
                Ok(None) => return text,
                Err(_) => return text + "#",
                Ok(Some(batch)) => {
                    text.extend(batch.rows.iter().map(|row| row.id.as_str()));
                    text.extend(batch.rejected.iter().map(|_| '!'));
                    text.push('|');
                }
            }
        }
    }

    #[test]
    fn limits_batches_by_rows_and_bytes_and_stops_at_errors() {
        assert_eq!(read_batches("", false), "");
        assert_eq!(read_batches("abcdefg", false), "abc|def|g|");
        assert_eq!(read_batches("aBcd", false), "aB|cd|");
        assert_eq!(read_batches("ab!cde", false), "abc!|de|");
        assert_eq!(read_batches("!!!!", false), "!!!|!|");
        assert_eq!(read_batches("ab!cde", true), "ab!|");
        assert_eq!(read_batches("abcd#e", false), "abc|d|#");
        assert_eq!(read_batches("#", false), "#");
    }
}
