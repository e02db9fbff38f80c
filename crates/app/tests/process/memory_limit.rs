//! A limit of memory that is reached: refused in words, the process as large as was said, and writes again once there
//! is room.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    random::Random,
    server::{Server, get, send},
};

const LIMIT_MIB: u64 = 64;
const DIM: usize = 384;
const BATCH: u64 = 250;
/// Written before the process is measured: by then it has the store's cache and room for batches on their way.
const FIRST: u64 = 10 * BATCH;
/// What the process may grow by after that, beside what collections hold.
const BESIDE_MIB: f64 = 8.0;

fn batch(first: u64) -> Value {
    let document = |number: u64| {
        let mut random = Random::new(number);
        let vector: Vec<f32> = (0..DIM).map(|_| random.below(2001) as f32 / 8.0 - 125.0).collect();
        json!({"id": number.to_string(), "n": number, "place": vector})
    };
    (first..first + BATCH).map(document).collect()
}

/// Writes batches until one is refused; how many documents were taken.
fn fill(server: &Server, from: u64) -> u64 {
    let url = format!("{}/collections/things/documents", server.address());
    for first in (from..).step_by(BATCH as usize) {
        assert!(first < from + 500_000, "{first} documents of {DIM} numbers found room in {LIMIT_MIB} MiB");
        let (status, answer) = send("POST", &url, &batch(first)).unwrap();
        let created = answer["created"].as_u64().unwrap_or(0);
        if (status, created) != (200, BATCH) {
            assert!(answer.to_string().contains("memory-full"), "{status} {answer}");
            return first + created - from;
        }
    }
    unreachable!("the numbers do not end")
}

/// MiB the process is larger than `before`, once that is within `bound`, or it will not be: what a request or a snapshot
/// took is given back a little later.
fn settled(server: &Server, before: u64, bound: f64) -> f64 {
    let started = Instant::now();
    loop {
        let grown = mib(server.memory("RssAnon:").saturating_sub(before));
        if grown <= bound || started.elapsed() > Duration::from_secs(20) {
            return grown;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

#[test]
fn a_process_at_its_limit_is_as_large_as_was_said_reads_and_deletes() {
    for algorithm in ["flat", "hnsw"] {
        let home = tempfile::tempdir().unwrap();
        let limit = LIMIT_MIB.to_string();
        let variables = [("NEARFIELD_MEMORY_MAX_MIB", limit.as_str()), ("NEARFIELD_CACHE_MIB", "1")];
        let mut server = Server::start_with(home.path(), &[], &variables);
        server.wait_until_ready();
        let mut place =
            json!({"name": "place", "kind": "vector", "dim": DIM, "metric": "l2", "algorithm": algorithm});
        if algorithm == "hnsw" {
            // Linked by a program that is not optimised.
            (place["m"], place["ef_construction"]) = (json!(4), json!(8));
        }
        let schema = json!({"fields": [{"name": "n", "kind": "numeric"}, place]});
        let url = format!("{}/collections/things", server.address());
        assert_eq!(send("PUT", &url, &schema).unwrap().0, 201);
        for first in (0..FIRST).step_by(BATCH as usize) {
            assert_eq!(send("POST", &format!("{url}/documents"), &batch(first)).unwrap().0, 200);
        }
        let before = server.memory("RssAnon:");
        let told = || {
            let (_, collection) = get(&url).unwrap();
            collection["memory_bytes"].as_u64().unwrap_or_else(|| panic!("{collection}"))
        };
        let told_before = told();

        let written = FIRST + fill(&server, FIRST);
        let told = told() - told_before;
        let bound = mib(told) * 1.1 + BESIDE_MIB;
        let grown = settled(&server, before, bound);
        println!(
            "{algorithm}: {written} documents, by its own word {:.1} MiB of {LIMIT_MIB}, the process grew by {grown:.1}",
            mib(told)
        );
        assert!(grown <= bound, "{grown:.1} MiB, beyond {bound:.1}");
        assert!(grown >= mib(told) * 0.9, "more is told than is held");

        let question = json!({"vector": batch(0)[7]["place"], "k": 1, "exact": true});
        let (status, answer) = send("POST", &format!("{url}/search"), &question).unwrap();
        assert_eq!((status, &answer["results"][0]["id"]), (200, &json!("7")), "{answer}");
        // A graph that is not optimised lets go of tens of thousands slowly; `engine` deletes from small ones.
        if algorithm == "flat" {
            let half = json!({"filter": format!("@n:[0 {}]", written / 2 - 1)});
            let (status, answer) = send("POST", &format!("{url}/delete"), &half).unwrap();
            assert_eq!((status, &answer["deleted"]), (200, &json!(written / 2)), "{answer}");
            assert!(fill(&server, 1_000_000) >= written / 2 * 8 / 10, "what was deleted makes no room");
            let again = settled(&server, before, bound * 1.1);
            assert!(again <= bound * 1.1, "{again:.1} MiB after deleting and writing, {bound:.1} before");
        }
        server.stop();
    }
}
