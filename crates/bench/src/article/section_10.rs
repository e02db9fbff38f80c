//! Section 10: the conclusion and its takeaways.

use anyhow::Context;
use serde_json::json;

use super::{Row, Verdict, section_6};

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "10-sub-30-ms",
        article: "serve semantic search results in sub-30 ms",
        peer: "p99 570 ms [stack]",
        check: |world| {
            let highest = world.packages()?.highest_rate(30.0)?;
            Ok(Verdict::new(
                highest.within(30.0),
                format!(
                    "p99 <= 30 ms up to {:.0} a second on one core ({})",
                    highest.outcome.qps,
                    world.scale()
                ),
            ))
        },
    },
    Row {
        id: "10-scale-horizontally",
        article: "scale horizontally with Redis Cluster, memory footprints modest",
        peer: "",
        check: |world| {
            let cluster = world.cluster()?;
            Ok(Verdict::new(
                cluster.is_right()?,
                "one binary on a data directory, a Redis or a Redis Cluster; the same hits (6.1)",
            ))
        },
    },
    Row {
        id: "10-clean-code",
        article: "a clean, maintainable codebase",
        peer: "",
        check: |world| {
            let reply = world.site()?.get("/openapi.json")?.expect(200)?;
            let paths = reply.body["paths"].as_object().map_or(0, serde_json::Map::len);
            Ok(Verdict::new(
                paths >= 10,
                format!(
                    "the API describes itself: {paths} paths in /openapi.json; the code's design is in ARCHITECTURE.md"
                ),
            ))
        },
    },
    Row {
        id: "10-1-right-model",
        article: "choose the right embedding model and always normalise",
        peer: "",
        check: |world| {
            let site = world.site()?;
            site.drop("nosuch")?;
            let schema = json!({"fields": [{"name": "content", "kind": "text"},
                {"name": "embedding", "kind": "vector", "dim": 384, "embed": {"fields": ["content"], "model": "no-such-model"}}]});
            let refused = site.put("/collections/nosuch", &schema)?;
            Ok(Verdict::new(
                refused.status >= 400 && refused.says("no-such-model"),
                // The message names a directory of the machine, which is no matter of the table.
                format!(
                    "the model is part of the schema; one that is not there is refused by name, status {}",
                    refused.status
                ),
            ))
        },
    },
    Row {
        id: "10-2-tune-hnsw",
        article: "index with HNSW and tune M, ef_construction, ef_search",
        peer: "",
        check: |world| {
            let (low, _) = world.recall_at(10)?;
            let (high, _) = world.recall_at(400)?;
            Ok(Verdict::new(
                high > low,
                format!(
                    "each is a parameter of the collection, ef_search of each search: recall@10 {low:.3} at 10, {high:.3} at 400"
                ),
            ))
        },
    },
    Row {
        id: "10-3-offload",
        article: "offload CPU-heavy work; keep the loop free for I/O",
        peer: "",
        check: |world| {
            let bench = world.packages()?;
            let measured = bench.step(50.0)?;
            let alive = bench.server_is_running()?;
            Ok(Verdict::new(
                alive && measured.outcome.failed() == 0,
                format!(
                    "50 a second on one core: {} of {} answered, p99 {:.1} ms",
                    measured.outcome.due - measured.outcome.failed(),
                    measured.outcome.due,
                    measured.outcome.latency_ms.quantile(0.99)
                ),
            ))
        },
    },
    Row {
        id: "10-4-batch-and-pool",
        article: "batch, pipeline, and pool connections",
        peer: "",
        check: section_6::batching,
    },
    Row {
        id: "10-5-monitor",
        article: "monitor, profile, iterate",
        peer: "",
        check: |world| {
            let knowledge = world.knowledge()?;
            knowledge.site.ask("kb", "monitor", 5)?.expect(200)?;
            let reply = knowledge.site.get("/metrics")?;
            let text = reply.body.as_str().context("metrics are text")?;
            let names = text.lines().filter(|line| line.starts_with("# TYPE")).count();
            let counted = text.lines().any(|line| !line.starts_with('#') && line.contains("search"));
            Ok(Verdict::new(
                reply.status == 200 && names > 0 && counted,
                format!("{names} metrics in /metrics, searches among them: {counted}"),
            ))
        },
    },
];
