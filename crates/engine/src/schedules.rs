//! Interactions between an engine's threads, run by a model checker under random schedules.

#[path = "../../kernels/tests/model_checker/mod.rs"]
mod model_checker;

use std::sync::{Arc, atomic::Ordering};

use index::{Cpu, Metric, SearchParams, VectorType};
use shuttle::{sync::atomic::AtomicUsize, thread};
use store::{CollectionVersion, DocId, Seq};

use crate::{
    attributes::DocumentAttributes,
    collection::{Collection, DocumentChange, DocumentChangeKind},
    projection::{FieldVectors, Projection},
    queue::{SubmitError, WriteJob, WriteQueue},
    schema::{Algorithm, FieldKind, FieldSchema, Quantization, Schema, VectorSchema},
    wake_signal::WakeSignal,
    write::{Expected, Op},
};

/// Schedules per scenario.
const SCHEDULES: usize = 1_000;

fn delete(key: &str) -> Op {
    Op::Delete { key: key.into(), expected: Expected::Any }
}

/// A write whose key contains the writer and the writer's sequence number.
fn write(writer: usize, number: usize) -> Vec<Op> {
    vec![delete(&format!("{writer}{number}"))]
}

#[test]
fn queued_jobs_are_answered_once_in_order_and_none_is_lost_on_close() {
    const WRITERS: usize = 2;
    const WRITES: usize = 3;
    model_checker::check(SCHEDULES, || {
        let queue = Arc::new(WriteQueue::default());
        let answered = Arc::new(AtomicUsize::new(0));
        let committer = {
            let queue = queue.clone();
            thread::spawn(move || {
                let mut last = [0; WRITERS];
                while let Some(jobs) = queue.take(None) {
                    assert!(!jobs.is_empty());
                    for job in jobs {
                        let digit = |at: usize| usize::from(job.ops[0].key()[at] - b'0');
                        assert!(digit(1) >= last[digit(0)], "a writer's later write came first");
                        last[digit(0)] = digit(1);
                        (job.done)(Vec::new());
                    }
                }
            })
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (queue, answered) = (queue.clone(), answered.clone());
                thread::spawn(move || {
                    let mut accepted = 0;
                    for number in 0..WRITES {
                        let answered = answered.clone();
                        let done = move |_| {
                            answered.fetch_add(1, Ordering::SeqCst);
                        };
                        let job = WriteJob::new(write(writer, number), Box::new(done));
                        let is_accepted = if writer == 0 {
                            queue.submit_blocking(job).is_ok()
                        } else {
                            match queue.submit(job) {
                                Ok(()) => true,
                                Err(SubmitError::Closed(_)) => false,
                                Err(SubmitError::Full(_)) => panic!("the queue has space for so few jobs"),
                            }
                        };
                        accepted += usize::from(is_accepted);
                    }
                    accepted
                })
            })
            .collect();
        queue.close();
        let accepted: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        committer.join().unwrap();
        assert_eq!(answered.load(Ordering::SeqCst), accepted);
    });
}

#[test]
fn a_blocked_writer_is_queued_or_notified_that_the_queue_closed() {
    model_checker::check(SCHEDULES, || {
        let queue = Arc::new(WriteQueue::default());
        // This job is accepted because the queue is empty, and fills the queue.
        let large = (0..10_000).map(|number| delete(&number.to_string())).collect();
        assert!(queue.submit_blocking(WriteJob::new(large, Box::new(|_| ()))).is_ok());
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let queue = queue.clone();
                thread::spawn(move || {
                    let job = WriteJob::new(write(writer, 0), Box::new(|_| ()));
                    usize::from(queue.submit_blocking(job).is_ok())
                })
            })
            .collect();
        let committer = {
            let queue = queue.clone();
            thread::spawn(move || {
                std::iter::from_fn(|| queue.take(None)).map(|jobs| jobs.len()).sum::<usize>()
            })
        };
        queue.close();
        let accepted: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        assert_eq!(committer.join().unwrap(), 1 + accepted);
    });
}

#[test]
fn no_worker_misses_a_wake_signal() {
    model_checker::check(SCHEDULES, || {
        let signal = Arc::new(WakeSignal::default());
        let (work, closing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (signal, work, closing) = (signal.clone(), work.clone(), closing.clone());
                thread::spawn(move || {
                    let mut done = 0;
                    loop {
                        // Read in this order, because no work is added after closing.
                        let seen = signal.generation();
                        let is_closing = closing.load(Ordering::SeqCst) == 1;
                        let take_one = |work: usize| work.checked_sub(1);
                        match work.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one) {
                            Ok(_) => done += 1,
                            Err(_) if is_closing => return done,
                            Err(_) => signal.wait(seen),
                        }
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            work.fetch_add(1, Ordering::SeqCst);
            signal.notify();
        }
        closing.store(1, Ordering::SeqCst);
        signal.notify();
        assert_eq!(workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>(), 3);
    });
}

fn collection() -> Arc<Collection> {
    let vector = VectorSchema {
        algorithm: Algorithm::Hnsw { m: 2, ef_construction: 8, ef_search: 8 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 2,
        metric: Metric::L2,
        embed: None,
    };
    let fields = vec![FieldSchema { name: "v".to_owned(), kind: FieldKind::Vector(vector) }];
    let schema = Schema { prefixes: vec![Vec::new()], fields, ttl: None };
    let version = CollectionVersion { id: 1, version: 1 };
    Arc::new(Collection::new(version, Arc::new(schema), Cpu::detect()))
}

/// The vector of a document encodes its number.
fn vector_of(doc: u64) -> Vec<f32> {
    vec![doc as f32 * 10.0, 1.0]
}

fn upserted(doc: u64, seq: Seq) -> DocumentChange {
    let projection = Projection {
        attributes: DocumentAttributes::default(),
        vectors: vec![FieldVectors::single(vector_of(doc))],
    };
    DocumentChange {
        doc: DocId(doc),
        seq,
        kind: DocumentChangeKind::Upserted { expires_at_ms: None, projection },
    }
}

#[test]
fn an_ordinal_reused_during_a_search_never_returns_another_document() {
    model_checker::check(SCHEDULES, || {
        let collection = collection();
        collection.publish(vec![upserted(1, 1), upserted(2, 2)], 2);
        let writer = {
            let collection = collection.clone();
            thread::spawn(move || {
                // Document 3 gets the ordinal of 1, and 4 that of 3.
                for (old, new, seq) in [(1, 3, 3), (3, 4, 5)] {
                    let removed = DocumentChange { doc: DocId(old), seq, kind: DocumentChangeKind::Removed };
                    collection.publish(vec![removed], seq);
                    collection.publish(vec![upserted(new, seq + 1)], seq + 1);
                }
            })
        };
        let indexer = {
            let collection = collection.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    collection.indexes[0].drain(1);
                    collection.indexes[0].vacuum();
                }
            })
        };
        for exact in [true, false] {
            let selection = collection.select_vectors(None, 0);
            let search = SearchParams { k: 8, ef: 8, allowed: selection.labels.as_ref(), exact };
            let found = collection.indexes[0].search(&vector_of(0), &search);
            let state = collection.state();
            let mut found_2 = false;
            for neighbor in found {
                if let Some(doc) = state.ordinals.doc(neighbor.label, selection.seen) {
                    let difference = doc.0 as f32 * 10.0;
                    assert_eq!(neighbor.distance, difference * difference, "not the vector of {doc:?}");
                    found_2 |= doc == DocId(2);
                }
            }
            assert!(found_2, "a document that is never deleted is found");
        }
        writer.join().unwrap();
        indexer.join().unwrap();
        let state = collection.state();
        assert_eq!(state.ordinals.docs_after(None).map(|(doc, _)| doc.0).collect::<Vec<_>>(), [2, 4]);
    });
}
