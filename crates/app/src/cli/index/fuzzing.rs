//! Bodies of the fuzz targets on files of rows: every row in is a row to send or a row rejected.

use std::{
    collections::{BTreeMap, HashSet},
    io::{Cursor, Read},
};

use serde_json::value::RawValue;

use super::{
    batch::{Batches, Cut},
    columns::{Mapping, Wanted},
    csv::CsvRows,
    input::Input,
    jsonl::JsonlRows,
    row::{Rejected, Row, Rows, quoted},
};

fn wanted() -> Wanted {
    Wanted {
        embedded: vec!["title".to_owned(), "content".to_owned()],
        typed: vec!["year".to_owned()],
        numerics: vec!["year".to_owned()],
    }
}

/// What the bits of a byte say of how rows are read.
struct How {
    mapping: Mapping,
    ttl_s: Option<f64>,
    keep_raw: bool,
    /// Bytes that come at once.
    piece: usize,
}

impl How {
    fn new(bits: u8) -> How {
        let id = (bits & 1 != 0).then(|| "key".to_owned());
        How {
            mapping: Mapping { id, ..Mapping::default() },
            ttl_s: (bits & 2 != 0).then_some(60.0),
            keep_raw: bits & 4 != 0,
            piece: usize::from(bits >> 4) + 1,
        }
    }

    fn open(&self, name: &str, bytes: &[u8]) -> anyhow::Result<Input> {
        let pieces = Pieces { bytes: Cursor::new(bytes.to_vec()), piece: self.piece };
        Input::new(name, Box::new(pieces), None)
    }

    fn check(&self, taken: &Taken, lines: u64) {
        let mut last = 0;
        for row in &taken.rows {
            let document = object(row.json.as_bytes());
            assert_eq!(document["id"].get(), quoted(&row.id));
            assert!(self.ttl_s.is_none() || document["ttl_s"].get() == "60");
            assert!(!row.json.contains('\n'), "a row to send is one line");
            assert_eq!(row.raw.is_some(), self.keep_raw);
            // Of rows that end in a lone CR several are in one line.
            assert!(!row.id.is_empty() && last <= row.place.line && row.place.line <= lines);
            last = row.place.line;
        }
        for rejected in &taken.rejected {
            assert!(!rejected.reason.is_empty() && rejected.place.line <= lines);
            assert_eq!(rejected.raw.is_some(), self.keep_raw);
            rejected.to_json().expect("a rejected row can be written down");
        }
    }
}

/// Bytes that come a few at a time.
struct Pieces {
    bytes: Cursor<Vec<u8>>,
    piece: usize,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = out.len().min(self.piece);
        self.bytes.read(&mut out[..len])
    }
}

/// What became of all rows.
#[derive(Default)]
struct Taken {
    rows: Vec<Row>,
    rejected: Vec<Rejected>,
}

fn take(rows: impl Rows) -> anyhow::Result<Taken> {
    let mut batches = Batches::new(rows, Cut { rows_max: 3, stop_at_rejected: false });
    let mut taken = Taken::default();
    while let Some(mut batch) = batches.next()? {
        assert!((1..=3).contains(&batch.rows.len().max(batch.rejected.len())));
        let ids: HashSet<String> = batch.rows.iter().map(|row| row.id.clone()).collect();
        assert_eq!(ids, batch.ids);
        taken.rows.append(&mut batch.rows);
        taken.rejected.append(&mut batch.rejected);
    }
    Ok(taken)
}

/// Values by name, as they are written: whether a number is one that can be held is the server's to say.
fn object(json: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(json).expect("an object")
}

/// The bytes behind a byte order mark.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Unpacked by the name or by its first bytes: what is in it is compared with nothing.
fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64 + 1
}

/// A CSV file behind a byte that says how it is read: as many rows as the `csv` crate counts.
pub fn csv_rows(input: &[u8]) {
    let Some((&bits, bytes)) = input.split_first() else { return };
    let how = How::new(bits);
    let name = if bits & 8 != 0 { "a.tsv" } else { "a.csv" };
    let rows = how
        .open(name, bytes)
        .and_then(|input| CsvRows::new(input, None, &how.mapping, &wanted(), how.ttl_s, how.keep_raw));
    let taken = match rows.and_then(take) {
        Ok(taken) => taken,
        Err(refused) => return assert!(!refused.to_string().is_empty()),
    };
    if is_packed(bytes) {
        return;
    }
    how.check(&taken, lines(bytes));
    let delimiter = if bits & 8 != 0 { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new().flexible(true).delimiter(delimiter).from_reader(text(bytes));
    let counted = reader.byte_records().inspect(|record| assert!(record.is_ok())).count();
    assert_eq!(taken.rows.len() + taken.rejected.len(), counted);
}

/// A JSONL file behind a byte that says how it is read: a row a line that is not blank, and every row
/// that is sent holds what its line held.
pub fn jsonl_rows(input: &[u8]) {
    let Some((&bits, bytes)) = input.split_first() else { return };
    let how = How::new(bits);
    let rows = how
        .open("a.jsonl", bytes)
        .map(|input| JsonlRows::new(input, &how.mapping, &wanted(), how.ttl_s, how.keep_raw));
    let taken = match rows.and_then(take) {
        Ok(taken) => taken,
        Err(refused) => return assert!(!refused.to_string().is_empty()),
    };
    if is_packed(bytes) {
        return;
    }
    how.check(&taken, lines(bytes));
    let lines: Vec<&[u8]> = text(bytes).split(|byte| *byte == b'\n').collect();
    let filled = lines.iter().filter(|line| !line.trim_ascii().is_empty()).count();
    assert_eq!(taken.rows.len() + taken.rejected.len(), filled);
    for row in &taken.rows {
        let line = lines[usize::try_from(row.place.line).expect("few lines") - 1];
        let (given, sent) = (object(line), object(row.json.as_bytes()));
        let mut left: Vec<&str> = given.values().map(|value| value.get()).collect();
        for value in sent.iter().filter(|(name, _)| !matches!(name.as_str(), "id" | "ttl_s")) {
            let at = left.iter().position(|given| *given == value.1.get());
            left.swap_remove(at.unwrap_or_else(|| panic!("{} is in no member of its line", row.json)));
        }
        // The id, an end of its own, and what says that it is not there.
        let besides = left.iter().filter(|value| **value != "null").count();
        assert!((1..=2).contains(&besides), "{}", row.json);
    }
}
