//! Constants of the complementary error function, which GELU is computed from.

/// Coefficients of the complementary error function, `erfc(a) = t(c₀ + t(c₁ + …)) e^(-a²)` with
/// `t = 1 / (1 + ERFC_P a)`, `a >= 0`, absolute error at most 1.5e-7: Abramowitz and Stegun,
/// Handbook of Mathematical Functions, 7.1.26.
pub(super) const ERFC: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
/// The `p` of [`ERFC`].
pub(super) const ERFC_P: f32 = 0.327_591_1;
/// Beyond this, GELU differs from `max(x, 0)` by nothing that single precision can hold.
pub(super) const GELU_TAIL_MAX: f32 = 14.0;
