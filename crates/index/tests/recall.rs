//! How much of the exact answer the graph finds.

mod clusters;

use clusters::{clustered, recall, search};
use index::{Algorithm, Cpu, Index, Metric, Options, VectorType};

fn built(metric: Metric, vector_type: VectorType, vectors: &[Vec<f32>]) -> Index {
    let algorithm = Algorithm::Hnsw { m: 16, ef_construction: 200 };
    let index = Index::new(Options { dim: vectors[0].len(), metric, vector_type, algorithm }, Cpu::detect());
    for (owner, vector) in vectors.iter().enumerate() {
        index.upsert(owner as u32, vector);
    }
    assert_eq!(index.drain(usize::MAX), vectors.len());
    index
}

#[test]
fn recall_rises_with_ef() {
    let vectors = clustered(5_000, 64, 1);
    let queries = clustered(100, 64, 2);
    for metric in [Metric::Cosine, Metric::Ip, Metric::L2] {
        let index = built(metric, VectorType::Float32, &vectors);
        let recalls = [10, 40, 160].map(|ef| recall(&index, &queries, &search(10, ef)));
        println!("{metric:?}: {recalls:?}");
        assert!(recalls.is_sorted(), "{metric:?}: {recalls:?}");
        assert!(recalls[2] > 0.98, "{metric:?}: {recalls:?}");
    }
}
