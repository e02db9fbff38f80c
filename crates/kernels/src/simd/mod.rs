//! Arithmetic on slices, at the best instruction set the machine has.

pub mod dense;
pub mod distance;
mod level;

pub use level::{Cpu, Level};
