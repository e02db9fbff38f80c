//! The server as a process of its own: killed, stopped, on a full disk.
#![cfg(unix)]

mod disk_full;
mod kills;
mod ledger;
mod random;
mod server;
mod stopping;
mod syncs;
mod writers;
