//! The index: its vectors, its graph, and what may be done with them.

use kernels::arena::{Guard, Row, Rows};
use kernels::simd::Cpu;

use crate::graph::Graph;
use crate::labels::Labels;
use crate::nodes::{Nodes, State};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::Ordering::Relaxed;
use crate::tail::Tail;
use crate::vacuum::Pass;
use crate::vector_codec::VectorCodec;
use crate::vectors::Vectors;
use crate::{Algorithm, DIM_MAX, M_MAX, M_MIN, NONE, Neighbor, Options, SearchParams, Stats};

/// An index of vectors; all methods take `&self` and may run at once from many threads.
#[derive(Debug)]
pub struct Index {
    pub(crate) options: Options,
    pub(crate) vectors: Vectors,
    pub(crate) labels: Labels,
    pub(crate) tail: Tail,
    /// `None` in a flat index.
    pub(crate) graph: Option<Graph>,
    pub(crate) counts: Counts,
    /// Slots that died and were not given back yet.
    pub(crate) dead: Mutex<Vec<u32>>,
    /// The pass of sweeping that runs.
    pub(crate) vacuum_pass: Mutex<Option<Pass>>,
    /// Held by whoever must not lose slots meanwhile.
    pub(crate) keeping: Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Labels that have a vector.
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
        let codec = VectorCodec::new(&options, cpu);
        let vectors =
            Vectors { codec, rows: Rows::new(&codec.parts()), nodes: Nodes::new(codec.is_scaled()) };
        Index {
            options,
            vectors,
            labels: Labels::default(),
            tail: Tail::default(),
            graph,
            counts: Counts::default(),
            dead: Mutex::new(Vec::new()),
            vacuum_pass: Mutex::new(None),
            keeping: Mutex::new(()),
        }
    }

    /// Gives `label` this vector in place of any it had. On return every search that starts
    /// later finds it: it stands in the tail until [`Index::drain`] links it into the graph.
    /// A search that runs meanwhile finds the old vector or the new one, never both or neither.
    /// The vector has passed [`check`](crate::check); the index normalises it under cosine.
    ///
    /// # Panics
    ///
    /// If `label` is `u32::MAX`, or the vector has another dimension than the index.
    pub fn upsert(&self, label: u32, vector: &[f32]) {
        assert_ne!(label, NONE, "labels are below u32::MAX");
        let (row, scale) = self.vectors.codec.row(vector);
        let Vectors { rows, nodes, .. } = &self.vectors;
        let claim = rows.claim(&row);
        let slot = claim.slot();
        let state = if self.graph.is_some() { State::Waiting } else { State::Linked };
        nodes.fill(slot, label, scale, state);
        if let Some(graph) = &self.graph {
            graph.links.clear(slot);
        }
        claim.publish();
        rows.epochs().advance(|epoch| {
            nodes.set_born(slot, epoch);
            if self.graph.is_some() {
                self.tail.push(slot, nodes);
            }
            match self.labels.replace(label, slot) {
                NONE => {
                    self.counts.vectors.fetch_add(1, Relaxed);
                }
                old => self.tombstone(old, epoch),
            }
        });
    }

    /// Takes the vector of `label` away; `false` if it had none. No search that starts later finds it.
    pub fn remove(&self, label: u32) -> bool {
        if self.labels.slot(label) == NONE {
            return false;
        }
        let mut existed = false;
        self.vectors.rows.epochs().advance(|epoch| {
            let slot = self.labels.replace(label, NONE);
            if slot != NONE {
                existed = true;
                self.counts.vectors.fetch_sub(1, Relaxed);
                self.tombstone(slot, epoch);
            }
        });
        existed
    }

    pub(crate) fn tombstone(&self, slot: u32, epoch: u64) {
        self.vectors.nodes.set_died(slot, epoch);
        self.counts.removed.fetch_add(1, Relaxed);
        self.dead.lock().push(slot);
    }

    /// The vector of `label` as held: a FLOAT32 vector normalised under cosine, any other as it
    /// was given, rounded to the element type. (Under cosine, a vector that the type could hold
    /// only badly is held at another length: see [`Options::vector_type`].)
    pub fn vector(&self, label: u32) -> Option<Vec<f32>> {
        let guard = self.vectors.rows.pin();
        let (_, row) = self.row_of(&guard, label)?;
        Some(self.vectors.codec.values(row))
    }

    /// Slot and row of the vector an label has.
    pub(crate) fn row_of<'a>(&self, guard: &'a Guard<'_>, label: u32) -> Option<(u32, Row<'a>)> {
        loop {
            let slot = self.labels.slot(label);
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
    /// equal distances by label. `query` has passed [`check`](crate::check).
    ///
    /// # Panics
    ///
    /// If the query has another dimension than the index.
    pub fn search(&self, query: &[f32], search: &SearchParams<'_>) -> Vec<Neighbor> {
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
                + self.labels.bytes()
                + self.graph.as_ref().map_or(0, |graph| graph.links.bytes())
                + self.dead.lock().capacity() * size_of::<u32>(),
            capacity: self.vectors.rows.capacity(),
        }
    }
}
