//! Body of the fuzz target on graphs as bytes.

use crate::snapshot::{MAGIC, header_of};
use crate::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType};

const DIM: usize = 3;

/// Most neighbours asked for.
const K: usize = 8;

/// What the first byte chooses an index by.
fn options(choice: u8) -> Options {
    let graph = Algorithm::Hnsw { m: 2, ef_construction: 4 };
    let (vector_type, quantization, algorithm) = match choice % 6 {
        0 => (VectorType::Float32, Quantization::None, graph),
        1 => (VectorType::Float32, Quantization::Int8, graph),
        2 => (VectorType::Float16, Quantization::Int4, graph),
        3 => (VectorType::Int8, Quantization::None, graph),
        4 => (VectorType::Bfloat16, Quantization::None, Algorithm::Flat),
        _ => (VectorType::Float32, Quantization::Int8, Algorithm::Flat),
    };
    let metric = [Metric::L2, Metric::Cosine, Metric::Ip][usize::from(choice / 6) % 3];
    Options { dim: DIM, metric, vector_type, quantization, algorithm }
}

/// A snapshot behind a byte that says of what index; its magic and options are put right. What is
/// read back is an index that can be searched and changed, and that reads back from its own snapshot.
pub fn graph_snapshot(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let options = options(choice);
    let file = [&MAGIC[..], &header_of(&options), rest].concat();
    let Ok(index) = restore(&file, options) else { return };
    search(&index);
    let written = snapshot(&index);
    let again = restore(&written, options).unwrap_or_else(|error| panic!("what was written: {error}"));
    assert_eq!(snapshot(&again), written);
    assert_eq!(again.stats().vectors, index.stats().vectors);

    index.upsert(0, &[1.0, 2.0, 3.0]);
    index.upsert(1000, &[3.0, 2.0, 1.0]);
    index.drain(usize::MAX);
    index.remove(1);
    index.refine(usize::MAX);
    index.vacuum();
    index.check_invariants();
    search(&index);
}

fn restore(file: &[u8], options: Options) -> Result<Index, crate::LoadError> {
    Index::load(&mut &file[..], options, Cpu::detect())
}

fn snapshot(index: &Index) -> Vec<u8> {
    let mut written = Vec::new();
    index.save(&mut written).expect("a Vec takes every byte");
    written
}

fn search(index: &Index) {
    for exact in [false, true] {
        let search = SearchParams { k: K, ef: K, exact, allowed: None };
        let found = index.search(&[1.0, -2.0, 3.0], &search);
        assert!(found.len() <= K.min(index.stats().vectors));
        for neighbor in found {
            assert!(index.vector(neighbor.label).is_some(), "label {} was found", neighbor.label);
        }
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(graph_snapshot);
}
