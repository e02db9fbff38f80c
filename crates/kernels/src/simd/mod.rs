//! Arithmetic on slices with the best instruction set of the machine.

pub mod bf16;
pub mod dense;
pub mod distance;
pub mod int8;
mod level;
#[cfg(test)]
mod oracle;

pub use level::{Cpu, Level};
