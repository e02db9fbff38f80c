//! Tests of the keyspace's guarantees through its public API.

mod backups;
#[allow(dead_code, reason = "the engine's tests use the remaining functions")]
mod disks;
mod histories;
mod io_errors;
mod matches_model;
mod missing_rows;
mod model;
mod opening;
mod page_damage;
mod power_loss;
mod salvage;
mod sample_store;
mod transactions;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use store::Options;

/// A cache so small that pages are also evicted before a commit.
const OPTIONS: Options = Options { cache_bytes: 64 << 10, verify_bytes_max: 0 };

/// Runs `cases` cases, or as many as `PROPTEST_CASES` says for a long run, from a fixed seed.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(20_417), failure_persistence: None, ..default }
}
