//! Filtered search with many and few allowed labels, near the query and far from it.

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType};
use roaring::RoaringBitmap;

use crate::synthetic::{Random, clustered, distance, recall, search};

#[test]
fn recall_holds_at_every_selectivity() {
    recall_holds(Quantization::None, 24);
    recall_holds(Quantization::Int8, 24);
    // In fewer dimensions the errors of 4-bit codes do not cancel out, and a search needs a larger ef.
    recall_holds(Quantization::Int4, 96);
}

fn recall_holds(quantization: Quantization, dim: usize) {
    const COUNT: u32 = 20_000;
    let vectors = clustered(COUNT as usize, dim, 21);
    let queries = clustered(100, dim, 22);
    let algorithm = Algorithm::Hnsw { m: 16, ef_construction: 100 };
    let (metric, vector_type) = (Metric::Cosine, VectorType::Float32);
    let options = Options { dim, metric, vector_type, quantization, algorithm };
    let index = Index::new(options, Cpu::detect());
    for (label, vector) in (0..).zip(&vectors) {
        index.upsert(label, vector);
    }
    index.drain(COUNT as usize - 200);

    let mut random = Random::new(23);
    let mut shuffled: Vec<u32> = (0..COUNT).collect();
    for at in (1..COUNT).rev() {
        shuffled.swap(at as usize, random.below(at + 1) as usize);
    }
    // The labels near one vector are allowed, and most queries are far from it.
    let mut by_distance: Vec<u32> = (0..COUNT).collect();
    let far = |label: &u32| distance(Metric::Cosine, &vectors[5], &vectors[*label as usize]);
    by_distance.sort_by(|a, b| far(a).total_cmp(&far(b)));

    for (name, order) in [("random", shuffled), ("correlated", by_distance)] {
        for (per_mille, ef) in
            [(1000, 80), (500, 80), (300, 30), (200, 30), (100, 30), (100, 80), (20, 5), (10, 80), (1, 80)]
        {
            let allowed: RoaringBitmap =
                order[..(COUNT * per_mille / 1000) as usize].iter().copied().collect();
            let search = SearchParams { allowed: Some(&allowed), ..search(10, ef) };
            for query in &queries {
                let found = index.search(query, &search);
                assert_eq!(found.len(), 10, "{name} {per_mille}");
                assert!(found.iter().all(|hit| allowed.contains(hit.label)));
            }
            let recall = recall(&index, &queries, &search);
            println!("{name}, {per_mille} of 1000, ef {ef}: {recall}");
            assert!(recall >= 0.95, "{name}, {per_mille} of 1000, ef {ef}: {recall}");
        }
    }
}
