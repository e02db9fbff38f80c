//! The HNSW graph: searching its layers and inserting vectors.

use kernels::arena::Guard;

use crate::batch::ScoreBatch;
use crate::links::Links;
use crate::refine::RefinePass;
use crate::scratch::{self, Scratch};
use crate::select::select_neighbors;
use crate::sync::atomic::Ordering::{Acquire, Release};
use crate::sync::atomic::{AtomicU64, AtomicUsize};
use crate::sync::{Mutex, RwLock};
use crate::vector_codec::PreparedQuery;
use crate::vectors::Vectors;

/// The layers of links and the entry point.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) links: Links,
    m: usize,
    ef_construction: usize,
    entry_point: AtomicU64,
    /// Held by insertions that may change the entry point.
    entry_lock: Mutex<()>,
    /// Held shared by every insertion. Acquiring it exclusively waits for the insertions in progress; later ones
    /// do not link to a slot that was removed before that.
    pub(crate) insertions: RwLock<()>,
    pub(crate) refine_pass: Mutex<RefinePass>,
    /// Number of vectors linked since the last refinement pass began.
    pub(crate) unrefined: AtomicUsize,
}

/// The slot on the highest layer at which every search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryPoint {
    pub(crate) slot: u32,
    pub(crate) level: usize,
}

/// A search scored more rows than its budget allows.
#[derive(Debug, PartialEq)]
pub(crate) struct BudgetExceeded;

impl Graph {
    pub(crate) fn new(m: usize, ef_construction: usize) -> Graph {
        Graph {
            links: Links::new(m),
            m,
            ef_construction,
            entry_point: AtomicU64::new(u64::MAX),
            entry_lock: Mutex::new(()),
            insertions: RwLock::default(),
            refine_pass: Mutex::default(),
            unrefined: AtomicUsize::new(0),
        }
    }

    pub(crate) fn entry_point(&self) -> Option<EntryPoint> {
        let packed = self.entry_point.load(Acquire);
        let entry = EntryPoint { slot: packed as u32, level: (packed >> 32) as usize };
        (packed != u64::MAX).then_some(entry)
    }

    pub(crate) fn set_entry_point(&self, entry: Option<EntryPoint>) {
        let packed = entry.map_or(u64::MAX, |entry| u64::from(entry.slot) | (entry.level as u64) << 32);
        self.entry_point.store(packed, Release);
    }

    /// Descends greedily from the entry point through the layers above `layer`, and returns the slot nearest to
    /// the query (algorithm 2 with `ef` = 1).
    pub(crate) fn descend(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        entry: EntryPoint,
        layer: usize,
    ) -> u32 {
        let query = &mut scratch.query;
        let mut batch = ScoreBatch::new(vectors, guard);
        let mut nearest = entry.slot;
        batch.add(nearest);
        batch.score(query);
        let mut distance = batch.scored().next().map_or(f32::INFINITY, |(_, distance)| distance);
        for layer in (layer + 1..=entry.level).rev() {
            loop {
                batch.clear();
                self.links.get(nearest, layer).for_each(|link| batch.add(link));
                batch.score(query);
                let before = nearest;
                for (slot, found) in batch.scored() {
                    if found < distance {
                        (nearest, distance) = (slot, found);
                    }
                }
                if nearest == before {
                    break;
                }
            }
        }
        nearest
    }

    /// Collects the `ef` nearest slots that satisfy `is_match` in `scratch.candidates` (algorithm 2). The search
    /// also traverses slots that do not.
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of the algorithm in the paper, and the data it works on"
    )]
    pub(crate) fn search_layer(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        start: u32,
        layer: usize,
        ef: usize,
        mut budget: usize,
        is_match: impl Fn(u32) -> bool,
    ) -> Result<(), BudgetExceeded> {
        let Scratch { query, visited, candidates, .. } = scratch;
        let mut batch = ScoreBatch::new(vectors, guard);
        candidates.reset(ef);
        visited.reset();
        visited.insert(start);
        batch.add(start);
        loop {
            batch.score(query);
            for (slot, distance) in batch.scored() {
                if candidates.accepts(distance) {
                    candidates.insert(distance, slot, is_match(slot));
                    self.links.prefetch(slot, layer);
                }
            }
            let scored = batch.len();
            if scored > budget {
                return Err(BudgetExceeded);
            }
            budget -= scored;
            let Some(slot) = candidates.expand_nearest() else { return Ok(()) };
            batch.clear();
            self.links.get(slot, layer).filter(|&link| visited.insert(link)).for_each(|link| batch.add(link));
        }
    }

    /// Inserts a vector into the graph (algorithm 1). Its lists are empty and no link leads to it yet. The caller
    /// holds `insertions`.
    pub(crate) fn insert(&self, vectors: &Vectors, slot: u32) {
        let guard = vectors.rows.pin();
        let level = self.links.level(slot);
        let mut entry_guard = None;
        scratch::with(|scratch| {
            loop {
                let Some(entry) = self.entry_point() else {
                    if entry_guard.is_none() {
                        entry_guard = Some(self.entry_lock.lock());
                        continue;
                    }
                    self.set_entry_point(Some(EntryPoint { slot, level }));
                    return;
                };
                if level > entry.level && entry_guard.is_none() {
                    entry_guard = Some(self.entry_lock.lock());
                    continue;
                }
                let found = self.neighbors(vectors, &guard, scratch, slot, level.min(entry.level), entry);
                let isolated = found.first().is_none_or(Vec::is_empty);
                if isolated && entry_guard.is_none() {
                    // Only removed slots are reachable: this slot becomes the entry point, unless a
                    // concurrent insertion has just become it.
                    entry_guard = Some(self.entry_lock.lock());
                    continue;
                }
                self.connect(vectors, &guard, slot, &found);
                if level > entry.level || isolated {
                    self.set_entry_point(Some(EntryPoint { slot, level }));
                }
                return;
            }
        });
    }

    /// Finds the neighbours of a vector on layers 0 to `top`.
    fn neighbors(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        slot: u32,
        top: usize,
        entry: EntryPoint,
    ) -> Vec<Vec<u32>> {
        assert!(
            vectors.prepare(guard, slot, &mut scratch.query),
            "the row of a slot that is being linked is published"
        );
        let mut start = self.descend(vectors, guard, scratch, entry, top);
        // A search that still sees a removed vector also sees the vectors that were live when the oldest reader
        // began, so the removed vector may be linked to those.
        let oldest = if vectors.nodes.is_live(slot) { u64::MAX } else { vectors.rows.epochs().oldest() };
        let mut found: Vec<Vec<u32>> = (0..=top)
            .rev()
            .map(|layer| {
                let is_match = |other: u32| other != slot && vectors.nodes.may_be_visible(other, oldest);
                self.search_layer(
                    vectors,
                    guard,
                    scratch,
                    start,
                    layer,
                    self.ef_construction,
                    usize::MAX,
                    is_match,
                )
                .expect("a search without a budget does not exceed it");
                start = scratch.candidates.nearest().unwrap_or(start);
                let candidates: Vec<(f32, u32)> =
                    scratch.candidates.matches().map(|found| (found.distance, found.slot)).collect();
                select_neighbors(vectors, guard, &candidates, self.m)
            })
            .collect();
        found.reverse();
        found
    }

    /// Links a vector to its neighbours on every layer, and the neighbours to it. All lists of the slot itself are
    /// written first, then the links to it from layer 0 upwards, so that a search that reaches the slot on some
    /// layer finds its links on that layer and below.
    fn connect(&self, vectors: &Vectors, guard: &Guard<'_>, slot: u32, neighbors: &[Vec<u32>]) {
        for (layer, neighbors) in neighbors.iter().enumerate() {
            self.links.set(slot, layer, neighbors);
        }
        for (layer, neighbors) in neighbors.iter().enumerate() {
            for &neighbor in neighbors {
                self.add_reverse_link(vectors, guard, neighbor, slot, layer);
            }
        }
    }

    /// Adds a link from a reachable slot. If its list is full, the links are selected again.
    pub(crate) fn add_reverse_link(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        from: u32,
        to: u32,
        layer: usize,
    ) {
        let _locked = self.links.lock(from);
        if self.try_add_link(from, to, layer) {
            return;
        }
        let links = self.links.get(from, layer).chain([to]).collect();
        let candidates = sort_by_distance(vectors, guard, from, links);
        self.links.set(
            from,
            layer,
            &select_neighbors(vectors, guard, &candidates, self.links.capacity(layer)),
        );
    }

    /// Adds a link from a reachable slot unless its list is full.
    pub(crate) fn add_link_unless_full(&self, from: u32, to: u32, layer: usize) {
        let _locked = self.links.lock(from);
        self.try_add_link(from, to, layer);
    }

    /// Adds a link to a locked list unless the list is full. Returns whether the list contains the link.
    fn try_add_link(&self, from: u32, to: u32, layer: usize) -> bool {
        let mut count = 0;
        for link in self.links.get(from, layer) {
            if link == to {
                return true;
            }
            count += 1;
        }
        let has_room = count < self.links.capacity(layer);
        if has_room {
            self.links.push(from, layer, to);
        }
        has_room
    }
}

/// The slots with their distances to the vector at `from`, nearest first.
pub(crate) fn sort_by_distance(
    vectors: &Vectors,
    guard: &Guard<'_>,
    from: u32,
    slots: Vec<u32>,
) -> Vec<(f32, u32)> {
    let mut query = PreparedQuery::default();
    if !vectors.prepare(guard, from, &mut query) {
        return Vec::new();
    }
    let mut batch = ScoreBatch::new(vectors, guard);
    slots.into_iter().for_each(|slot| batch.add(slot));
    batch.score(&mut query);
    let mut candidates: Vec<(f32, u32)> = batch.scored().map(|(slot, distance)| (distance, slot)).collect();
    candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    candidates
}
