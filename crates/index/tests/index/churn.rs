//! Inserting, replacing and removing vectors, sequentially and concurrently.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType};
use roaring::RoaringBitmap;

use crate::synthetic::{Random, clustered, labels, recall, search};

const QUANTIZATIONS: [Quantization; 3] = [Quantization::None, Quantization::Int8, Quantization::Int4];
const HNSW: Algorithm = Algorithm::Hnsw { m: 16, ef_construction: 100 };

fn options(dim: usize, algorithm: Algorithm) -> Options {
    let quantization = Quantization::None;
    Options { dim, metric: Metric::Cosine, vector_type: VectorType::Float32, quantization, algorithm }
}

fn quantized(quantization: Quantization, dim: usize) -> Options {
    Options { quantization, ..options(dim, HNSW) }
}

/// Builds an index of these vectors with their numbers as labels.
fn built<'a>(options: Options, vectors: impl IntoIterator<Item = (u32, &'a Vec<f32>)>) -> Index {
    let index = Index::new(options, Cpu::detect());
    vectors.into_iter().for_each(|(label, vector)| index.upsert(label, vector));
    index.drain(usize::MAX);
    index
}

/// The share of labels that a search for their own vector finds.
fn found_by_own_vector(index: &Index, labels: impl Iterator<Item = u32>) -> f64 {
    let (mut found, mut count) = (0, 0);
    for label in labels {
        let vector = index.vector(label).expect("the label has a vector");
        count += 1;
        found += usize::from(index.search(&vector, &search(10, 200)).iter().any(|hit| hit.label == label));
    }
    f64::from(u32::try_from(found).unwrap()) / f64::from(count)
}

#[test]
fn recall_and_memory_survive_ten_rounds_of_replacing_half_of_the_vectors() {
    churned(options(32, HNSW));
}

#[test]
fn recall_and_memory_survive_ten_rounds_of_replacing_half_of_the_quantized_vectors() {
    [Quantization::Int8, Quantization::Int4].into_iter().for_each(|coded| churned(quantized(coded, 48)));
}

fn churned(options: Options) {
    const COUNT: u32 = 4_000;
    let dim = options.dim;
    let mut current = clustered(COUNT as usize, dim, 11);
    let queries = clustered(600, dim, 12);
    let index = built(options, (0..).zip(&current));
    let first_bytes = index.stats().bytes;
    let mut random = Random::new(13);
    for round in 0..10 {
        let half: Vec<u32> = (0..COUNT).filter(|_| random.below(2) == 0).collect();
        for &label in &half {
            assert!(index.remove(label));
            assert!(!index.remove(label));
        }
        assert_eq!(index.vacuum(), half.len());
        index.check_invariants();
        let fresh = clustered(half.len(), dim, 100 + round);
        for (&label, vector) in half.iter().zip(fresh) {
            index.upsert(label, &vector);
            current[label as usize] = vector;
        }
        index.drain(usize::MAX);
    }
    index.check_invariants();
    let fresh = built(options, (0..).zip(&current));
    for ef in [10, 40] {
        let (churned, fresh) =
            (recall(&index, &queries, &search(10, ef)), recall(&fresh, &queries, &search(10, ef)));
        println!("ef {ef}: {churned} after churn, {fresh} fresh");
        assert!(churned >= fresh - 0.01, "ef {ef}: {churned} after churn, {fresh} fresh");
    }
    assert!(found_by_own_vector(&index, 0..COUNT) >= 0.999);
    let bytes = index.stats().bytes;
    assert!(bytes as f64 <= first_bytes as f64 * 1.1, "{bytes} bytes, {first_bytes} before");
}

#[test]
fn one_thread_builds_a_deterministic_graph() {
    let vectors = clustered(1_000, 16, 14);
    let bytes = |index: Index| {
        let mut bytes = Vec::new();
        index.save(&mut bytes).unwrap();
        bytes
    };
    for options in QUANTIZATIONS.map(|quantization| quantized(quantization, 16)) {
        let in_one_drain = built(options, (0..).zip(&vectors));
        let one_by_one = Index::new(options, Cpu::detect());
        for (label, vector) in (0..).zip(&vectors) {
            one_by_one.upsert(label, vector);
            one_by_one.drain(1);
        }
        assert!(bytes(in_one_drain) == bytes(one_by_one));
    }
}

#[test]
fn slots_of_removed_vectors_are_reclaimed() {
    for options in [options(8, Algorithm::Flat)]
        .into_iter()
        .chain(QUANTIZATIONS.map(|quantization| quantized(quantization, 8)))
    {
        let index = Index::new(options, Cpu::detect());
        let vectors = clustered(2_000, 8, 15);
        let mut first_bytes = 0;
        for round in 0..20 {
            for (label, vector) in (0..).zip(&vectors) {
                index.upsert(label, vector);
            }
            if round % 3 != 0 {
                index.drain(1_500);
            }
            (0..2_000).for_each(|label| assert!(index.remove(label)));
            assert!(index.search(&vectors[0], &search(5, 50)).is_empty());
            index.drain(usize::MAX);
            while index.vacuum() > 0 {}
            let stats = index.stats();
            assert_eq!((stats.vectors, stats.tail, stats.removed), (0, 0, 0), "{options:?} {round}");
            index.check_invariants();
            first_bytes = first_bytes.max(if round == 0 { stats.bytes } else { 0 });
            assert!(
                stats.bytes <= first_bytes,
                "{} bytes in round {round}, {first_bytes} in the first",
                stats.bytes
            );
        }
    }
}

#[test]
fn copies_of_one_vector_do_not_disconnect_the_others() {
    let dim = 16;
    let mut vectors = clustered(1_500, dim, 16);
    // The copies come first, so that every search begins among them.
    let copy = vectors[0].clone();
    vectors[..700].fill(copy.clone());
    for options in QUANTIZATIONS.map(|quantization| quantized(quantization, dim)) {
        let index = built(options, (0..).zip(&vectors));
        index.check_invariants();
        assert!(found_by_own_vector(&index, 700..1_500) >= 0.999);
        let found = index.search(&copy, &search(10, 50));
        let near = if options.quantization == Quantization::Int4 { 3e-4 } else { 2e-5 };
        assert!(found.iter().all(|hit| hit.label < 700 && hit.distance < near));
    }
}

/// Searches, inserts, updates, removals, drains and vacuums run concurrently. There are three groups of labels: some
/// stay, some are updated all the time, some are removed and inserted again.
#[test]
fn concurrent_operations_are_consistent() {
    check_concurrent_operations(options(16, HNSW));
}

#[test]
fn concurrent_operations_on_quantized_vectors_are_consistent() {
    [Quantization::Int8, Quantization::Int4]
        .into_iter()
        .for_each(|coded| check_concurrent_operations(quantized(coded, 16)));
}

fn check_concurrent_operations(options: Options) {
    const KEPT: u32 = 600;
    const UPDATED: u32 = 800;
    const ALL: u32 = 1_200;
    let dim = options.dim;
    let vectors = clustered(ALL as usize, dim, 17);
    let other = clustered(ALL as usize, dim, 18);
    let index = built(options, (0..UPDATED).zip(&vectors));
    let done = AtomicBool::new(false);
    let searches = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (index, done, searches, vectors) = (&index, &done, &searches, &vectors);
            scope.spawn(move || {
                let mut random = Random::new(19 + thread);
                // Few enough for a search of the allowed nodes, and too many for a scan at this ef.
                let updated: RoaringBitmap = (KEPT..UPDATED).collect();
                let one_of = SearchParams { allowed: Some(&updated), ..search(1, 1) };
                while !done.load(Ordering::Relaxed) {
                    let label = random.below(KEPT);
                    let found = index.search(&vectors[label as usize], &search(10, 100));
                    assert_eq!(found.len(), 10);
                    let found_updated = index.search(&vectors[label as usize], &one_of);
                    assert!(found_updated.len() == 1 && updated.contains(found_updated[0].label));
                    let mut labels = labels(&found);
                    labels.sort_unstable();
                    labels.dedup();
                    assert_eq!(labels.len(), 10, "a label was found twice");
                    // With k as large as the index every label that stays is found.
                    if random.below(20) == 0 {
                        let exact = random.below(2) == 0;
                        let everything = SearchParams { exact, ..search(5_000, 10) };
                        let all = crate::synthetic::labels(&index.search(&vectors[0], &everything));
                        assert!(all.len() >= UPDATED as usize && all.len() <= ALL as usize);
                        let kept = all.iter().filter(|&&label| label < UPDATED).count();
                        assert_eq!(kept, UPDATED as usize, "a replaced vector is found, old or new");
                    }
                    searches.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    index.drain(16);
                    index.vacuum();
                    index.refine(16);
                    std::thread::yield_now();
                }
            });
        }
        scope.spawn(|| {
            let mut random = Random::new(23);
            for step in 0..6_000 {
                let label = KEPT + random.below(ALL - KEPT);
                if label < UPDATED {
                    let versions = if step % 2 == 0 { &vectors } else { &other };
                    index.upsert(label, &versions[label as usize]);
                } else if !index.remove(label) {
                    index.upsert(label, &vectors[label as usize]);
                    assert!(index.vector(label).is_some());
                } else {
                    let found = index.search(&vectors[label as usize], &search(10, 50));
                    assert!(found.iter().all(|hit| hit.label != label), "{label} was removed");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    assert!(searches.load(Ordering::Relaxed) > 0);
    index.drain(usize::MAX);
    index.vacuum();
    index.check_invariants();
    let live = (0..ALL).filter(|&label| index.vector(label).is_some());
    assert!(found_by_own_vector(&index, live) >= 0.999);
}
