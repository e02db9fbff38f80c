//! The navigable graph: walking it, and linking vectors into it.

use kernels::arena::Guard;

use crate::batch::Batch;
use crate::links::Links;
use crate::refine::Pass;
use crate::scratch::{self, Scratch};
use crate::select::select;
use crate::sync::atomic::Ordering::{Acquire, Release};
use crate::sync::atomic::{AtomicU64, AtomicUsize};
use crate::sync::{Mutex, RwLock};
use crate::vector_codec::Query;
use crate::vectors::Vectors;

/// Layers of links, and where walks begin.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) links: Links,
    m: usize,
    ef_construction: usize,
    entry: AtomicU64,
    /// Held by insertions that may change the entry.
    raising: Mutex<()>,
    /// Held shared by every insertion. Taken alone for a moment it waits for all that run:
    /// those that start later link to nothing that was dead by then.
    pub(crate) inserting: RwLock<()>,
    pub(crate) refining: Mutex<Pass>,
    /// Vectors linked since the last pass of refining began.
    pub(crate) unrefined: AtomicUsize,
}

/// Where walks begin: a slot on the highest layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) slot: u32,
    pub(crate) level: usize,
}

/// A walk that scored as many rows as it was allowed to.
#[derive(Debug, PartialEq)]
pub(crate) struct OutOfBudget;

impl Graph {
    pub(crate) fn new(m: usize, ef_construction: usize) -> Graph {
        Graph {
            links: Links::new(m),
            m,
            ef_construction,
            entry: AtomicU64::new(u64::MAX),
            raising: Mutex::new(()),
            inserting: RwLock::default(),
            refining: Mutex::default(),
            unrefined: AtomicUsize::new(0),
        }
    }

    pub(crate) fn entry(&self) -> Option<Entry> {
        let packed = self.entry.load(Acquire);
        let entry = Entry { slot: packed as u32, level: (packed >> 32) as usize };
        (packed != u64::MAX).then_some(entry)
    }

    pub(crate) fn set_entry(&self, entry: Option<Entry>) {
        let packed = entry.map_or(u64::MAX, |entry| u64::from(entry.slot) | (entry.level as u64) << 32);
        self.entry.store(packed, Release);
    }

    /// Follows the links of layers above `layer` to the slot nearest to the query
    /// (algorithm 2 with a ef of 1).
    pub(crate) fn descend(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        entry: Entry,
        layer: usize,
    ) -> u32 {
        let query = &mut scratch.query;
        let mut batch = Batch::new(vectors, guard);
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

    /// Gathers the `ef` slots nearest to the query that `counts` says count, into the
    /// scratch's candidates (algorithm 2). Slots that do not count are walked through.
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of the paper's algorithm, and where to find things"
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
        counts: impl Fn(u32) -> bool,
    ) -> Result<(), OutOfBudget> {
        let Scratch { query, visited, candidates, .. } = scratch;
        let mut batch = Batch::new(vectors, guard);
        candidates.reset(ef);
        visited.reset();
        visited.insert(start);
        batch.add(start);
        loop {
            batch.score(query);
            for (slot, distance) in batch.scored() {
                if candidates.would_keep(distance) {
                    candidates.insert(distance, slot, counts(slot));
                    self.links.prefetch(slot, layer);
                }
            }
            let scored = batch.len();
            if scored > budget {
                return Err(OutOfBudget);
            }
            budget -= scored;
            let Some(slot) = candidates.expand() else { return Ok(()) };
            batch.clear();
            self.links.get(slot, layer).filter(|&link| visited.insert(link)).for_each(|link| batch.add(link));
        }
    }

    /// Links a vector in (algorithm 1). Its lists are empty and nobody reaches it yet; the caller
    /// holds `inserting`.
    pub(crate) fn insert(&self, vectors: &Vectors, slot: u32) {
        let guard = vectors.rows.pin();
        let level = self.links.level(slot);
        let mut raising = None;
        scratch::with(|scratch| {
            loop {
                let Some(entry) = self.entry() else {
                    if raising.is_none() {
                        raising = Some(self.raising.lock());
                        continue;
                    }
                    self.set_entry(Some(Entry { slot, level }));
                    return;
                };
                if level > entry.level && raising.is_none() {
                    raising = Some(self.raising.lock());
                    continue;
                }
                let found = self.neighbors(vectors, &guard, scratch, slot, level.min(entry.level), entry);
                let isolated = found.first().is_none_or(Vec::is_empty);
                if isolated && raising.is_none() {
                    // All it can reach is dead: it must become the entry itself, unless another
                    // one just did.
                    raising = Some(self.raising.lock());
                    continue;
                }
                self.connect(vectors, &guard, slot, &found);
                if level > entry.level || isolated {
                    self.set_entry(Some(Entry { slot, level }));
                }
                return;
            }
        });
    }

    /// The neighbours of a vector on layers 0 to `top`.
    fn neighbors(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        slot: u32,
        top: usize,
        entry: Entry,
    ) -> Vec<Vec<u32>> {
        assert!(vectors.prepare(guard, slot, &mut scratch.query), "a vector being linked has its row");
        let mut start = self.descend(vectors, guard, scratch, entry, top);
        // Who looks for one that has died sees all that lived when the oldest reader began, and may go by those.
        let oldest = if vectors.nodes.is_live(slot) { u64::MAX } else { vectors.rows.epochs().oldest() };
        let mut found: Vec<Vec<u32>> = (0..=top)
            .rev()
            .map(|layer| {
                let counts = |other: u32| other != slot && vectors.nodes.is_wanted(other, oldest);
                self.search_layer(
                    vectors,
                    guard,
                    scratch,
                    start,
                    layer,
                    self.ef_construction,
                    usize::MAX,
                    counts,
                )
                .expect("a walk without a budget ends by itself");
                start = scratch.candidates.nearest().unwrap_or(start);
                let candidates: Vec<(f32, u32)> =
                    scratch.candidates.found().map(|found| (found.distance, found.slot)).collect();
                select(vectors, guard, &candidates, self.m)
            })
            .collect();
        found.reverse();
        found
    }

    /// Links a vector to its neighbours, by layer, and them to it. Its own lists come first, all
    /// of them, and then links to it from the lowest layer up: whoever reaches it on some
    /// layer can go on from there.
    fn connect(&self, vectors: &Vectors, guard: &Guard<'_>, slot: u32, neighbors: &[Vec<u32>]) {
        for (layer, neighbors) in neighbors.iter().enumerate() {
            self.links.set(slot, layer, neighbors);
        }
        for (layer, neighbors) in neighbors.iter().enumerate() {
            for &neighbor in neighbors {
                self.link_back(vectors, guard, neighbor, slot, layer);
            }
        }
    }

    /// Adds a link `from` a slot that others can reach; a full list is chosen anew.
    pub(crate) fn link_back(&self, vectors: &Vectors, guard: &Guard<'_>, from: u32, to: u32, layer: usize) {
        let _locked = self.links.lock(from);
        if self.add_link(from, to, layer) {
            return;
        }
        let links = self.links.get(from, layer).chain([to]).collect();
        let candidates = nearest_first(vectors, guard, from, links);
        self.links.set(from, layer, &select(vectors, guard, &candidates, self.links.capacity(layer)));
    }

    /// Adds a link `from` a slot that others can reach, if its list has room.
    pub(crate) fn offer_link(&self, from: u32, to: u32, layer: usize) {
        let _locked = self.links.lock(from);
        self.add_link(from, to, layer);
    }

    /// Adds a link to a list that is locked, unless the list is full; whether it is there then.
    fn add_link(&self, from: u32, to: u32, layer: usize) -> bool {
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

/// Slots with their distances to the vector at `from`, nearest first.
pub(crate) fn nearest_first(
    vectors: &Vectors,
    guard: &Guard<'_>,
    from: u32,
    slots: Vec<u32>,
) -> Vec<(f32, u32)> {
    let mut query = Query::default();
    if !vectors.prepare(guard, from, &mut query) {
        return Vec::new();
    }
    let mut batch = Batch::new(vectors, guard);
    slots.into_iter().for_each(|slot| batch.add(slot));
    batch.score(&mut query);
    let mut candidates: Vec<(f32, u32)> = batch.scored().map(|(slot, distance)| (distance, slot)).collect();
    candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    candidates
}
