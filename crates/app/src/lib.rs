//! Nearfield: text in, the most relevant documents out, in about a millisecond.
//!
//! [`service::Service`] is the whole system as a library; the command line and the server are
//! built on it and nothing else.

pub mod cli;
pub mod config;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod log;
pub mod models;

pub use service;
