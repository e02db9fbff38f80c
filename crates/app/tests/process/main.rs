//! The server as a separate process: kills, stops, full disks and hostile clients.
#![cfg(unix)]

mod backups;
mod browser;
mod clocks;
mod connection_flood;
mod disk_full;
mod durability;
mod generated_requests;
#[cfg(target_os = "linux")]
mod huge_bodies;
mod kills;
mod ledger;
mod log_readers;
#[cfg(target_os = "linux")]
mod memory_limit;
mod moved_store;
mod paths;
mod random;
mod secrets;
mod server;
mod slow_clients;
mod stopping;
mod syncs;
mod tools;
#[cfg(target_os = "linux")]
mod unread_responses;
mod writers;
