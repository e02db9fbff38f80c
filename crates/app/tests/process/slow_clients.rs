//! Clients that take their time: heads that come a byte at a time, bodies that stand still, answers nobody reads.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    ledger::vector,
    server::{Server, get, send},
};

/// Connections that the server takes at once, and how many slow clients hold them.
const CONNECTIONS_MAX: usize = 1024;
const SLOW: usize = 1000;
/// What a head, and a body or an answer that stands still, may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Ten times that: beyond it the test fails.
const PATIENCE: Duration = Duration::from_secs(50);
/// How long a slow client waits before its next byte.
const PAUSE: Duration = Duration::from_millis(200);
/// How long searches are asked before the slow clients come.
const ALONE: Duration = Duration::from_secs(2);
/// Files that this process and the server have open at once, at most.
const FILES: u64 = 2048;

/// Whether there may be as many files as this takes; said loudly, if not.
fn has_files() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // Ours as it is, the server's as far as it may raise it.
    if limit.current.is_none_or(|files| files >= FILES) {
        return true;
    }
    assert!(std::env::var_os("NEARFIELD_REQUIRE_TOOLS").is_none(), "`ulimit -n` is below {FILES}");
    println!("SKIPPED: `ulimit -n` is {:?} here, below {FILES}", limit.current);
    false
}

fn start(home: &std::path::Path) -> (Server, SocketAddr) {
    let limit = LIMIT.as_millis().to_string();
    let connections = CONNECTIONS_MAX.to_string();
    let variables = [
        ("NEARFIELD_HEADER_TIMEOUT_MS", limit.as_str()),
        ("NEARFIELD_BODY_TIMEOUT_MS", limit.as_str()),
        ("NEARFIELD_CONNECTIONS_MAX", connections.as_str()),
        ("NEARFIELD_GRACE_S", "2"),
    ];
    // Fewer files than connections, as many systems have it: the server has to ask for more.
    let wrapper = ["sh", "-c", "ulimit -S -n 512 && exec \"$0\" \"$@\""];
    let mut server = Server::start_with(home, &wrapper, &variables);
    server.wait_until_ready();
    server.make_collection();
    let address = server.address().trim_start_matches("http://").parse().unwrap();
    (server, address)
}

/// A client that sends `begun` at once, and of `rest` a byte now and then.
struct Slow {
    stream: TcpStream,
    opened: Instant,
    rest: &'static [u8],
    /// What was answered, and when the connection ended.
    answer: Vec<u8>,
    ended: Option<Duration>,
}

impl Slow {
    fn open(address: SocketAddr, begun: &[u8], rest: &'static [u8]) -> Slow {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(begun).unwrap();
        stream.set_nonblocking(true).unwrap();
        Slow { stream, opened: Instant::now(), rest, answer: Vec::new(), ended: None }
    }

    /// Sends a byte, if there is one, and looks whether the server has ended it.
    fn step(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let is_over = |result: io::Result<usize>| match result {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        let mut piece = [0; 1024];
        let read = self.stream.read(&mut piece);
        self.answer.extend_from_slice(&piece[..*read.as_ref().unwrap_or(&0)]);
        let mut over = is_over(read);
        if let Some((byte, rest)) = self.rest.split_first().filter(|_| !over) {
            over = is_over(self.stream.write(&[*byte]));
            self.rest = rest;
        }
        if over {
            self.ended = Some(self.opened.elapsed());
        }
    }
}

/// Has each send its bytes until all are ended; how long that took, the shortest first.
fn step_until_ended(slow: &mut [Slow]) -> Vec<Duration> {
    let began = Instant::now();
    while slow.iter().any(|client| client.ended.is_none()) {
        let left = slow.iter().filter(|client| client.ended.is_none()).count();
        assert!(began.elapsed() < PATIENCE, "{left} of {} slow connections are still open", slow.len());
        slow.iter_mut().for_each(Slow::step);
        thread::sleep(PAUSE);
    }
    let mut times: Vec<Duration> = slow.iter().map(|client| client.ended.expect("all are ended")).collect();
    times.sort();
    times
}

/// Longer than any of them gets: its bytes never end in this test.
const ENDLESS: &[u8] = &[b'x'; 1000];

fn slow_heads(address: SocketAddr, count: usize) -> Vec<Slow> {
    (0..count)
        .map(|_| Slow::open(address, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ", ENDLESS))
        .collect()
}

/// Searches until told to stop, and how long each took, the shortest first.
fn search_until(address: &str, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<Duration> {
    let url = format!("{address}/collections/notes/search");
    let mut took = Vec::new();
    for number in 0.. {
        let began = Instant::now();
        let question = json!({"vector": vector("asked", number), "k": 1});
        let (status, answer) = send("POST", &url, &question).unwrap();
        assert_eq!(status, 200, "a healthy client was refused: {answer}");
        took.push(began.elapsed());
        answered.fetch_add(1, Relaxed);
        if stop.load(Relaxed) {
            break;
        }
    }
    took.sort();
    took
}

fn connections(address: &str) -> f64 {
    let (status, text) = get(&format!("{address}/metrics")).unwrap();
    assert_eq!(status, 200);
    let text = text.as_str().unwrap();
    let line = text.lines().find(|line| line.starts_with("nearfield_http_connections ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_thousand_slow_heads_are_cut_off_and_hinder_nobody() {
    if !has_files() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut server, address) = start(home.path());
    let url = server.address();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let alone = thread::scope(|scope| {
        let searches = scope.spawn(|| search_until(&url, &stop, &answered));
        thread::sleep(ALONE);
        stop.store(true, Relaxed);
        searches.join().unwrap()
    });
    stop.store(false, Relaxed);
    answered.store(0, Relaxed);
    let mut slow = slow_heads(address, SLOW);
    let (times, took, beside) = thread::scope(|scope| {
        let searches = scope.spawn(|| search_until(&url, &stop, &answered));
        slow.iter_mut().for_each(Slow::step);
        let there = connections(&url);
        assert!(there >= SLOW as f64, "{there} connections: the slow ones are not all there");
        let times = step_until_ended(&mut slow);
        let beside = answered.load(Relaxed);
        stop.store(true, Relaxed);
        (times, searches.join().unwrap(), beside)
    });
    for client in &slow {
        let answer = String::from_utf8_lossy(&client.answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    }
    assert!(beside > 0, "no search was answered beside them");
    println!(
        "{SLOW} slow heads: cut off after {:?} to {:?} (limit {LIMIT:?}); {} searches beside them, none refused, \
         half within {:?}, 99 of 100 within {:?} ({:?} and {:?} of {} before they came)",
        times[0],
        times[SLOW - 1],
        took.len(),
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        alone[alone.len() / 2],
        alone[alone.len() * 99 / 100],
        alone.len()
    );
    server.stop();
}

#[test]
fn health_is_told_and_a_stop_obeyed_while_slow_clients_hold_every_connection() {
    if !has_files() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut server, address) = start(home.path());
    let url = server.address();
    let mut slow = slow_heads(address, CONNECTIONS_MAX);
    // Whoever comes after them is told why there is no room, and that the server is well.
    let (status, refused) = get(&format!("{url}/collections")).unwrap();
    assert_eq!((status, &refused["code"]), (503, &json!("connections")), "{refused}");
    for path in ["healthz", "livez", "readyz"] {
        assert_eq!(get(&format!("{url}/{path}")).unwrap().0, 200, "{path}");
    }
    slow.iter_mut().for_each(Slow::step);
    let open = slow.iter().filter(|client| client.ended.is_none()).count();
    assert_eq!(open, CONNECTIONS_MAX, "some were cut off too early to show anything");
    let began = Instant::now();
    server.stop();
    println!("stopped after {:?} with {CONNECTIONS_MAX} slow heads (grace 2 s)", began.elapsed());
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn bodies_that_trickle_or_stand_still_and_answers_nobody_reads_are_given_up() {
    if !has_files() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut server, address) = start(home.path());
    let url = server.address();
    // An answer of some megabytes: far more than the system holds for a client that does not read.
    let text = "a word of many ".repeat(5000);
    for number in 0..200 {
        let document = json!({"text": text, "version": number, "place": vector("slow", number)});
        let (status, answer) =
            send("PUT", &format!("{url}/collections/notes/documents/{number}"), &document).unwrap();
        assert_eq!(status, 201, "{answer}");
    }
    let mut ask = String::new();
    write!(ask, "GET /collections/notes/documents?limit=200 HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let unread: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            stream
        })
        .collect();
    let begun = b"PUT /aliases/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n{";
    let trickle = |client: usize| if client.is_multiple_of(2) { ENDLESS } else { b"" };
    let mut slow: Vec<Slow> = (0..200).map(|client| Slow::open(address, begun, trickle(client))).collect();
    let times = step_until_ended(&mut slow);
    for client in &slow {
        let answer = String::from_utf8_lossy(&client.answer);
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body-timeout"), "{answer:?}");
    }
    println!(
        "100 bodies that trickle and 100 that stand still: answered after {:?} to {:?} (limit {LIMIT:?})",
        times[0], times[199]
    );
    // Only our own connection is left once nobody waits for those that read nothing.
    let began = Instant::now();
    while connections(&url) > 1.0 {
        assert!(began.elapsed() < PATIENCE, "{} connections are still there", connections(&url));
        thread::sleep(PAUSE);
    }
    println!("50 answers nobody reads: given up {:?} after that", began.elapsed());
    drop(unread);
    server.stop();
}
