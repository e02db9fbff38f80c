//! Runs the real binary in temporary home directories.

mod articles;
mod backing_up;
mod copying;
mod documents;
mod fake_server;
mod formats;
mod hostile_rows;
mod https;
mod indexing;
mod program;
mod pulling;
#[path = "../real_model/mod.rs"]
mod real_model;
mod redis;
#[path = "../redis_stack/mod.rs"]
mod redis_stack;
mod serving;
mod usage;
