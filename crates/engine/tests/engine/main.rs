//! The engine from outside: what is written is there, found, filtered, ended and kept.

mod churn;
mod collections;
mod crashing;
mod damage;
#[allow(dead_code, reason = "the store's tests use the rest")]
#[path = "../../../store/tests/keyspace/disks.rs"]
mod disks;
mod documents;
mod durability;
mod expiry;
mod faults;
mod histories;
mod mending;
mod model;
#[allow(dead_code, reason = "the store's tests use the rest")]
#[path = "../../../store/tests/keyspace/pages.rs"]
mod pages;
mod prefixes;
mod reopening;
mod searching;
mod snapshots;
mod stress;
#[path = "../../../index/tests/timed_run/mod.rs"]
mod timed_run;
mod together;
mod versions;
mod world;
