//! Graceful shutdown.

use std::{net::TcpStream, time::Duration};

use server::serve::ConnectionSettings;

use crate::{
    client::Response,
    server::{Server, schema},
};

/// Starts a request with an incomplete body, and waits until the server reads it.
fn start_request(server: &Server) -> crate::client::Connection {
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
fn finishes_requests_in_flight_and_stops_being_ready_immediately() {
    let mut server = Server::start();
    let mut in_flight = start_request(&server);
    let mut idle = server.connect();
    idle.write("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(idle.read_response().status, 200);

    server.request_stop();
    assert!(idle.read_to_end().is_empty(), "idle connections are closed");
    let response = server.get("/readyz");
    assert_eq!(response.status, 503);
    assert_eq!(response.json()["ready"], false);
    server.get("/healthz").ok(200);
    server.get("/collections").problem(503, "connections");

    in_flight.write(schema().to_string());
    let response = Response::parse(&in_flight.read_to_end()).unwrap();
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(response.ok(201)["name"], "late");
    server.wait();
    assert!(TcpStream::connect(server.address).is_err(), "the server no longer listens");
}

#[test]
fn aborts_requests_after_the_grace_period() {
    let mut server = Server::with(ConnectionSettings {
        grace: Duration::from_millis(50),
        ..ConnectionSettings::default()
    });
    let _in_flight = start_request(&server);
    server.request_stop();
    server.wait();
}

#[test]
fn stops_immediately_without_requests() {
    let grace = Duration::from_secs(3600);
    let mut server = Server::with(ConnectionSettings { grace, ..ConnectionSettings::default() });
    server.get("/healthz").ok(200);
    server.request_stop();
    server.wait();
}
