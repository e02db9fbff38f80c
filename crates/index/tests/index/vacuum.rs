//! Vacuum in steps, while vectors are inserted.

use std::io::{self, Write};

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, SearchParams, VectorType};

use crate::synthetic::{Random, clustered, labels, recall, search};

const DIM: usize = 16;
const OPTIONS: Options = Options {
    dim: DIM,
    metric: Metric::L2,
    vector_type: VectorType::Float32,
    quantization: Quantization::None,
    algorithm: Algorithm::Hnsw { m: 8, ef_construction: 40 },
};

fn built(vectors: &[Vec<f32>]) -> Index {
    let index = Index::new(OPTIONS, Cpu::detect());
    (0..).zip(vectors).for_each(|(label, vector)| index.upsert(label, vector));
    index.drain(usize::MAX);
    index
}

/// An index with a tenth of its vectors removed, in the middle of a vacuum pass.
fn partly_vacuumed(count: u32) -> (Index, Vec<Vec<f32>>) {
    let vectors = clustered(count as usize, DIM, 31);
    let index = built(&vectors);
    (0..count).step_by(10).for_each(|label| assert!(index.remove(label)));
    assert!(index.vacuum_step(700));
    assert_eq!(index.stats().removed, count as usize / 10, "the pass is not over");
    (index, vectors)
}

fn everything(index: &Index) -> Vec<u32> {
    let mut found = labels(&index.search(&[0.0; DIM], &SearchParams { exact: true, ..search(5_000, 10) }));
    found.sort_unstable();
    found
}

#[test]
fn a_vacuum_step_per_insertion_bounds_memory_growth_to_a_tenth() {
    // About 16 chunks of 1,024 slots.
    const COUNT: u32 = 16_000;
    let mut current = clustered(COUNT as usize, DIM, 32);
    let index = built(&current);
    let first_bytes = index.stats().bytes;
    let mut random = Random::new(33);
    for round in 0..2 {
        for (vector, label) in clustered(COUNT as usize, DIM, 34 + round).into_iter().zip(0..) {
            // Replaced in insertion order in the first round, in random order in the second.
            let label = if round == 0 { label } else { random.below(COUNT) };
            index.upsert(label, &vector);
            index.drain(1);
            if index.needs_vacuum() {
                index.vacuum_step(64);
            }
            current[label as usize] = vector;
        }
        index.check_invariants();
    }
    let bytes = index.stats().bytes;
    assert!(bytes as f64 <= first_bytes as f64 * 1.1, "{bytes} bytes, {first_bytes} at first");
    let queries = clustered(300, DIM, 36);
    let (churned, fresh) =
        (recall(&index, &queries, &search(10, 40)), recall(&built(&current), &queries, &search(10, 40)));
    assert!(churned >= fresh - 0.01, "{churned} after churn, {fresh} fresh");
}

#[test]
fn vacuum_steps_have_the_same_result_as_one_vacuum() {
    let (index, vectors) = partly_vacuumed(2_000);
    // Insertions and removals between two steps.
    (3_000..3_050).zip(&vectors).for_each(|(label, vector)| index.upsert(label, vector));
    index.drain(usize::MAX);
    (5..2_000).step_by(100).for_each(|label| assert!(index.remove(label)));
    index.check_invariants();
    let mut steps = 0;
    while index.vacuum_step(100) {
        index.check_invariants();
        steps += 1;
    }
    assert!((13..=16).contains(&steps), "{steps} steps of 100 after 700 of 2,050 slots");
    assert_eq!(index.stats().removed, 20, "the vectors removed during the pass are too few for another");
    let lives = |label: &u32| !label.is_multiple_of(10) && label % 100 != 5;
    let expected: Vec<u32> = (0..2_000).filter(lives).chain(3_000..3_050).collect();
    assert_eq!(everything(&index), expected);
    for label in expected {
        let vector = index.vector(label).unwrap();
        assert!(index.search(&vector, &search(2, 100)).iter().any(|hit| hit.distance < 1e-6), "{label}");
    }
}

#[test]
fn a_snapshot_between_two_vacuum_steps_loads() {
    let (index, _) = partly_vacuumed(2_000);
    let mut bytes = Vec::new();
    index.save(&mut bytes).unwrap();
    let restored = Index::load(&mut &bytes[..], OPTIONS, Cpu::detect()).unwrap();
    restored.check_invariants();
    assert_eq!(everything(&restored), everything(&index));
    for index in [index, restored] {
        assert_eq!(index.vacuum(), 200);
        index.check_invariants();
    }
}

/// A writer that vacuums on every write.
struct VacuumingWriter<'a> {
    index: &'a Index,
    writes: usize,
}

impl Write for VacuumingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert_eq!(self.index.vacuum(), 0, "a snapshot keeps every slot");
        assert!(!self.index.vacuum_step(10));
        self.writes += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn vacuum_does_not_wait_for_a_snapshot() {
    let (index, _) = partly_vacuumed(10_000);
    let mut writer = VacuumingWriter { index: &index, writes: 0 };
    index.save(&mut writer).unwrap();
    assert!(writer.writes > 1, "some come when more are yet to be read");
    assert_eq!(index.vacuum(), 1_000);
}
