//! What the keyspace promises, tested through its public door.

mod agrees_with_maps;
mod backups;
mod damaged;
#[allow(dead_code, reason = "the engine's tests use the rest")]
mod disks;
mod failing_disk;
mod missing;
mod model;
mod opening;
mod pages;
mod power_loss;
mod repairing;
mod transactions;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use store::Options;

/// A cache so small that pages also leave it before a commit.
const OPTIONS: Options = Options { cache_bytes: 64 << 10, verify_bytes_max: 0 };

/// As many cases as said, or as `PROPTEST_CASES` says for a long run; always from the same seed.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(20_417), failure_persistence: None, ..default }
}
