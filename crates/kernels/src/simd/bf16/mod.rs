//! Linear layers and attention in bfloat16 with single-precision sums.
//!
//! Without bfloat16 instructions ([`Cpu::has_bf16`](super::Cpu::has_bf16)), linear layers round the same values to
//! bfloat16 and multiply them in single precision, in the order in which the instruction adds. Results are therefore
//! identical at every [`Level`](super::Level), bit by bit, except for sums that are subnormal in single precision (below
//! 1.2e-38). The result of a row depends only on that row, or in [`attention`] on its sequence, bit by bit.

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

pub use attention::{Bf16AttentionScratch, attention};
pub use linear::{Bf16Linear, Bf16LinearScratch};
