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
mod output_files;
mod program;
mod pulling;
mod redis;
mod retrieval_fidelity;
mod serving;
mod usage;
