//! Postings of one NUMERIC field.

use std::{collections::BTreeSet, ops::Bound};

use roaring::RoaringBitmap;

/// Number per document, and documents by number.
///
/// A narrow range reads the sorted set. A wide one, which would visit a large part of all documents, scans the column
/// instead, which is many times faster per document.
#[derive(Debug, Default)]
pub(crate) struct NumericIndex {
    /// By ordinal; NaN if there is none.
    column: Vec<f64>,
    sorted: BTreeSet<(SortKey, u32)>,
}

/// A range is wide if it contains more than one in this many documents.
const NARROW_SHARE: usize = 16;

impl NumericIndex {
    /// Sets the number of `ordinal`, replacing any it had.
    pub(crate) fn set(&mut self, ordinal: u32, number: Option<f64>) {
        let at = ordinal as usize;
        if at >= self.column.len() {
            if number.is_none() {
                return;
            }
            self.column.resize(at + 1, f64::NAN);
        }
        let old = std::mem::replace(&mut self.column[at], number.unwrap_or(f64::NAN));
        if !old.is_nan() {
            self.sorted.remove(&(SortKey::of(old), ordinal));
        }
        if let Some(number) = number {
            self.sorted.insert((SortKey::of(number), ordinal));
        }
    }

    /// The number of `ordinal`.
    pub(crate) fn get(&self, ordinal: u32) -> Option<f64> {
        self.column.get(ordinal as usize).copied().filter(|number| !number.is_nan())
    }

    /// Ordinals with a number in a range. Each end has a flag for whether it is excluded.
    pub(crate) fn in_range(&self, min: (f64, bool), max: (f64, bool)) -> RoaringBitmap {
        let (low, high) = (SortKey::of(min.0), SortKey::of(max.0));
        if low > high || (low == high && (min.1 || max.1)) {
            return RoaringBitmap::new();
        }
        let from = if min.1 { Bound::Excluded((low, u32::MAX)) } else { Bound::Included((low, 0)) };
        let to = if max.1 { Bound::Excluded((high, 0)) } else { Bound::Included((high, u32::MAX)) };
        let narrow_max = self.column.len() / NARROW_SHARE;
        let mut ordinals: Vec<u32> =
            self.sorted.range((from, to)).take(narrow_max + 1).map(|(_, ordinal)| *ordinal).collect();
        if ordinals.len() > narrow_max {
            return self.scan(min, max);
        }
        ordinals.sort_unstable();
        RoaringBitmap::from_sorted_iter(ordinals).expect("sorted, and an ordinal has one number")
    }

    fn scan(&self, min: (f64, bool), max: (f64, bool)) -> RoaringBitmap {
        // Comparisons with NaN are false, so ordinals without a number do not match.
        match (min.1, max.1) {
            (false, false) => self.select(|number| number >= min.0 && number <= max.0),
            (false, true) => self.select(|number| number >= min.0 && number < max.0),
            (true, false) => self.select(|number| number > min.0 && number <= max.0),
            (true, true) => self.select(|number| number > min.0 && number < max.0),
        }
    }

    fn select(&self, inside: impl Fn(f64) -> bool) -> RoaringBitmap {
        let bits: Vec<u8> = self
            .column
            .chunks(8)
            .map(|numbers| {
                let mut byte = 0;
                for (bit, number) in numbers.iter().enumerate() {
                    byte |= u8::from(inside(*number)) << bit;
                }
                byte
            })
            .collect();
        RoaringBitmap::from_lsb0_bytes(0, &bits)
    }

    /// Approximate bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        // A BTreeSet's leaves are about three quarters full.
        8 * self.column.len() + 22 * self.sorted.len()
    }
}

/// A number as an integer with the same order. Both zeros are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SortKey(u64);

impl SortKey {
    fn of(number: f64) -> SortKey {
        const SIGN: u64 = 1 << 63;
        let bits = (number + 0.0).to_bits();
        SortKey(if bits & SIGN == 0 { bits | SIGN } else { !bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_numbers() {
        let numbers = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY];
        for pair in numbers.windows(2) {
            assert!(SortKey::of(pair[0]) < SortKey::of(pair[1]), "{pair:?}");
        }
        assert_eq!(SortKey::of(-0.0), SortKey::of(0.0));
    }

    #[test]
    fn narrow_lookups_and_wide_scans_agree() {
        let mut numbers = NumericIndex::default();
        for ordinal in 0..1000u32 {
            let number = f64::from(ordinal * 7 % 100);
            numbers.set(ordinal, (ordinal % 11 != 0).then_some(number));
        }
        for min in [-1.0, 0.0, 3.0, 50.0, 99.0] {
            for max in [-1.0, 0.0, 3.5, 4.0, 60.0, 99.0, f64::INFINITY] {
                for (min_excluded, max_excluded) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let expected: RoaringBitmap = (0..1000u32)
                        .filter(|ordinal| {
                            numbers.get(*ordinal).is_some_and(|number| {
                                (number > min || (number == min && !min_excluded))
                                    && (number < max || (number == max && !max_excluded))
                            })
                        })
                        .collect();
                    let (min, max) = ((min, min_excluded), (max, max_excluded));
                    assert_eq!(numbers.in_range(min, max), expected, "{min:?} {max:?}");
                    assert_eq!(numbers.scan(min, max), expected, "{min:?} {max:?}");
                }
            }
        }
    }
}
