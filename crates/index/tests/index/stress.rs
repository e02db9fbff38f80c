//! All operations on one index from eight threads. `STRESS_SECONDS=60` is the long run, best under
//! ThreadSanitizer (`make sanitize-threads`).

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType};
use roaring::RoaringBitmap;

use crate::{
    synthetic::{Random, clustered, labels, search},
    timed_run::TimedRun,
};

const DIM: usize = 16;
const WRITERS: u32 = 3;
/// Labels from this one on never change; the writers share the smaller ones.
const KEPT: u32 = 1_500;
const ALL: u32 = 2_000;

struct Stress {
    index: Index,
    vectors: Vec<Vec<f32>>,
    timed_run: TimedRun,
    done: [AtomicUsize; 5],
}

impl Stress {
    /// Repeats `work` until the time is up, and counts the repetitions.
    fn repeat(&self, kind: usize, mut work: impl FnMut()) {
        self.timed_run.repeat(|| {
            work();
            self.done[kind].fetch_add(1, Relaxed);
        });
    }

    /// Inserts, replaces and removes the vectors of one writer, and returns the final vector of each label.
    fn write(&self, writer: u32) -> Vec<(u32, Option<usize>)> {
        let mut random = Random::new(u64::from(41 + writer));
        let mut entries: Vec<(u32, Option<usize>)> =
            (0..KEPT).filter(|label| label % WRITERS == writer).map(|label| (label, None)).collect();
        self.repeat(0, || {
            let at = random.below(entries.len() as u32) as usize;
            let (label, version) = entries[at];
            if let Some(version) = version.filter(|_| random.below(2) == 0) {
                assert!(self.index.remove(label));
                let vector = &self.vectors[version];
                let found = self.index.search(vector, &search(10, 30));
                assert!(found.iter().all(|hit| hit.label != label), "{label} was removed");
                entries[at].1 = None;
            } else {
                let version = random.below(self.vectors.len() as u32) as usize;
                self.index.upsert(label, &self.vectors[version]);
                assert_eq!(self.index.vector(label).as_deref(), Some(&self.vectors[version][..]));
                entries[at].1 = Some(version);
            }
            if self.index.needs_vacuum() {
                self.index.vacuum_step(64);
            }
        });
        entries
    }

    fn search(&self, searcher: u64) {
        let mut random = Random::new(51 + searcher);
        let kept: RoaringBitmap = (KEPT..ALL).collect();
        self.repeat(1, || {
            let label = KEPT + random.below(ALL - KEPT);
            let query = &self.vectors[label as usize];
            let params = SearchParams { allowed: Some(&kept), ..search(5, 50) };
            let found = self.index.search(query, &params);
            assert!(found.len() == 5 && found.iter().all(|hit| hit.label >= KEPT));
            let exact =
                labels(&self.index.search(query, &SearchParams { exact: true, ..search(ALL as usize, 1) }));
            assert_eq!(exact.iter().filter(|label| **label >= KEPT).count(), kept.len() as usize);
            let mut from_graph = labels(&self.index.search(query, &search(10, 50)));
            from_graph.sort_unstable();
            from_graph.dedup();
            assert_eq!(from_graph.len(), 10, "a label was found twice");
        });
    }
}

#[test]
fn concurrent_operations_leave_a_consistent_graph() {
    let algorithm = Algorithm::Hnsw { m: 8, ef_construction: 40 };
    let (metric, vector_type, quantization) = (Metric::L2, VectorType::Float32, Quantization::None);
    let options = Options { dim: DIM, metric, vector_type, quantization, algorithm };
    let index = Index::new(options, Cpu::detect());
    let vectors = clustered(ALL as usize, DIM, 61);
    (KEPT..ALL).for_each(|label| index.upsert(label, &vectors[label as usize]));
    let stress = Stress { index, vectors, timed_run: TimedRun::new(), done: Default::default() };
    let index = &stress.index;
    let entries: Vec<(u32, Option<usize>)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let stress = &stress;
                scope.spawn(move || stress.write(writer))
            })
            .collect();
        let mut others = Vec::new();
        for searcher in 0..2 {
            let stress = &stress;
            others.push(scope.spawn(move || stress.search(searcher)));
        }
        for _ in 0..2 {
            others.push(scope.spawn(|| {
                stress.repeat(2, || {
                    index.drain(16);
                    index.refine(4);
                });
            }));
        }
        others.push(scope.spawn(|| {
            stress.repeat(3, || {
                index.vacuum_step(100);
                if stress.done[3].load(Relaxed).is_multiple_of(50) {
                    let mut bytes = Vec::new();
                    index.save(&mut bytes).unwrap();
                    let read = Index::load(&mut &bytes[..], options, Cpu::detect()).unwrap();
                    read.check_invariants();
                    stress.done[4].fetch_add(1, Relaxed);
                }
            });
        }));
        // ThreadSanitizer sees the end of a thread only if it is joined, not if the scope waits for it.
        others.into_iter().for_each(|other| other.join().unwrap());
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let done = stress.done.each_ref().map(|done| done.load(Relaxed));
    println!("[writes, searches, drains, vacuums, snapshots] = {done:?}");
    index.drain(usize::MAX);
    while index.vacuum() > 0 {}
    index.check_invariants();
    let kept = (KEPT..ALL).map(|label| (label, Some(label as usize)));
    let (mut live, mut missed) = (0, 0);
    for (label, version) in entries.into_iter().chain(kept) {
        assert_eq!(index.vector(label), version.map(|version| stress.vectors[version].clone()), "{label}");
        if let Some(version) = version {
            let found = index.search(&stress.vectors[version], &search(20, 200));
            live += 1;
            // Several labels may have the same vector: any of them counts.
            missed += usize::from(found.first().is_none_or(|first| first.distance > 1e-6));
        }
    }
    assert_eq!(index.stats().vectors, live);
    assert!(missed * 1_000 <= live, "{missed} of {live} vectors are not found by themselves");
}
