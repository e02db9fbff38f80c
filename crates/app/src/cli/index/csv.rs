//! Reads CSV (RFC 4180, with common deviations).

use std::{
    io::{self, BufRead, Cursor, Read as _},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::Context as _;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{
    columns::{self, Column, ColumnMapping, SchemaFields},
    input::Input,
    row::{
        DocumentBuilder, DocumentRow, ROW_BYTES_MAX, RejectedRow, RowLocation, RowReader, RowResult,
        json_string,
    },
};
use crate::cli::{error::UsageError, terminal};

/// Maximum number of columns.
const COLUMNS_MAX: usize = 4096;

/// Maximum size of the first line, in which the delimiter is looked for.
const FIRST_LINE_BYTES_MAX: u64 = 64 << 10;

/// Rows of a CSV file.
pub(crate) struct CsvReader {
    records: RecordReader,
    header: Vec<String>,
    /// What the cells become, with their positions.
    columns: Vec<(usize, Column)>,
    ttl_s: Option<f64>,
    keep_raw: bool,
    bytes_read: Arc<std::sync::atomic::AtomicU64>,
    /// The delimiter, if it is not the usual one and was found in the header.
    pub(crate) found_delimiter: Option<char>,
}

impl CsvReader {
    /// Reads the header and maps its columns. Without `delimiter` and if the header does not contain the usual one, looks
    /// for another.
    pub(crate) fn new(
        mut input: Input,
        delimiter: Option<u8>,
        mapping: &ColumnMapping,
        schema_fields: &SchemaFields,
        ttl_s: Option<f64>,
        keep_raw: bool,
    ) -> anyhow::Result<CsvReader> {
        let usual = if input.is_tsv { b'\t' } else { b',' };
        let name = input.name.clone();
        let found = match delimiter {
            Some(_) => None,
            None => {
                let (first, reader) =
                    first_line(input.reader).with_context(|| format!("reading {name}, line 1"))?;
                input.reader = reader;
                other_delimiter(&first, usual)
            }
        };
        let delimiter = delimiter.or(found).unwrap_or(usual);
        let mut records = RecordReader::new(input, delimiter);
        let header = match records.next()? {
            None => {
                return Err(
                    UsageError(format!("{name} is empty: expected a header with column names")).into()
                );
            }
            Some(line) => records.header(line).map_err(|reason| UsageError(format!("{name}: {reason}")))?,
        };
        let columns = columns::resolve(&header, mapping, schema_fields)
            .map_err(|error| UsageError(format!("{name}: {error}")))?;
        let bytes_read = records.bytes_read.clone();
        let found_delimiter = found.map(char::from);
        Ok(CsvReader { records, header, columns, ttl_s, keep_raw, bytes_read, found_delimiter })
    }

    fn row(&self, line: u64) -> RowResult {
        let location = RowLocation { file: self.records.name.clone(), line };
        let raw = || self.keep_raw.then(|| String::from_utf8_lossy(&self.records.raw).trim_end().to_owned());
        match self.document() {
            Ok((id, json)) => Ok(DocumentRow { location, id, json, raw: raw() }),
            Err((id, reason)) => Err(RejectedRow { location, id, reason, raw: raw() }),
        }
    }

    /// The id and the JSON of the document; or the id, if known, and the reason for the rejection.
    fn document(&self) -> Result<(String, String), (Option<String>, String)> {
        if self.records.too_large {
            let reason = format!(
                "the row is larger than {} MiB or has more than {COLUMNS_MAX} columns (is a quote not closed?)",
                ROW_BYTES_MAX >> 20
            );
            return Err((None, reason));
        }
        let id = self
            .columns
            .iter()
            .find(|(_, column)| *column == Column::Id)
            .and_then(|(at, _)| self.records.cell(*at))
            .and_then(|cell| std::str::from_utf8(cell).ok())
            .map(str::to_owned);
        if let Some(lines) = swallowed_lines(&self.records.raw, self.records.delimiter, self.header.len()) {
            let (first, last) = (self.records.first_line, self.records.first_line + lines);
            let reason = format!(
                "lines {first} to {last} were read as one row because a quote in line {first} is not closed there: \
                 none of them is indexed; remove the quote, or double it and quote the whole value"
            );
            return Err((id, reason));
        }
        let found = self.records.cells();
        if found != self.header.len() {
            let cells = if found == 1 { "cell" } else { "cells" };
            let hint =
                if found < self.header.len() { "" } else { " (is a value with a delimiter not quoted?)" };
            return Err((
                id,
                format!("{found} {cells} but the header has {} columns{hint}", self.header.len()),
            ));
        }
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Err((None, "the id is empty or not UTF-8".to_owned()));
        };
        let mut document = DocumentBuilder::new(&id, self.ttl_s);
        for (at, column) in &self.columns {
            let at = *at;
            let cell = self.records.cell(at).unwrap_or_default();
            let text = match std::str::from_utf8(cell) {
                Ok(text) => text,
                Err(error) => {
                    let reason = format!(
                        "column {:?} is not UTF-8 (byte 0x{:02x}); if the file is Latin-1, convert it: iconv -f LATIN1 -t UTF-8",
                        self.header[at],
                        cell.get(error.valid_up_to()).copied().unwrap_or_default()
                    );
                    return Err((Some(id), reason));
                }
            };
            match column {
                Column::Id => {}
                Column::Unnamed if text.is_empty() => {}
                Column::Unnamed => {
                    return Err((Some(id), format!("column {} has a value but no name", at + 1)));
                }
                Column::TimeToLive if text.trim().is_empty() => {}
                Column::TimeToLive => {
                    let life = ttl_json(text).map_err(|reason| (Some(id.clone()), reason))?;
                    if !document.push("ttl_s", &life) {
                        let reason = "the row has a ttl_s although --ttl is given: leave out one of them";
                        return Err((Some(id), reason.to_owned()));
                    }
                }
                Column::Field { name, keep_empty, trim } => {
                    let text = if *trim { text.trim() } else { text };
                    if *keep_empty || !text.trim().is_empty() {
                        let new = document.push(name, &json_string(text));
                        assert!(new, "columns::resolve rejects columns with the same field");
                    }
                }
            }
        }
        Ok((id, document.finish()))
    }
}

impl RowReader for CsvReader {
    fn next(&mut self) -> anyhow::Result<Option<RowResult>> {
        Ok(self.records.next()?.map(|line| self.row(line)))
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Relaxed)
    }
}

/// Splits bytes into records. Unlike `csv::Reader`, it limits the size of a record and continues after one that is too
/// large.
struct RecordReader {
    name: Arc<str>,
    reader: Box<dyn BufRead + Send>,
    bytes_read: Arc<std::sync::atomic::AtomicU64>,
    core: Reader,
    delimiter: u8,
    /// Line of the next byte.
    line: u64,
    /// Line of the first byte of the record.
    first_line: u64,
    /// Cells of the record, concatenated.
    cells: Vec<u8>,
    cells_len: usize,
    /// End of each cell.
    ends: Vec<usize>,
    ends_len: usize,
    /// The unparsed record.
    raw: Vec<u8>,
    too_large: bool,
}

impl RecordReader {
    fn new(input: Input, delimiter: u8) -> RecordReader {
        RecordReader {
            name: input.name,
            reader: input.reader,
            bytes_read: input.bytes_read,
            core: ReaderBuilder::new().delimiter(delimiter).build(),
            delimiter,
            line: 1,
            first_line: 1,
            cells: vec![0; 8 << 10],
            cells_len: 0,
            ends: vec![0; 64],
            ends_len: 0,
            raw: Vec::new(),
            too_large: false,
        }
    }

    /// Reads the next record and returns its first line. Skips empty lines.
    fn next(&mut self) -> anyhow::Result<Option<u64>> {
        (self.cells_len, self.ends_len, self.too_large) = (0, 0, false);
        self.raw.clear();
        let unreadable = |name: &str, line| format!("reading {name}, line {line}");
        loop {
            let input = self.reader.fill_buf().with_context(|| unreadable(&self.name, self.line))?;
            let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.line += newlines(&input[..blank]);
            let done = blank < input.len() || input.is_empty();
            self.reader.consume(blank);
            if done {
                break;
            }
        }
        self.first_line = self.line;
        loop {
            let input = self.reader.fill_buf().with_context(|| unreadable(&self.name, self.line))?;
            let (result, read, written, ended) = self.core.read_record(
                input,
                &mut self.cells[self.cells_len..],
                &mut self.ends[self.ends_len..],
            );
            self.line += newlines(&input[..read]);
            if !self.too_large {
                self.raw.extend_from_slice(&input[..read]);
            }
            self.reader.consume(read);
            self.cells_len += written;
            self.ends_len += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.cells.len() >= ROW_BYTES_MAX => self.skip_record(),
                ReadRecordResult::OutputFull => self.cells.resize(self.cells.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() >= COLUMNS_MAX => self.skip_record(),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => return Ok(Some(self.first_line)),
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    /// Discards a record that is too large, and reads on to its end.
    fn skip_record(&mut self) {
        (self.cells_len, self.ends_len, self.too_large) = (0, 0, true);
        self.raw = Vec::new();
    }

    fn cells(&self) -> usize {
        self.ends_len
    }

    fn cell(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends[..self.ends_len].get(at)?;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        self.cells[..self.cells_len].get(start..end)
    }

    /// The record as column names.
    fn header(&self, line: u64) -> Result<Vec<String>, String> {
        if self.too_large {
            return Err(format!("the header (line {line}) is too large"));
        }
        let cells = (0..self.cells()).map(|at| self.cell(at).unwrap_or_default());
        cells
            .map(|cell| match std::str::from_utf8(cell) {
                Ok(name) => Ok(name.trim().to_owned()),
                Err(_) => Err(format!("the header (line {line}) is not UTF-8")),
            })
            .collect()
    }
}

/// The number of further lines that a stray quote in the first line of a record has swallowed; `None` if the record is
/// one line or a value with line breaks is plausible.
///
/// A swallowed line shows in two ways. The quote that ends the value was meant to begin another one, and is followed by
/// text; or there is none up to the end of the file. Else the lines themselves look like records.
fn swallowed_lines(raw: &[u8], delimiter: u8, columns: usize) -> Option<u64> {
    let end = raw.iter().rposition(|byte| !b"\r\n".contains(byte))?;
    let raw = &raw[..=end];
    let lines = newlines(raw);
    if lines == 0 {
        return None;
    }
    let mut quoting = Quoting::CellStart;
    let mut is_malformed = false;
    for &byte in raw {
        quoting = match (quoting, byte) {
            (Quoting::Quoted, b'"') => Quoting::QuoteInQuoted,
            (Quoting::Quoted, _) | (Quoting::CellStart | Quoting::QuoteInQuoted, b'"') => Quoting::Quoted,
            (_, b'\r' | b'\n') => Quoting::CellStart,
            (_, byte) if byte == delimiter => Quoting::CellStart,
            (Quoting::QuoteInQuoted | Quoting::AfterQuoted, b' ') => Quoting::AfterQuoted,
            (Quoting::QuoteInQuoted | Quoting::AfterQuoted, _) => {
                is_malformed = true;
                Quoting::Unquoted
            }
            (Quoting::CellStart | Quoting::Unquoted, _) => Quoting::Unquoted,
        };
    }
    is_malformed |= quoting == Quoting::Quoted;
    let mut following = raw.split(|byte| *byte == b'\n').skip(1);
    let are_records =
        lines >= 2 && columns >= 3 && following.all(|line| is_like_record(line, delimiter, columns));
    (is_malformed || are_records).then_some(lines)
}

/// Where a byte of a record is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    CellStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted value: it ends the value, or is the first of two.
    QuoteInQuoted,
    /// In spaces that follow a quoted value.
    AfterQuoted,
}

/// Whether a line has as many cells as the header. In prose a space follows a comma.
fn is_like_record(line: &[u8], delimiter: u8, columns: usize) -> bool {
    let mut cells = line.split(|byte| *byte == delimiter);
    line.iter().filter(|byte| **byte == delimiter).count() + 1 == columns
        && !cells.any(|cell| cell.starts_with(b" "))
}

/// The first line that is not blank, and a reader of the whole input.
fn first_line(mut reader: Box<dyn BufRead + Send>) -> io::Result<(Vec<u8>, Box<dyn BufRead + Send>)> {
    let mut head = Vec::new();
    let mut limited = reader.by_ref().take(FIRST_LINE_BYTES_MAX);
    while limited.read_until(b'\n', &mut head)? > 0 && head.trim_ascii().is_empty() {}
    let whole = Cursor::new(head.clone()).chain(reader);
    Ok((head, Box::new(whole)))
}

/// The most frequent delimiter in a header that does not contain the usual one.
fn other_delimiter(header: &[u8], usual: u8) -> Option<u8> {
    let mut is_quoted = false;
    let mut unquoted = header.to_vec();
    unquoted.retain(|byte| {
        is_quoted ^= *byte == b'"';
        !is_quoted
    });
    let count = |delimiter: u8| unquoted.iter().filter(|byte| **byte == delimiter).count();
    if count(usual) > 0 {
        return None;
    }
    [b',', b'|', b'\t', b';'].into_iter().filter(|other| count(*other) > 0).max_by_key(|other| count(*other))
}

/// A time to live in seconds as JSON. The server checks its range.
fn ttl_json(text: &str) -> Result<String, String> {
    let seconds = text.trim().parse::<f64>().ok();
    let number = seconds.and_then(serde_json::Number::from_f64);
    number.map(|seconds| seconds.to_string()).ok_or_else(|| {
        format!("ttl_s must be a number of seconds greater than 0, found {:?}", terminal::one_line(text, 40))
    })
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};

    use super::{super::input::Format, *};

    fn rows(reader: impl Read + Send + 'static, delimiter: Option<u8>) -> anyhow::Result<Vec<RowResult>> {
        // A small buffer, so that every record crosses a buffer boundary.
        let input = Input {
            name: "kb.csv".into(),
            reader: Box::new(BufReader::with_capacity(7, reader)),
            bytes_read: Arc::default(),
            format: Format::Csv,
            is_tsv: false,
        };
        let schema_fields = SchemaFields {
            embedded: vec!["title".into(), "content".into()],
            typed: vec!["year".into()],
            numerics: vec!["year".into()],
            exist: false,
        };
        let mut rows =
            CsvReader::new(input, delimiter, &ColumnMapping::default(), &schema_fields, None, true)?;
        let mut items = Vec::new();
        while let Some(item) = rows.next()? {
            items.push(item);
        }
        Ok(items)
    }

    /// Line and document, or line, id and reason.
    fn read(text: &str) -> Vec<String> {
        rows(Cursor::new(text.as_bytes().to_vec()), None)
            .unwrap()
            .into_iter()
            .map(|item| match item {
                Ok(row) => format!("{} {}", row.location.line, row.json),
                Err(rejected) => {
                    format!("{} {:?} {}", rejected.location.line, rejected.id, rejected.reason)
                }
            })
            .collect()
    }

    #[test]
    fn reports_line_numbers_despite_quotes_crlf_and_blank_lines() {
        let text = "id,title,content\r\n1,\"a \"\"b\"\"\",\"two\r\nlines\"\r\n\r\n\r\n2,c,\"d,e\"\r\n3,,f";
        assert_eq!(
            read(text),
            [
                r#"2 {"id":"1","title":"a \"b\"","content":"two\r\nlines"}"#,
                r#"6 {"id":"2","title":"c","content":"d,e"}"#,
                r#"7 {"id":"3","title":"","content":"f"}"#,
            ]
        );
    }

    #[test]
    fn rejects_a_row_with_the_wrong_number_of_cells_and_continues() {
        assert_eq!(
            read("id,content\n1\n2,a\n3,b,c\n,d\n4,e\n"),
            [
                r#"2 Some("1") 1 cell but the header has 2 columns"#,
                r#"3 {"id":"2","content":"a"}"#,
                r#"4 Some("3") 3 cells but the header has 2 columns (is a value with a delimiter not quoted?)"#,
                r#"5 None the id is empty or not UTF-8"#,
                r#"6 {"id":"4","content":"e"}"#,
            ]
        );
    }

    #[test]
    fn rejects_rows_that_a_stray_quote_has_joined_and_continues() {
        let reason = |first: u64, last: u64| {
            format!(
                "lines {first} to {last} were read as one row because a quote in line {first} is not closed there: \
                 none of them is indexed; remove the quote, or double it and quote the whole value"
            )
        };
        let next = r#"{"id":"9","title":"t","content":"c"}"#;
        // The quote is closed by one that begins a value.
        assert_eq!(
            read("id,title,content\n1,A,\"first\n2,B,second\n3,C,\"third\"\n9,t,c\n"),
            [format!("2 Some(\"1\") {}", reason(2, 4)), format!("5 {next}")]
        );
        // It is never closed.
        assert_eq!(
            read("id,title,content\n9,t,c\n1,A,\"first\n2,B,second\n"),
            [format!("2 {next}"), format!("3 Some(\"1\") {}", reason(3, 4))]
        );
        // It is closed by another stray quote, at the end of a value.
        assert_eq!(
            read("id,title,content\r\n1,A,\"first\r\n2,B,second\r\n3,C,3.5\"\r\n9,t,c\r\n"),
            [format!("2 Some(\"1\") {}", reason(2, 4)), format!("5 {next}")]
        );
        // Spaces may follow a quoted value.
        assert!(read("id,title,content\n1,\"A\nB\" ,c\n")[0].starts_with("2 {"));
        // Prose with as many commas, and doubled quotes, are one value.
        assert!(
            read("id,title,content\n1,A,\"Dear \"\"Ann\"\",\nthis, that, more\nred, green, blue\"\n")[0]
                .starts_with("2 {")
        );
    }

    #[test]
    fn finds_the_delimiter_if_the_header_lacks_the_usual_one() {
        let expected = [r#"2 {"id":"1","title":"a, b","content":"c"}"#];
        for delimiter in [';', '\t', '|'] {
            let text = "id^\"title\"^content\n1^\"a, b\"^c\n".replace('^', &delimiter.to_string());
            assert_eq!(read(&text), expected, "{delimiter:?}");
        }
        assert_eq!(other_delimiter(b"id,a;b;c", b','), None);
        assert_eq!(other_delimiter(b"\"id,x\";a|b;c", b','), Some(b';'));
        assert_eq!(other_delimiter(b"id,a", b'\t'), Some(b','), "a .tsv file with commas");
        assert_eq!(other_delimiter(b"id", b','), None);
        assert_eq!(read("\n\nid;content\n1;a\n"), [r#"4 {"id":"1","content":"a"}"#]);
    }

    #[test]
    fn omits_empty_numbers_and_trims_spaces() {
        assert_eq!(
            read("id,content,year\n1,a, 2024 \n2,b,\n"),
            [r#"2 {"id":"1","content":"a","year":"2024"}"#, r#"3 {"id":"2","content":"b"}"#]
        );
    }

    #[test]
    fn reads_a_time_to_live_per_row() {
        assert_eq!(
            read("id,content,ttl_s\n1,a, 90.5 \n2,b,\n3,c,soon\n4,d,inf\n"),
            [
                r#"2 {"id":"1","content":"a","ttl_s":90.5}"#,
                r#"3 {"id":"2","content":"b"}"#,
                r#"4 Some("3") ttl_s must be a number of seconds greater than 0, found "soon""#,
                r#"5 Some("4") ttl_s must be a number of seconds greater than 0, found "inf""#,
            ]
        );
    }

    #[test]
    fn rejects_latin_1_with_a_hint_and_keeps_the_raw_row() {
        let items = rows(Cursor::new(b"id,content\n1,caf\xe9\n2,tea\n".to_vec()), None).unwrap();
        let rejected = items[0].as_ref().unwrap_err();
        assert!(rejected.reason.contains("0xe9") && rejected.reason.contains("iconv"), "{}", rejected.reason);
        assert_eq!((rejected.id.as_deref(), rejected.raw.as_deref()), (Some("1"), Some("1,caf\u{fffd}")));
        assert_eq!(items[1].as_ref().unwrap().id, "2");
    }

    #[test]
    fn rejects_a_100_mb_field_without_buffering_it() {
        let text = Cursor::new(b"id,content\n1,\"".to_vec())
            .chain(io::repeat(b'x').take(100_000_000))
            .chain(Cursor::new(b"\"\n2,b\n".to_vec()));
        let input = Input {
            name: "kb.csv".into(),
            reader: Box::new(BufReader::new(text)),
            bytes_read: Arc::default(),
            format: Format::Csv,
            is_tsv: false,
        };
        let mut rows =
            CsvReader::new(input, None, &ColumnMapping::default(), &SchemaFields::default(), None, true)
                .unwrap();
        let rejected = rows.next().unwrap().unwrap().unwrap_err();
        assert!(rejected.reason.contains("larger than 32 MiB"), "{}", rejected.reason);
        assert!(rows.records.cells.len() <= 2 * ROW_BYTES_MAX);
        assert_eq!(rows.next().unwrap().unwrap().unwrap().id, "2");
        assert!(rows.next().unwrap().is_none());
    }

    #[test]
    fn supports_other_delimiters_and_rejects_bad_headers() {
        let items = rows(Cursor::new(b"id;content\n1;a,b\n".to_vec()), Some(b';')).unwrap();
        assert_eq!(items[0].as_ref().unwrap().json, r#"{"id":"1","content":"a,b"}"#);
        let error = |text: &[u8]| rows(Cursor::new(text.to_vec()), None).err().unwrap().to_string();
        assert!(error(b"").contains("empty"));
        assert!(error(b"\n\n").contains("empty"));
        assert!(error(b"id:content\n").contains("--id"), "a wrong delimiter is noticed in the header");
        assert!(error(b"id,caf\xe9\n").contains("UTF-8"));
    }
}
