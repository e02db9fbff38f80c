//! Exact search against a naive loop in double precision.

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType, check, encode};
use roaring::RoaringBitmap;

use crate::synthetic::{Random, clustered, distance, labels, search};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Ip, Metric::L2];
const TYPES: [VectorType; 4] =
    [VectorType::Float32, VectorType::Float16, VectorType::Bfloat16, VectorType::Int8];
const QUANTIZATIONS: [Quantization; 3] = [Quantization::None, Quantization::Int8, Quantization::Int4];
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Flat, Algorithm::Hnsw { m: 8, ef_construction: 50 }];

fn exact(k: usize) -> SearchParams<'static> {
    SearchParams { exact: true, ..search(k, 1) }
}

/// Values of the size the type is made for.
fn vectors(count: usize, dim: usize, vector_type: VectorType, seed: u64) -> Vec<Vec<f32>> {
    let mut vectors = clustered(count, dim, seed);
    if vector_type == VectorType::Int8 {
        for vector in &mut vectors {
            let longest = vector.iter().fold(1e-9f32, |longest, v| longest.max(v.abs()));
            vector.iter_mut().for_each(|v| *v = (*v * 127.0 / longest).round());
        }
    }
    vectors
}

fn plain(dim: usize, metric: Metric, vector_type: VectorType) -> Options {
    Options { dim, metric, vector_type, quantization: Quantization::None, algorithm: Algorithm::Flat }
}

fn kinds() -> impl Iterator<Item = (Algorithm, Quantization)> {
    ALGORITHMS.into_iter().flat_map(|algorithm| QUANTIZATIONS.map(|quantization| (algorithm, quantization)))
}

fn each_kind(mut test: impl FnMut(Options, Cpu)) {
    for metric in METRICS {
        for vector_type in TYPES {
            for quantization in QUANTIZATIONS {
                for algorithm in ALGORITHMS {
                    for dim in [1, 3, 65, 384, 4096] {
                        for cpu in Cpu::each_level() {
                            if dim <= 65 || cpu == Cpu::detect() {
                                test(Options { dim, metric, vector_type, quantization, algorithm }, cpu);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn exact_search_agrees_with_a_naive_loop() {
    each_kind(|options, cpu| {
        let index = Index::new(options, cpu);
        let vectors = vectors(60, options.dim, options.vector_type, 3);
        for (label, vector) in vectors.iter().enumerate() {
            assert_eq!(check(vector, options.dim, options.metric), Ok(()));
            index.upsert(label as u32 * 3, vector);
        }
        // Half of them in the graph, half in the tail: results are the same.
        index.drain(30);
        for query in self::vectors(4, options.dim, options.vector_type, 4) {
            // The expected distance is that to the vector as the element type stores it, or, with codes, to the original
            // vector.
            let stored = |vector: &[f32]| {
                if options.quantization != Quantization::None {
                    return vector.to_vec();
                }
                index::decode(
                    &encode(vector, options.vector_type),
                    options.dim,
                    options.vector_type,
                    Metric::Ip,
                )
                .unwrap()
            };
            let mut naive: Vec<(f64, u32)> = vectors
                .iter()
                .enumerate()
                .map(|(label, vector)| (distance(options.metric, &query, &stored(vector)), label as u32 * 3))
                .collect();
            naive.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let found = index.search(&query, &exact(10));
            assert_eq!(found.len(), 10);
            let longest = naive.last().unwrap().0.abs().max(1.0);
            let tolerance = match options.quantization {
                Quantization::None => 1e-5,
                Quantization::Int8 => 4e-5,
                Quantization::Int4 => 6e-4,
            };
            for (found, (expected, _)) in found.iter().zip(&naive) {
                let true_distance = naive.iter().find(|(_, label)| *label == found.label).unwrap().0;
                let error = (f64::from(found.distance) - true_distance).abs() / longest;
                assert!(error < tolerance, "{options:?} {cpu:?}: {} for {true_distance}", found.distance);
                assert!(
                    (true_distance - expected).abs() / longest < tolerance,
                    "{options:?} {cpu:?}: {true_distance} before {expected}"
                );
            }
        }
    });
}

#[test]
fn equal_distances_are_ordered_by_label() {
    for (algorithm, quantization) in kinds() {
        let vector_type = VectorType::Float32;
        let options = Options { dim: 2, metric: Metric::L2, vector_type, quantization, algorithm };
        let index = Index::new(options, Cpu::detect());
        for label in [9, 2, 7, 4, 0] {
            index.upsert(label, &[1.0, 1.0]);
        }
        index.upsert(5, &[1.0, 0.0]);
        index.drain(3);
        assert_eq!(labels(&index.search(&[1.0, 0.0], &exact(4))), [5, 0, 2, 4]);
        assert_eq!(labels(&index.search(&[1.0, 0.0], &search(9, 9))), [5, 0, 2, 4, 7, 9]);
    }
}

#[test]
fn any_k_returns_min_of_k_and_the_number_of_vectors() {
    for (algorithm, quantization) in kinds() {
        let (metric, vector_type) = (Metric::Cosine, VectorType::Float16);
        let options = Options { dim: 5, metric, vector_type, quantization, algorithm };
        let index = Index::new(options, Cpu::detect());
        for (count, vector) in (0..).zip(clustered(100, 5, 5)) {
            for k in [0, 1, 10, 99, 100, 101, 5000] {
                for exact in [false, true] {
                    let found = index.search(&vector, &SearchParams { exact, ..search(k, 1) });
                    assert_eq!(found.len(), k.min(count as usize));
                    assert!(found.is_sorted_by_key(|neighbor| neighbor.distance));
                }
            }
            index.upsert(count, &vector);
            index.drain(usize::from(count % 3 == 0));
        }
    }
}

#[test]
fn a_vector_is_returned_as_stored() {
    let given = [3.0, -4.0, 12.0];
    for vector_type in TYPES {
        for metric in METRICS {
            let options = plain(3, metric, vector_type);
            let index = Index::new(options, Cpu::detect());
            index.upsert(1, &given);
            let expected = match (vector_type, metric) {
                (VectorType::Float32, Metric::Cosine) => given.map(|v| v / 13.0),
                _ => given,
            };
            assert_eq!(index.vector(1).unwrap(), expected);
            assert_eq!(index.vector(2), None);
        }
    }
}

#[test]
fn a_quantized_vector_is_returned_approximately() {
    let cases = [(Quantization::Int8, 2e-5), (Quantization::Int4, 3e-4)];
    for (metric, (quantization, parts)) in
        METRICS.into_iter().flat_map(|metric| cases.map(|case| (metric, case)))
    {
        let options = Options { quantization, ..plain(64, metric, VectorType::Float32) };
        let index = Index::new(options, Cpu::detect());
        let given = &clustered(1, 64, 8)[0];
        index.upsert(1, given);
        let length =
            if metric == Metric::Cosine { given.iter().map(|v| v * v).sum::<f32>().sqrt() } else { 1.0 };
        let range = given.iter().fold(0f32, |range, v| range.max(2.0 * v.abs()));
        for (stored, given) in index.vector(1).unwrap().iter().zip(given) {
            let error = (stored * length - given).abs();
            assert!(error < parts * range, "{quantization:?}: {stored} for {given}");
        }
    }
}

#[test]
fn only_the_direction_matters_under_cosine() {
    for vector_type in TYPES {
        for factor in [1e-38, 1e-9, 1.0, 1e9, 5e17] {
            for quantization in QUANTIZATIONS {
                let options = Options { quantization, ..plain(3, Metric::Cosine, vector_type) };
                let index = Index::new(options, Cpu::detect());
                let vector = [0.3, -0.4, 1.2].map(|v| v * factor);
                index.upsert(1, &vector);
                for query in [[0.3, -0.4, 1.2], [3e-30, -4e-30, 12e-30], [3e17, -4e17, 12e17]] {
                    let found = index.search(&query, &exact(1));
                    let exact = vector_type == VectorType::Float32 && quantization == Quantization::None;
                    let tolerance = if exact { 1e-6 } else { 1e-4 };
                    assert!(
                        found[0].distance.abs() < tolerance,
                        "{vector_type:?} {factor}: {}",
                        found[0].distance
                    );
                }
            }
        }
    }
}

#[test]
fn the_longest_vectors_have_finite_distances() {
    for metric in METRICS {
        for vector_type in TYPES {
            for quantization in QUANTIZATIONS {
                let options = Options { quantization, ..plain(4, metric, vector_type) };
                let index = Index::new(options, Cpu::detect());
                let longest = [4.6e18, -4.6e18, 4.6e18, 4.6e18];
                assert_eq!(check(&longest, 4, metric), Ok(()));
                index.upsert(1, &longest);
                let opposite = longest.map(|v| -v);
                assert!(index.search(&opposite, &exact(1))[0].distance.is_finite(), "{options:?}");
            }
        }
    }
}

#[test]
fn filters_are_exact_at_every_selectivity() {
    let vectors = clustered(500, 16, 6);
    let mut random = Random::new(1);
    for (algorithm, quantization) in kinds() {
        let options = Options { quantization, algorithm, ..plain(16, Metric::L2, VectorType::Float32) };
        let index = Index::new(options, Cpu::detect());
        for (label, vector) in (0..).zip(&vectors) {
            index.upsert(label, vector);
        }
        index.drain(400);
        for percent in [0, 1, 10, 50, 99, 100] {
            // Labels that do not exist are allowed too; they match nothing.
            let allowed: RoaringBitmap = (0..700).filter(|_| random.below(100) < percent).collect();
            for query in clustered(5, 16, 7) {
                let mut naive: Vec<(f64, u32)> = allowed
                    .iter()
                    .filter(|&label| label < 500)
                    .map(|label| (distance(Metric::L2, &query, &vectors[label as usize]), label))
                    .collect();
                naive.sort_by(|a, b| a.partial_cmp(b).unwrap());
                let expected: Vec<u32> = naive.iter().take(10).map(|(_, label)| *label).collect();
                let search = SearchParams { allowed: Some(&allowed), ..exact(10) };
                assert_eq!(labels(&index.search(&query, &search)), expected, "{algorithm:?} {percent} %");
            }
        }
    }
}
