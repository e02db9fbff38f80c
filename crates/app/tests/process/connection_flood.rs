//! Clients without a key that open more connections than the server takes: a key holder is served.
//!
//! `FLOOD_CONNECTIONS` sets the number of connections.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use testing::stop_on_drop::StopOnDrop;

use crate::server::{Server, agent, send_raw};

const KEY: &str = "a-key-of-a-caller-beside-a-flood";
/// Requests of the key holder, each on a new connection.
const REQUESTS: usize = 300;
/// Time between two requests on a connection of the flood.
const PAUSE: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a connection of the flood does.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Requests `/healthz` now and then.
    Health,
    /// Sends a head without an end.
    SlowHeads,
    /// Requests the page and reads nothing.
    UnreadPages,
}

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
const HEAD: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
const PAGES: &[u8] = b"GET /app.js HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Keeps `count` connections open until told to stop; returns how often one was opened.
fn flood(address: SocketAddr, kind: Flood, count: usize, stop: &AtomicBool, is_up: &AtomicUsize) -> usize {
    let open = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_nonblocking(true).ok()?;
        // A connection that is closed already is opened again in the next round.
        let _ = match kind {
            Flood::Health => stream.write(REQUEST),
            Flood::SlowHeads => stream.write(HEAD),
            Flood::UnreadPages => stream.write(&PAGES.repeat(100)),
        };
        Some(stream)
    };
    let mut opened = count;
    let mut connections: Vec<Option<TcpStream>> = (0..count).map(|_| open()).collect();
    is_up.fetch_add(1, Relaxed);
    let mut piece = [0; 4096];
    while !stop.load(Relaxed) {
        for connection in &mut connections {
            let is_closed = connection.as_mut().is_none_or(|stream| match kind {
                Flood::UnreadPages => stream.take_error().is_ok_and(|error| error.is_some()),
                Flood::Health | Flood::SlowHeads => match stream.read(&mut piece) {
                    Ok(0) => true,
                    Ok(_) => false,
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                },
            });
            if is_closed {
                *connection = open();
                opened += 1;
            } else if let Some(stream) = connection {
                let _ = match kind {
                    Flood::Health => stream.write(REQUEST),
                    Flood::SlowHeads => stream.write(b"x"),
                    Flood::UnreadPages => Ok(0),
                };
            }
        }
        thread::sleep(PAUSE);
    }
    opened
}

#[test]
fn a_key_holder_is_served_during_a_flood_of_connections_without_a_key() {
    let flooding = std::env::var("FLOOD_CONNECTIONS").map_or(150, |count| count.parse::<usize>().unwrap());
    // The flood alone exceeds the limit.
    let connections_max = (flooding * 4 / 5).to_string();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("nearfield.toml"), format!("api_key = \"{KEY}\"\n")).unwrap();
    let variables = [("NEARFIELD_CONNECTIONS_MAX", connections_max.as_str()), ("NEARFIELD_GRACE_S", "2")];
    let mut server = Server::start_with(home.path(), &[], &variables);
    server.wait_until_ready();
    let url = server.address();
    let address: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
    for kind in [Flood::Health, Flood::SlowHeads, Flood::UnreadPages] {
        let (stop, is_up) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (opened, succeeded, slowest, kept) = thread::scope(|scope| {
            let stop_flood = StopOnDrop(&stop);
            let flood = scope.spawn(|| flood(address, kind, flooding, &stop, &is_up));
            // One connection of the key holder stays open throughout.
            let keeping = agent();
            let request = |agent: &ureq::Agent| {
                let headers = [("x-api-key", KEY)];
                send_raw(agent, "GET", &format!("{url}/stats"), &headers, String::new())
                    .is_ok_and(|(status, _)| status == 200)
            };
            assert!(request(&keeping));
            let began = Instant::now();
            while is_up.load(Relaxed) == 0 && began.elapsed() < TIMEOUT {
                thread::sleep(Duration::from_millis(10));
            }
            let (mut succeeded, mut kept, mut slowest) = (0, 0, Duration::ZERO);
            for _ in 0..REQUESTS {
                let began = Instant::now();
                succeeded += usize::from(request(&agent()));
                slowest = slowest.max(began.elapsed());
                kept += usize::from(request(&keeping));
                thread::sleep(Duration::from_millis(5));
            }
            drop(stop_flood);
            (flood.join().unwrap(), succeeded, slowest, kept)
        });
        println!(
            "{kind:?}, {flooding} connections ({connections_max} allowed, {opened} opened): {succeeded} of {REQUESTS} requests \
             of a key holder on new connections succeeded, {kept} on a kept one; slowest {slowest:.1?}"
        );
        assert!(succeeded * 100 >= REQUESTS * 99, "{kind:?}: {succeeded} of {REQUESTS}");
        assert!(kept * 100 >= REQUESTS * 99, "{kind:?}: {kept} of {REQUESTS} on a kept connection");
    }
    server.stop();
}
