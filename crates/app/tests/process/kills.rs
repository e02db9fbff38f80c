//! Acknowledged writes survive SIGKILL at any moment. Four concurrent writers insert, update and delete
//! (two in batches over HTTP, one document by document, one with `nearfield index`) while the collection is
//! rebuilt repeatedly; after SIGKILL and a start, everything stored is checked.
//!
//! `CHAOS_KILLS=1000 cargo test --release -p nearfield --test process kills -- --nocapture` is the long run;
//! `CHAOS_SEED` repeats a run. The data directory of a failed run is kept.

use std::time::{Duration, Instant};

use crate::{
    ledger::Ledger,
    random::Random,
    server::Server,
    writers::{self, Writer},
};

/// Milliseconds from the start of the writers to the kill.
const RUN_MS: std::ops::Range<u64> = 50..3000;
/// One in this many kills happens during a start.
const EARLY: u64 = 5;
/// Maximum milliseconds from the start of the process to such a kill.
const EARLY_MS: u64 = 150;

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).unwrap_or_else(|_| default.to_string());
    text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number"))
}

#[test]
fn acknowledged_writes_survive_kills() {
    let (kills, seed) = (number("CHAOS_KILLS", 10), number("CHAOS_SEED", 0x6e65_6172));
    println!("seed {seed}, {kills} kills");
    let mut random = Random::new(seed);
    // Kept if the test fails.
    let home = tempfile::Builder::new().prefix("nearfield-chaos-").tempdir().unwrap().keep();
    println!("data in {}", home.display());
    let mut server = Server::start(&home);
    server.wait_until_ready();
    server.create_collection();
    let mut writers: Vec<Writer> = Writer::all(seed);
    let (mut early, mut acknowledged, mut slowest, mut found) = (0, 0, Duration::ZERO, 0);
    for kill in 1..=kills {
        let address = server.address();
        let run_ms = RUN_MS.start + random.below(RUN_MS.end - RUN_MS.start);
        acknowledged += writers::run_until(&mut writers, &address, &home, kill, true, || {
            std::thread::sleep(Duration::from_millis(run_ms));
            server.kill();
        });
        if random.below(EARLY) == 0 {
            early += 1;
            let mut starting = Server::start(&home);
            std::thread::sleep(Duration::from_micros(random.below(EARLY_MS * 1000)));
            starting.kill();
        }
        let started = Instant::now();
        server = Server::start(&home);
        server.wait_until_ready();
        slowest = slowest.max(started.elapsed());
        let ledgers: Vec<&mut Ledger> = writers.iter_mut().map(|writer| &mut writer.ledger).collect();
        found = server.check(ledgers, &mut random);
        if kill % 50 == 0 {
            println!("{kill} kills, {acknowledged} writes acknowledged, {found} documents");
        }
    }
    server.stop();
    server = Server::start(&home);
    server.wait_until_ready();
    server.check(writers.iter_mut().map(|writer| &mut writer.ledger).collect(), &mut random);
    server.stop();
    println!(
        "{kills} kills and {early} while starting: {acknowledged} writes acknowledged, 0 lost, 0 torn, 0 deletes \
         undone; {found} documents at the end; slowest start {} ms; seed {seed}",
        slowest.as_millis()
    );
    assert!(acknowledged > kills * 10, "too few writes were acknowledged");
    std::fs::remove_dir_all(&home).unwrap();
}
