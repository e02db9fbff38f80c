//! The graceful stop.

use std::{net::TcpStream, time::Duration};

use server::serve::ConnectionSettings;

use crate::{
    client::Reply,
    server::{Server, schema},
};

/// Begins a request whose body is not complete, and waits until the server is reading it.
fn begun(server: &Server) -> crate::client::Connection {
    let mut connection = server.connect();
    let body = schema().to_string();
    connection.write(format!(
        "PUT /collections/late HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(connection.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    connection
}

#[test]
fn requests_in_flight_finish_and_readiness_ends_at_once() {
    let mut server = Server::start();
    let mut in_flight = begun(&server);
    let mut idle = server.connect();
    idle.write("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(idle.reply().status, 200);

    server.ask_to_stop();
    assert!(idle.rest().is_empty(), "idle connections are closed");
    let reply = server.get("/readyz");
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["ready"], false);
    server.get("/healthz").ok(200);
    server.get("/collections").problem(503, "connections");

    in_flight.write(schema().to_string());
    let reply = Reply::parse(&in_flight.rest()).unwrap();
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.ok(201)["name"], "late");
    server.wait();
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn the_grace_ends() {
    let mut server = Server::with(ConnectionSettings {
        grace: Duration::from_millis(50),
        ..ConnectionSettings::default()
    });
    let _in_flight = begun(&server);
    server.ask_to_stop();
    server.wait();
}

#[test]
fn a_server_without_requests_stops_at_once() {
    let grace = Duration::from_secs(3600);
    let mut server = Server::with(ConnectionSettings { grace, ..ConnectionSettings::default() });
    server.get("/healthz").ok(200);
    server.ask_to_stop();
    server.wait();
}
