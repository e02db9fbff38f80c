//! Linear layers in 8-bit integers: weights quantised once, a scale an output; inputs quantised on
//! the way in, a scale and a zero point a row.
//!
//! The sums are integers, and what surrounds them is rounded in the same order everywhere, so results are
//! the same at every [`Level`](super::Level), bit by bit. A row's result depends on its own row alone.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod linear;
mod quantize;
mod scalar;
#[cfg(test)]
mod tests;
mod tile;

pub use linear::{Linear, LinearScratch};
