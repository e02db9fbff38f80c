//! Activation functions.

use super::dispatch;
use crate::simd::Cpu;

/// The function applied to each value of the input of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    Identity,
    /// `x Φ(x)`, the exact form of GELU (Hendrycks and Gimpel 2016), from the polynomial
    /// `POLYNOMIAL_GELU`, within `3e-5 + 5e-6 |x|`: less than the rounding of its result to 8 or 16 bits.
    Gelu,
}

/// `x Φ(x)`, the exact (erf) form of GELU (Hendrycks and Gimpel 2016), of each value, within
/// `2e-7 * max(1, |x|)`.
pub fn gelu(cpu: Cpu, x: &mut [f32]) {
    dispatch!(cpu, gelu_all(x))
}

/// `Φ(x) = ½ + x Σ cᵢ x²ⁱ` for `|x| <= POLYNOMIAL_GELU_MAX`, beyond which it is 0 or 1: the minimax
/// polynomial for `x Φ(x)`, maximum error 2.5e-5 before rounding (found by iterated weighted
/// least squares).
pub(super) const POLYNOMIAL_GELU: [f32; 9] = [
    0.398_761_6,
    -0.066_076_43,
    0.009_643_028,
    -0.001_054_992_6,
    8.429_303e-5,
    -4.724_869e-6,
    1.740_847_8e-7,
    -3.754_050_4e-9,
    3.569_430_5e-11,
];
/// The end of the range of `POLYNOMIAL_GELU`.
pub(super) const POLYNOMIAL_GELU_MAX: f32 = 4.4;
