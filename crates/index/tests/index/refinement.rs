//! Refinement improves the graph, and each pass ends.

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType};

use crate::synthetic::{clustered, labels, search};

const COUNT: u32 = 5_000;

fn index(metric: Metric, quantization: Quantization, dim: usize) -> Index {
    let algorithm = Algorithm::Hnsw { m: 8, ef_construction: 40 };
    let vector_type = VectorType::Float32;
    Index::new(Options { dim, metric, vector_type, quantization, algorithm }, Cpu::detect())
}

fn insert(index: &Index, vectors: &[Vec<f32>], labels: std::ops::Range<u32>) {
    for label in labels {
        index.upsert(label, &vectors[label as usize]);
    }
    index.drain(usize::MAX);
}

/// The share of the exact ten nearest distances that a search finds.
fn recall(index: &Index, queries: &[Vec<f32>], ef: usize) -> f64 {
    let mut hits = 0;
    for query in queries {
        let exact = index.search(query, &SearchParams { exact: true, ..search(10, ef) });
        let farthest = exact[9].distance + 1e-5 * exact[9].distance.abs();
        hits += index.search(query, &search(10, ef)).iter().filter(|hit| hit.distance <= farthest).count();
    }
    hits as f64 / (10 * queries.len()) as f64
}

/// Clustered vectors, the same with many copies of one vector, and a collection in which most are copies of a few.
fn collections(dim: usize) -> [(&'static str, Vec<Vec<f32>>); 3] {
    let spread = clustered(COUNT as usize, dim, 31);
    let mut copies = spread.clone();
    let first = copies[0].clone();
    copies[..2_000].fill(first);
    let mut few = spread.clone();
    for at in 0..few.len() {
        few[at] = spread[at % 40].clone();
        if at % 7 == 0 {
            few[at] = spread[at].clone();
        }
    }
    [("spread", spread), ("copies", copies), ("few", few)]
}

#[test]
fn refinement_never_lowers_recall_and_keeps_every_vector_reachable() {
    let dim = 24;
    let queries = clustered(200, dim, 32);
    for (name, vectors) in collections(dim) {
        for metric in [Metric::Cosine, Metric::L2, Metric::Ip] {
            let quantization = match metric {
                Metric::L2 => Quantization::None,
                Metric::Cosine => Quantization::Int8,
                Metric::Ip => Quantization::Int4,
            };
            let index = index(metric, quantization, dim);
            insert(&index, &vectors, 0..COUNT);
            let measured = |index: &Index| [10, 20, 60].map(|ef| recall(index, &queries, ef));
            let found = |index: &Index| {
                let is_found = |label: &u32| {
                    let vector = &vectors[*label as usize];
                    let found = index.search(vector, &search(10, 200));
                    labels(&found).contains(label) || found[0].distance < 1e-4
                };
                (0..COUNT).step_by(5).filter(is_found).count()
            };
            let (before, found_before) = (measured(&index), found(&index));
            while index.refine(500) > 0 {}
            index.check_invariants();
            let (after, found_after) = (measured(&index), found(&index));
            println!(
                "{name} {metric:?}: {before:?} -> {after:?}, found by their own vector {found_before} -> {found_after}"
            );
            // If most queries miss some of the 2,000 neighbours, a difference of a few is chance.
            for ((before, after), chance) in before.into_iter().zip(after).zip([0.015, 0.004, 0.002]) {
                assert!(after >= before - chance, "{name} {metric:?}: {before} before, {after} after");
            }
            assert!(
                metric == Metric::Ip || found_after + 1 >= found_before,
                "{name} {metric:?}: {found_before} {found_after}"
            );
        }
    }
}

#[test]
fn a_pass_ends_and_another_begins_after_growth() {
    let vectors = clustered(COUNT as usize, 16, 33);
    let index = index(Metric::Cosine, Quantization::Int8, 16);
    assert_eq!(index.refine(10), 0);
    insert(&index, &vectors, 0..200);
    assert_eq!(index.refine(10), 0, "an index this small is not refined");
    insert(&index, &vectors, 200..4_000);
    assert!(index.remove(77));
    let mut refined = Vec::new();
    while let count @ 1.. = index.refine(1_000) {
        refined.push(count);
    }
    assert_eq!(refined, [1_000, 1_000, 1_000, 999]);
    insert(&index, &vectors, 4_000..4_400);
    assert_eq!(index.refine(1_000), 0, "a tenth more is too little");
    insert(&index, &vectors, 4_400..4_600);
    // A pass in progress continues where it was and does not include newer vectors.
    assert_eq!(index.refine(100), 100);
    insert(&index, &vectors, 4_600..4_700);
    assert_eq!(index.refine(usize::MAX), 4_599 - 100);
    assert_eq!(index.refine(usize::MAX), 0);
}
