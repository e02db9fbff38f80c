//! Linear layers and attention in bfloat16 with single-precision sums.
//!
//! Without the instruction for it ([`Cpu::has_bf16`](super::Cpu::has_bf16)) linear layers round the
//! same values to bfloat16 and multiply them in single precision, in the order in which the instruction
//! adds. So results are the same at every [`Level`](super::Level), bit by bit, but for sums so small that
//! single precision has no normal number for them (below 1.2e-38). A row's result depends only on its own row, or in [`attention`] its own
//! sequence, bit by bit.

#![allow(unsafe_code)]

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod linear;
mod pairing;
mod round;
mod scalar;
#[cfg(test)]
mod tests;
mod tile;

pub use attention::{AttentionScratch, attention};
pub use linear::{Linear, LinearScratch};
