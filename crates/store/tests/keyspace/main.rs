//! What the keyspace promises, tested through its public door.

mod agrees_with_maps;
mod disks;
mod failing_disk;
mod model;
mod opening;
mod power_loss;
mod transactions;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use store::Options;

/// A cache so small that pages also leave it before a commit.
const OPTIONS: Options = Options { cache_bytes: 64 << 10 };

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_417),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
