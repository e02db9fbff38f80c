//! The candidate list of a graph search, nearest first.

/// A slot and its distance to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) distance: f32,
    pub(crate) slot: u32,
    /// Whether the slot may be returned. Other slots are only traversed.
    pub(crate) is_match: bool,
    expanded: bool,
}

/// Candidates in order of distance, up to the `ef`-th match.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    entries: Vec<Candidate>,
    ef: usize,
    match_count: usize,
    /// All entries before this one are expanded.
    cursor: usize,
}

impl Candidates {
    /// Clears the list.
    pub(crate) fn reset(&mut self, ef: usize) {
        self.entries.clear();
        self.ef = ef;
        self.match_count = 0;
        self.cursor = 0;
    }

    /// Whether a candidate at this distance would be kept.
    #[inline]
    pub(crate) fn accepts(&self, distance: f32) -> bool {
        self.match_count < self.ef || self.entries.last().is_some_and(|last| distance < last.distance)
    }

    /// Inserts a candidate in order, and drops the candidates beyond the `ef`-th match.
    #[inline]
    pub(crate) fn insert(&mut self, distance: f32, slot: u32, is_match: bool) {
        let at = self.entries.partition_point(|entry| entry.distance <= distance);
        self.entries.insert(at, Candidate { distance, slot, is_match, expanded: false });
        self.cursor = self.cursor.min(at);
        self.match_count += usize::from(is_match);
        // Drops the farthest match if there is one too many, and all candidates beyond the farthest match left.
        while self.match_count > self.ef
            || (self.match_count == self.ef && self.entries.last().is_some_and(|last| !last.is_match))
        {
            let dropped = self.entries.pop().expect("more than ef matches are in the list");
            self.match_count -= usize::from(dropped.is_match);
        }
    }

    /// Marks the nearest candidate that is not expanded yet as expanded, and returns its slot.
    #[inline]
    pub(crate) fn expand_nearest(&mut self) -> Option<u32> {
        while let Some(entry) = self.entries.get_mut(self.cursor) {
            self.cursor += 1;
            if !entry.expanded {
                entry.expanded = true;
                return Some(entry.slot);
            }
        }
        None
    }

    /// The nearest candidate, match or not.
    pub(crate) fn nearest(&self) -> Option<u32> {
        self.entries.first().map(|entry| entry.slot)
    }

    /// The matches, nearest first.
    pub(crate) fn matches(&self) -> impl Iterator<Item = &Candidate> {
        self.entries.iter().filter(|entry| entry.is_match)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(candidates: &Candidates) -> Vec<u32> {
        candidates.entries.iter().map(|entry| entry.slot).collect()
    }

    #[test]
    fn keeps_the_nearest_matches_and_the_other_candidates_before_them() {
        let mut candidates = Candidates::default();
        candidates.reset(2);
        for (distance, slot, is_match) in
            [(5.0, 5, true), (4.0, 4, false), (6.0, 6, false), (3.0, 3, true), (7.0, 7, true)]
        {
            if candidates.accepts(distance) {
                candidates.insert(distance, slot, is_match);
            }
        }
        assert_eq!(slots(&candidates), [3, 4, 5]);
        candidates.insert(1.0, 1, true);
        assert_eq!(slots(&candidates), [1, 3]);
        assert!(!candidates.accepts(3.0) && candidates.accepts(2.9));
        assert_eq!(candidates.matches().map(|found| found.slot).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn expands_each_candidate_once_nearest_first() {
        let mut candidates = Candidates::default();
        candidates.reset(10);
        candidates.insert(2.0, 2, true);
        candidates.insert(3.0, 3, true);
        assert_eq!(candidates.expand_nearest(), Some(2));
        candidates.insert(1.0, 1, true);
        candidates.insert(2.5, 25, false);
        assert_eq!(
            [
                candidates.expand_nearest(),
                candidates.expand_nearest(),
                candidates.expand_nearest(),
                candidates.expand_nearest()
            ],
            [Some(1), Some(25), Some(3), None]
        );
        assert_eq!(candidates.nearest(), Some(1));
    }
}
