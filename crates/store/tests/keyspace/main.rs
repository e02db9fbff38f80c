//! What the keyspace promises, tested through its public door.

mod agrees_with_maps;
mod disks;
mod model;
