//! The server as a process of its own: killed, stopped, on a full disk.
#![cfg(unix)]

mod backups;
mod browser;
mod clocks;
mod disk_full;
mod kills;
mod ledger;
mod paths;
mod random;
mod server;
mod stopping;
mod syncs;
#[path = "../tiny_model/mod.rs"]
mod tiny_model;
mod writers;
