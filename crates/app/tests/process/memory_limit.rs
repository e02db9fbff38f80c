//! A server at its memory limit: writes are rejected with a clear error, the process is as large as it reports, and
//! writes succeed once documents have been deleted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    random::Random,
    server::{Server, get, mib, send},
};

const LIMIT_MIB: u64 = 64;
const DIM: usize = 384;
const BATCH: u64 = 250;
/// Documents written before the process is measured, so that the store's cache and the buffers of writes are filled.
const WARM_UP: u64 = 10 * BATCH;
/// Maximum growth of the process in addition to that of the collections.
const OVERHEAD_MIB: f64 = 8.0;

fn batch(first: u64) -> Value {
    let document = |number: u64| {
        let mut random = Random::new(number);
        let vector: Vec<f32> = (0..DIM).map(|_| random.below(2001) as f32 / 8.0 - 125.0).collect();
        json!({"id": number.to_string(), "n": number, "place": vector})
    };
    (first..first + BATCH).map(document).collect()
}

/// Writes batches until one is rejected; returns the number of documents written.
fn fill(server: &Server, from: u64) -> u64 {
    let url = format!("{}/collections/items/documents", server.address());
    for first in (from..).step_by(BATCH as usize) {
        assert!(
            first < from + 500_000,
            "{first} documents with {DIM} values each were accepted within {LIMIT_MIB} MiB"
        );
        let (status, response) = send("POST", &url, &batch(first)).unwrap();
        let created = response["created"].as_u64().unwrap_or(0);
        if (status, created) != (200, BATCH) {
            assert!(response.to_string().contains("memory-full"), "{status} {response}");
            return first + created - from;
        }
    }
    unreachable!("the range of numbers is endless")
}

/// Growth of the process since `before` in MiB. Waits until it is within `bound`, but at most 20 seconds, since the
/// memory of requests and snapshots is freed with a delay.
fn settled_growth(server: &Server, before: u64, bound: f64) -> f64 {
    let started = Instant::now();
    loop {
        let growth = mib(server.memory("RssAnon:").saturating_sub(before));
        if growth <= bound || started.elapsed() > Duration::from_secs(20) {
            return growth;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_at_its_memory_limit_is_as_large_as_reported_and_still_reads_and_deletes() {
    for algorithm in ["flat", "hnsw"] {
        let home = tempfile::tempdir().unwrap();
        let limit = LIMIT_MIB.to_string();
        let variables = [("NEARFIELD_MEMORY_MAX_MIB", limit.as_str()), ("NEARFIELD_CACHE_MIB", "1")];
        let mut server = Server::start_with(home.path(), &[], &variables);
        server.wait_until_ready();
        let mut place =
            json!({"name": "place", "kind": "vector", "dim": DIM, "metric": "l2", "algorithm": algorithm});
        if algorithm == "hnsw" {
            // Cheap to build, since tests run without optimisation.
            (place["m"], place["ef_construction"]) = (json!(4), json!(8));
        }
        let schema = json!({"fields": [{"name": "n", "kind": "numeric"}, place]});
        let url = format!("{}/collections/items", server.address());
        assert_eq!(send("PUT", &url, &schema).unwrap().0, 201);
        for first in (0..WARM_UP).step_by(BATCH as usize) {
            assert_eq!(send("POST", &format!("{url}/documents"), &batch(first)).unwrap().0, 200);
        }
        let before = server.memory("RssAnon:");
        let reported_bytes = || {
            let (_, collection) = get(&url).unwrap();
            collection["memory_bytes"].as_u64().unwrap_or_else(|| panic!("{collection}"))
        };
        let reported_before = reported_bytes();

        let written = WARM_UP + fill(&server, WARM_UP);
        let reported = reported_bytes() - reported_before;
        let bound = mib(reported) * 1.1 + OVERHEAD_MIB;
        let growth = settled_growth(&server, before, bound);
        println!(
            "{algorithm}: {written} documents, {:.1} MiB of {LIMIT_MIB} reported, the process grew by {growth:.1} MiB",
            mib(reported)
        );
        assert!(growth <= bound, "the process grew by {growth:.1} MiB, allowed: {bound:.1}");
        assert!(growth >= mib(reported) * 0.9, "the process grew by less than it reports");

        let search = json!({"vector": batch(0)[7]["place"], "k": 1, "exact": true});
        let (status, response) = send("POST", &format!("{url}/search"), &search).unwrap();
        assert_eq!((status, &response["results"][0]["id"]), (200, &json!("7")), "{response}");
        // Deleting tens of thousands of documents from a graph is slow without optimisation; tests of `engine` delete
        // from small graphs.
        if algorithm == "flat" {
            let half = json!({"filter": format!("@n:[0 {}]", written / 2 - 1)});
            let (status, response) = send("POST", &format!("{url}/delete"), &half).unwrap();
            assert_eq!((status, &response["deleted"]), (200, &json!(written / 2)), "{response}");
            assert!(
                fill(&server, 1_000_000) >= written / 2 * 8 / 10,
                "deleting documents did not make room for others"
            );
            let growth = settled_growth(&server, before, bound * 1.1);
            assert!(
                growth <= bound * 1.1,
                "{growth:.1} MiB after deleting and writing, allowed: {:.1}",
                bound * 1.1
            );
        }
        server.stop();
    }
}
