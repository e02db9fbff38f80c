//! Bodies of the fuzz targets on input files: every row is either sent or rejected.

use std::{
    collections::{BTreeMap, HashSet},
    io::{Cursor, Read},
};

use serde_json::value::RawValue;

use super::{
    batch::{BatchOptions, BatchReader},
    columns::{ColumnMapping, SchemaFields},
    csv::CsvReader,
    input::Input,
    jsonl::JsonlReader,
    row::{DocumentRow, RejectedRow, RowReader, json_string},
};

fn schema_fields() -> SchemaFields {
    SchemaFields {
        embedded: vec!["title".to_owned(), "content".to_owned()],
        typed: vec!["year".to_owned()],
        numerics: vec!["year".to_owned()],
        exist: false,
    }
}

/// Options of reading, decoded from the bits of a byte.
struct ReadMode {
    mapping: ColumnMapping,
    ttl_s: Option<f64>,
    keep_raw: bool,
    /// Bytes per read.
    chunk_len: usize,
}

impl ReadMode {
    fn new(bits: u8) -> ReadMode {
        let id = (bits & 1 != 0).then(|| "key".to_owned());
        ReadMode {
            mapping: ColumnMapping { id, ..ColumnMapping::default() },
            ttl_s: (bits & 2 != 0).then_some(60.0),
            keep_raw: bits & 4 != 0,
            chunk_len: usize::from(bits >> 4) + 1,
        }
    }

    fn open(&self, name: &str, bytes: &[u8]) -> anyhow::Result<Input> {
        let chunks = ChunkedReader { bytes: Cursor::new(bytes.to_vec()), chunk_len: self.chunk_len };
        Input::new(name, Box::new(chunks), None)
    }

    fn check(&self, collected: &CollectedRows, lines: u64) {
        let mut last = 0;
        for row in &collected.rows {
            let document = object(row.json.as_bytes());
            assert_eq!(document["id"].get(), json_string(&row.id));
            assert!(self.ttl_s.is_none() || document["ttl_s"].get() == "60");
            assert!(!row.json.contains('\n'), "a row to send is one line");
            assert_eq!(row.raw.is_some(), self.keep_raw);
            // Rows that end in a lone CR share a line number.
            assert!(!row.id.is_empty() && last <= row.location.line && row.location.line <= lines);
            last = row.location.line;
        }
        for rejected in &collected.rejected {
            assert!(!rejected.reason.is_empty() && rejected.location.line <= lines);
            assert_eq!(rejected.raw.is_some(), self.keep_raw);
            rejected.to_json().expect("a rejected row can be written down");
        }
    }
}

/// Returns a few bytes per read.
struct ChunkedReader {
    bytes: Cursor<Vec<u8>>,
    chunk_len: usize,
}

impl Read for ChunkedReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = out.len().min(self.chunk_len);
        self.bytes.read(&mut out[..len])
    }
}

/// All rows of an input.
#[derive(Default)]
struct CollectedRows {
    rows: Vec<DocumentRow>,
    rejected: Vec<RejectedRow>,
}

fn collect(rows: impl RowReader) -> anyhow::Result<CollectedRows> {
    let mut batches = BatchReader::new(rows, BatchOptions { rows_max: 3, stop_at_rejected: false });
    let mut collected = CollectedRows::default();
    while let Some(mut batch) = batches.next()? {
        assert!((1..=3).contains(&batch.rows.len().max(batch.rejected.len())));
        let ids: HashSet<String> = batch.rows.iter().map(|row| row.id.clone()).collect();
        assert_eq!(ids, batch.ids);
        collected.rows.append(&mut batch.rows);
        collected.rejected.append(&mut batch.rejected);
    }
    Ok(collected)
}

/// Values by name, unparsed: whether a number is representable is the server's decision.
fn object(json: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(json).expect("an object")
}

/// The bytes without a byte order mark.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Whether the input is treated as gzip; the checks do not unpack it.
fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64 + 1
}

/// Reads a CSV file after a byte of options: the number of rows equals that of the `csv` crate.
pub fn csv_rows(input: &[u8]) {
    let Some((&bits, bytes)) = input.split_first() else { return };
    let mode = ReadMode::new(bits);
    let name = if bits & 8 != 0 { "a.tsv" } else { "a.csv" };
    let delimiter = if bits & 8 != 0 { b'\t' } else { b',' };
    let rows = mode.open(name, bytes).and_then(|input| {
        CsvReader::new(input, Some(delimiter), &mode.mapping, &schema_fields(), mode.ttl_s, mode.keep_raw)
    });
    let collected = match rows.and_then(collect) {
        Ok(collected) => collected,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if is_packed(bytes) {
        return;
    }
    mode.check(&collected, lines(bytes));
    let mut reader = csv::ReaderBuilder::new().flexible(true).delimiter(delimiter).from_reader(text(bytes));
    let counted = reader.byte_records().inspect(|record| assert!(record.is_ok())).count();
    assert_eq!(collected.rows.len() + collected.rejected.len(), counted);
}

/// Reads a JSONL file after a byte of options: every non-blank line yields a row, and every row to send contains the
/// values of its line.
pub fn jsonl_rows(input: &[u8]) {
    let Some((&bits, bytes)) = input.split_first() else { return };
    let mode = ReadMode::new(bits);
    let rows = mode
        .open("a.jsonl", bytes)
        .map(|input| JsonlReader::new(input, &mode.mapping, &schema_fields(), mode.ttl_s, mode.keep_raw));
    let collected = match rows.and_then(collect) {
        Ok(collected) => collected,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if is_packed(bytes) {
        return;
    }
    mode.check(&collected, lines(bytes));
    let lines: Vec<&[u8]> = text(bytes).split(|byte| *byte == b'\n').collect();
    let filled = lines.iter().filter(|line| !line.trim_ascii().is_empty()).count();
    assert_eq!(collected.rows.len() + collected.rejected.len(), filled);
    for row in &collected.rows {
        let line = lines[usize::try_from(row.location.line).expect("few lines") - 1];
        let (given, sent) = (object(line), object(row.json.as_bytes()));
        let mut left: Vec<&str> = given.values().map(|value| value.get()).collect();
        for value in sent.iter().filter(|(name, _)| !matches!(name.as_str(), "id" | "ttl_s")) {
            let at = left.iter().position(|given| *given == value.1.get());
            left.swap_remove(at.unwrap_or_else(|| panic!("{} is in no member of its line", row.json)));
        }
        // The id, possibly `ttl_s`, and nulls.
        let others = left.iter().filter(|value| **value != "null").count();
        assert!((1..=2).contains(&others), "{}", row.json);
    }
}
