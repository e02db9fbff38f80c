//! Linear layers in 8-bit integers. Weights are quantised once, with a scale per output and group of inputs; inputs are
//! quantised in every call, with a scale and a minimum per row and group.
//!
//! The sums are integers, and the remaining operations are rounded in the same order everywhere, so results are
//! identical at every [`Level`](super::Level), bit by bit. The result of a row depends only on that row.

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

pub use linear::{Int8Linear, Int8LinearScratch};
