//! Limits on clients: time, connections, bytes.

use std::{io::Write, net::TcpStream, time::Duration};

use server::http::HttpSettings;
use server::serve::ConnectionSettings;

use crate::{
    client::{Connection, Response, request},
    server::{ARTICLES, Server, schema},
};

#[test]
fn closes_connections_without_a_complete_head() {
    let (header_timeout, idle_timeout) = (Duration::from_millis(50), Duration::from_millis(100));
    let server =
        Server::with(ConnectionSettings { header_timeout, idle_timeout, ..ConnectionSettings::default() });
    // No bytes, half a line and half a head are all cut off.
    for start_request in ["", "GET /heal", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut connection = server.connect();
        connection.write(start_request);
        let rest = connection.read_to_end();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
    }
    // An idle connection is also closed after a response.
    let mut connection = server.connect();
    connection.write("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(connection.read_response().status, 200);
    assert!(connection.read_to_end().is_empty());
}

#[test]
fn the_idle_timeout_is_independent_of_the_head_timeout() {
    let (header_timeout, idle_timeout) = (Duration::from_millis(50), Duration::from_secs(600));
    let server =
        Server::with(ConnectionSettings { header_timeout, idle_timeout, ..ConnectionSettings::default() });
    let mut connection = server.connect();
    for _ in 0..3 {
        connection.write("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
        assert_eq!(connection.read_response().status, 200);
        std::thread::sleep(header_timeout * 4);
    }
    // The head timeout starts with the first byte.
    connection.write("G");
    assert!(connection.read_to_end().is_empty());
}

#[test]
fn a_stalled_body_gets_408() {
    let http = HttpSettings { body_timeout: Duration::from_millis(50), ..HttpSettings::default() };
    let server = Server::with(ConnectionSettings { http, ..ConnectionSettings::default() });
    let mut connection = server.connect();
    connection.write(
        "PUT /aliases/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"co",
    );
    Response::parse(&connection.read_to_end()).unwrap().problem(408, "body-timeout");
}

#[test]
fn a_body_that_is_sent_too_slowly_gets_408() {
    let body_timeout = Duration::from_millis(200);
    let http = HttpSettings { body_timeout, ..HttpSettings::default() };
    let server = Server::with(ConnectionSettings { http, ..ConnectionSettings::default() });
    let mut connection = server.connect();
    connection.write(
        "PUT /aliases/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
    );
    let mut sending = connection.0.try_clone().unwrap();
    // Ends when the connection is closed, or with the body, which gets 400.
    let trickle = std::thread::spawn(move || {
        for _ in 1..1000 {
            std::thread::sleep(body_timeout / 20);
            if sending.write_all(b" ").is_err() {
                break;
            }
        }
    });
    connection.read_response().problem(408, "body-timeout");
    trickle.join().unwrap();
}

#[test]
fn accepts_lines_with_pauses_between_them() {
    let (body_timeout, pause) = (Duration::from_secs(4), Duration::from_millis(800));
    let http = HttpSettings { body_timeout, ..HttpSettings::default() };
    let server = Server::with(ConnectionSettings { http, ..ConnectionSettings::default() });
    server.put("/collections/kb", &schema()).ok(201);
    let lines = (0..7).map(|id| format!("{{\"id\":\"{id}\",\"title\":\"t\"}}\n"));
    let length: usize = lines.clone().map(|line| line.len()).sum();
    let mut connection = server.connect();
    connection.write(format!(
        "POST /collections/kb/documents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
    ));
    for line in lines {
        connection.write(&line);
        std::thread::sleep(pause);
    }
    let results = connection.read_response().ok(200);
    assert_eq!(results["created"], 7, "{results}");
}

#[test]
fn limits_the_size_of_heads_and_targets() {
    let server = Server::start();
    let url = format!("/search?q={}", "a".repeat(9000));
    server.get(&url).problem(414, "url-length");
    server.get(&format!("/search?q={}", "a".repeat(8000))).ok(200);
    let headers: Vec<(String, String)> = (0..110).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(server.send("GET", "/healthz", &headers, b"").status, 431);
    let long = "y".repeat(1 << 20);
    let mut connection = server.connect();
    // The server may close the connection before everything is written.
    let _ = connection.0.write_all(&request("GET", "/healthz", &[("x-long", &long)], b""));
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(&mut connection.0, &mut bytes);
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&bytes));
    server.get("/healthz").ok(200);
}

#[test]
fn rejects_requests_that_are_not_http() {
    let server = Server::start();
    for garbage in
        ["\r\n\r\n\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\0\x01\0"]
    {
        let mut connection = server.connect();
        connection.write(garbage);
        connection.0.shutdown(std::net::Shutdown::Write).unwrap();
        let rest = connection.read_to_end();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"),
            "{garbage:?}: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
    let request_with_two_lengths = "POST /collections/kb/delete HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n";
    let mut connection = server.connect();
    connection.write(request_with_two_lengths);
    assert!(connection.read_to_end().starts_with(b"HTTP/1.1 400"));
    server.get("/healthz").ok(200);
}

/// An open connection that has received a response to more than a health check, so that it is not closed for others.
fn connect_and_get_response(server: &Server) -> Connection {
    let mut connection = server.connect();
    connection.write("GET /collections HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(connection.read_response().status, 200);
    connection
}

#[test]
fn a_server_at_its_connection_limit_still_reports_health() {
    let server = Server::with(ConnectionSettings { connections_max: 2, ..ConnectionSettings::default() });
    let mut first = connect_and_get_response(&server);
    let _second = connect_and_get_response(&server);
    let rejected = server.get("/collections");
    assert_eq!(rejected.header("retry-after"), Some("1"));
    assert_eq!(rejected.header("connection"), Some("close"));
    rejected.problem(503, "connections");
    for health in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(server.get(health).status, 200, "{health}");
    }
    first.write("GET /collections HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(first.read_response().status, 200, "the accepted connection is served");
}

#[test]
fn rejects_connections_beyond_the_headroom_immediately() {
    let server = Server::with(ConnectionSettings { connections_max: 1, ..ConnectionSettings::default() });
    let _served = connect_and_get_response(&server);
    // More silent connections than the headroom allows. The server closes them after two seconds; on a busy machine,
    // the next connection may come after that, so the test tries several times.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.extend((0..64).map(|_| server.connect()));
        let response = server.connect().read_to_end();
        if response.starts_with(b"HTTP/1.1 503") {
            let response = Response::parse(&response).unwrap();
            assert_eq!(response.header("retry-after"), Some("1"));
            assert_eq!(response.header("connection"), Some("close"));
            response.problem(503, "connections");
            return;
        }
    }
    panic!("no connection was rejected");
}

#[test]
fn responds_in_order_to_requests_on_one_connection() {
    let server = Server::with_articles();
    let mut connection = server.connect();
    assert!(TcpStream::nodelay(&connection.0).is_ok());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let article = |number: usize| format!("{} {}", ARTICLES[number].1, ARTICLES[number].2).replace(' ', "+");
    let search = |number: usize| get(&format!("/search?k=1&q={}", article(number)));
    connection.write(search(3) + &get("/nowhere") + &search(0));
    assert_eq!(connection.read_response().json()["results"][0]["id"], "kb-4");
    connection.read_response().problem(404, "path-not-found");
    assert_eq!(connection.read_response().json()["results"][0]["id"], "kb-1");
}

#[test]
fn an_idle_connection_for_health_checks_gives_way_to_a_new_one() {
    let server = Server::with(ConnectionSettings { connections_max: 2, ..ConnectionSettings::default() });
    let mut kept = connect_and_get_response(&server);
    let mut idle = server.connect();
    idle.write("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(idle.read_response().status, 200);
    server.get("/collections").ok(200);
    assert!(idle.read_to_end().is_empty());
    kept.write("GET /collections HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(kept.read_response().status, 200);
}
