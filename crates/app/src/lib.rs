//! Nearfield: real-time semantic search.
//!
//! [`service::Service`] is the whole system as a library. The command line and the server are built on it.

pub mod cli;
pub mod config;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod log;
pub mod models;
mod stderr;

pub use service;
