//! Writers, searchers, expiry and index workers at the same time.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use engine::{Expected, Metric, Op, Query, WriteError, WriteOutcome};

use crate::test_engine::*;

const CENTRES: u64 = 24;
const STABLE: u64 = 10;
/// Number of graph searches that may miss a stable document.
const MISSED_MAX: u64 = 2;
/// In addition, one graph search in this many may miss one.
const MISSED_SHARE: u64 = 1_000;

/// Stops the searchers when it is dropped, also if a writer panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A vector close to the vector of this centre and far from those of all others.
fn near_centre(centre: u64, jitter: u64) -> Vec<f32> {
    let mut near = vector(centre);
    near[(jitter % DIM as u64) as usize] += 0.001 * (jitter % 5) as f32;
    near
}

#[test]
fn no_hit_is_a_wrong_document_and_stable_documents_are_found() {
    let test = TestEngine::with(|options| {
        // Small, so that writers help to link; two threads drain.
        options.tail_max = 16;
        options.index_threads = 2;
    });
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    for number in 0..STABLE {
        let v = blob(&vector(1_000 + number));
        test.put(&format!("doc:stable:{number}"), &[("category", b"stable"), ("v", &v)]);
    }
    let stable = test.filter("docs", "@category:{stable}");
    let even = test.filter("docs", "@category:{even}");
    let engine = test.engine();
    let writing = AtomicBool::new(true);
    let (searched, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let test = &test;
                scope.spawn(move || {
                    for round in 0..250u64 {
                        // Each writer writes and deletes documents at different centres.
                        let centre = (round * 7 % (CENTRES / 3)) * 3 + writer;
                        let key = format!("doc:{centre}");
                        let op = match round % 5 {
                            3 => Op::Delete { key: key.into(), expected: Expected::Any },
                            // Expires immediately after the write, which frees its ordinal for others.
                            4 => put_until(&key, &[("v", &blob(&near_centre(centre, round)))], BEGIN_MS),
                            _ => {
                                let category = if round % 2 == 0 { b"even" } else { b"odd." };
                                let v = blob(&near_centre(centre, round));
                                put(&key, &[("category", category), ("v", &v)])
                            }
                        };
                        test.write(op).unwrap();
                    }
                })
            })
            .collect();
        let mut searchers = Vec::new();
        for searcher in 0..2u64 {
            let (writing, stable, even) = (&writing, &stable, &even);
            let (searched, missed) = (&searched, &missed);
            searchers.push(scope.spawn(move || {
                let mut round = searcher;
                while writing.load(Ordering::Relaxed) {
                    round += 1;
                    let centre = round % CENTRES;
                    let target = vector(centre);
                    let found = engine.search(&query("docs", &target, 5)).unwrap();
                    for hit in &found.hits {
                        let is_at_centre = text(&hit.document.key) == format!("doc:{centre}");
                        assert_eq!((hit.distance.unwrap() < 0.01), is_at_centre, "near {centre}: {hit:?}");
                    }
                    let filtered = Query { filter: Some(stable), ..query("docs", &target, 100) };
                    assert_eq!(engine.search(&filtered).unwrap().hits.len(), STABLE as usize);
                    let filtered = Query { filter: Some(even), ..query("docs", &target, 100) };
                    for hit in engine.search(&filtered).unwrap().hits {
                        assert_eq!(hit.document.field(b"category"), Some(&b"even"[..]), "{hit:?}");
                    }
                    let stable = round % STABLE;
                    let target = vector(1_000 + stable);
                    let nearest = engine.search(&query("docs", &target, 1)).unwrap();
                    searched.fetch_add(1, Ordering::Relaxed);
                    let is_missed = keys(&nearest) != [format!("doc:stable:{stable}")];
                    missed.fetch_add(u64::from(is_missed), Ordering::Relaxed);
                }
            }));
        }
        let stop = StopOnDrop(&writing);
        for writer in writers {
            writer.join().unwrap();
        }
        drop(stop);
        // Joined explicitly: ThreadSanitizer sees only the end of joined threads.
        searchers.into_iter().for_each(|searcher| searcher.join().unwrap());
    });
    // Between two steps of a vacuum, documents that were reachable only through removed vectors cannot be found.
    let (searched, missed) = (searched.into_inner(), missed.into_inner());
    assert!(
        missed <= MISSED_MAX + searched / MISSED_SHARE,
        "{missed} of {searched} graph searches missed a stable document"
    );
    // The tails are short, because full tails slowed the writers down.
    test.settle();
    let start = Instant::now();
    while !(0..STABLE).all(|stable| {
        let nearest = engine.search(&query("docs", &vector(1_000 + stable), 1)).unwrap();
        keys(&nearest) == [format!("doc:stable:{stable}")]
    }) {
        assert!(start.elapsed() < Duration::from_secs(60), "a stable document is not found");
        std::thread::yield_now();
    }
    let info = engine.collection("docs").unwrap();
    assert_eq!(info.documents, test.scroll("docs", None).len() as u64);
    assert_eq!(info.vectors, info.documents);
}

#[test]
fn waiting_writes_share_a_commit() {
    let test = TestEngine::new();
    let (enter, entered) = mpsc::channel();
    let (leave, remaining) = mpsc::channel::<()>();
    // Blocks the committer inside a callback while the other writes queue up.
    let hold = Box::new(move |_: Vec<Result<WriteOutcome, WriteError>>| {
        enter.send(()).unwrap();
        remaining.recv().unwrap();
    });
    test.engine().submit(vec![put("first", &[])], hold).unwrap();
    entered.recv().unwrap();
    let (answer, answers) = mpsc::channel();
    for writer in 0..64 {
        let answer = answer.clone();
        let done = Box::new(move |results: Vec<Result<WriteOutcome, WriteError>>| {
            answer.send(results[0].as_ref().unwrap().seq).unwrap();
        });
        test.engine().submit(vec![put(&format!("doc:{writer}"), &[])], done).unwrap();
    }
    leave.send(()).unwrap();
    let seqs: Vec<u64> = answers.into_iter().take(64).collect();
    assert_eq!(seqs, (2..=65).collect::<Vec<u64>>(), "answered in order of submission");
    assert_eq!(test.engine().stats().unwrap().commits, 2);
}

#[test]
fn closing_during_writes_answers_every_writer() {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let test = &test;
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        let key = format!("doc:{writer}:{number}");
                        match test.write(put(&key, &[("v", &blob(&vector(number)))])) {
                            Ok(_) => acknowledged.push(key),
                            Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        while test.engine().stats().unwrap().documents < 50 {
            std::thread::yield_now();
        }
        test.engine().close();
        for writer in writers {
            for key in writer.join().unwrap() {
                assert!(test.engine().get(key.as_bytes()).unwrap().is_some(), "{key}");
            }
        }
    });
}
