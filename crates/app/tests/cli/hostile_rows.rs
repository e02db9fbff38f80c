//! Rows in = rows indexed + rows rejected, for arbitrary bytes. Files are composed of parts whose number of rows and
//! first lines are known, independently of the reader under test.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
};

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngSeed},
};
use serde_json::{Value, json};

use crate::{
    fake_server::{FakeServer, Response},
    program::TestHome,
};

/// Seed of all random choices.
const SEED: u64 = 13_002;

/// The expected outcome of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Indexed,
    Rejected,
    /// Either of the two.
    Any,
}

/// A part of a file, and its rows by line, relative to its first line.
#[derive(Clone, Debug)]
struct Part {
    bytes: Vec<u8>,
    rows: Vec<(u64, Expected)>,
}

fn part(bytes: impl AsRef<[u8]>, rows: &[(u64, Expected)]) -> Part {
    Part { bytes: bytes.as_ref().to_vec(), rows: rows.to_vec() }
}

fn line(bytes: impl AsRef<[u8]>, expected: Expected) -> Part {
    part([bytes.as_ref(), b"\n"].concat(), &[(0, expected)])
}

use Expected::{Any, Indexed, Rejected};

/// Parts of a CSV file whose header is `id,title,content`.
fn csv_parts() -> Vec<Part> {
    vec![
        line("a,b,c", Indexed),
        part("a,b,c\r\n", &[(0, Indexed)]),
        line("a,\"two\"\" quotes\",\"a, comma\"", Indexed),
        part("a,b,\"two\nlines\"\n", &[(0, Indexed)]),
        part("a,b,\"three\r\n\r\nlines\"\r\n", &[(0, Indexed)]),
        line("a,,", Indexed),
        line("a,\u{1f34e},\u{202e}\u{feff}", Indexed),
        part("\n", &[]),
        part("\r\n\n", &[]),
        line("a,b", Rejected),
        line("a,b,c,d", Rejected),
        line("alone", Rejected),
        line(",b,c", Rejected),
        line(",,,,,,,,", Rejected),
        line(vec![b','; 5000], Rejected),
        line(b"a,caf\xe9,c", Rejected),
        line(b"\xff\xfe,b,c", Rejected),
        line(b"\xed\xa0\x80,a lone surrogate,c", Rejected),
        line("a,quo\"te,c", Any),
        line("a,\"quo\"te,c", Any),
        line("a,\0,c", Any),
        line("\0,b,c", Any),
        line(" a , b , c ", Any),
        line("a,1e999,NaN", Any),
        line("=cmd|' /C calc'!A0,b,c", Any),
        part("a,b,c\ra,d,e\n", &[(0, Any), (0, Any)]),
    ]
}

/// Possible ends of a CSV file, which may extend to the end of the file.
fn csv_ends() -> Vec<Part> {
    vec![
        part("", &[]),
        part("a,b,c", &[(0, Indexed)]),
        part("a,b", &[(0, Rejected)]),
        part("a,b,\"never closed\n1,2,3\n4,5,6\n", &[(0, Any)]),
        part("a,\"never closed\n1,2,3\n4,5,6\n", &[(0, Rejected)]),
        part("a,b,c\r", &[(0, Indexed)]),
        part("\n\n\n", &[]),
    ]
}

fn jsonl_parts() -> Vec<Part> {
    let deep = |depth: usize| format!("{{\"id\":1,\"content\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    vec![
        line(r#"{"id":"a","title":"b","content":"c"}"#, Indexed),
        part("{\"id\":7,\"content\":\"c\"}\r\n", &[(0, Indexed)]),
        line(r#"  {"id":"a","content":"\u0000\ud83c\udf4e\n"}  "#, Indexed),
        line(r#"{"id":"a","content":null}"#, Indexed),
        part("\n", &[]),
        part(" \t\r\n", &[]),
        line("{", Rejected),
        line("}", Rejected),
        line("[]", Rejected),
        line("null", Rejected),
        line("7", Rejected),
        line("{\"id\":1}{\"id\":2}", Rejected),
        line(r#"{"content":"no id"}"#, Rejected),
        line(r#"{"id":""}"#, Rejected),
        line(r#"{"id":1.5}"#, Rejected),
        line(r#"{"id":[1]}"#, Rejected),
        line(r#"{"id":1,"id":2}"#, Rejected),
        line(r#"{"id":1,"content":"a","content":"b"}"#, Rejected),
        line(r#"{"id":1,"content":"a","body":"b","content":"c"}"#, Rejected),
        line(r#"{"id":"\ud800"}"#, Rejected),
        line(b"{\"id\":1,\"content\":\"caf\xe9\"}", Rejected),
        line(b"{\"id\":1,\"content\":\"\xed\xa0\x80\"}", Rejected),
        line("\u{feff}{\"id\":1}", Rejected),
        line("{\"id\":1,\"content\":\"a\tb\"}", Rejected),
        line("\0", Rejected),
        line("{'id':1}", Rejected),
        line("{\"id\":1,\"n\":NaN}", Rejected),
        line(deep(10_000), Rejected),
        line(r#"{"id":1,"n":1e999}"#, Any),
        line(r#"{"id":1,"content":"\ud800"}"#, Any),
        line(r#"{"id":123456789012345678901234567890}"#, Any),
        line(deep(100), Any),
    ]
}

fn jsonl_ends() -> Vec<Part> {
    vec![
        part("", &[]),
        part(r#"{"id":"a","content":"c"}"#, &[(0, Indexed)]),
        part("{\"id\":\"a\",\"content\":\"", &[(0, Rejected)]),
        part("\0\0\0\0", &[(0, Rejected)]),
    ]
}

/// A file composed of parts: its bytes, and line and expected outcome of every row.
#[derive(Clone)]
struct HostileFile {
    bytes: Vec<u8>,
    rows: Vec<(u64, Expected)>,
}

impl fmt::Debug for HostileFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.bytes.split(|byte| *byte == b'\n') {
            writeln!(formatter, "{}", line[..line.len().min(200)].escape_ascii())?;
        }
        write!(formatter, "{:?}", self.rows)
    }
}

fn file(head: &'static str, parts: Vec<Part>, ends: Vec<Part>) -> impl Strategy<Value = HostileFile> {
    let bom = prop::bool::weighted(0.2);
    (bom, prop::collection::vec(select(parts), 0..40), select(ends)).prop_map(move |(bom, parts, end)| {
        let mut bytes = [if bom { "\u{feff}" } else { "" }, head].concat().into_bytes();
        let mut rows = Vec::new();
        let mut line = 1 + head.matches('\n').count() as u64;
        for part in parts.iter().chain([&end]) {
            rows.extend(part.rows.iter().map(|(offset, expected)| (line + offset, *expected)));
            line += part.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            bytes.extend_from_slice(&part.bytes);
        }
        HostileFile { bytes, rows }
    })
}

/// Indexes the file, and compares the reported counts with what the server received, the rejects file, and the
/// expected outcomes.
fn check(hostile: &HostileFile, name: &str) {
    let home = TestHome::new();
    let received = Arc::new(Mutex::new(Vec::new()));
    let counter = received.clone();
    let server = FakeServer::with_articles(move |request| {
        // Like a real server, reject a line that is not JSON individually, without an id.
        let result = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(document) => json!({"id": document["id"].as_str().unwrap(), "status": "created", "seq": 1}),
            Err(error) => {
                let error = json!({"status": 400, "code": "json", "detail": error.to_string()});
                json!({"id": null, "status": "error", "error": error})
            }
        };
        let results: Vec<Value> = request.body.lines().map(result).collect();
        let ids = results.iter().filter_map(|result| result["id"].as_str());
        counter.lock().unwrap().extend(ids.map(str::to_owned));
        Response::json(200, &json!({"results": results}).to_string())
    });
    let path = home.write(name, &hostile.bytes);
    let args = ["index", &path, "--url", &server.url(), "--on-error", "skip", "--rejects", "rejects.jsonl"];
    let output = home.run(&[&args[..], &["--batch-size", "7"]].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let sent = received.lock().unwrap();
    let indexed = sent.iter().collect::<BTreeSet<_>>().len();
    let replaced = match sent.len() - indexed {
        0 => String::new(),
        count => format!(" + replaced by later rows with the same id {count}"),
    };
    let rejected: Vec<u64> = home
        .read("rejects.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["line"].as_u64().unwrap())
        .collect();
    let rows = hostile.rows.len();
    let summary =
        format!("rows in {rows} = indexed {indexed} + unchanged 0{replaced} + rejected {}\n", rejected.len());
    assert_eq!(output.out, summary);
    assert_eq!(rows, sent.len() + rejected.len());
    let lines = |expected: Expected| -> BTreeSet<u64> {
        hostile.rows.iter().filter(|(_, outcome)| *outcome == expected).map(|(line, _)| *line).collect()
    };
    let rejected: BTreeSet<u64> = rejected.into_iter().collect();
    let missing: Vec<u64> = lines(Rejected).difference(&rejected).copied().collect();
    assert!(missing.is_empty(), "rows in lines {missing:?} are not rejected");
    let unexpected: Vec<u64> = lines(Indexed).intersection(&rejected).copied().collect();
    assert!(unexpected.is_empty(), "rows in lines {unexpected:?} are rejected");
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, rng_seed: RngSeed::Fixed(SEED), ..Config::default() })]

    #[test]
    fn every_row_of_csv_is_indexed_or_rejected(hostile in file("id,title,content\n", csv_parts(), csv_ends())) {
        check(&hostile, "a.csv");
    }

    #[test]
    fn every_line_of_jsonl_is_indexed_or_rejected(hostile in file("\n", jsonl_parts(), jsonl_ends())) {
        check(&hostile, "a.jsonl");
    }
}
