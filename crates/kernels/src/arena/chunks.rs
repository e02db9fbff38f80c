//! A list that grows at any place and never moves.

use std::sync::OnceLock;

/// Places in the first segment; each segment holds twice as many as the one before.
const FIRST: usize = 16;
/// Segments enough for every `u32` place.
const SEGMENTS: usize = 29;

/// Boxed values at places 0, 1, 2, ..., each made on first use and then there for good, so that
/// readers hold plain references while others add.
#[derive(Debug)]
pub struct Chunks<T> {
    segments: [OnceLock<Segment<T>>; SEGMENTS],
}

type Segment<T> = Box<[OnceLock<Box<T>>]>;

impl<T> Default for Chunks<T> {
    fn default() -> Chunks<T> {
        Chunks { segments: [const { OnceLock::new() }; SEGMENTS] }
    }
}

/// Segment of a place, and its offset there.
#[inline]
fn locate(place: usize) -> (usize, usize) {
    let shifted = place + FIRST;
    let segment = (shifted.ilog2() - FIRST.ilog2()) as usize;
    (segment, shifted - (FIRST << segment))
}

impl<T> Chunks<T> {
    /// What stands at `place`.
    #[inline]
    pub fn get(&self, place: usize) -> Option<&T> {
        let (segment, offset) = locate(place);
        Some(self.segments.get(segment)?.get()?[offset].get()?)
    }

    /// What stands at `place`, made now if nothing does.
    ///
    /// # Panics
    ///
    /// If `place` is beyond every `u32`.
    pub fn get_or_init(&self, place: usize, make: impl FnOnce() -> T) -> &T {
        let (segment, offset) = locate(place);
        let empty = || (0..FIRST << segment).map(|_| OnceLock::new()).collect();
        self.segments[segment].get_or_init(empty)[offset].get_or_init(|| Box::new(make()))
    }

    /// Everything that stands, by place.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments
            .iter()
            .filter_map(OnceLock::get)
            .flatten()
            .filter_map(OnceLock::get)
            .map(|boxed| &**boxed)
    }

    /// Bytes of the table itself and of the `T`s in it, without what these point to.
    pub fn bytes(&self) -> usize {
        let table: usize = self.segments.iter().filter_map(OnceLock::get).map(|s| size_of_val(&**s)).sum();
        table + self.iter().count() * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_what_was_made_first() {
        let chunks = Chunks::default();
        let places = [0, 1, 15, 16, 17, 47, 48, 100_000, u32::MAX as usize / 1024];
        for place in places {
            assert!(chunks.get(place).is_none());
            assert_eq!(*chunks.get_or_init(place, || place), place);
            assert_eq!(*chunks.get_or_init(place, || 7), place);
        }
        assert_eq!(chunks.iter().copied().collect::<Vec<_>>(), places);
        assert!(chunks.get(2).is_none());
        assert!(chunks.get(usize::MAX / 2).is_none());
    }

    #[test]
    fn every_place_has_its_own_room() {
        let mut expected = (0, 0);
        for place in 0..100_000 {
            assert_eq!(locate(place), expected, "place {place}");
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(locate(u32::MAX as usize).0 < SEGMENTS);
    }
}
