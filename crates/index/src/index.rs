//! The index: its vectors, its graph, and what may be done with them.

use kernels::arena::{Guard, Row, Rows};
use kernels::simd::Cpu;

use crate::graph::Graph;
use crate::nodes::{Nodes, State};
use crate::owners::Owners;
use crate::space::Space;
use crate::sweep::Pass;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::Ordering::Relaxed;
use crate::tail::Tail;
use crate::vectors::Vectors;
use crate::{Algorithm, DIM_MAX, M_MAX, M_MIN, NONE, Neighbor, Options, Search, Stats};

/// An index of vectors; all methods take `&self` and may run at once from many threads.
#[derive(Debug)]
pub struct Index {
    pub(crate) options: Options,
    pub(crate) vectors: Vectors,
    pub(crate) owners: Owners,
    pub(crate) tail: Tail,
    /// `None` in a flat index.
    pub(crate) graph: Option<Graph>,
    pub(crate) counts: Counts,
    /// Slots that died and were not given back yet.
    pub(crate) dead: Mutex<Vec<u32>>,
    /// The pass of sweeping that runs.
    pub(crate) sweeping: Mutex<Option<Pass>>,
    /// Held by whoever must not lose slots meanwhile.
    pub(crate) keeping: Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Owners that have a vector.
    pub(crate) vectors: AtomicUsize,
    /// Slots that died and are not free yet.
    pub(crate) removed: AtomicUsize,
}

impl Index {
    /// An empty index.
    ///
    /// # Panics
    ///
    /// If an option is out of its range ([`DIM_MAX`], [`M_MIN`], [`M_MAX`]).
    pub fn new(options: Options, cpu: Cpu) -> Index {
        assert!((1..=DIM_MAX).contains(&options.dim), "dimension {} is not in 1..={DIM_MAX}", options.dim);
        let graph = match options.algorithm {
            Algorithm::Flat => None,
            Algorithm::Hnsw { m, ef_construction } => {
                assert!((M_MIN..=M_MAX).contains(&m), "m {m} is not in {M_MIN}..={M_MAX}");
                Some(Graph::new(m, ef_construction.max(m)))
            }
        };
        let space = Space::new(&options, cpu);
        let vectors =
            Vectors { space, rows: Rows::new(&space.parts()), nodes: Nodes::new(space.is_scaled()) };
        Index {
            options,
            vectors,
            owners: Owners::default(),
            tail: Tail::default(),
            graph,
            counts: Counts::default(),
            dead: Mutex::new(Vec::new()),
            sweeping: Mutex::new(None),
            keeping: Mutex::new(()),
        }
    }

    /// Gives `owner` this vector in place of any it had. On return every search that starts
    /// later finds it: it stands in the tail until [`Index::drain`] links it into the graph.
    /// A search that runs meanwhile finds the old vector or the new one, never both or neither.
    /// The vector has passed [`check`](crate::check); the index normalises it under cosine.
    ///
    /// # Panics
    ///
    /// If `owner` is `u32::MAX`, or the vector has another dimension than the index.
    pub fn upsert(&self, owner: u32, vector: &[f32]) {
        assert_ne!(owner, NONE, "owners are below u32::MAX");
        let (row, scale) = self.vectors.space.row(vector);
        let Vectors { rows, nodes, .. } = &self.vectors;
        let claim = rows.claim(&row);
        let slot = claim.slot();
        let state = if self.graph.is_some() { State::Waiting } else { State::Linked };
        nodes.fill(slot, owner, scale, state);
        if let Some(graph) = &self.graph {
            graph.links.clear(slot);
        }
        claim.publish();
        rows.epochs().advance(|epoch| {
            nodes.set_born(slot, epoch);
            if self.graph.is_some() {
                self.tail.push(slot, nodes);
            }
            match self.owners.replace(owner, slot) {
                NONE => {
                    self.counts.vectors.fetch_add(1, Relaxed);
                }
                old => self.bury(old, epoch),
            }
        });
    }

    /// Takes the vector of `owner` away; `false` if it had none. No search that starts later finds it.
    pub fn remove(&self, owner: u32) -> bool {
        if self.owners.slot(owner) == NONE {
            return false;
        }
        let mut existed = false;
        self.vectors.rows.epochs().advance(|epoch| {
            let slot = self.owners.replace(owner, NONE);
            if slot != NONE {
                existed = true;
                self.counts.vectors.fetch_sub(1, Relaxed);
                self.bury(slot, epoch);
            }
        });
        existed
    }

    pub(crate) fn bury(&self, slot: u32, epoch: u64) {
        self.vectors.nodes.set_died(slot, epoch);
        self.counts.removed.fetch_add(1, Relaxed);
        self.dead.lock().push(slot);
    }

    /// The vector of `owner` as held: a FLOAT32 vector normalised under cosine, any other as it
    /// was given, rounded to the element type. (Under cosine, a vector that the type could hold
    /// only badly is held at another length: see [`Options::vector_type`].)
    pub fn vector(&self, owner: u32) -> Option<Vec<f32>> {
        let guard = self.vectors.rows.pin();
        let (_, row) = self.row_of(&guard, owner)?;
        Some(self.vectors.space.values(row))
    }

    /// Slot and row of the vector an owner has.
    pub(crate) fn row_of<'a>(&self, guard: &'a Guard<'_>, owner: u32) -> Option<(u32, Row<'a>)> {
        loop {
            let slot = self.owners.slot(owner);
            if slot == NONE {
                return None;
            }
            // A row that has gone was replaced since its slot was looked up.
            if let Some(row) = guard.row(slot) {
                return Some((slot, row));
            }
        }
    }

    /// Links up to `max` vectors of the tail into the graph, oldest first, and says how many.
    /// Several threads may drain at once.
    pub fn drain(&self, max: usize) -> usize {
        let Some(graph) = &self.graph else { return 0 };
        let nodes = &self.vectors.nodes;
        let mut linked = 0;
        while linked < max
            && let Some(slot) = self.tail.take(nodes)
        {
            // Until it has settled, so that whoever waits for insertions sees what they linked.
            let _inserting = graph.inserting.read();
            // One that died is linked as well while a search runs that began before and may look for it.
            let state = if nodes.is_wanted(slot, self.vectors.rows.epochs().oldest()) {
                graph.insert(&self.vectors, slot);
                graph.unrefined.fetch_add(1, Relaxed);
                linked += 1;
                State::Linked
            } else {
                State::Skipped
            };
            self.tail.settle(slot, state, nodes);
        }
        linked
    }

    /// Vectors in the tail; those that were removed since and not met by [`Index::drain`] count.
    pub fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// The nearest `search.k` allowed vectors (fewer only if fewer exist), nearest first,
    /// equal distances by owner. `query` has passed [`check`](crate::check).
    ///
    /// # Panics
    ///
    /// If the query has another dimension than the index.
    pub fn search(&self, query: &[f32], search: &Search<'_>) -> Vec<Neighbor> {
        self.find(query, search)
    }

    pub(crate) fn vectors_count(&self) -> usize {
        self.counts.vectors.load(Relaxed)
    }

    /// Counts.
    pub fn stats(&self) -> Stats {
        let vectors = self.vectors_count();
        Stats {
            vectors,
            tail: self.tail.len().min(vectors),
            removed: self.counts.removed.load(Relaxed),
            bytes: size_of::<Index>()
                + self.vectors.rows.bytes()
                + self.vectors.nodes.bytes()
                + self.owners.bytes()
                + self.graph.as_ref().map_or(0, |graph| graph.links.bytes())
                + self.dead.lock().capacity() * size_of::<u32>(),
            room: self.vectors.rows.room(),
        }
    }
}
