//! Nearfield: text in, the most relevant documents out, in about a millisecond.
//!
//! [`service::Service`] is the whole system as a library: the binary's doors (HTTP and command
//! line) are built on it and nothing else.

pub mod cli;
pub mod config;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod http;
pub mod models;
pub mod serve;
pub mod service;
pub mod ui;
