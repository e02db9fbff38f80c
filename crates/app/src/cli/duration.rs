//! Time spans on the command line.

use std::str::FromStr;

/// A positive time span: `90s`, `30m`, `12h`, `7d`, `2w`, or seconds without a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TimeSpan {
    seconds: f64,
}

impl TimeSpan {
    /// In seconds.
    pub(crate) fn seconds(self) -> f64 {
        self.seconds
    }
}

/// A hundred years.
const SECONDS_MAX: f64 = 100.0 * 365.25 * 86_400.0;

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeSpan, String> {
        let invalid =
            || "expected a number with s, m, h, d or w, such as 90s, 12h or 7d; at most 100 years".to_owned();
        let text = text.trim();
        let at = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let number: f64 = number.trim().parse().map_err(|_| invalid())?;
        let factor = match unit {
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 7.0 * 86_400.0,
            _ => return Err(invalid()),
        };
        let seconds = number * factor;
        if seconds > 0.0 && seconds <= SECONDS_MAX { Ok(TimeSpan { seconds }) } else { Err(invalid()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_units_and_rejects_invalid_time_spans() {
        let seconds = |text: &str| text.parse::<TimeSpan>().map(TimeSpan::seconds);
        for (text, expected) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("0.5m", 30.0),
            ("2h", 7200.0),
            ("7d", 604_800.0),
            ("1 w", 604_800.0),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "0", "-1s", "1y", "nan", "inf", "1e300d", "1h30m", "200000d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
