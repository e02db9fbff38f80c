//! Fuzz targets for requests and for the lines of bodies.

use std::{io::Read as _, net::Ipv4Addr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use flate2::{Compression, read::GzEncoder, read::MultiGzDecoder};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    HttpSettings, Peer, Problem,
    body::BodyReader,
    ndjson::{Line, Lines, channel_body},
    router,
};
use service::{Config, Service};

thread_local! {
    // Per thread rather than global, so that the directory of a test is removed.
    static FIXTURE: Fixture = Fixture::open();
}

/// Routes selected by a byte: method, path and media type. The first line of the input replaces a final `*` of the path,
/// or is the query.
const ROUTES: [(&str, &str, &str); 15] = [
    ("POST", "/collections/kb/documents", "application/json"),
    ("POST", "/collections/kb/documents", "application/x-ndjson"),
    ("PUT", "/collections/kb/documents/a", "application/json"),
    ("PATCH", "/collections/kb/documents/a", "application/json"),
    ("POST", "/collections/kb/search", "application/json"),
    ("POST", "/collections/kb/delete", "application/json"),
    ("PUT", "/collections/none-of-these", "application/json"),
    ("PUT", "/aliases/a", "application/json"),
    ("GET", "/search", ""),
    ("GET", "/collections/kb/documents", ""),
    ("GET", "/collections/kb/count", ""),
    ("GET", "/collections/*", ""),
    ("DELETE", "/collections/kb/documents/*", ""),
    ("PUT", "/collections/kb/documents/*", "application/json"),
    ("GET", "/*", ""),
];

/// Flag in the first byte: the request arrived over a socket.
const REMOTE: u8 = 0x80;

/// Sends a request: a byte for the route, a line for query or path, lines of headers, an empty line, and the body. The
/// response is not an internal error, and a client error has a detail.
pub fn http_request(input: &[u8]) {
    let Some((&route, rest)) = input.split_first() else { return };
    let (method, path, kind) = ROUTES[usize::from(route & !REMOTE) % ROUTES.len()];
    let (line, mut rest) = split_line(rest);
    let Ok(line) = std::str::from_utf8(line) else { return };
    let uri = match path.strip_suffix('*') {
        Some(path) => format!("{path}{line}"),
        None => format!("{path}?{line}"),
    };
    let mut request = Request::builder().method(method).uri(uri);
    if !kind.is_empty() {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    if route & REMOTE != 0 {
        request = request.header(header::HOST, "localhost").extension(Peer((Ipv4Addr::LOCALHOST, 1).into()));
    }
    loop {
        let line;
        (line, rest) = split_line(rest);
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    let Ok(request) = request.body(Body::from(rest.to_vec())) else { return };
    FIXTURE.with(|fixture| fixture.send(request));
}

/// The first line and the rest.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// The routes over a store with one collection.
struct Fixture {
    router: Router,
    runtime: Runtime,
    _home: TempDir,
}

impl Fixture {
    fn open() -> Fixture {
        let home = TempDir::with_prefix("nearfield-fuzz-").expect("a directory");
        let config = Config::new(home.path().join("data"), home.path().join("models"));
        let service = Service::open(config).expect("a new store opens");
        let runtime = runtime();
        let fixture = Fixture { router: router(service, HttpSettings::default()), runtime, _home: home };
        let schema = r#"{"fields": [{"name": "title", "kind": "text"}, {"name": "tag", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            {"name": "place", "kind": "vector", "dim": 2, "metric": "l2"}]}"#;
        let request = Request::put("/collections/kb").header(header::CONTENT_TYPE, "application/json");
        let status = fixture.send(request.body(Body::from(schema)).expect("a request"));
        assert_eq!(status, StatusCode::CREATED);
        fixture
    }

    fn send(&self, request: Request<Body>) -> StatusCode {
        let sent = format!("{} {}", request.method(), request.uri());
        self.runtime.block_on(async {
            let reply = self.router.clone().oneshot(request).await.expect("a router is infallible");
            let status = reply.status();
            assert!(
                !status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE,
                "{sent}: {status}"
            );
            let is_problem = reply
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
            let body =
                reply.into_body().collect().await.expect("the body of a response is complete").to_bytes();
            if status.is_client_error() {
                let problem: Value = serde_json::from_slice(&body).expect("a problem is JSON");
                assert!(
                    is_problem && problem["detail"].as_str().is_some_and(|text| !text.is_empty()),
                    "{sent}"
                );
            }
            status
        })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Bytes of a body.
const LINES_BYTES_MAX: usize = 64 << 10;

/// Splits a body into lines. The first byte sets the size of its chunks, and whether it is gzip already or is compressed
/// here. The lines are those of the decompressed text, with their numbers.
pub fn ndjson_lines(input: &[u8]) {
    thread_local!(static RUNTIME: Runtime = runtime());
    let Some((&bits, given)) = input.split_first() else { return };
    let (is_gzip, compresses) = (bits & 1 != 0, bits & 2 != 0);
    let sent = if compresses { compress(given) } else { given.to_vec() };
    let plain = if is_gzip && !compresses { decompress(given) } else { Some(given.to_vec()) };
    let chunk_size = usize::from(bits >> 2) + 1;
    match RUNTIME.with(|runtime| runtime.block_on(lines(&sent, is_gzip || compresses, chunk_size))) {
        Ok(lines) => {
            let plain = plain.expect("accepted input can be decompressed");
            let expected = (1..).zip(plain.split(|byte| *byte == b'\n'));
            let expected: Vec<(u64, Vec<u8>)> = expected
                .map(|(number, line)| (number, line.trim_ascii().to_vec()))
                .filter(|(_, line)| !line.is_empty())
                .collect();
            assert_eq!(lines, expected);
        }
        Err(problem) => {
            assert!(problem.status().is_client_error());
            let is_short = plain.is_some_and(|plain| plain.len() <= LINES_BYTES_MAX);
            assert!(is_gzip && !compresses || !is_short);
        }
    }
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    GzEncoder::new(bytes, Compression::fast()).read_to_end(&mut packed).expect("a slice is read");
    packed
}

fn decompress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = LINES_BYTES_MAX as u64 + 1;
    MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut plain).ok()?;
    Some(plain)
}

async fn lines(sent: &[u8], is_gzip: bool, chunk_size: usize) -> Result<Vec<(u64, Vec<u8>)>, Problem> {
    let chunks = sent.chunks(chunk_size);
    let (sender, receiver) = mpsc::channel(chunks.len().max(1));
    for chunk in chunks {
        sender.try_send(Bytes::copy_from_slice(chunk)).expect("the channel has capacity for all");
    }
    drop(sender);
    let mut headers = HeaderMap::new();
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().expect("a header"));
    }
    let body = channel_body(receiver, CancellationToken::new().drop_guard());
    let body = BodyReader::new(&headers, body, LINES_BYTES_MAX, Duration::from_secs(60))?;
    let (mut lines, mut found) = (Lines::new(body), Vec::new());
    while let Some(Line { number, text }) = lines.next().await? {
        found.push((number, text?));
    }
    Ok(found)
}
