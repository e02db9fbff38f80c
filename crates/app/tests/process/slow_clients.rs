//! Slow clients: heads sent byte by byte, stalled bodies, and responses that are not read.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use testing::{requirement::Requirement, stop_on_drop::StopOnDrop};

use crate::{
    ledger::vector,
    server::{Server, get, send},
};

/// The server's connection limit, and the number of slow clients.
const CONNECTIONS_MAX: usize = 1024;
const SLOW_CLIENTS: usize = 1000;
/// Maximum duration of a head, of a stalled body and of a response that is not read.
const LIMIT: Duration = Duration::from_secs(5);
/// Ten times the limit; then the test fails.
const TIMEOUT: Duration = Duration::from_secs(50);
/// Time between two bytes of a slow client, and polling interval.
const PAUSE: Duration = Duration::from_millis(200);
/// Duration of the searches without slow clients, for comparison.
const BASELINE: Duration = Duration::from_secs(2);
/// Maximum number of open files of this process and of the server.
const OPEN_FILES: u64 = 2048;

/// Whether the limit on open files is high enough for these tests.
fn may_open_enough_files() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let found = Requirement::Tools.find(|| match limit.current {
        Some(files) if files < OPEN_FILES => Err(format!("`ulimit -n` is {files}, below {OPEN_FILES}")),
        _ => Ok(()),
    });
    found.is_some()
}

fn start(home: &std::path::Path) -> (Server, SocketAddr) {
    let limit = LIMIT.as_millis().to_string();
    let connections = CONNECTIONS_MAX.to_string();
    let variables = [
        ("NEARFIELD_HEADER_TIMEOUT_MS", limit.as_str()),
        ("NEARFIELD_BODY_TIMEOUT_MS", limit.as_str()),
        ("NEARFIELD_CONNECTIONS_MAX", connections.as_str()),
        // For all unread responses: one that is rejected would leave its connection open.
        ("NEARFIELD_RESPONSE_MEMORY_MIB", "4096"),
        ("NEARFIELD_GRACE_S", "2"),
    ];
    // On many systems the soft limit on open files is below the connection limit: the server must raise it.
    let wrapper = ["sh", "-c", "ulimit -S -n 512 && exec \"$0\" \"$@\""];
    let mut server = Server::start_with(home, &wrapper, &variables);
    server.wait_until_ready();
    server.create_collection();
    let address = server.address().trim_start_matches("http://").parse().unwrap();
    (server, address)
}

/// A client that sends the start of a request immediately and the rest byte by byte.
struct SlowClient {
    stream: TcpStream,
    opened: Instant,
    rest: &'static [u8],
    response: Vec<u8>,
    /// Time until the server closed the connection.
    closed_after: Option<Duration>,
}

impl SlowClient {
    fn open(address: SocketAddr, start: &[u8], rest: &'static [u8]) -> SlowClient {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(start).unwrap();
        stream.set_nonblocking(true).unwrap();
        SlowClient { stream, opened: Instant::now(), rest, response: Vec::new(), closed_after: None }
    }

    /// Reads, sends the next byte if there is one, and checks whether the server has closed the connection.
    fn step(&mut self) {
        if self.closed_after.is_some() {
            return;
        }
        let closes = |result: io::Result<usize>| match result {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        let mut buffer = [0; 1024];
        let read = self.stream.read(&mut buffer);
        self.response.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
        let mut is_closed = closes(read);
        if let Some((byte, rest)) = self.rest.split_first().filter(|_| !is_closed) {
            is_closed = closes(self.stream.write(&[*byte]));
            self.rest = rest;
        }
        if is_closed {
            self.closed_after = Some(self.opened.elapsed());
        }
    }
}

fn count_open(clients: &[SlowClient]) -> usize {
    clients.iter().filter(|client| client.closed_after.is_none()).count()
}

/// Lets all clients send until all connections are closed; returns the durations of the connections, sorted.
fn step_until_closed(clients: &mut [SlowClient]) -> Vec<Duration> {
    let started = Instant::now();
    while count_open(clients) > 0 {
        let open = count_open(clients);
        assert!(started.elapsed() < TIMEOUT, "{open} of {} slow connections are still open", clients.len());
        clients.iter_mut().for_each(SlowClient::step);
        thread::sleep(PAUSE);
    }
    let mut times: Vec<Duration> =
        clients.iter().map(|client| client.closed_after.expect("all connections are closed")).collect();
    times.sort();
    times
}

/// More bytes than any client can send before its connection is closed.
const ENDLESS: &[u8] = &[b'x'; 1000];

/// Clients that send an endless head.
fn open_slow_heads(address: SocketAddr, count: usize) -> Vec<SlowClient> {
    let start = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
    (0..count).map(|_| SlowClient::open(address, start, ENDLESS)).collect()
}

/// Clients whose requests are being answered, and that send endless bodies.
fn open_slow_bodies(address: SocketAddr, count: usize) -> Vec<SlowClient> {
    let start = b"PUT /aliases/a HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
        content-type: application/json\r\ncontent-length: 2000\r\n\r\n";
    let open = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(start).unwrap();
        // The server asks for the body when it has admitted the request.
        let mut response = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        stream.read_exact(&mut response).unwrap();
        assert_eq!(&response, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.set_nonblocking(true).unwrap();
        let (opened, response) = (Instant::now(), Vec::new());
        SlowClient { stream, opened, rest: ENDLESS, response, closed_after: None }
    };
    (0..count).map(open).collect()
}

/// Searches until `stop` is set; returns the latencies, sorted.
fn search_until(address: &str, stop: &AtomicBool, searches: &AtomicUsize) -> Vec<Duration> {
    let url = format!("{address}/collections/notes/search");
    let mut latencies = Vec::new();
    for number in 0.. {
        let started = Instant::now();
        let search = json!({"vector": vector("query", number), "k": 1});
        let (status, response) = send("POST", &url, &search).unwrap();
        assert_eq!(status, 200, "a normal client was rejected: {response}");
        latencies.push(started.elapsed());
        searches.fetch_add(1, Relaxed);
        if stop.load(Relaxed) {
            break;
        }
    }
    latencies.sort();
    latencies
}

fn connection_count(address: &str) -> f64 {
    let (status, text) = get(&format!("{address}/metrics")).unwrap();
    assert_eq!(status, 200);
    let text = text.as_str().unwrap();
    let line = text.lines().find(|line| line.starts_with("nearfield_http_connections ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until the server has every connection that it has not closed yet: the kernel accepts them before the server.
fn wait_until_accepted(address: &str, clients: &mut [SlowClient]) {
    let started = Instant::now();
    loop {
        let connections = connection_count(address);
        clients.iter_mut().for_each(SlowClient::step);
        let open = count_open(clients);
        if connections >= open as f64 {
            assert!(open > 0, "all slow connections were closed before the server had them all");
            return;
        }
        assert!(started.elapsed() < LIMIT, "the server has only {connections} of {open} connections");
        thread::sleep(PAUSE);
    }
}

#[test]
fn a_thousand_slow_heads_time_out_without_affecting_searches() {
    if !may_open_enough_files() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut server, address) = start(home.path());
    let url = server.address();
    let (stop, searches) = (AtomicBool::new(false), AtomicUsize::new(0));
    let baseline = thread::scope(|scope| {
        let searcher = scope.spawn(|| search_until(&url, &stop, &searches));
        thread::sleep(BASELINE);
        stop.store(true, Relaxed);
        searcher.join().unwrap()
    });
    stop.store(false, Relaxed);
    searches.store(0, Relaxed);
    let mut clients = open_slow_heads(address, SLOW_CLIENTS);
    let (times, latencies, searches_meanwhile) = thread::scope(|scope| {
        let stop_searcher = StopOnDrop(&stop);
        let searcher = scope.spawn(|| search_until(&url, &stop, &searches));
        clients.iter_mut().for_each(SlowClient::step);
        wait_until_accepted(&url, &mut clients);
        let times = step_until_closed(&mut clients);
        let searches_meanwhile = searches.load(Relaxed);
        drop(stop_searcher);
        (times, searcher.join().unwrap(), searches_meanwhile)
    });
    for client in &clients {
        let response = String::from_utf8_lossy(&client.response);
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 408"), "{response:?}");
    }
    assert!(searches_meanwhile > 0, "no search succeeded while the slow clients were connected");
    let quantile = |sorted: &[Duration], percent: usize| sorted[sorted.len() * percent / 100];
    println!(
        "{SLOW_CLIENTS} slow heads: closed after {:?} to {:?} (limit {LIMIT:?}); meanwhile {} searches, p50 {:?}, p99 {:?} \
         (before: {} searches, p50 {:?}, p99 {:?})",
        times[0],
        times[SLOW_CLIENTS - 1],
        latencies.len(),
        quantile(&latencies, 50),
        quantile(&latencies, 99),
        baseline.len(),
        quantile(&baseline, 50),
        quantile(&baseline, 99),
    );
    server.stop();
}

#[test]
fn slow_heads_give_way_to_other_connections() {
    if !may_open_enough_files() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut server, address) = start(home.path());
    let url = server.address();
    let mut clients = open_slow_heads(address, CONNECTIONS_MAX);
    for _ in 0..10 {
        assert_eq!(get(&format!("{url}/collections")).unwrap().0, 200);
    }
    clients.iter_mut().for_each(SlowClient::step);
    let open = count_open(&clients);
    assert!(open >= CONNECTIONS_MAX - 20, "only {open} of {CONNECTIONS_MAX} slow connections are left");
    server.stop();
}

#[test]
fn reports_health_and_stops_while_slow_clients_use_every_connection() {
    if !may_open_enough_files() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut server, address) = start(home.path());
    let url = server.address();
    let mut clients = open_slow_bodies(address, CONNECTIONS_MAX);
    // Another request is rejected with the reason; health checks still succeed.
    let (status, problem) = get(&format!("{url}/collections")).unwrap();
    assert_eq!((status, &problem["code"]), (503, &json!("connections")), "{problem}");
    for path in ["healthz", "livez", "readyz"] {
        assert_eq!(get(&format!("{url}/{path}")).unwrap().0, 200, "{path}");
    }
    clients.iter_mut().for_each(SlowClient::step);
    assert_eq!(count_open(&clients), CONNECTIONS_MAX, "some connections were closed before the stop");
    let started = Instant::now();
    server.stop();
    println!("stopped after {:?} with {CONNECTIONS_MAX} slow bodies (grace period 2 s)", started.elapsed());
    assert!(started.elapsed() < TIMEOUT);
}

#[test]
fn slow_and_stalled_bodies_and_unread_responses_time_out() {
    if !may_open_enough_files() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut server, address) = start(home.path());
    let url = server.address();
    // The response has some megabytes, far more than the socket buffers hold.
    let text = "some words ".repeat(5000);
    for number in 0..200 {
        let document = json!({"text": text, "version": number, "place": vector("slow", number)});
        let (status, response) =
            send("PUT", &format!("{url}/collections/notes/documents/{number}"), &document).unwrap();
        assert_eq!(status, 201, "{response}");
    }
    let request = b"GET /collections/notes/documents?limit=200 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let unread: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request).unwrap();
            stream
        })
        .collect();
    let start = b"PUT /aliases/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n{";
    let rest = |client: usize| if client.is_multiple_of(2) { ENDLESS } else { b"" };
    let mut clients: Vec<SlowClient> =
        (0..200).map(|client| SlowClient::open(address, start, rest(client))).collect();
    let times = step_until_closed(&mut clients);
    for client in &clients {
        let response = String::from_utf8_lossy(&client.response);
        assert!(response.starts_with("HTTP/1.1 408") && response.contains("body-timeout"), "{response:?}");
    }
    println!(
        "100 slow and 100 stalled bodies: rejected after {:?} to {:?} (limit {LIMIT:?})",
        times[0], times[199]
    );
    // Once the unread responses have timed out, only the connection of this request is left.
    let started = Instant::now();
    while connection_count(&url) > 1.0 {
        assert!(started.elapsed() < TIMEOUT, "{} connections are still open", connection_count(&url));
        thread::sleep(PAUSE);
    }
    println!("50 unread responses: closed {:?} after that", started.elapsed());
    drop(unread);
    server.stop();
}
