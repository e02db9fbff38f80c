//! Tests of the engine's public interface: writes are durable, found, filtered and expired.

mod churn;
mod collections;
mod concurrency;
mod crash_storage;
mod damage;
#[allow(dead_code, reason = "the store's tests use the rest")]
#[path = "../../../store/tests/keyspace/disks.rs"]
mod disks;
mod documents;
mod durability;
mod expiry;
mod faults;
mod forks;
mod histories;
mod model;
#[allow(dead_code, reason = "the store's tests use the rest")]
#[path = "../../../store/tests/keyspace/page_damage.rs"]
mod pages;
mod passages;
mod prefixes;
mod reopening;
mod repair;
mod searching;
mod snapshots;
mod stress;
mod test_engine;
#[path = "../../../index/tests/index/timed_run.rs"]
mod timed_run;
mod versions;
