//! The index and its operations.

use kernels::arena::{Guard, Row, Rows};
use kernels::simd::Cpu;

use crate::graph::Graph;
use crate::labels::Labels;
use crate::nodes::{Nodes, SlotState};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::Ordering::Relaxed;
use crate::tail::Tail;
use crate::vacuum::VacuumPass;
use crate::vector_codec::VectorCodec;
use crate::vectors::Vectors;
use crate::{Algorithm, DIM_MAX, M_MAX, M_MIN, NONE, Options, Stats};

/// An index of vectors. All methods take `&self` and may run concurrently from any number of threads.
///
/// Every vector has a *label* that the caller chooses and a *slot* that the index chooses: its position in the
/// tables of rows and links. Replacing the vector of a label puts the new vector into another slot.
#[derive(Debug)]
pub struct Index {
    pub(crate) options: Options,
    pub(crate) vectors: Vectors,
    pub(crate) labels: Labels,
    pub(crate) tail: Tail,
    /// `None` in a flat index.
    pub(crate) graph: Option<Graph>,
    pub(crate) counters: Counters,
    /// Slots whose vector was removed or replaced and that are not part of a vacuum pass yet.
    pub(crate) tombstones: Mutex<Vec<u32>>,
    /// The vacuum pass in progress.
    pub(crate) vacuum_pass: Mutex<Option<VacuumPass>>,
    /// Held while slots are reclaimed, and while a snapshot is written, during which no slot may be reclaimed.
    pub(crate) reclaim_lock: Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Labels that have a vector.
    pub(crate) vectors: AtomicUsize,
    /// Slots whose vector was removed or replaced and that are not free yet.
    pub(crate) removed: AtomicUsize,
}

impl Index {
    /// Creates an empty index.
    ///
    /// # Panics
    ///
    /// If `dim` or `m` is out of range ([`DIM_MAX`], [`M_MIN`], [`M_MAX`]).
    pub fn new(options: Options, cpu: Cpu) -> Index {
        assert!(
            (1..=DIM_MAX).contains(&options.dim),
            "dimension {} is out of range 1..={DIM_MAX}",
            options.dim
        );
        let graph = match options.algorithm {
            Algorithm::Flat => None,
            Algorithm::Hnsw { m, ef_construction } => {
                assert!((M_MIN..=M_MAX).contains(&m), "m {m} is out of range {M_MIN}..={M_MAX}");
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
            counters: Counters::default(),
            tombstones: Mutex::new(Vec::new()),
            vacuum_pass: Mutex::new(None),
            reclaim_lock: Mutex::new(()),
        }
    }

    /// Inserts the vector of `label`, replacing the one it had. The caller has validated the vector with
    /// [`check`](crate::check); the index normalises it under cosine.
    ///
    /// Every search that starts after this call finds the vector: it is scanned as part of the tail until
    /// [`Index::drain`] links it into the graph. A concurrent search finds either the old vector or the new
    /// one, never both and never neither.
    ///
    /// Labels should be dense: a table with 4 bytes per label covers the range of the labels in use.
    ///
    /// # Panics
    ///
    /// If `label` is `u32::MAX`, or the dimension of the vector is not that of the index.
    pub fn upsert(&self, label: u32, vector: &[f32]) {
        assert_ne!(label, NONE, "label u32::MAX is reserved");
        let (row, scale) = self.vectors.codec.encode(vector);
        let Vectors { rows, nodes, .. } = &self.vectors;
        let claim = rows.claim(&row);
        let slot = claim.slot();
        let state = if self.graph.is_some() { SlotState::Pending } else { SlotState::Linked };
        nodes.init(slot, label, scale, state);
        if let Some(graph) = &self.graph {
            graph.links.clear(slot);
        }
        claim.publish();
        rows.epochs().advance(|epoch| {
            nodes.mark_inserted(slot, epoch);
            if self.graph.is_some() {
                self.tail.push(slot, nodes);
            }
            match self.labels.replace(label, slot) {
                NONE => {
                    self.counters.vectors.fetch_add(1, Relaxed);
                }
                old => self.tombstone(old, epoch),
            }
        });
    }

    /// Removes the vector of `label`, and returns whether it had one. No search that starts after this call
    /// finds it.
    pub fn remove(&self, label: u32) -> bool {
        if self.labels.slot(label) == NONE {
            return false;
        }
        let mut existed = false;
        self.vectors.rows.epochs().advance(|epoch| {
            let slot = self.labels.replace(label, NONE);
            if slot != NONE {
                existed = true;
                self.counters.vectors.fetch_sub(1, Relaxed);
                self.tombstone(slot, epoch);
            }
        });
        existed
    }

    /// Marks the vector of a slot as removed at `epoch`.
    pub(crate) fn tombstone(&self, slot: u32, epoch: u64) {
        self.vectors.nodes.mark_deleted(slot, epoch);
        self.counters.removed.fetch_add(1, Relaxed);
        self.tombstones.lock().push(slot);
    }

    /// The vector of `label` as the index stores it: rounded to the element type, or as its codes and residuals
    /// represent it. Under cosine, FLOAT32 and quantised vectors are normalised, and a vector that the type
    /// represents poorly is rescaled (see [`Options::vector_type`]).
    pub fn vector(&self, label: u32) -> Option<Vec<f32>> {
        let guard = self.vectors.rows.pin();
        let (_, row) = self.row_of(&guard, label)?;
        Some(self.vectors.codec.decode(row))
    }

    /// Whether `label` has a vector.
    pub fn contains(&self, label: u32) -> bool {
        self.labels.slot(label) != NONE
    }

    /// Whether `label` has exactly the vector that [`Index::upsert`] would store for `vector`.
    ///
    /// # Panics
    ///
    /// If the dimension of the vector is not that of the index.
    pub fn holds(&self, label: u32, vector: &[f32]) -> bool {
        let guard = self.vectors.rows.pin();
        let Some((_, row)) = self.row_of(&guard, label) else { return false };
        let (expected, _) = self.vectors.codec.encode(vector);
        let mut rest = &expected[..];
        let equal = row.parts().all(|part| match rest.split_at_checked(part.len()) {
            Some((head, tail)) => {
                rest = tail;
                head == part
            }
            None => false,
        });
        equal && rest.is_empty()
    }

    /// The slot and row of the vector of `label`.
    pub(crate) fn row_of<'a>(&self, guard: &'a Guard<'_>, label: u32) -> Option<(u32, Row<'a>)> {
        loop {
            let slot = self.labels.slot(label);
            if slot == NONE {
                return None;
            }
            // A missing row means that the vector was replaced after its slot was looked up.
            if let Some(row) = guard.row(slot) {
                return Some((slot, row));
            }
        }
    }

    /// Links up to `max` vectors of the tail into the graph, oldest first, and returns their number. Several
    /// threads may drain concurrently.
    pub fn drain(&self, max: usize) -> usize {
        let Some(graph) = &self.graph else { return 0 };
        let nodes = &self.vectors.nodes;
        let mut linked = 0;
        while linked < max
            && let Some(slot) = self.tail.take(nodes)
        {
            // Held until the slot has left the tail: waiting for insertions then covers everything they linked.
            let _insertion = graph.insertions.read();
            // A removed vector is still linked if a search that began before its removal may look for it.
            let state = if nodes.may_be_visible(slot, self.vectors.rows.epochs().oldest()) {
                graph.insert(&self.vectors, slot);
                graph.unrefined.fetch_add(1, Relaxed);
                linked += 1;
                SlotState::Linked
            } else {
                SlotState::Skipped
            };
            self.tail.finish(slot, state, nodes);
        }
        linked
    }

    /// Number of vectors in the tail, including removed ones that [`Index::drain`] has not reached yet.
    pub fn tail_len(&self) -> usize {
        self.tail.len()
    }

    pub(crate) fn vectors_count(&self) -> usize {
        self.counters.vectors.load(Relaxed)
    }

    /// The current size of the index.
    pub fn stats(&self) -> Stats {
        let vectors = self.vectors_count();
        Stats {
            vectors,
            tail: self.tail.len().min(vectors),
            removed: self.counters.removed.load(Relaxed),
            bytes: size_of::<Index>()
                + self.vectors.rows.bytes()
                + self.vectors.nodes.bytes()
                + self.labels.bytes()
                + self.graph.as_ref().map_or(0, |graph| graph.links.bytes())
                + self.tombstones.lock().capacity() * size_of::<u32>(),
            capacity: self.vectors.rows.capacity(),
        }
    }
}
