//! What the service says about itself: whether it is ready, and where the time of searches goes.

mod doctor;
mod readiness;

pub use doctor::{Diagnosis, Stage};
pub use readiness::Readiness;
