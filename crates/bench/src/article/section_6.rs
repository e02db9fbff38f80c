//! Section 6: scaling strategies.

use std::time::{Duration, Instant};

use anyhow::Result;
use index::{Quantization, VectorType};
use serde_json::{Value, json};

use super::{Claim, Verdict, api, fixtures::Fixtures, graph::Parameters, section_3::blob_round_trip};
use crate::{open_loop::encode, sample::Sample};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "6.1-hash-tag",
        article: "a hash tag in the key, article:{12345}",
        peer: "",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("tagged", &json!({}))?;
            let id = "{12345}:title";
            api.write("tagged", &[json!({"id": id, "title": "...", "embedding": [1, 0, 0, 0]})])?;
            let back = api.get(&format!("/collections/tagged/documents/{}", encode(id)))?.expect(200)?;
            Ok(Verdict::new(
                back.body["id"] == id,
                format!("an id with braces is stored unchanged: {}", back.body["id"]),
            ))
        },
    },
    Claim {
        id: "6.2-batching",
        article: "batch writes: from ~0.2 ms a command to < 0.05 ms",
        peer: "",
        check: batching,
    },
    Claim {
        id: "6.3-connection-pool",
        article: "ConnectionPool(max_connections=200): connections stay open",
        peer: "",
        check: keep_alive,
    },
    Claim {
        id: "6.4-float16",
        article: "TYPE FLOAT16 halves the memory of vectors",
        peer: "FLOAT16 is accepted [wire 02]",
        check: |fixtures| {
            let half =
                blob_round_trip(fixtures, "FLOAT16", &[0x00, 0x3c, 0x00, 0x38, 0x00, 0x00, 0x00, 0xbc])?;
            let single = fixtures.sweep_graph(16, 200, VectorType::Float32)?;
            let (single_bytes, single_recall) =
                (single.built.bytes_per_vector, single.round(80).recall_at_10);
            let graph = fixtures.sweep_graph(16, 200, VectorType::Float16)?;
            let (half_bytes, half_recall) = (graph.built.bytes_per_vector, graph.round(80).recall_at_10);
            let saved = single_bytes - half_bytes;
            Ok(Verdict::new(
                half.0 == half.1 && half.2 && saved >= 0.95 * 768.0 && half_recall >= single_recall - 0.005,
                format!(
                    "{single_bytes:.0} -> {half_bytes:.0} bytes per vector with links ({saved:.0} of the vector's 1,536 saved); recall@10 at ef 80 {single_recall:.4} -> {half_recall:.4} ({} vectors)",
                    fixtures.arguments.sweep
                ),
            ))
        },
    },
    Claim {
        id: "6.4-type-int8",
        article: "RediSearch supports TYPE INT8",
        peer: "rejected by Redis Stack 7.4: Unknown argument [wire 02]",
        check: |fixtures| {
            let (sent, back, found) = blob_round_trip(fixtures, "INT8", &[127, 0, 0x81, 5])?;
            Ok(Verdict::new(
                sent == back && found,
                format!(
                    "client-side INT8 vectors accepted, found ({found}), read back byte for byte: {}",
                    sent == back
                ),
            ))
        },
    },
    Claim {
        id: "6.4-int8-quantization",
        article: "vector quantization to INT8",
        peer: "rejected by Redis Stack 7.4 [wire 02]",
        check: int8_quantization,
    },
    Claim {
        id: "6.4-ttl",
        article: "EXPIRE article:12345 86400",
        peer: "confirmed: an expired document is no longer found [wire 08]",
        check: ttl,
    },
    Claim {
        id: "6.4-default-ttl",
        article: "for time-sensitive data (logs), set an expiration",
        peer: "",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.drop_collection("logs")?;
            let schema =
                json!({"ttl_s": 3600, "fields": [{"name": "embedding", "kind": "vector", "dim": 4}]});
            api.put("/collections/logs", &schema)?.expect(201)?;
            api.write("logs", &[json!({"id": "a", "embedding": [1, 0, 0, 0]})])?;
            let now_ms =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as f64;
            let end = api.get("/collections/logs/documents/a")?.expect(200)?.body["expires_at_ms"].as_f64();
            let left_s = end.map(|end| (end - now_ms) / 1e3);
            Ok(Verdict::new(
                left_s.is_some_and(|left| (3500.0..=3600.5).contains(&left)),
                format!(
                    "a document of a collection with ttl_s 3600 expires in {} s",
                    left_s.map_or_else(|| "?".to_owned(), |left| format!("{left:.0}"))
                ),
            ))
        },
    },
    Claim {
        id: "6.4-eviction",
        article: "eviction",
        peer: "",
        check: |fixtures| {
            fixtures.not_available_yet(
                &["serve"],
                "--max-memory",
                "documents are not evicted: writes to a full disk are rejected with 507",
            )
        },
    },
];

/// Time per document written one by one and in requests of 1,000.
pub(super) fn batching(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = fixtures.api()?;
    api.recreate("batches", &json!({}))?;
    let document = |number: usize| json!({"id": number.to_string(), "embedding": [1, number, 0, 0]});
    let path = "/collections/batches/documents";
    let mut single = Vec::new();
    for number in 0..50 {
        single.push(api.post(path, &document(number))?.expect(200)?.took.as_secs_f64() * 1e3);
    }
    let mut batch = Vec::new();
    for number in 1..=8 {
        let documents: Vec<Value> = (number * 1000..(number + 1) * 1000).map(document).collect();
        batch.push(api.write("batches", &documents)?.took.as_secs_f64());
    }
    let (single, batch) = (Sample::new(single).median(), Sample::new(batch).median());
    Ok(Verdict::new(
        batch < 0.05,
        format!(
            "{single:.2} ms per document alone, {batch:.3} ms in requests of 1,000 (medians), durable before the response (fsync)"
        ),
    ))
}

/// Time of a request on a persistent connection and on a new one.
fn keep_alive(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let knowledge = fixtures.knowledge_base()?;
    let url = knowledge.api.server.url("/healthz");
    let measure = |is_persistent: bool| -> Result<f64> {
        let persistent = api::agent();
        let mut times = Vec::new();
        for _ in 0..200 {
            let fresh = api::agent();
            let agent = if is_persistent { &persistent } else { &fresh };
            times.push(api::call(agent, "GET", &url, None)?.expect(200)?.took.as_secs_f64() * 1e6);
        }
        Ok(Sample::new(times).median())
    };
    let (persistent, new) = (measure(true)?, measure(false)?);
    Ok(Verdict::new(
        persistent <= new && persistent < 2000.0,
        format!(
            "a request takes {persistent:.0} us on a persistent connection, {new:.0} us on a new one (medians); 500 at once: 5-thousands-concurrent"
        ),
    ))
}

/// The figures of a graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantized {
    /// Links included.
    pub(super) bytes_per_vector: f64,
    pub(super) recall: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// The same graph without and with 8-bit codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Int8 {
    pub(super) none: Quantized,
    pub(super) int8: Quantized,
}

/// A collection accepts `quantization: int8` and returns correct results.
fn int8_quantization(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = fixtures.api()?;
    api.recreate("int8", &json!({"quantization": "int8"}))?;
    api.write(
        "int8",
        &[
            json!({"id": "near", "embedding": [1, 0.1, 0, 0]}),
            json!({"id": "far", "embedding": [0, 1, 0, 0]}),
        ],
    )?;
    let hits = api.search("int8", &json!({"vector": [1, 0, 0, 0], "k": 2}))?;
    let found = hits.first().is_some_and(|hit| hit.id == "near") && hits.len() == 2;
    let Int8 { none, int8 } = fixtures.int8()?;
    Ok(Verdict::new(
        found && int8.bytes_per_vector < none.bytes_per_vector && int8.recall >= none.recall - 0.005,
        format!(
            "a collection with quantization int8 returns correct results: {found}; {:.0} -> {:.0} bytes per vector with links; recall@10 at ef 80 {:.4} -> {:.4} ({} vectors)",
            none.bytes_per_vector, int8.bytes_per_vector, none.recall, int8.recall, fixtures.arguments.sweep
        ),
    ))
}

fn ttl(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = fixtures.api()?;
    api.recreate("ttl", &json!({}))?;
    api.write(
        "ttl",
        &[
            json!({"id": "12345", "embedding": [1, 0, 0, 0], "ttl_s": 1.5}),
            json!({"id": "stays", "embedding": [1, 0.1, 0, 0]}),
        ],
    )?;
    let observe = |api: &api::Api| -> Result<(u16, usize, Option<u64>)> {
        Ok((
            api.get("/collections/ttl/documents/12345")?.status,
            api.search("ttl", &json!({"vector": [1, 0, 0, 0], "k": 10}))?.len(),
            api.get("/collections/ttl/count")?.expect(200)?.body["count"].as_u64(),
        ))
    };
    let written = Instant::now();
    let before = observe(api)?;
    let in_time = written.elapsed() < Duration::from_millis(1400);
    while observe(api)?.0 != 404 && written.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let gone_s = written.elapsed().as_secs_f64();
    let after = observe(api)?;
    anyhow::ensure!(in_time, "the machine was too slow to read the document before it expired");
    Ok(Verdict::new(
        before == (200, 2, Some(2)) && after == (404, 1, Some(1)) && (1.3..2.5).contains(&gone_s),
        format!(
            "ttl_s 1.5: readable, found and counted before; {gone_s:.1} s after the write neither readable nor found nor counted"
        ),
    ))
}

impl Fixtures<'_> {
    /// A graph with these parameters over the vectors of the sweep.
    pub(super) fn sweep_graph(
        &mut self,
        m: usize,
        ef_construction: usize,
        vector_type: VectorType,
    ) -> Result<&super::graph::Graph> {
        let rows = self.arguments.sweep;
        self.graph_with(Parameters { m, ef_construction, vector_type, rows, ..Parameters::ARTICLE })
    }

    /// The effect of 8-bit codes on a graph over the vectors of the sweep, and on its searches at ef 80.
    pub(super) fn int8(&mut self) -> Result<Int8> {
        let rows = self.arguments.sweep;
        let mut measure = |quantization| -> Result<Quantized> {
            let graph = self.graph_with(Parameters { quantization, rows, ..Parameters::ARTICLE })?;
            let round = graph.round(80);
            Ok(Quantized {
                bytes_per_vector: graph.built.bytes_per_vector,
                recall: round.recall_at_10,
                p50_us: round.p50_us,
                p99_us: round.p99_us,
            })
        };
        Ok(Int8 { none: measure(Quantization::None)?, int8: measure(Quantization::Int8)? })
    }
}
