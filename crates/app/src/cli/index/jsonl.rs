//! Reads JSONL: one object per line.

use std::{
    io::BufRead,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{
    columns::{self, ColumnMapping, SchemaFields},
    input::Input,
    row::{DocumentBuilder, DocumentRow, ROW_BYTES_MAX, RejectedRow, RowLocation, RowReader, RowResult},
};
use crate::cli::terminal;

/// Rows of a JSONL file.
pub(crate) struct JsonlReader {
    name: Arc<str>,
    reader: Box<dyn BufRead + Send>,
    bytes_read: Arc<AtomicU64>,
    mapping: ColumnMapping,
    schema_fields: SchemaFields,
    ttl_s: Option<f64>,
    keep_raw: bool,
    /// Lines read so far.
    line: u64,
    buffer: Vec<u8>,
}

impl JsonlReader {
    /// Rows of `input`.
    pub(crate) fn new(
        input: Input,
        mapping: &ColumnMapping,
        schema_fields: &SchemaFields,
        ttl_s: Option<f64>,
        keep_raw: bool,
    ) -> JsonlReader {
        JsonlReader {
            name: input.name,
            reader: input.reader,
            bytes_read: input.bytes_read,
            mapping: mapping.clone(),
            schema_fields: schema_fields.clone(),
            ttl_s,
            keep_raw,
            line: 0,
            buffer: Vec::new(),
        }
    }

    /// Reads the next line into the buffer. `None` at the end, `Some(false)` if the line is too long.
    fn read_line(&mut self) -> anyhow::Result<Option<bool>> {
        self.buffer.clear();
        self.line += 1;
        let mut fits = true;
        let mut any = false;
        loop {
            let input = self
                .reader
                .fill_buf()
                .with_context(|| format!("reading {}, line {}", self.name, self.line))?;
            if input.is_empty() {
                return Ok(any.then_some(fits));
            }
            any = true;
            let end = input.iter().position(|byte| *byte == b'\n');
            let part = &input[..end.unwrap_or(input.len())];
            fits = fits && self.buffer.len() + part.len() <= ROW_BYTES_MAX;
            if fits {
                self.buffer.extend_from_slice(part);
            }
            let read = part.len() + usize::from(end.is_some());
            self.reader.consume(read);
            if end.is_some() {
                return Ok(Some(fits));
            }
        }
    }

    fn row(&self, fits: bool) -> RowResult {
        let location = RowLocation { file: self.name.clone(), line: self.line };
        let raw =
            || (self.keep_raw && fits).then(|| String::from_utf8_lossy(&self.buffer).trim_end().to_owned());
        if !fits {
            let reason = format!("the line is longer than {} MiB", ROW_BYTES_MAX >> 20);
            return Err(RejectedRow { location, id: None, reason, raw: None });
        }
        match self.document() {
            Ok((id, json)) => Ok(DocumentRow { location, id, json, raw: raw() }),
            Err((id, reason)) => Err(RejectedRow { location, id, reason, raw: raw() }),
        }
    }

    fn document(&self) -> Result<(String, String), (Option<String>, String)> {
        let text = std::str::from_utf8(&self.buffer).map_err(|error| {
            let byte = self.buffer.get(error.valid_up_to()).copied().unwrap_or_default();
            let hint = "if the file is Latin-1, convert it: iconv -f LATIN1 -t UTF-8";
            (None, format!("the line is not UTF-8 (byte 0x{byte:02x}); {hint}"))
        })?;
        let ObjectMembers(members) = serde_json::from_str(text)
            .map_err(|error| (None, format!("expected one JSON object per line: {error}")))?;
        let find = |name: &str| find(&members, name).map(|(name, _)| name.clone());
        let renames = columns::renames(&self.mapping, &self.schema_fields, find);
        let id = match members.iter().find(|(name, _)| *name == renames.id) {
            Some((_, value)) => id(value).map_err(|reason| (None, format!("{:?} {reason}", renames.id)))?,
            None => {
                let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
                let names = terminal::one_line(&names.join(", "), 200);
                return Err((
                    None,
                    format!("there is no member {:?} (found {names}); choose the id with --id", renames.id),
                ));
            }
        };
        if members.iter().filter(|(name, _)| *name == renames.id).count() > 1 {
            return Err((None, format!("the member {:?} occurs twice", renames.id)));
        }
        let mut document = DocumentBuilder::new(&id, self.ttl_s);
        for (name, value) in &members {
            // Null means the same as a missing member.
            if value.get() == "null" {
                continue;
            }
            for field in renames.fields(name) {
                if !document.push(field, value.get()) {
                    return Err((
                        Some(id),
                        format!("the member {name:?} would become {field:?}, which already exists"),
                    ));
                }
            }
        }
        Ok((id, document.finish()))
    }
}

/// The members of an object in their order, with unparsed values.
struct ObjectMembers(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for ObjectMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMembers, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = ObjectMembers;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectMembers, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(ObjectMembers(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// An id: a string or a whole number.
fn id(value: &RawValue) -> Result<String, String> {
    match serde_json::from_str(value.get()) {
        Ok(Value::String(id)) if !id.is_empty() => Ok(id),
        Ok(Value::Number(id)) if id.is_u64() || id.is_i64() => Ok(id.to_string()),
        _ => {
            let found = terminal::one_line(value.get(), 40);
            Err(format!("must be a string or a whole number, found {found}"))
        }
    }
}

impl RowReader for JsonlReader {
    fn next(&mut self) -> anyhow::Result<Option<RowResult>> {
        loop {
            match self.read_line()? {
                None => return Ok(None),
                Some(true) if self.buffer.trim_ascii().is_empty() => {}
                Some(fits) => return Ok(Some(self.row(fits))),
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Relaxed)
    }
}

/// The member called `name`, preferring the exact case.
fn find<'a>(members: &'a [(String, Box<RawValue>)], name: &str) -> Option<&'a (String, Box<RawValue>)> {
    let exact = members.iter().find(|(member, _)| member == name);
    exact.or_else(|| members.iter().find(|(member, _)| member.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};

    use super::{super::input::Format, *};

    fn rows(reader: impl Read + Send + 'static, mapping: ColumnMapping, ttl_s: Option<f64>) -> Vec<String> {
        let input = Input {
            name: "a.jsonl".into(),
            reader: Box::new(BufReader::with_capacity(5, reader)),
            bytes_read: Arc::default(),
            format: Format::Jsonl,
            is_tsv: false,
        };
        let schema_fields =
            SchemaFields { embedded: vec!["title".into(), "content".into()], ..SchemaFields::default() };
        let mut rows = JsonlReader::new(input, &mapping, &schema_fields, ttl_s, false);
        let mut seen = Vec::new();
        while let Some(item) = rows.next().unwrap() {
            seen.push(match item {
                Ok(row) => format!("{} {}", row.location.line, row.json),
                Err(rejected) => format!("{} {:?} {}", rejected.location.line, rejected.id, rejected.reason),
            });
        }
        seen
    }

    fn read(text: &'static str) -> Vec<String> {
        rows(Cursor::new(text), ColumnMapping::default(), None)
    }

    #[test]
    fn converts_objects_to_documents() {
        assert_eq!(
            read(
                "{\"id\":\"a\",\"body\":\"x\",\"tags\":[\"t\"],\"gone\":null}\r\n\n  \n{\"content\":\"y\",\"id\":7}"
            ),
            [r#"1 {"id":"a","content":"x","tags":["t"]}"#, r#"4 {"id":"7","content":"y"}"#]
        );
        let mapping = ColumnMapping {
            id: Some("key".into()),
            content: Some("text".into()),
            ..ColumnMapping::default()
        };
        assert_eq!(
            rows(Cursor::new("{\"key\":\"a\",\"text\":\"x\"}"), mapping, Some(60.0)),
            [r#"1 {"id":"a","ttl_s":60,"content":"x"}"#]
        );
    }

    #[test]
    fn rejects_invalid_lines_individually() {
        let seen =
            read("{\"id\":\n[1]\n{\"x\":1}\n{\"id\":1.5}\n{\"id\":\"\"}\n{\"id\":\"a\",\"content\":\"1\"}\n");
        let reasons = [
            "one JSON object",
            "one JSON object",
            "there is no member \"id\" (found x)",
            "whole number",
            "whole number",
        ];
        for (at, (seen, reason)) in seen.iter().zip(reasons).enumerate() {
            assert!(seen.starts_with(&format!("{} None", at + 1)) && seen.contains(reason), "{seen}");
        }
        assert_eq!(seen[5], r#"6 {"id":"a","content":"1"}"#);
    }

    #[test]
    fn keeps_order_and_spelling_of_members_and_rejects_duplicates() {
        let seen = read("{\"z\":1.10,\"id\":\"b\",\"ID\":\"c\",\"a\":[1e0]}");
        assert_eq!(seen, [r#"1 {"id":"b","z":1.10,"ID":"c","a":[1e0]}"#]);
        let seen =
            read("{\"id\":\"b\",\"x\":1,\"x\":2}\n{\"id\":\"b\",\"id\":\"c\"}\n{\"id\":\"a\",\"ttl_s\":5}");
        assert!(seen[0].contains("\"x\", which already exists"), "{}", seen[0]);
        assert!(seen[1].contains("\"id\" occurs twice"), "{}", seen[1]);
        assert_eq!(seen[2], r#"3 {"id":"a","ttl_s":5}"#);
    }

    #[test]
    fn rejects_an_endless_line_without_buffering_it() {
        let text = std::io::repeat(b'x').take(50_000_000).chain(Cursor::new("\n{\"id\":\"a\"}\n"));
        let seen = rows(BufReader::new(text), ColumnMapping::default(), None);
        assert_eq!(seen, ["1 None the line is longer than 32 MiB", r#"2 {"id":"a"}"#]);
    }
}
