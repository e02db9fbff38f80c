//! The server as a process of its own: killed, stopped, on a full disk.
#![cfg(unix)]

mod disk_full;
mod generated_requests;
#[cfg(target_os = "linux")]
mod huge_bodies;
mod kills;
mod ledger;
mod random;
#[path = "../real_model/mod.rs"]
mod real_model;
mod server;
mod slow_clients;
mod stopping;
mod syncs;
mod writers;
