//! The body of the fuzz target for index snapshots.

use crate::snapshot::{MAGIC, encode_options};
use crate::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType};

const DIM: usize = 3;

/// Number of neighbours to search for.
const K: usize = 8;

/// The options selected by the first byte of the input.
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

/// Loads a snapshot whose header is replaced by a valid one for the options that the first byte selects. An index that
/// loads must support searches and writes, and load again from its own snapshot.
pub fn graph_snapshot(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let options = options(choice);
    let file = [&MAGIC[..], &encode_options(&options), rest].concat();
    let Ok(index) = restore(&file, options) else { return };
    search(&index);
    let written = snapshot(&index);
    let restored =
        restore(&written, options).unwrap_or_else(|error| panic!("a saved snapshot does not load: {error}"));
    assert_eq!(snapshot(&restored), written);
    assert_eq!(restored.stats().vectors, index.stats().vectors);

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
    index.save(&mut written).expect("writing to a Vec cannot fail");
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
