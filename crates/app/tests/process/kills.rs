//! What was acknowledged is there after the server was killed at any moment: inserts, updates and
//! deletes from four writers at once (two over HTTP in bulk, one document by document, one `nearfield
//! index`), a collection rebuilt all the while, SIGKILL, start, and a look at everything that is stored.
//!
//! `CHAOS_KILLS=1000 cargo test --release -p nearfield --test process kills -- --nocapture` is the long run;
//! `CHAOS_SEED` repeats one. The data directory of a run that fails is kept.

use std::time::{Duration, Instant};

use crate::{
    ledger::Ledger,
    random::Random,
    server::Server,
    writers::{self, Writer},
};

/// Milliseconds from the start of the writers to the kill.
const LIFE_MS: std::ops::Range<u64> = 50..3000;
/// One kill in so many comes while the server starts.
const EARLY: u64 = 5;
/// Milliseconds from the start of the process to such a kill.
const EARLY_MS: u64 = 150;

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).unwrap_or_else(|_| default.to_string());
    text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number"))
}

#[test]
fn nothing_acknowledged_is_lost_to_kills() {
    let (kills, seed) = (number("CHAOS_KILLS", 10), number("CHAOS_SEED", 0x6e65_6172));
    println!("seed {seed}, {kills} kills");
    let mut random = Random::new(seed);
    // Kept if anything below panics.
    let home = tempfile::Builder::new().prefix("nearfield-chaos-").tempdir().unwrap().keep();
    println!("data in {}", home.display());
    let mut server = Server::start(&home);
    server.wait_until_ready();
    server.make_collection();
    let mut writers: Vec<Writer> = Writer::all(seed);
    let (mut early, mut acknowledged, mut slowest, mut found) = (0, 0, Duration::ZERO, 0);
    for kill in 1..=kills {
        let address = server.address();
        let life_ms = LIFE_MS.start + random.below(LIFE_MS.end - LIFE_MS.start);
        acknowledged += writers::run_until(&mut writers, &address, &home, kill, true, || {
            std::thread::sleep(Duration::from_millis(life_ms));
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
    assert!(acknowledged > kills * 10, "hardly anything was written");
    std::fs::remove_dir_all(&home).unwrap();
}
