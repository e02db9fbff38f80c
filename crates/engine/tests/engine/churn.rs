//! Recall and memory after half of a collection was deleted and rewritten ten times.
//!
//! `CHURN_DOCUMENTS` sets its size: at least 10,000, the default is 20,000.

use std::collections::BTreeMap;

use engine::{Expected, FieldKind, FieldSchema, Metric, Op, Quantization, Schema, VectorSchema, VectorType};

use crate::{disks::SplitMix64, test_engine::*};

const QUERIES: u64 = 600;
const GROUP: usize = 100;
const ROUNDS: u64 = 10;
const CHURN_DIM: usize = 32;
/// Small compared with the collection, so that most vectors are linked.
const TAIL_MAX: usize = 100;
const CLUSTERS: u64 = 60;

fn collection(quantization: Quantization) -> Schema {
    let kind = FieldKind::Vector(VectorSchema {
        algorithm: engine::Algorithm::Hnsw { m: 8, ef_construction: 60, ef_search: 40 },
        vector_type: VectorType::Float32,
        quantization,
        dim: CHURN_DIM,
        metric: Metric::Cosine,
        embed: None,
    });
    let fields = vec![FieldSchema { name: "v".to_owned(), kind }];
    Schema { prefixes: vec![b"doc:".to_vec()], fields, ttl: None }
}

fn documents() -> u64 {
    let documents = std::env::var("CHURN_DOCUMENTS")
        .map_or(20_000, |text| text.parse().expect("CHURN_DOCUMENTS is a number"));
    // Slots are allocated in chunks of 1,000, and memory may be a tenth above what is needed.
    assert!(documents >= 10_000, "a chunk of slots would be more than a tenth of {documents} documents");
    documents
}

/// A vector near one of a few cluster centres.
fn vector_near_cluster(number: u64) -> Vec<f32> {
    let mut noise = SplitMix64(number);
    let mut centre = SplitMix64(1_000_000 + noise.next() % CLUSTERS);
    let uniform = |random: &mut SplitMix64| (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..CHURN_DIM).map(|_| uniform(&mut centre) + 0.5 * uniform(&mut noise)).collect()
}

/// Writes documents by number, each with the vector of another number.
fn write(test: &TestEngine, documents: &BTreeMap<u64, u64>) {
    let put = |(number, vector): (&u64, &u64)| {
        put(&format!("doc:{number}"), &[("v", &blob(&vector_near_cluster(*vector)))])
    };
    assert!(test.engine().write(documents.iter().map(put).collect()).iter().all(Result::is_ok));
}

/// The share of the ten nearest documents that the graph finds.
fn recall(test: &TestEngine) -> f64 {
    let found = (0..QUERIES).map(|number| {
        let target = vector_near_cluster(5_000_000 + number);
        let exact = test.keys(&query("docs", &target, 10).exact(true));
        let found = test.keys(&query("docs", &target, 10));
        found.iter().filter(|key| exact.contains(key)).count()
    });
    found.sum::<usize>() as f64 / (10 * QUERIES) as f64
}

#[test]
fn churn_keeps_recall_and_memory() {
    check_recall_after_churn(Quantization::None);
}

#[test]
fn churn_keeps_recall_and_memory_with_quantization() {
    check_recall_after_churn(Quantization::Int8);
}

fn check_recall_after_churn(quantization: Quantization) {
    let documents = documents();
    let test = TestEngine::with(|options| options.tail_max = TAIL_MAX);
    test.engine().create_collection("docs", collection(quantization)).unwrap();
    let mut live: BTreeMap<u64, u64> = (0..documents).map(|number| (number, number)).collect();
    write(&test, &live);
    let mut random = SplitMix64(43);
    for round in 1..=ROUNDS {
        let half: Vec<u64> = live.keys().copied().filter(|_| random.next().is_multiple_of(2)).collect();
        for group in half.chunks(GROUP) {
            let delete =
                |number: &u64| Op::Delete { key: format!("doc:{number}").into(), expected: Expected::Any };
            let deleted = test.engine().write(group.iter().map(delete).collect());
            assert!(deleted.iter().all(|deleted| deleted.as_ref().is_ok_and(|written| written.existed)));
            let remaining = documents - group.len() as u64;
            assert_eq!(test.engine().count("docs", None).unwrap(), remaining);
            let rewritten: BTreeMap<u64, u64> =
                group.iter().map(|number| (*number, number + round * documents)).collect();
            write(&test, &rewritten);
            live.extend(rewritten);
        }
    }
    test.settle();
    let fresh = TestEngine::new();
    fresh.engine().create_collection("docs", collection(quantization)).unwrap();
    write(&fresh, &live);
    fresh.settle();
    let (recall, fresh_recall) = (recall(&test), recall(&fresh));
    let bytes = |test: &TestEngine| test.engine().collection("docs").unwrap().memory_bytes;
    let (bytes, fresh_bytes) = (bytes(&test), bytes(&fresh));
    println!(
        "{quantization:?}: recall {recall}, {bytes} bytes; fresh: recall {fresh_recall}, {fresh_bytes} bytes"
    );
    assert!(recall >= fresh_recall - 0.01, "{quantization:?}: recall {recall}, fresh {fresh_recall}");
    // Up to a sixteenth of the slots may hold removed vectors before a vacuum, and some more during it.
    assert!(bytes as f64 <= fresh_bytes as f64 * 1.1, "{quantization:?}: {bytes} bytes, fresh {fresh_bytes}");
}
