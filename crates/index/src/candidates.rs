//! The candidates of a walk, nearest first.

/// A slot and its distance to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) distance: f32,
    pub(crate) slot: u32,
    /// Whether it may be an answer; others only lead on.
    pub(crate) counts: bool,
    expanded: bool,
}

/// Candidates in order of distance, as many as hold the `ef` nearest that count.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    entries: Vec<Candidate>,
    ef: usize,
    counted: usize,
    /// Every entry before this one is expanded.
    cursor: usize,
}

impl Candidates {
    /// Empties it.
    pub(crate) fn reset(&mut self, ef: usize) {
        self.entries.clear();
        self.ef = ef;
        self.counted = 0;
        self.cursor = 0;
    }

    /// Whether a candidate at this distance would stay.
    #[inline]
    pub(crate) fn would_keep(&self, distance: f32) -> bool {
        self.counted < self.ef || self.entries.last().is_some_and(|last| distance < last.distance)
    }

    /// Puts a candidate in its place, and drops what is now beyond the ef.
    #[inline]
    pub(crate) fn insert(&mut self, distance: f32, slot: u32, counts: bool) {
        let at = self.entries.partition_point(|entry| entry.distance <= distance);
        self.entries.insert(at, Candidate { distance, slot, counts, expanded: false });
        self.cursor = self.cursor.min(at);
        self.counted += usize::from(counts);
        // The farthest that counts goes, and with it all behind the one that is then the farthest.
        while self.counted > self.ef
            || (self.counted == self.ef && self.entries.last().is_some_and(|last| !last.counts))
        {
            let dropped = self.entries.pop().expect("more entries than the ef");
            self.counted -= usize::from(dropped.counts);
        }
    }

    /// The nearest candidate that was not expanded yet; it is from now on.
    #[inline]
    pub(crate) fn expand(&mut self) -> Option<u32> {
        while let Some(entry) = self.entries.get_mut(self.cursor) {
            self.cursor += 1;
            if !entry.expanded {
                entry.expanded = true;
                return Some(entry.slot);
            }
        }
        None
    }

    /// The nearest candidate, whether it counts or not.
    pub(crate) fn nearest(&self) -> Option<u32> {
        self.entries.first().map(|entry| entry.slot)
    }

    /// Those that count, nearest first.
    pub(crate) fn found(&self) -> impl Iterator<Item = &Candidate> {
        self.entries.iter().filter(|entry| entry.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(candidates: &Candidates) -> Vec<u32> {
        candidates.entries.iter().map(|entry| entry.slot).collect()
    }

    #[test]
    fn keeps_the_nearest_that_count_and_the_bridges_before_them() {
        let mut candidates = Candidates::default();
        candidates.reset(2);
        for (distance, slot, counts) in
            [(5.0, 5, true), (4.0, 4, false), (6.0, 6, false), (3.0, 3, true), (7.0, 7, true)]
        {
            if candidates.would_keep(distance) {
                candidates.insert(distance, slot, counts);
            }
        }
        assert_eq!(slots(&candidates), [3, 4, 5]);
        candidates.insert(1.0, 1, true);
        assert_eq!(slots(&candidates), [1, 3]);
        assert!(!candidates.would_keep(3.0) && candidates.would_keep(2.9));
        assert_eq!(candidates.found().map(|found| found.slot).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn expands_each_once_nearest_first() {
        let mut candidates = Candidates::default();
        candidates.reset(10);
        candidates.insert(2.0, 2, true);
        candidates.insert(3.0, 3, true);
        assert_eq!(candidates.expand(), Some(2));
        candidates.insert(1.0, 1, true);
        candidates.insert(2.5, 25, false);
        assert_eq!(
            [candidates.expand(), candidates.expand(), candidates.expand(), candidates.expand()],
            [Some(1), Some(25), Some(3), None]
        );
        assert_eq!(candidates.nearest(), Some(1));
    }
}
