//! A stop under full load: acknowledged writes are durable, others are rejected with an error, and the exit is clean.

use std::time::{Duration, Instant};

use crate::{
    ledger::Ledger,
    random::Random,
    server::Server,
    writers::{self, Writer},
};

/// Maximum duration: ten times the documented limit.
const TIMEOUT: Duration = Duration::from_secs(300);

#[test]
fn a_server_under_load_stops_cleanly() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::start(home.path());
    server.wait_until_ready();
    server.create_collection();
    let mut writers = Writer::all(7);
    let mut acknowledged = 0;
    for round in 0..3 {
        let address = server.address();
        acknowledged += writers::run_until(&mut writers, &address, home.path(), round, false, || {
            std::thread::sleep(Duration::from_millis(400));
            let started = Instant::now();
            server.stop();
            assert!(started.elapsed() < TIMEOUT);
            println!("stopped after {} ms", started.elapsed().as_millis());
        });
        server = Server::start(home.path());
        server.wait_until_ready();
        let ledgers: Vec<&mut Ledger> = writers.iter_mut().map(|writer| &mut writer.ledger).collect();
        server.check(ledgers, &mut Random::new(round));
    }
    assert!(acknowledged > 100, "only {acknowledged} writes were acknowledged");
    // A second signal stops the server immediately.
    server.signal("TERM");
    server.signal("TERM");
    let status = server.wait();
    assert!(status.success() || status.code() == Some(130), "{status}");
}
