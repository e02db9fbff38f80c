//! Arithmetic on slices, at the best instruction set the machine has.

mod level;

pub use level::{Cpu, Level};
