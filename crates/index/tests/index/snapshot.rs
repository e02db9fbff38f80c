//! Saving and loading an index.

use index::{Algorithm, Cpu, Index, LoadError, Metric, Options, Quantization, SearchParams, VectorType};
use proptest::prelude::*;

use crate::synthetic::{clustered, labels, search};

fn options(vector_type: VectorType, algorithm: Algorithm) -> Options {
    let quantization = Quantization::None;
    Options { dim: 24, metric: Metric::Cosine, vector_type, quantization, algorithm }
}

const HNSW: Algorithm = Algorithm::Hnsw { m: 4, ef_construction: 40 };

/// Vectors in the graph, in the tail, replaced, removed.
fn mixed(options: Options) -> Index {
    let index = Index::new(options, Cpu::detect());
    let vectors = clustered(400, options.dim, 7);
    for (label, vector) in vectors[..300].iter().enumerate() {
        index.upsert(label as u32, vector);
    }
    index.drain(250);
    for label in (0..300).step_by(7) {
        assert!(index.remove(label));
    }
    for (label, vector) in (0..).step_by(5).zip(&vectors[300..340]) {
        index.upsert(label, vector);
    }
    index
}

fn bytes(index: &Index) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.save(&mut bytes).unwrap();
    bytes
}

fn restore(bytes: &[u8], options: Options) -> Result<Index, LoadError> {
    Index::load(&mut &bytes[..], options, Cpu::detect())
}

#[test]
fn a_loaded_index_returns_the_same_results_and_accepts_writes() {
    for vector_type in [VectorType::Float32, VectorType::Float16, VectorType::Bfloat16, VectorType::Int8] {
        for (algorithm, quantization) in [
            (HNSW, Quantization::None),
            (HNSW, Quantization::Int8),
            (HNSW, Quantization::Int4),
            (Algorithm::Flat, Quantization::None),
            (Algorithm::Flat, Quantization::Int8),
            (Algorithm::Flat, Quantization::Int4),
        ] {
            let options = Options { quantization, ..options(vector_type, algorithm) };
            let before = mixed(options);
            let written = bytes(&before);
            let mut reader = &[&written[..], b"more"].concat()[..];
            let after = Index::load(&mut reader, options, Cpu::detect()).unwrap();
            assert_eq!(reader, b"more", "reads no further than its end");
            assert_eq!(bytes(&after), written);
            assert_eq!(before.stats().vectors, after.stats().vectors);
            for _ in 0..3 {
                for query in clustered(30, 24, 8) {
                    for search in [search(5, 20), SearchParams { exact: true, ..search(400, 20) }] {
                        assert_eq!(before.search(&query, &search), after.search(&query, &search));
                    }
                }
                (0..400).for_each(|label| assert_eq!(before.vector(label), after.vector(label)));
                assert_eq!(before.drain(30), after.drain(30));
                assert_eq!(before.refine(100), after.refine(100));
                before.vacuum();
                after.vacuum();
            }
        }
    }
}

#[test]
fn an_empty_index_round_trips() {
    for algorithm in [HNSW, Algorithm::Flat] {
        let options = options(VectorType::Float32, algorithm);
        let index = restore(&bytes(&Index::new(options, Cpu::detect())), options).unwrap();
        assert_eq!(index.stats().vectors, 0);
        assert!(index.search(&[1.0; 24], &search(3, 10)).is_empty());
        index.upsert(3, &[1.0; 24]);
        index.drain(1);
        assert_eq!(labels(&index.search(&[1.0; 24], &search(3, 10))), [3]);
    }
}

#[test]
fn rejects_snapshots_with_other_options_and_other_bytes() {
    let flat = options(VectorType::Float32, Algorithm::Flat);
    let written = bytes(&mixed(flat));
    assert!(matches!(
        restore(b"something else that is long enough for a header", flat),
        Err(LoadError::Format)
    ));
    for other in [
        Options { dim: 25, ..flat },
        Options { metric: Metric::L2, ..flat },
        Options { quantization: Quantization::Int8, ..flat },
        Options { quantization: Quantization::Int4, ..flat },
        options(VectorType::Float32, HNSW),
    ] {
        assert!(matches!(restore(&written, other), Err(LoadError::Options { .. })));
    }
    for end in [0, 7, 39, 40, 100, written.len() - 1] {
        assert!(matches!(restore(&written[..end], flat), Err(LoadError::Io(_))), "{end}");
    }
}

#[test]
fn rejects_huge_counts_without_the_bytes() {
    let options = options(VectorType::Float32, HNSW);
    let mut written = bytes(&mixed(options));
    for at in [24, 28] {
        let mut forged = written.clone();
        forged[at..at + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        assert!(restore(&forged, options).is_err());
    }
    written[32..36].copy_from_slice(&299u32.to_le_bytes());
    assert!(matches!(restore(&written, options), Err(LoadError::Malformed { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn corrupt_bytes_are_an_error_or_a_working_index(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        near_front in any::<bool>(),
        vector_type in prop::sample::select(vec![VectorType::Float32, VectorType::Bfloat16]),
        quantization in prop::sample::select(vec![Quantization::None, Quantization::Int8, Quantization::Int4]),
    ) {
        let options = Options { quantization, ..options(vector_type, HNSW) };
        let mut written = bytes(&mixed(options));
        for (at, byte) in damage {
            // The header and the table of slots are a small part of the bytes, so some changes are aimed at them.
            let range = if near_front { 600 } else { written.len() };
            written[at.index(range)] = byte;
        }
        if let Some(cut) = cut {
            written.truncate(cut.index(written.len()));
        }
        if let Ok(index) = restore(&written, options) {
            let query = &clustered(1, 24, 9)[0];
            for _ in 0..2 {
                let found = index.search(query, &search(10, 20));
                prop_assert_eq!(found.len(), index.stats().vectors.min(10));
                index.drain(usize::MAX);
                index.remove(found.first().map_or(0, |neighbor| neighbor.label));
                index.vacuum();
            }
        }
    }
}
