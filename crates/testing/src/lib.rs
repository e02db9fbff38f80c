//! Test support shared by several crates: a generated model of a few kilobytes, the installed default model, real
//! Redis servers and clusters, and a guard that stops threads.
//!
//! It depends on no other crate of the workspace, so that the unit tests of each of them can use it.

pub mod real_model;
pub mod redis_cluster;
pub mod redis_stack;
pub mod requirement;
pub mod stop_on_drop;
pub mod tiny_model;
