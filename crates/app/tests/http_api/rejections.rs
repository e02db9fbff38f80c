//! Rejections of requests whose body is not read: connections stay usable, or their end is announced.
//!
//! `REJECTIONS` sets the number of requests.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use nearfield::config::{AcceptedKey, ApiKey, Role};
use server::access::{AccessControl, AccessSettings, ApiKeys};
use server::http::HttpSettings;
use server::serve::ConnectionSettings;

use crate::{
    client::{Connection, Response},
    server::Server,
};

const READER: &str = "a-reader-of-the-tests-0123456789";

fn server() -> Server {
    let keys = ApiKeys::new(&[AcceptedKey::new(&ApiKey::new(READER).unwrap(), Role::Read)]);
    let access = AccessSettings { keys, wrong_keys_max: u32::MAX, ..AccessSettings::default() };
    let http = HttpSettings { access: Arc::new(AccessControl::new(access)), ..HttpSettings::default() };
    Server::with(ConnectionSettings { http, ..ConnectionSettings::default() })
}

/// A request that is rejected before its body is read: headers beyond the usual ones, path and status.
const REJECTED: [(&str, &str, u16); 5] = [
    ("", "/collections/kb/documents", 401),
    ("x-api-key: a-reader-of-the-tests-0123456789\r\n", "/collections/kb/documents", 403),
    ("x-api-key: a-reader-of-the-tests-0123456789\r\nx-api-key: b\r\n", "/collections/kb/documents", 400),
    (
        "x-api-key: a-reader-of-the-tests-0123456789\r\norigin: https://evil.example\r\n",
        "/collections/kb/search",
        403,
    ),
    ("x-api-key: a-reader-of-the-tests-0123456789\r\n", "/collections/kb/search", 400),
];

/// Sends a head and a body in two writes, as most clients do, and reads the response.
fn exchange(connection: &mut Connection, number: usize, length: usize) -> io::Result<Response> {
    let (headers, path, _) = REJECTED[number % REJECTED.len()];
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    connection.0.write_all(head.as_bytes())?;
    connection.0.write_all(&vec![b' '; length])?;
    connection.try_read_response()
}

#[test]
fn no_connection_breaks_without_announcement() {
    let rejections = std::env::var("REJECTIONS").map_or(1500, |count| count.parse::<usize>().unwrap());
    let server = server();
    let connect = || {
        let connection = server.connect();
        // Otherwise a body waits for the acknowledgement of its head.
        connection.0.set_nodelay(true).unwrap();
        connection
    };
    let mut connection = connect();
    let (mut connections, mut broken, mut announced) = (1, 0, 0);
    for number in 0..rejections {
        // Some bodies are larger than what a request may have.
        let length = match number % 99 {
            0 => 3 << 20,
            1 => 1 << 20,
            2 => 70 << 10,
            _ => [0, 1, 500, 20_000][number % 4],
        };
        match exchange(&mut connection, number, length) {
            Ok(response) => {
                // Only the last one reads the body.
                let is_too_large = number % REJECTED.len() == REJECTED.len() - 1 && length > 2 << 20;
                let expected = if is_too_large { 413 } else { REJECTED[number % REJECTED.len()].2 };
                assert_eq!(response.status, expected, "{length} bytes: {}", response.text());
                let is_last = response.header("connection") == Some("close");
                if !is_last {
                    continue;
                }
                announced += 1;
                let mut rest = Vec::new();
                let ended = connection.0.read_to_end(&mut rest);
                broken += usize::from(ended.is_err() || !rest.is_empty());
            }
            Err(error) => {
                println!("request {number} with {length} bytes: {error}");
                broken += 1;
            }
        }
        connection = connect();
        connections += 1;
    }
    println!(
        "{rejections} rejections with unread bodies: {broken} broken connections; {announced} ends were announced, \
         {connections} connections"
    );
    assert_eq!(broken, 0);
    assert!(connections < rejections / 10, "{connections} connections: small bodies must not end them");
}

#[test]
fn a_client_that_waits_for_100_continue_is_not_asked_for_a_rejected_body() {
    let server = server();
    let mut connection = server.connect();
    connection.write(
        "POST /collections/kb/documents HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n",
    );
    let response = connection.read_response();
    assert_eq!((response.status, response.header("connection")), (401, Some("close")));
    connection.0.shutdown(Shutdown::Write).unwrap();
    assert!(connection.read_to_end().is_empty());
}

#[test]
fn the_response_to_a_malformed_request_arrives_although_more_is_being_sent() {
    let server = server();
    for start in ["BROKEN\r\n\r\n", "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-long: "] {
        let mut stream: TcpStream = server.connect().0;
        stream.write_all(start.as_bytes()).unwrap();
        let sent = stream.write_all(&vec![b'x'; 2 << 20]);
        assert!(sent.is_ok(), "{start:?}: {sent:?}");
        let mut response = [0; 12];
        stream.read_exact(&mut response).unwrap();
        assert!(matches!(&response[9..], b"400" | b"431"), "{:?}", String::from_utf8_lossy(&response));
    }
}
