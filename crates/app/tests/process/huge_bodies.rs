//! Request bodies of a gigabyte: they are rejected as soon as they exceed the limit, and never held in memory.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::server::{Server, get, mib, send};

/// Maximum body size by content type, in bytes (docs/operations.md).
const JSON_MAX: u64 = 2 << 20;
const NDJSON_MAX: u64 = 64 << 20;
const GIGABYTE: u64 = 1 << 30;
/// Longer than any request in these tests takes.
const TIMEOUT: Duration = Duration::from_secs(300);

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const DOCUMENTS: &str = "/collections/items/documents";

/// How a body is sent.
enum BodyEncoding<'a> {
    /// With `Content-Length`.
    ContentLength,
    Chunked,
    /// This gzip stream, in chunks.
    Gzip(&'a [u8]),
}

/// Sends a request with a body of these chunks and counts their bytes.
fn write(
    mut stream: &TcpStream,
    head: &str,
    chunks: impl Iterator<Item = Vec<u8>>,
    is_chunked: bool,
    count: &mut u64,
) -> io::Result<()> {
    stream.write_all(head.as_bytes())?;
    for chunk in chunks {
        if is_chunked {
            write!(stream, "{:x}\r\n", chunk.len())?;
            stream.write_all(&chunk)?;
            stream.write_all(b"\r\n")?;
        } else {
            stream.write_all(&chunk)?;
        }
        *count += chunk.len() as u64;
    }
    if is_chunked { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// Sends a body until the server stops reading; returns the status, the end of the response and the number of bytes
/// sent.
fn post(
    server: &Server,
    path: &str,
    content_type: &str,
    encoding: &BodyEncoding<'_>,
    accept: &str,
    chunks: impl Iterator<Item = Vec<u8>> + Send,
) -> (u16, String, u64) {
    let address = server.address();
    let stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let framing = match encoding {
        BodyEncoding::ContentLength => format!("content-length: {GIGABYTE}\r\n"),
        BodyEncoding::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        BodyEncoding::Gzip(_) => "transfer-encoding: chunked\r\ncontent-encoding: gzip\r\n".to_owned(),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\ncontent-type: {content_type}\r\nconnection: close\r\n{framing}\r\n"
    );
    let is_chunked = !matches!(encoding, BodyEncoding::ContentLength);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut count = 0;
            // The server closes the connection if the body is too large.
            let _ = write(&stream, &head, chunks, is_chunked, &mut count);
            count
        });
        let mut reader = BufReader::new(&stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "no response: {head:?}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        // Only the end of the response is kept, since it may have many megabytes.
        let mut end = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        while let Ok(count @ 1..) = reader.read(&mut chunk) {
            end.extend_from_slice(&chunk[..count]);
            end.drain(..end.len().saturating_sub(64 << 10));
        }
        (status, String::from_utf8_lossy(&end).into_owned(), writing.join().unwrap())
    })
}

fn start(home: &std::path::Path) -> Server {
    let mut server = Server::start(home);
    server.wait_until_ready();
    let schema = json!({"fields": [{"name": "n", "kind": "numeric"}]});
    let (status, response) =
        send("PUT", &format!("{}/collections/items", server.address()), &schema).unwrap();
    assert_eq!(status, 201, "{response}");
    server
}

/// Calls `act`; returns its result and the growth of the server's resident memory to its peak during the call, in bytes.
fn with_memory_growth<T>(server: &Server, act: impl FnOnce() -> T) -> (T, u64) {
    // Resets the peak (VmHWM).
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
    let before = server.memory("VmRSS:");
    let result = act();
    (result, server.memory("VmHWM:").saturating_sub(before))
}

/// Spaces in chunks of 64 KiB.
fn spaces(bytes: u64) -> impl Iterator<Item = Vec<u8>> + Send {
    (0..bytes >> 16).map(|_| vec![b' '; 1 << 16])
}

/// A gigabyte of spaces, compressed.
fn gzip_bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    spaces(GIGABYTE).for_each(|chunk| encoder.write_all(&chunk).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn rejects_a_body_of_a_gigabyte_without_holding_it_in_memory() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path());
    let bomb = gzip_bomb();
    println!("a gzip bomb of {:.1} MiB expands to {:.0} MiB", mib(bomb.len() as u64), mib(GIGABYTE));
    for (content_type, bytes_max) in [(JSON, JSON_MAX), (NDJSON, NDJSON_MAX)] {
        for (name, encoding) in [
            ("with a content length", BodyEncoding::ContentLength),
            ("in chunks", BodyEncoding::Chunked),
            ("gzip bomb", BodyEncoding::Gzip(&bomb)),
        ] {
            let chunks: Box<dyn Iterator<Item = Vec<u8>> + Send> = match encoding {
                BodyEncoding::Gzip(bomb) => Box::new(bomb.chunks(1 << 14).map(<[u8]>::to_vec)),
                _ => Box::new(spaces(GIGABYTE)),
            };
            let ((status, end, bytes), growth) = with_memory_growth(&server, || {
                post(&server, DOCUMENTS, content_type, &encoding, "*/*", chunks)
            });
            println!(
                "{content_type} {name}: {status} after {:.1} MiB sent; memory grew by up to {:.1} MiB, allowed: {:.1}",
                mib(bytes),
                mib(growth),
                mib(2 * bytes_max)
            );
            assert_eq!(status, 413, "{end}");
            assert!(end.contains("body-size"), "{end}");
            // Socket buffers hold some megabytes.
            assert!(bytes < bytes_max + (16 << 20), "{bytes} bytes were accepted");
            assert!(growth <= 2 * bytes_max, "memory grew by {growth} bytes");
        }
    }
    server.stop();
}

/// A million NDJSON lines in chunks of a thousand.
fn million_lines(line: impl Fn(u64) -> String + Send) -> impl Iterator<Item = Vec<u8>> + Send {
    (0..1000).map(move |chunk| {
        (0..1000).map(|offset| line(chunk * 1000 + offset)).collect::<String>().into_bytes()
    })
}

#[test]
fn a_request_with_a_million_documents_takes_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path());
    let invalid = |number: u64| format!("{{\"id\":{number},\"n\":{{}}}}\n");
    let valid = |number: u64| format!("{{\"id\":{},\"n\":1}}\n", number % 100);

    // A JSON response with all results would exceed the maximum response size.
    let ((status, end, _), growth) = with_memory_growth(&server, || {
        post(&server, DOCUMENTS, NDJSON, &BodyEncoding::Chunked, "*/*", million_lines(invalid))
    });
    println!(
        "a million invalid documents, JSON response: {status}; memory grew by up to {:.1} MiB",
        mib(growth)
    );
    assert_eq!(status, 413, "{end}");
    assert!(end.contains("results-size"), "{end}");
    assert!(growth <= 2 * NDJSON_MAX, "memory grew by {growth} bytes");

    // An NDJSON response is streamed.
    let ((status, end, _), growth) = with_memory_growth(&server, || {
        post(&server, DOCUMENTS, NDJSON, &BodyEncoding::Chunked, NDJSON, million_lines(valid))
    });
    println!(
        "a million writes of 100 documents, NDJSON response: {status}; memory grew by up to {:.1} MiB",
        mib(growth)
    );
    assert_eq!(status, 200, "{end}");
    let last = end.lines().rev().find(|line| line.starts_with('{')).unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["line"], 1_000_000, "{last}");
    assert!(growth <= 2 * NDJSON_MAX, "memory grew by {growth} bytes");
    let (_, response) = get(&format!("{}/collections/items/count", server.address())).unwrap();
    assert_eq!(response["count"], 100);
    server.stop();
}
