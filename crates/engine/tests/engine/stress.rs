//! Writes, searches and expiry at the same time in eight threads. `STRESS_SECONDS=60` is the long run, best under
//! ThreadSanitizer (`make sanitize-threads`).

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use engine::{Clock, Metric, Query};

use crate::{disks::SplitMix64, test_engine::*, timed_run::TimedRun};

const WRITERS: u64 = 3;
const KEYS_PER_WRITER: u64 = 200;
const KEPT: u64 = 50;
/// The clock advances by this much after one or more groups of writes.
const TICK_MS: u64 = 10;

struct Stress {
    test: TestEngine,
    timed_run: TimedRun,
    /// Number of groups written and of rounds of searches.
    done: [AtomicU64; 2],
}

impl Stress {
    /// Writes, replaces and deletes documents with and without expiry, in groups. Returns their expiries.
    fn write(&self, writer: u64) -> BTreeMap<String, Option<u64>> {
        let mut random = SplitMix64(71 + writer);
        let mut live = BTreeMap::new();
        self.timed_run.repeat(|| {
            let key = |number: u64| format!("doc:{writer}:{number}");
            let mut keys: Vec<String> = (0..8).map(|_| key(random.next() % KEYS_PER_WRITER)).collect();
            keys.sort_unstable();
            keys.dedup();
            let now = self.test.clock.now_ms();
            let ops = keys.iter().map(|key| match random.next() % 4 {
                0 => (None, engine::Op::Delete { key: key.clone().into(), expected: engine::Expected::Any }),
                1 => {
                    let expiry = now + 1 + random.next() % (20 * TICK_MS);
                    let v = blob(&vector(random.next() % 1_000));
                    (
                        Some(Some(expiry)),
                        put_until(key, &[("title", expiry.to_string().as_bytes()), ("v", &v)], expiry),
                    )
                }
                _ => (Some(None), put(key, &[("v", &blob(&vector(random.next() % 1_000)))])),
            });
            let (expiries, ops): (Vec<_>, Vec<_>) = ops.unzip();
            assert!(self.test.engine().write(ops).iter().all(Result::is_ok));
            for (key, expiry) in keys.into_iter().zip(expiries) {
                match expiry {
                    Some(expiry) => drop(live.insert(key, expiry)),
                    None => drop(live.remove(&key)),
                }
            }
            self.done[0].fetch_add(1, Relaxed);
        });
        live
    }

    fn search(&self, searcher: u64) {
        let kept = self.test.filter("docs", "@category:{kept}");
        let mut random = SplitMix64(81 + searcher);
        self.timed_run.repeat(|| {
            let now = self.test.clock.now_ms();
            let target = vector(random.next() % 1_000);
            for exact in [false, true] {
                let found = self.test.engine().search(&query("docs", &target, 20).exact(exact)).unwrap();
                // Documents deleted meanwhile may leave gaps.
                assert!(found.hits.len() <= 20);
                for hit in found.hits {
                    let expiry =
                        hit.document.field(b"title").map(|expiry| text(expiry).parse::<u64>().unwrap());
                    assert!(expiry.is_none_or(|expiry| expiry > now), "{hit:?} had expired at {now}");
                }
            }
            let filtered = Query { filter: Some(&kept), ..query("docs", &target, 100) };
            assert_eq!(self.test.engine().search(&filtered).unwrap().hits.len(), KEPT as usize);
            self.done[1].fetch_add(1, Relaxed);
        });
    }
}

#[test]
fn eight_threads_write_search_and_expire_documents() {
    let test = TestEngine::with(|options| {
        // Small, so that writers help to link and vacuum; two threads drain.
        options.tail_max = 32;
        options.index_threads = 2;
    });
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    for number in 0..KEPT {
        let v = blob(&vector(2_000 + number));
        test.put(&format!("doc:kept:{number}"), &[("category", b"kept"), ("v", &v)]);
    }
    let stress = Stress { test, timed_run: TimedRun::new(), done: Default::default() };
    let mut live = BTreeMap::new();
    std::thread::scope(|scope| {
        let stress = &stress;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || stress.write(writer))).collect();
        let mut others = Vec::new();
        for searcher in 0..2 {
            others.push(scope.spawn(move || stress.search(searcher)));
        }
        others.push(scope.spawn(|| {
            let mut seen = 0;
            stress.timed_run.repeat(|| {
                let writes = stress.done[0].load(Relaxed);
                if writes == seen {
                    std::thread::yield_now();
                } else {
                    seen = writes;
                    stress.test.clock.advance(TICK_MS);
                    stress.test.engine().purge_expired().unwrap();
                }
            });
        }));
        others.push(scope.spawn(|| {
            stress.timed_run.repeat(|| {
                let keys = stress.test.scroll("docs", None);
                assert!(keys.iter().filter(|key| key.starts_with("doc:kept:")).count() == KEPT as usize);
            });
        }));
        others.push(scope.spawn(|| {
            stress.timed_run.repeat(|| {
                let count = stress.test.engine().count("docs", None).unwrap();
                assert!((KEPT..=KEPT + WRITERS * KEYS_PER_WRITER).contains(&count), "{count} documents");
                let info = stress.test.engine().collection("docs").unwrap();
                assert!(info.memory_bytes > 0);
            });
        }));
        // Joined explicitly: ThreadSanitizer sees only the end of joined threads.
        others.into_iter().for_each(|other| other.join().unwrap());
        for writer in writers {
            live.extend(writer.join().unwrap());
        }
    });
    let [writes, searches] = stress.done.each_ref().map(|done| done.load(Relaxed));
    println!("{writes} groups written, {searches} rounds of searches");
    let mut test = stress.test;
    for reopened in [false, true] {
        if reopened {
            test.reopen();
        }
        test.settle();
        let now = test.clock.now_ms();
        let mut expected: Vec<String> = live
            .iter()
            .filter(|(_, expiry)| expiry.is_none_or(|expiry| expiry > now))
            .map(|(key, _)| key.clone())
            .collect();
        expected.extend((0..KEPT).map(|number| format!("doc:kept:{number}")));
        let mut keys = test.scroll("docs", None);
        expected.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, expected, "reopened: {reopened}");
        assert_eq!(test.engine().collection("docs").unwrap().vectors, expected.len() as u64);
    }
}
