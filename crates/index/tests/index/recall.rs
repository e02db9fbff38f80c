//! Recall of graph search against exact search.

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, VectorType};

use crate::synthetic::{clustered, distance, labels, recall, search};

const QUANTIZATIONS: [Quantization; 3] = [Quantization::None, Quantization::Int8, Quantization::Int4];

fn built(metric: Metric, quantization: Quantization, vectors: &[Vec<f32>]) -> Index {
    let algorithm = Algorithm::Hnsw { m: 16, ef_construction: 200 };
    let (dim, vector_type) = (vectors[0].len(), VectorType::Float32);
    let index = Index::new(Options { dim, metric, vector_type, quantization, algorithm }, Cpu::detect());
    for (label, vector) in vectors.iter().enumerate() {
        index.upsert(label as u32, vector);
    }
    assert_eq!(index.drain(usize::MAX), vectors.len());
    index
}

#[test]
fn recall_rises_with_ef() {
    let vectors = clustered(5_000, 64, 1);
    let queries = clustered(100, 64, 2);
    for metric in [Metric::Cosine, Metric::Ip, Metric::L2] {
        let index = built(metric, Quantization::None, &vectors);
        let recalls = [10, 40, 160].map(|ef| recall(&index, &queries, &search(10, ef)));
        println!("{metric:?}: {recalls:?}");
        assert!(recalls.is_sorted(), "{metric:?}: {recalls:?}");
        assert!(recalls[2] > 0.98, "{metric:?}: {recalls:?}");
    }
}

/// The mean share of each query's exact ten nearest, by distances in double precision.
fn recall_at_10(metric: Metric, index: &Index, vectors: &[Vec<f32>], queries: &[Vec<f32>], ef: usize) -> f64 {
    let mut hits = 0;
    for query in queries {
        let mut exact: Vec<(f64, u32)> =
            (0..).zip(vectors).map(|(label, vector)| (distance(metric, query, vector), label)).collect();
        exact.select_nth_unstable_by(9, |a, b| a.partial_cmp(b).unwrap());
        let found = labels(&index.search(query, &search(10, ef)));
        hits += exact[..10].iter().filter(|(_, label)| found.contains(label)).count();
    }
    hits as f64 / (10 * queries.len()) as f64
}

/// Vectors of unit length, of any length, all far from the origin, with values of very different
/// size, and with a few that are much larger than all others.
fn shapes(count: usize, dim: usize, seed: u64) -> [(&'static str, Vec<Vec<f32>>); 5] {
    let changed = |change: fn(&mut Vec<f32>)| {
        let mut vectors = clustered(count, dim, seed);
        vectors.iter_mut().for_each(change);
        vectors
    };
    [
        (
            "unit",
            changed(|v| {
                let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
                v.iter_mut().for_each(|x| *x /= length);
            }),
        ),
        (
            "any length",
            changed(|v| {
                let factor = (v[0].abs() * 2.0).exp();
                v.iter_mut().for_each(|x| *x *= factor);
            }),
        ),
        ("far away", changed(|v| v.iter_mut().for_each(|x| *x += 1000.0))),
        ("uneven", changed(|v| v.iter_mut().step_by(9).for_each(|x| *x *= 8.0))),
        (
            "a few large",
            changed(|v| {
                v[3] += 50.0;
                v[40] *= 4.0;
            }),
        ),
    ]
}

#[test]
fn quantization_loses_little_recall_on_any_distribution() {
    for dim in [52] {
        for ((shape, vectors), (_, queries)) in shapes(2_000, dim, 3).into_iter().zip(shapes(150, dim, 4)) {
            for metric in [Metric::Cosine, Metric::Ip, Metric::L2] {
                // Under these the vectors far away differ by less than singles can tell.
                if shape == "far away" && metric != Metric::L2 {
                    continue;
                }
                let [none, int8, int4] = QUANTIZATIONS.map(|quantization| {
                    recall_at_10(metric, &built(metric, quantization, &vectors), &vectors, &queries, 80)
                });
                println!("{metric:?} {dim} {shape}: {none} none, {int8} int8, {int4} int4");
                let quantized = int8.min(int4);
                assert!(
                    quantized >= none - 0.01,
                    "{metric:?} {dim} {shape}: {none} none, {quantized} quantized"
                );
            }
        }
    }
}

#[test]
fn constant_and_equal_vectors_are_found() {
    let metrics = [Metric::Cosine, Metric::Ip, Metric::L2];
    for (metric, quantization) in metrics.into_iter().flat_map(|metric| QUANTIZATIONS.map(|q| (metric, q))) {
        let vectors: Vec<Vec<f32>> = (0..300).map(|at| vec![1.0 + (at / 30) as f32; 7]).collect();
        let index = built(metric, quantization, &vectors);
        for label in (0..300).step_by(29) {
            let found = index.search(&vectors[label], &search(300, 300));
            assert_eq!(found.len(), 300);
            let reported = found.iter().find(|hit| hit.label == label as u32).unwrap().distance;
            let expected = distance(metric, &vectors[label], &vectors[label]);
            assert!(
                (f64::from(reported) - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{metric:?} {quantization:?} {label}: {reported}"
            );
        }
    }
}
