//! Section 6: scaling strategies.

use std::time::{Duration, Instant};

use anyhow::Result;
use index::{Quantization, VectorType};
use serde_json::{Value, json};

use super::{Row, Verdict, graph::Parameters, section_3::blob_round_trip, site, world::World};
use crate::{open_loop::encode, sample::Sample};

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "6.1-hash-tag",
        article: "a hash tag in the key, article:{12345}",
        peer: "",
        check: |world| {
            let site = world.site()?;
            site.fresh("tagged", &json!({}))?;
            let id = "{12345}:title";
            site.write("tagged", &[json!({"id": id, "title": "...", "embedding": [1, 0, 0, 0]})])?;
            let back = site.get(&format!("/collections/tagged/documents/{}", encode(id)))?.expect(200)?;
            Ok(Verdict::new(
                back.body["id"] == id,
                format!("an id with braces is kept as it is: {}", back.body["id"]),
            ))
        },
    },
    Row {
        id: "6.2-batching",
        article: "batch writes: from ~0.2 ms a command to < 0.05 ms",
        peer: "",
        check: batching,
    },
    Row {
        id: "6.3-connection-pool",
        article: "ConnectionPool(max_connections=200): connections stay open",
        peer: "",
        check: keep_alive,
    },
    Row {
        id: "6.4-float16",
        article: "TYPE FLOAT16 halves the memory of vectors",
        peer: "FLOAT16 is taken [wire 02]",
        check: |world| {
            let half = blob_round_trip(world, "FLOAT16", &[0x00, 0x3c, 0x00, 0x38, 0x00, 0x00, 0x00, 0xbc])?;
            let single = world.swept(16, 200, VectorType::Float32)?;
            let (single_bytes, single_recall) =
                (single.built.bytes_per_vector, single.round(80).recall_at_10);
            let graph = world.swept(16, 200, VectorType::Float16)?;
            let (half_bytes, half_recall) = (graph.built.bytes_per_vector, graph.round(80).recall_at_10);
            let saved = single_bytes - half_bytes;
            Ok(Verdict::new(
                half.0 == half.1 && half.2 && saved >= 0.95 * 768.0 && half_recall >= single_recall - 0.005,
                format!(
                    "{single_bytes:.0} -> {half_bytes:.0} bytes a vector with links ({saved:.0} of the vector's 1,536 saved); recall@10 at ef 80 {single_recall:.4} -> {half_recall:.4} ({} vectors)",
                    world.arguments.sweep
                ),
            ))
        },
    },
    Row {
        id: "6.4-type-int8",
        article: "RediSearch supports TYPE INT8",
        peer: "refused by Redis Stack 7.4: Unknown argument [wire 02]",
        check: |world| {
            let (sent, back, found) = blob_round_trip(world, "INT8", &[127, 0, 0x81, 5])?;
            Ok(Verdict::new(
                sent == back && found,
                format!(
                    "client-made INT8 vectors taken, found ({found}), given back byte for byte: {}",
                    sent == back
                ),
            ))
        },
    },
    Row {
        id: "6.4-int8-quantization",
        article: "vector quantization to INT8",
        peer: "refused by Redis Stack 7.4 [wire 02]",
        check: int8_quantization,
    },
    Row {
        id: "6.4-ttl",
        article: "EXPIRE article:12345 86400",
        peer: "as said: an expired document is not found any more [wire 08]",
        check: ttl,
    },
    Row {
        id: "6.4-default-ttl",
        article: "for time-sensitive data (logs), set an expiration",
        peer: "",
        check: |world| {
            let site = world.site()?;
            site.drop("logs")?;
            let schema =
                json!({"ttl_s": 3600, "fields": [{"name": "embedding", "kind": "vector", "dim": 4}]});
            site.put("/collections/logs", &schema)?.expect(201)?;
            site.write("logs", &[json!({"id": "a", "embedding": [1, 0, 0, 0]})])?;
            let now_ms =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as f64;
            let end = site.get("/collections/logs/documents/a")?.expect(200)?.body["expires_at_ms"].as_f64();
            let left_s = end.map(|end| (end - now_ms) / 1e3);
            Ok(Verdict::new(
                left_s.is_some_and(|left| (3500.0..=3600.5).contains(&left)),
                format!(
                    "a document of a collection with ttl_s 3600 ends in {} s",
                    left_s.map_or_else(|| "no".to_owned(), |left| format!("{left:.0}"))
                ),
            ))
        },
    },
    Row {
        id: "6.4-eviction",
        article: "eviction",
        peer: "",
        check: |world| {
            world.awaits(
                &["serve"],
                "--max-memory",
                "nothing is evicted: a full disk answers 507; a memory limit comes later",
            )
        },
    },
];

/// Microseconds a document written one by one and in requests of 1,000.
pub(super) fn batching(world: &mut World<'_>) -> Result<Verdict> {
    let site = world.site()?;
    site.fresh("batches", &json!({}))?;
    let document = |number: usize| json!({"id": number.to_string(), "embedding": [1, number, 0, 0]});
    let path = "/collections/batches/documents";
    let mut single = Vec::new();
    for number in 0..50 {
        single.push(site.post(path, &document(number))?.expect(200)?.took.as_secs_f64() * 1e3);
    }
    let mut batch = Vec::new();
    for number in 1..=8 {
        let documents: Vec<Value> = (number * 1000..(number + 1) * 1000).map(document).collect();
        batch.push(site.write("batches", &documents)?.took.as_secs_f64());
    }
    let (single, batch) = (Sample::new(single).median(), Sample::new(batch).median());
    Ok(Verdict::new(
        batch < 0.05,
        format!(
            "{single:.2} ms a document alone, {batch:.3} ms in requests of 1,000 (medians), each durable before its answer (fsync)"
        ),
    ))
}

/// A request on a connection that stays open, and on a new one.
fn keep_alive(world: &mut World<'_>) -> Result<Verdict> {
    let knowledge = world.knowledge()?;
    let url = knowledge.site.server.url("/healthz");
    let measure = |pooled: bool| -> Result<f64> {
        let kept = site::agent();
        let mut times = Vec::new();
        for _ in 0..200 {
            let fresh = site::agent();
            let agent = if pooled { &kept } else { &fresh };
            times.push(site::call(agent, "GET", &url, None)?.expect(200)?.took.as_secs_f64() * 1e6);
        }
        Ok(Sample::new(times).median())
    };
    let (kept, new) = (measure(true)?, measure(false)?);
    Ok(Verdict::new(
        kept <= new && kept < 2000.0,
        format!(
            "a request costs {kept:.0} us on a connection that stays open, {new:.0} us on a new one (medians); 500 at once: 5-thousands-concurrent"
        ),
    ))
}

/// A graph's figures.
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

/// A collection takes `quantization: int8`, and answers by it.
fn int8_quantization(world: &mut World<'_>) -> Result<Verdict> {
    let site = world.site()?;
    site.fresh("int8", &json!({"quantization": "int8"}))?;
    site.write(
        "int8",
        &[
            json!({"id": "near", "embedding": [1, 0.1, 0, 0]}),
            json!({"id": "far", "embedding": [0, 1, 0, 0]}),
        ],
    )?;
    let hits = site.search("int8", &json!({"vector": [1, 0, 0, 0], "k": 2}))?;
    let found = hits.first().is_some_and(|hit| hit.id == "near") && hits.len() == 2;
    let Int8 { none, int8 } = world.int8()?;
    Ok(Verdict::new(
        found && int8.bytes_per_vector < none.bytes_per_vector && int8.recall >= none.recall - 0.005,
        format!(
            "a collection with quantization int8 answers: {found}; {:.0} -> {:.0} bytes a vector with links; recall@10 at ef 80 {:.4} -> {:.4} ({} vectors)",
            none.bytes_per_vector, int8.bytes_per_vector, none.recall, int8.recall, world.arguments.sweep
        ),
    ))
}

fn ttl(world: &mut World<'_>) -> Result<Verdict> {
    let site = world.site()?;
    site.fresh("ttl", &json!({}))?;
    site.write(
        "ttl",
        &[
            json!({"id": "12345", "embedding": [1, 0, 0, 0], "ttl_s": 1.5}),
            json!({"id": "stays", "embedding": [1, 0.1, 0, 0]}),
        ],
    )?;
    let look = |site: &site::Site| -> Result<(u16, usize, Option<u64>)> {
        Ok((
            site.get("/collections/ttl/documents/12345")?.status,
            site.search("ttl", &json!({"vector": [1, 0, 0, 0], "k": 10}))?.len(),
            site.get("/collections/ttl/count")?.expect(200)?.body["count"].as_u64(),
        ))
    };
    let written = Instant::now();
    let before = look(site)?;
    let within = written.elapsed() < Duration::from_millis(1400);
    while look(site)?.0 != 404 && written.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let gone_s = written.elapsed().as_secs_f64();
    let after = look(site)?;
    anyhow::ensure!(within, "the machine was too slow to look at the document while it stood");
    Ok(Verdict::new(
        before == (200, 2, Some(2)) && after == (404, 1, Some(1)) && (1.3..2.5).contains(&gone_s),
        format!(
            "ttl_s 1.5: got, found and counted before; {gone_s:.1} s after the write not got, not found, not counted"
        ),
    ))
}

impl World<'_> {
    /// A graph over the sweep's vectors with these parameters.
    pub(super) fn swept(
        &mut self,
        m: usize,
        ef_construction: usize,
        vector_type: VectorType,
    ) -> Result<&super::graph::Graph> {
        let rows = self.arguments.sweep;
        self.graph_with(Parameters { m, ef_construction, vector_type, rows, ..Parameters::ARTICLE })
    }

    /// What 8-bit codes do to a graph over the sweep's vectors, and to its searches at ef 80.
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
