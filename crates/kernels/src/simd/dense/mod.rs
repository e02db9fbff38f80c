//! The arithmetic of a transformer's forward pass in single precision: linear layers over packed
//! weights, attention, layer normalisation.
//!
//! A row's result depends only on its own row, or in [`attention`] its own sequence, bit by bit:
//! never on the other rows of the call.

#![allow(unsafe_code)]

mod activation;
mod attention;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
mod erfc;
#[cfg(target_arch = "x86_64")]
mod exponential;
mod layer_norm;
mod linear;
mod panel;
mod scalar;
#[cfg(test)]
mod tests;
mod tile;

pub use activation::{Activation, gelu};
pub use attention::{DenseAttentionScratch, attention};
pub use layer_norm::add_layer_norm;
pub use linear::DenseLinear;

pub(super) use attention::softmax;
pub(super) use panel::{Columns, Lanes, WIDTH, pack_rows_as_columns};
pub(super) use scalar::polynomial_gelu;
pub(super) use tile::{Tile, blocks};

/// Runs a function of the level's module, all of which have the same signature.
macro_rules! dispatch {
    ($cpu:expr, $function:ident($($argument:expr),*)) => {
        match $cpu.level() {
            // SAFETY: a `Cpu` of this level is created only if detection found its instructions.
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx512 => unsafe { super::avx512::$function($($argument),*) },
            // SAFETY: a `Cpu` of this level is created only if detection found its instructions.
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx2 => unsafe { super::avx2::$function($($argument),*) },
            _ => super::scalar::$function($($argument),*),
        }
    };
}
use dispatch;
