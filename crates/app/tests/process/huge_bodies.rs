//! Bodies of a gigabyte, however they are packed: refused once they are too large, and never held.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::server::{Server, get, send};

/// What a body of each kind may have, in bytes (docs/operations.md).
const JSON_MAX: u64 = 2 << 20;
const NDJSON_MAX: u64 = 64 << 20;
const GIGABYTE: u64 = 1 << 30;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(300);

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const DOCUMENTS: &str = "/collections/things/documents";

/// A body as it is sent.
enum Sent<'a> {
    /// Its length is told beforehand.
    Whole,
    Chunked,
    /// In chunks, for the server to unzip.
    Gzip(&'a [u8]),
}

/// Sends a request with a body of `pieces` and counts their bytes.
fn write(
    mut stream: &TcpStream,
    head: &str,
    pieces: impl Iterator<Item = Vec<u8>>,
    whole: bool,
    count: &mut u64,
) -> io::Result<()> {
    stream.write_all(head.as_bytes())?;
    for piece in pieces {
        if whole {
            stream.write_all(&piece)?;
        } else {
            write!(stream, "{:x}\r\n", piece.len())?;
            stream.write_all(&piece)?;
            stream.write_all(b"\r\n")?;
        }
        *count += piece.len() as u64;
    }
    if whole { Ok(()) } else { stream.write_all(b"0\r\n\r\n") }
}

/// Sends a body of `pieces` for as long as the server takes it; the answer, and how many bytes were sent.
fn post(
    server: &Server,
    path: &str,
    content_type: &str,
    sent: &Sent<'_>,
    accept: &str,
    pieces: impl Iterator<Item = Vec<u8>> + Send,
) -> (u16, String, u64) {
    let address = server.address();
    let stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let framing = match sent {
        Sent::Whole => format!("content-length: {GIGABYTE}\r\n"),
        Sent::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        Sent::Gzip(_) => "transfer-encoding: chunked\r\ncontent-encoding: gzip\r\n".to_owned(),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\ncontent-type: {content_type}\r\nconnection: close\r\n{framing}\r\n"
    );
    let whole = matches!(sent, Sent::Whole);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut count = 0;
            // The server hangs up on what is too large.
            let _ = write(&stream, &head, pieces, whole, &mut count);
            count
        });
        let mut reader = BufReader::new(&stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "no answer: {head:?}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        // Only what shows how it ended: an answer of many megabytes is read and let go.
        let mut end = Vec::new();
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            end.extend_from_slice(&piece[..count]);
            end.drain(..end.len().saturating_sub(64 << 10));
        }
        (status, String::from_utf8_lossy(&end).into_owned(), writing.join().unwrap())
    })
}

fn start(home: &std::path::Path) -> Server {
    let mut server = Server::start(home);
    server.wait_until_ready();
    let schema = json!({"fields": [{"name": "n", "kind": "numeric"}]});
    let (status, answer) = send("PUT", &format!("{}/collections/things", server.address()), &schema).unwrap();
    assert_eq!(status, 201, "{answer}");
    server
}

/// Does `act` and says by how much the server's memory grew meanwhile, at its highest.
fn growth<T>(server: &Server, act: impl FnOnce() -> T) -> (T, u64) {
    // From here on the highest is what is reached from here on.
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
    let before = server.memory("VmRSS:");
    let done = act();
    (done, server.memory("VmHWM:").saturating_sub(before))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

fn zeros(bytes: u64) -> impl Iterator<Item = Vec<u8>> + Send {
    (0..bytes >> 16).map(|_| vec![b' '; 1 << 16])
}

/// A gigabyte of spaces, zipped.
fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    zeros(GIGABYTE).for_each(|piece| encoder.write_all(&piece).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn a_gigabyte_is_refused_and_not_held() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path());
    let bomb = bomb();
    println!("a bomb of {:.1} MiB holds {:.0} MiB", mib(bomb.len() as u64), mib(GIGABYTE));
    for (content_type, bytes_max) in [(JSON, JSON_MAX), (NDJSON, NDJSON_MAX)] {
        for (name, sent) in [
            ("with its length", Sent::Whole),
            ("in chunks", Sent::Chunked),
            ("as a gzip bomb", Sent::Gzip(&bomb)),
        ] {
            let pieces: Box<dyn Iterator<Item = Vec<u8>> + Send> = match sent {
                Sent::Gzip(bomb) => Box::new(bomb.chunks(1 << 14).map(<[u8]>::to_vec)),
                _ => Box::new(zeros(GIGABYTE)),
            };
            let ((status, end, bytes), growth) =
                growth(&server, || post(&server, DOCUMENTS, content_type, &sent, "*/*", pieces));
            println!(
                "{content_type} {name}: {status} after {:.1} MiB sent; memory grew by {:.1} MiB at most, {:.1} are allowed",
                mib(bytes),
                mib(growth),
                mib(2 * bytes_max)
            );
            assert_eq!(status, 413, "{end}");
            assert!(end.contains("body-size"), "{end}");
            // What the system holds between the two is some megabytes.
            assert!(bytes < bytes_max + (16 << 20), "{bytes} bytes were taken");
            assert!(growth <= 2 * bytes_max, "memory grew by {growth} bytes");
        }
    }
    server.stop();
}

/// A million small documents as lines.
fn million(line: impl Fn(u64) -> String + Send) -> impl Iterator<Item = Vec<u8>> + Send {
    (0..1000).map(move |piece| (0..1000).map(|at| line(piece * 1000 + at)).collect::<String>().into_bytes())
}

#[test]
fn a_million_documents_in_one_request_pass_through() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path());
    let refused = |number: u64| format!("{{\"id\":{number},\"n\":{{}}}}\n");
    let known = |number: u64| format!("{{\"id\":{},\"n\":1}}\n", number % 100);

    // Told all at once, what became of them is more than an answer may have.
    let ((status, end, _), grown) =
        growth(&server, || post(&server, DOCUMENTS, NDJSON, &Sent::Chunked, "*/*", million(refused)));
    println!("a million refused, told in JSON: {status}; memory grew by {:.1} MiB at most", mib(grown));
    assert_eq!(status, 413, "{end}");
    assert!(end.contains("results-size"), "{end}");
    assert!(grown <= 2 * NDJSON_MAX, "memory grew by {grown} bytes");

    // Told one by one, nothing is gathered.
    let ((status, end, _), grown) =
        growth(&server, || post(&server, DOCUMENTS, NDJSON, &Sent::Chunked, NDJSON, million(known)));
    println!(
        "a million of 100 documents, told line by line: {status}; memory grew by {:.1} MiB at most",
        mib(grown)
    );
    assert_eq!(status, 200, "{end}");
    let last = end.lines().rev().find(|line| line.starts_with('{')).unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["line"], 1_000_000, "{last}");
    assert!(grown <= 2 * NDJSON_MAX, "memory grew by {grown} bytes");
    let (_, counted) = get(&format!("{}/collections/things/count", server.address())).unwrap();
    assert_eq!(counted["count"], 100);
    server.stop();
}
