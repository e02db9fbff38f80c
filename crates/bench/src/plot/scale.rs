//! How values become places on an axis.

/// Marks of an axis of shares near one.
const NINES: [f64; 14] =
    [0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];
/// Marks on a straight axis, about.
const MARKS: f64 = 6.0;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Straight, from zero.
    Linear,
    /// By the logarithm.
    Log,
    /// By the logarithm of what is missing to one: .9, .99 and .999 stand equally far apart.
    Nines,
}

impl Scale {
    /// Where a value stands; not finite if it has no place.
    pub(super) fn position(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.ln(),
            Scale::Nines => -(1.0 - value).ln(),
        }
    }

    /// An interval of round numbers around one of values.
    pub(super) fn around(self, low: f64, high: f64) -> (f64, f64) {
        match self {
            Scale::Linear => {
                let step = step(high);
                (0.0, (high / step).ceil().max(1.0) * step)
            }
            Scale::Log => {
                let (below, above) = (round_below(low), round_above(high));
                if below < above { (below, above) } else { (below / 2.0, above * 2.0) }
            }
            Scale::Nines => {
                let below = NINES.iter().rev().find(|mark| **mark <= low).copied().unwrap_or(0.0);
                let above = NINES.iter().find(|mark| **mark >= high && **mark > below).copied();
                (below, above.unwrap_or(0.99999))
            }
        }
    }

    /// The values to mark, ends included where they are round.
    pub(super) fn ticks(self, low: f64, high: f64) -> Vec<f64> {
        let is_within = |value: &f64| low * (1.0 - 1e-9) <= *value && *value <= high * (1.0 + 1e-9);
        match self {
            Scale::Linear => {
                let step = step(high);
                (0..).map(|number| f64::from(number) * step).take_while(|value| is_within(value)).collect()
            }
            Scale::Log => {
                let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
                (first..=last)
                    .flat_map(|exponent| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(exponent)))
                    .filter(is_within)
                    .collect()
            }
            Scale::Nines => NINES.into_iter().filter(is_within).collect(),
        }
    }
}

/// The distance of marks up to `high`: 1, 2 or 5 times a power of ten.
fn step(high: f64) -> f64 {
    round_above((high / MARKS).max(1e-9))
}

/// 1, 2, 5 and 10 times the power of ten at or below a positive value.
fn digits(value: f64) -> [f64; 4] {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power)
}

/// The largest of 1, 2, 5 times a power of ten that is not above a positive value.
fn round_below(value: f64) -> f64 {
    let digits = digits(value);
    digits.into_iter().rev().find(|round| *round <= value * (1.0 + 1e-9)).unwrap_or(digits[0])
}

/// The smallest of 1, 2, 5 times a power of ten that is not below a positive value.
fn round_above(value: f64) -> f64 {
    let digits = digits(value);
    digits.into_iter().find(|round| *round >= value * (1.0 - 1e-9)).unwrap_or(digits[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_is_marked_at_1_2_and_5() {
        assert_eq!(Scale::Log.around(730.0, 31_000.0), (500.0, 50_000.0));
        assert_eq!(
            Scale::Log.ticks(500.0, 50_000.0),
            [500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 50_000.0]
        );
        assert_eq!(Scale::Log.around(100.0, 100.0), (50.0, 200.0));
        assert!(!Scale::Log.position(0.0).is_finite());
    }

    #[test]
    fn a_straight_axis_begins_at_zero() {
        assert_eq!(Scale::Linear.around(17.0, 171.0), (0.0, 200.0));
        assert_eq!(Scale::Linear.ticks(0.0, 200.0), [0.0, 50.0, 100.0, 150.0, 200.0]);
    }

    #[test]
    fn nines_stand_equally_far_apart() {
        let place = |value| Scale::Nines.position(value);
        assert!((place(0.99) - place(0.9) - (place(0.999) - place(0.99))).abs() < 1e-9);
        assert!(!place(1.0).is_finite());
        assert_eq!(Scale::Nines.ticks(0.9, 0.995), [0.9, 0.95, 0.98, 0.99, 0.995]);
        assert_eq!(Scale::Nines.around(0.91, 0.993), (0.9, 0.995));
    }
}
