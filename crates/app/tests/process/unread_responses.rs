//! Large responses that clients read slowly or not at all: memory stays within the budget, and others are served.
//!
//! `UNREAD_CONNECTIONS` and `UNREAD_BUDGET_MIB` set the size.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde_json::json;

use crate::server::{Server, agent, mib, send_raw};

const UNREAD_KEY: &str = "a-key-of-clients-that-do-not-read";
const OTHER_KEY: &str = "a-key-of-clients-that-do-read";
const ADMIN_KEY: &str = "an-admin-key-for-unread-responses";
/// The smallest budget that can be set, in MiB.
const BUDGET_MIB_MIN: u64 = 64;
/// A page has at most 16 MiB of documents. As JSON their control characters take six times as much.
const DOCUMENTS: usize = 20;
const DOCUMENT_BYTES: usize = 1 << 20;
const PAGE: &str = "/collections/things/documents?limit=1000";
/// How long a response may stay unread.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(300);

fn size(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

fn start(home: &std::path::Path, budget_mib: u64) -> Server {
    let keys = [(ADMIN_KEY, "admin"), (UNREAD_KEY, "read"), (OTHER_KEY, "read")];
    let keys = keys.map(|(key, role)| format!("[[keys]]\nkey = \"{key}\"\nrole = \"{role}\"\n")).concat();
    std::fs::write(home.join("nearfield.toml"), keys).unwrap();
    let (budget, timeout) = (budget_mib.to_string(), UNREAD_TIMEOUT.as_millis().to_string());
    let variables = [
        ("NEARFIELD_RESPONSE_MEMORY_MIB", budget.as_str()),
        ("NEARFIELD_BODY_TIMEOUT_MS", timeout.as_str()),
        ("NEARFIELD_CONNECTIONS_MAX", "2048"),
        ("NEARFIELD_GRACE_S", "2"),
    ];
    let mut server = Server::start_with(home, &[], &variables);
    server.wait_until_ready();
    server
}

fn request(server: &Server, method: &str, path: &str, key: &str, body: String) -> (u16, Vec<u8>) {
    let headers = [("content-type", "application/json"), ("x-api-key", key)];
    send_raw(&agent(), method, &format!("{}{path}", server.address()), &headers, body).unwrap()
}

/// How many requests for a page were answered so far.
fn answered(server: &Server) -> u64 {
    let (status, metrics) = request(server, "GET", "/metrics", OTHER_KEY, String::new());
    assert_eq!(status, 200);
    let metrics = String::from_utf8(metrics).unwrap();
    let pages = metrics.lines().filter(|line| {
        line.starts_with("nearfield_http_requests_total") && line.contains("/collections/{c}/documents\"")
    });
    pages.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn memory_stays_within_the_budget_while_large_responses_are_unread() {
    let connections = size("UNREAD_CONNECTIONS", 100);
    let budget_mib = size("UNREAD_BUDGET_MIB", BUDGET_MIB_MIN);
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path(), budget_mib);
    let schema = json!({"fields": [{"name": "text", "kind": "text"}]}).to_string();
    assert_eq!(request(&server, "PUT", "/collections/things", ADMIN_KEY, schema).0, 201);
    let text = base64::prelude::BASE64_STANDARD.encode(vec![1; DOCUMENT_BYTES]);
    for number in 0..DOCUMENTS {
        let path = format!("/collections/things/documents/{number}");
        let document = json!({"text": {"base64": text}}).to_string();
        assert_eq!(request(&server, "PUT", &path, ADMIN_KEY, document).0, 201);
    }
    // What loading left behind is not part of the idle value.
    server.stop();
    let mut server = start(home.path(), budget_mib);
    let (idle, before) = (server.memory("VmRSS:"), answered(&server));

    let address = server.address();
    let address = address.trim_start_matches("http://");
    let mut unread: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!("GET {PAGE} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {UNREAD_KEY}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    while answered(&server) < before + connections {
        assert!(began.elapsed() < TIMEOUT, "only {} are answered", answered(&server) - before);
        thread::sleep(Duration::from_millis(50));
    }
    let took = began.elapsed();
    // A caller that reads gets its page and its documents meanwhile.
    let (status, page) = request(&server, "GET", PAGE, OTHER_KEY, String::new());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&page[..page.len().min(500)]));
    assert!(page.len() > 6 * 15 * DOCUMENT_BYTES, "{} bytes", page.len());
    let small = "/collections/things/count";
    for key in [OTHER_KEY, UNREAD_KEY] {
        assert_eq!(request(&server, "GET", small, key, String::new()).0, 200, "a small response");
    }
    let peak = server.memory("VmHWM:");

    // Clients that read slowly are cut off as well.
    let mut statuses = (0, 0);
    for stream in &mut unread {
        let mut head = [0; 12];
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.read_exact(&mut head).unwrap();
        match &head {
            b"HTTP/1.1 200" => statuses.0 += 1,
            b"HTTP/1.1 503" => statuses.1 += 1,
            other => panic!("{:?}", String::from_utf8_lossy(other)),
        }
    }
    let (sent, rejected) = statuses;
    let bound = idle + 3 * idle / 10 + (budget_mib << 20);
    println!(
        "{connections} connections that request {} MiB of JSON each and do not read it: {sent} answered, {rejected} \
         rejected within {took:.1?}; memory {:.0} MiB idle, {:.0} MiB at its highest, {:.0} MiB allowed (budget \
         {budget_mib} MiB)",
        page.len() >> 20,
        mib(idle),
        mib(peak),
        mib(bound),
    );
    assert!(sent > 0 && rejected > 0, "the budget was not reached");
    assert!(peak <= bound, "memory was {peak} bytes, {bound} are allowed");

    // All of these are cut off, whether they read nothing or a little.
    let began = Instant::now();
    let slow = unread.len().min(10);
    thread::scope(|scope| {
        for stream in &mut unread[..slow] {
            scope.spawn(move || {
                let mut piece = [0; 8 << 10];
                while began.elapsed() < TIMEOUT && stream.read(&mut piece).is_ok_and(|count| count > 0) {
                    if began.elapsed() > UNREAD_TIMEOUT + Duration::from_secs(10) {
                        // What the systems have buffered is all that is left.
                        break;
                    }
                    thread::sleep(Duration::from_secs(1));
                }
            });
        }
    });
    let (status, metrics) = request(&server, "GET", "/metrics", OTHER_KEY, String::new());
    assert_eq!(status, 200);
    let metrics = String::from_utf8(metrics).unwrap();
    let reserved = metrics.lines().find(|line| line.starts_with("nearfield_response_memory_bytes ")).unwrap();
    assert_eq!(
        reserved.rsplit(' ').next(),
        Some("0"),
        "slow readers hold memory after {:?}",
        began.elapsed()
    );
    drop(unread);
    server.stop();
}
