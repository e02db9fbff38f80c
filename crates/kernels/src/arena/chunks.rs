//! A sparse list that grows without moving its elements.

use std::sync::OnceLock;

/// Size of the first segment; each segment is twice as large as the previous one.
const FIRST: usize = 16;
/// Number of segments that cover every `u32` index.
const SEGMENTS: usize = 29;

/// Boxed values at indexes 0, 1, 2, ... Each is created on first use and never moved or removed, so readers hold plain
/// references while other threads add values.
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

/// The segment of an index, and the offset in it.
#[inline]
fn locate(index: usize) -> (usize, usize) {
    let shifted = index + FIRST;
    let segment = (shifted.ilog2() - FIRST.ilog2()) as usize;
    (segment, shifted - (FIRST << segment))
}

impl<T> Chunks<T> {
    /// The value at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        let (segment, offset) = locate(index);
        Some(self.segments.get(segment)?.get()?[offset].get()?)
    }

    /// The value at `index`, created if there is none.
    ///
    /// # Panics
    ///
    /// If `index` does not fit into `u32`.
    pub fn get_or_init(&self, index: usize, create: impl FnOnce() -> T) -> &T {
        let (segment, offset) = locate(index);
        let empty = || (0..FIRST << segment).map(|_| OnceLock::new()).collect();
        self.segments[segment].get_or_init(empty)[offset].get_or_init(|| Box::new(create()))
    }

    /// All values in order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments
            .iter()
            .filter_map(OnceLock::get)
            .flatten()
            .filter_map(OnceLock::get)
            .map(|boxed| &**boxed)
    }

    /// Bytes of the table and of the `T` values, without memory that these point to.
    pub fn bytes(&self) -> usize {
        let table: usize = self.segments.iter().filter_map(OnceLock::get).map(|s| size_of_val(&**s)).sum();
        table + self.iter().count() * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_keeps_the_value_created_first() {
        let chunks = Chunks::default();
        let indexes = [0, 1, 15, 16, 17, 47, 48, 100_000, u32::MAX as usize / 1024];
        for index in indexes {
            assert!(chunks.get(index).is_none());
            assert_eq!(*chunks.get_or_init(index, || index), index);
            assert_eq!(*chunks.get_or_init(index, || 7), index);
        }
        assert_eq!(chunks.iter().copied().collect::<Vec<_>>(), indexes);
        assert!(chunks.get(2).is_none());
        assert!(chunks.get(usize::MAX / 2).is_none());
    }

    #[test]
    fn every_index_has_its_own_location() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(locate(index), expected, "index {index}");
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(locate(u32::MAX as usize).0 < SEGMENTS);
    }
}
