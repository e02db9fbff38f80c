//! Constants of the exponential function within the softmax.

/// Coefficients of `e^r = Σ cᵢ rⁱ` for `|r| <= ½ ln 2`: the minimax polynomial of that degree with
/// `c₀ = c₁ = 1` (found by the Remez exchange), relative error 4e-9 before rounding. With
/// `x = n ln 2 + r`, `e^x = 2ⁿ e^r`. The kernels need it for `x <= 0` only and are there
/// within 3e-7 of the value, relatively, down to [`EXP_MIN`].
pub(super) const EXP: [f32; 7] =
    [1.0, 1.0, 0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_72, 0.001_381_46];
/// Below this the result stays at its value here, about the smallest normal number.
pub(super) const EXP_MIN: f32 = -87.3;
/// The leading bits of ln 2, few enough for `n * LN_2_HIGH` to be exact (Cody and Waite 1980).
pub(super) const LN_2_HIGH: f32 = 0.693_359_4;
/// ln 2 less [`LN_2_HIGH`].
pub(super) const LN_2_LOW: f32 = -2.121_944_4e-4;
