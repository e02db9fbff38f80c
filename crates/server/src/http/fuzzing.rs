//! Bodies of the fuzz targets on requests and on lines of bodies.

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
    // Of a thread, not of the program, so that a test's directory is removed.
    static HOUSE: House = House::open();
}

/// Routes a byte chooses among: method, path and media type. Where the path ends in `*`, the rest of it
/// is the first line of the input, else that is the query.
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

/// Set in the first byte: the request comes over a socket.
const REMOTE: u8 = 0x80;

/// A request: a byte for the route, a line for query or path, lines of headers, an empty one, and the
/// body. Its answer is no fault of the program, and says what is wrong if anything is.
pub fn http_request(input: &[u8]) {
    let Some((&route, rest)) = input.split_first() else { return };
    let (method, path, kind) = ROUTES[usize::from(route & !REMOTE) % ROUTES.len()];
    let (line, mut rest) = cut_line(rest);
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
        (line, rest) = cut_line(rest);
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    let Ok(request) = request.body(Body::from(rest.to_vec())) else { return };
    HOUSE.with(|house| house.ask(request));
}

/// The first line, and what comes after its end.
fn cut_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// A server's routes over a store that holds a collection.
struct House {
    router: Router,
    runtime: Runtime,
    _home: TempDir,
}

impl House {
    fn open() -> House {
        let home = TempDir::with_prefix("nearfield-fuzz-").expect("a directory");
        let config = Config::new(home.path().join("data"), home.path().join("models"));
        let service = Service::open(config).expect("a new store opens");
        let runtime = runtime();
        let house = House { router: router(service, HttpSettings::default()), runtime, _home: home };
        let schema = r#"{"fields": [{"name": "title", "kind": "text"}, {"name": "tag", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            {"name": "place", "kind": "vector", "dim": 2, "metric": "l2"}]}"#;
        let request = Request::put("/collections/kb").header(header::CONTENT_TYPE, "application/json");
        let made = house.ask(request.body(Body::from(schema)).expect("a request"));
        assert_eq!(made, StatusCode::CREATED);
        house
    }

    fn ask(&self, request: Request<Body>) -> StatusCode {
        let asked = format!("{} {}", request.method(), request.uri());
        self.runtime.block_on(async {
            let reply = self.router.clone().oneshot(request).await.expect("a router is infallible");
            let status = reply.status();
            assert!(
                !status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE,
                "{asked}: {status}"
            );
            let is_problem = reply
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
            let body = reply.into_body().collect().await.expect("an answer is told to its end").to_bytes();
            if status.is_client_error() {
                let problem: Value = serde_json::from_slice(&body).expect("a problem is JSON");
                assert!(
                    is_problem && problem["detail"].as_str().is_some_and(|text| !text.is_empty()),
                    "{asked}"
                );
            }
            status
        })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Bytes of a body of lines.
const LINES_BYTES_MAX: usize = 64 << 10;

/// Lines of a body, behind a byte that says in what pieces it comes and whether it is gzip or is to be
/// zipped: they are those of the unzipped text, with their numbers.
pub fn ndjson_lines(input: &[u8]) {
    thread_local!(static RUNTIME: Runtime = runtime());
    let Some((&bits, given)) = input.split_first() else { return };
    let (is_gzip, zip) = (bits & 1 != 0, bits & 2 != 0);
    let sent = if zip { zipped(given) } else { given.to_vec() };
    let plain = if is_gzip && !zip { unzipped(given) } else { Some(given.to_vec()) };
    let piece = usize::from(bits >> 2) + 1;
    match RUNTIME.with(|runtime| runtime.block_on(lines(&sent, is_gzip || zip, piece))) {
        Ok(lines) => {
            let plain = plain.expect("what is taken can be unzipped");
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
            assert!(is_gzip && !zip || !is_short);
        }
    }
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    GzEncoder::new(bytes, Compression::fast()).read_to_end(&mut packed).expect("a slice is read");
    packed
}

fn unzipped(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let most = LINES_BYTES_MAX as u64 + 1;
    MultiGzDecoder::new(bytes).take(most).read_to_end(&mut plain).ok()?;
    Some(plain)
}

async fn lines(sent: &[u8], is_gzip: bool, piece: usize) -> Result<Vec<(u64, Vec<u8>)>, Problem> {
    let pieces = sent.chunks(piece);
    let (sender, receiver) = mpsc::channel(pieces.len().max(1));
    for piece in pieces {
        sender.try_send(Bytes::copy_from_slice(piece)).expect("there is room for all");
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
