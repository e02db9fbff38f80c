//! Constants of the elementary functions, shared by the kernels of every level.

/// Coefficients of `e^r = Σ cᵢ rⁱ` for `|r| <= ½ ln 2`: the minimax polynomial of that degree with
/// `c₀ = c₁ = 1` (found by the Remez exchange), relative error 4e-9 before rounding. With
/// `x = n ln 2 + r`, `e^x = 2ⁿ e^r`. The vector kernels need it for `x <= 0` only and are there
/// within 3e-7 of the value, relatively, down to [`EXP_MIN`].
pub(super) const EXP: [f32; 7] =
    [1.0, 1.0, 0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_72, 0.001_381_46];
/// Below this the result stays at its value here, about the smallest normal number.
pub(super) const EXP_MIN: f32 = -87.3;
/// The leading bits of ln 2, few enough for `n * LN_2_HIGH` to be exact (Cody and Waite 1980).
pub(super) const LN_2_HIGH: f32 = 0.693_359_4;
/// ln 2 less [`LN_2_HIGH`].
pub(super) const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Coefficients of the complementary error function, `erfc(a) = t(c₀ + t(c₁ + …)) e^(-a²)` with
/// `t = 1 / (1 + ERFC_P a)`, `a >= 0`, absolute error at most 1.5e-7: Abramowitz and Stegun,
/// Handbook of Mathematical Functions, 7.1.26.
pub(super) const ERFC: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
/// The `p` of [`ERFC`].
pub(super) const ERFC_P: f32 = 0.327_591_1;
/// Beyond this, GELU differs from `max(x, 0)` by nothing that single precision can hold.
pub(super) const GELU_TAIL_MAX: f32 = 14.0;
