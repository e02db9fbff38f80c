//! Readiness, and diagnosis of search latency.

mod doctor;
mod readiness;

pub use doctor::{Diagnosis, Stage};
pub use readiness::Readiness;
