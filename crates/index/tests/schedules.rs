//! The index under a model checker that tries random orders of its steps.

use std::sync::Arc;

use index::{Algorithm, Cpu, Index, Metric, Options, Quantization, Search, VectorType};
use shuttle::thread;

const OWNERS: u32 = 5;

fn index(algorithm: Algorithm) -> Arc<Index> {
    holding(algorithm, Quantization::None)
}

fn holding(algorithm: Algorithm, quantization: Quantization) -> Arc<Index> {
    let (metric, vector_type) = (Metric::L2, VectorType::Float32);
    let options = Options { dim: 2, metric, vector_type, quantization, algorithm };
    Arc::new(Index::new(options, Cpu::detect()))
}

const HNSW: Algorithm = Algorithm::Hnsw { m: 2, ef_construction: 8 };

/// Each owner's vectors stand at a place of its own; versions differ in the second value.
fn vector(owner: u32, version: u32) -> [f32; 2] {
    [owner as f32 * 10.0, version as f32]
}

fn all() -> Search<'static> {
    Search { k: 20, ef: 20, allowed: None, exact: false }
}

/// What must hold once nothing runs any more.
fn settled(index: &Index, live: impl Iterator<Item = u32>) {
    index.drain(usize::MAX);
    index.check_invariants();
    let mut live: Vec<u32> = live.collect();
    let mut found: Vec<u32> =
        index.search(&vector(0, 0), &all()).iter().map(|neighbor| neighbor.owner).collect();
    live.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, live);
    for owner in live {
        let own = index.vector(owner).unwrap();
        let first = index.search(&own, &Search { k: 1, ..all() })[0];
        assert!(first.owner == owner && first.distance < 1e-6, "{owner}: {first:?}");
    }
}

#[test]
fn a_replaced_vector_is_found_once_old_or_new() {
    for (algorithm, quantization) in
        [(HNSW, Quantization::None), (Algorithm::Flat, Quantization::None), (HNSW, Quantization::Int8)]
    {
        shuttle::check_random(
            move || {
                let index = holding(algorithm, quantization);
                (0..3).for_each(|owner| index.upsert(owner, &vector(owner, 0)));
                index.drain(2);
                let writer = {
                    let index = Arc::clone(&index);
                    thread::spawn(move || {
                        index.upsert(1, &vector(1, 1));
                        index.drain(2);
                        index.upsert(1, &vector(1, 2));
                        index.sweep();
                    })
                };
                for exact in [false, true, false] {
                    let found = index.search(&vector(1, 0), &Search { exact, ..all() });
                    let mut owners: Vec<u32> = found.iter().map(|neighbor| neighbor.owner).collect();
                    owners.sort_unstable();
                    assert_eq!(owners, [0, 1, 2]);
                    let is_at = |distance: f32| (distance - found[0].distance).abs() < 1e-3;
                    assert!([0.0, 1.0, 4.0].into_iter().any(is_at), "no version is that far");
                }
                writer.join().unwrap();
                index.sweep();
                settled(&index, 0..3);
            },
            400,
        );
    }
}

#[test]
fn what_was_written_before_a_search_is_found_and_what_was_removed_is_not() {
    shuttle::check_random(
        || {
            let index = index(HNSW);
            (0..OWNERS).for_each(|owner| index.upsert(owner, &vector(owner, 0)));
            let drainers: Vec<_> = (0..2)
                .map(|_| {
                    let index = Arc::clone(&index);
                    thread::spawn(move || {
                        while index.drain(1) > 0 {
                            index.refine(1);
                            index.sweep();
                        }
                    })
                })
                .collect();
            for owner in [2, 0] {
                assert!(index.remove(owner));
                let found = index.search(&vector(owner, 0), &all());
                assert!(found.iter().all(|neighbor| neighbor.owner != owner), "{owner} was removed");
                assert!(index.vector(owner).is_none());
            }
            index.upsert(7, &vector(7, 0));
            assert_eq!(index.search(&vector(7, 0), &all())[0].owner, 7);
            for drainer in drainers {
                drainer.join().unwrap();
            }
            index.sweep();
            settled(&index, [1, 3, 4, 7].into_iter());
        },
        400,
    );
}

#[test]
fn removing_everything_while_it_is_linked_leaves_a_graph_that_grows_again() {
    shuttle::check_random(
        || {
            let index = index(HNSW);
            (0..OWNERS).for_each(|owner| index.upsert(owner, &vector(owner, 0)));
            index.drain(2);
            let remover = {
                let index = Arc::clone(&index);
                thread::spawn(move || {
                    (0..OWNERS).for_each(|owner| {
                        index.remove(owner);
                    });
                    index.refine(usize::MAX);
                    index.sweep();
                })
            };
            let drainer = {
                let index = Arc::clone(&index);
                thread::spawn(move || {
                    index.drain(usize::MAX);
                    index.upsert(8, &vector(8, 0));
                    index.upsert(9, &vector(9, 0));
                    index.drain(usize::MAX);
                })
            };
            index.search(&vector(1, 0), &all());
            remover.join().unwrap();
            drainer.join().unwrap();
            index.drain(usize::MAX);
            index.sweep();
            index.sweep();
            settled(&index, 8..10);
            assert_eq!(index.stats().removed, 0, "every slot was given back");
        },
        400,
    );
}

#[test]
fn a_snapshot_taken_meanwhile_holds_what_was_there_before_it() {
    shuttle::check_random(
        || {
            let index = index(HNSW);
            (0..3).for_each(|owner| index.upsert(owner, &vector(owner, 0)));
            let writer = {
                let index = Arc::clone(&index);
                thread::spawn(move || {
                    index.drain(2);
                    index.refine(2);
                    index.upsert(1, &vector(1, 1));
                    index.remove(2);
                    index.drain(2);
                    index.sweep();
                })
            };
            let mut bytes = Vec::new();
            index.snapshot(&mut bytes).unwrap();
            writer.join().unwrap();
            let restored = Index::restore(&mut &bytes[..], index.options(), Cpu::detect()).unwrap();
            let live: Vec<u32> = (0..3).filter(|&owner| restored.vector(owner).is_some()).collect();
            assert!(live == [0, 1, 2] || live == [0, 1], "{live:?}");
            settled(&restored, live.into_iter());
        },
        400,
    );
}
