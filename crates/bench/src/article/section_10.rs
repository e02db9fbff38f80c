//! Section 10: the conclusion and its takeaways.

use anyhow::Context;
use serde_json::json;

use super::{Claim, Verdict, section_6};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "10-sub-30-ms",
        article: "serve semantic search results in sub-30 ms",
        peer: "p99 570 ms [stack]",
        check: |fixtures| {
            let highest = fixtures.packages()?.highest_rate(30.0)?;
            Ok(Verdict::new(
                highest.is_within(30.0),
                format!(
                    "p99 <= 30 ms up to {:.0} per second on one core ({})",
                    highest.outcome.qps,
                    fixtures.scale()
                ),
            ))
        },
    },
    Claim {
        id: "10-scale-horizontally",
        article: "scale horizontally with Redis Cluster, memory footprints modest",
        peer: "",
        check: |fixtures| {
            let cluster = fixtures.cluster()?;
            Ok(Verdict::new(
                cluster.top_10_is_correct()?,
                "one binary on a data directory, a Redis or a Redis Cluster; the same hits (6.1)",
            ))
        },
    },
    Claim {
        id: "10-clean-code",
        article: "a clean, maintainable codebase",
        peer: "",
        check: |fixtures| {
            let response = fixtures.api()?.get("/openapi.json")?.expect(200)?;
            let paths = response.body["paths"].as_object().map_or(0, serde_json::Map::len);
            Ok(Verdict::new(
                paths >= 10,
                format!(
                    "OpenAPI description with {paths} paths in /openapi.json; design documented in ARCHITECTURE.md"
                ),
            ))
        },
    },
    Claim {
        id: "10-1-right-model",
        article: "choose the right embedding model and always normalise",
        peer: "",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.drop_collection("nosuch")?;
            let schema = json!({"fields": [{"name": "content", "kind": "text"},
                {"name": "embedding", "kind": "vector", "dim": 384, "embed": {"fields": ["content"], "model": "no-such-model"}}]});
            let rejected = api.put("/collections/nosuch", &schema)?;
            Ok(Verdict::new(
                rejected.status >= 400 && rejected.mentions("no-such-model"),
                // The message contains a path of the machine, which does not belong in the table.
                format!(
                    "the model is part of the schema; an unknown model is rejected by name with status {}",
                    rejected.status
                ),
            ))
        },
    },
    Claim {
        id: "10-2-tune-hnsw",
        article: "index with HNSW and tune M, ef_construction, ef_search",
        peer: "",
        check: |fixtures| {
            let (low, _) = fixtures.recall_at(10)?;
            let (high, _) = fixtures.recall_at(400)?;
            Ok(Verdict::new(
                high > low,
                format!(
                    "parameters of the collection, ef_search also of each search: recall@10 {low:.3} at 10, {high:.3} at 400"
                ),
            ))
        },
    },
    Claim {
        id: "10-3-offload",
        article: "offload CPU-heavy work; keep the loop free for I/O",
        peer: "",
        check: |fixtures| {
            let bench = fixtures.packages()?;
            let measured = bench.step(50.0)?;
            let alive = bench.server_is_running()?;
            Ok(Verdict::new(
                alive && measured.outcome.failed() == 0,
                format!(
                    "50 per second on one core: {} of {} answered, p99 {:.1} ms",
                    measured.outcome.due - measured.outcome.failed(),
                    measured.outcome.due,
                    measured.outcome.latency_ms.quantile(0.99)
                ),
            ))
        },
    },
    Claim {
        id: "10-4-batch-and-pool",
        article: "batch, pipeline, and pool connections",
        peer: "",
        check: section_6::batching,
    },
    Claim {
        id: "10-5-monitor",
        article: "monitor, profile, iterate",
        peer: "",
        check: |fixtures| {
            let knowledge = fixtures.knowledge_base()?;
            knowledge.api.search_text("kb", "monitor", 5)?.expect(200)?;
            let response = knowledge.api.get("/metrics")?;
            let text = response.body.as_str().context("the metrics are not text")?;
            let names = text.lines().filter(|line| line.starts_with("# TYPE")).count();
            let counted = text.lines().any(|line| !line.starts_with('#') && line.contains("search"));
            Ok(Verdict::new(
                response.status == 200 && names > 0 && counted,
                format!("{names} metrics in /metrics, including searches: {counted}"),
            ))
        },
    },
];
