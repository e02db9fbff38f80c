//! Section 8: benchmarks and tuning.

use anyhow::{Context, Result};
use index::VectorType;
use serde_json::json;

use super::{Claim, Verdict, api, fixtures::Fixtures};
use crate::{open_loop::encode, sample::Sample};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "8.1-p95-of-1000",
        article: "p95 of 1,000 searches for \"how to reset password?\"",
        peer: "",
        check: |fixtures| {
            let searches = fixtures.arguments.searches.get();
            let knowledge = fixtures.knowledge_base()?;
            let mut times = Vec::new();
            for _ in 0..searches {
                times.push(
                    knowledge
                        .api
                        .search_text("kb", "how to reset password?", 5)?
                        .expect(200)?
                        .took
                        .as_secs_f64()
                        * 1e3,
                );
            }
            let times = Sample::new(times);
            Ok(Verdict::new(
                times.quantile(0.95) < 22.0,
                format!(
                    "P95 latency: {:.2} ms, median {:.2} ms, text to JSON (bundled knowledge base)",
                    times.quantile(0.95),
                    times.median()
                ),
            ))
        },
    },
    Claim {
        id: "8.2-m",
        article: "M: higher -> better recall, more RAM; start at 16",
        peer: "hnswlib: see nearfield-bench index",
        check: |fixtures| {
            let mut points = Vec::new();
            for m in [8, 16, 48] {
                let graph = fixtures.sweep_graph(m, 200, VectorType::Float32)?;
                points.push((m, graph.round(50).recall_at_10, graph.built.bytes_per_vector));
            }
            let rising = points.is_sorted_by(|a, b| a.1 < b.1 && a.2 < b.2);
            let parts: Vec<String> =
                points.iter().map(|(m, recall, bytes)| format!("M {m}: {recall:.4}, {bytes:.0} B")).collect();
            Ok(Verdict::new(
                rising,
                format!(
                    "recall@10 at ef 50 and bytes per vector: {} ({} vectors)",
                    parts.join("; "),
                    fixtures.arguments.sweep
                ),
            ))
        },
    },
    Claim {
        id: "8.2-ef-construction",
        article: "ef_construction: higher -> slower build, better graph; start at 200",
        peer: "",
        check: |fixtures| {
            let mut points = Vec::new();
            for ef_construction in [100, 200, 500] {
                let graph = fixtures.sweep_graph(16, ef_construction, VectorType::Float32)?;
                points.push((ef_construction, graph.round(50).recall_at_10, graph.built.build_s()));
            }
            let slower = points.is_sorted_by(|a, b| a.2 < b.2);
            let better = points[2].1 >= points[0].1;
            let parts: Vec<String> =
                points.iter().map(|(ef, recall, build)| format!("{ef}: {build:.1} s, {recall:.4}")).collect();
            Ok(Verdict::new(
                slower && better,
                format!(
                    "build and recall@10 at ef 50: {} ({} vectors)",
                    parts.join("; "),
                    fixtures.arguments.sweep
                ),
            ))
        },
    },
    Claim {
        id: "8.2-ef-search",
        article: "ef_search: higher -> slower query, better accuracy; start at 50 to 150",
        peer: "550 queries per second at .995, 1,050 at .99, 2,100 at .95, without embedding [redis]",
        check: |fixtures| {
            let points: Vec<(usize, f64, f64)> = [10, 40, 80, 200, 400]
                .into_iter()
                .map(|ef| fixtures.recall_at(ef).map(|(recall, ms)| (ef, recall, ms)))
                .collect::<Result<_>>()?;
            let better = points.is_sorted_by(|a, b| a.1 <= b.1);
            let slower = points[4].2 > points[0].2;
            let parts: Vec<String> =
                points.iter().map(|(ef, recall, ms)| format!("{ef}: {recall:.4}, {ms:.2} ms")).collect();
            Ok(Verdict::new(
                better && slower,
                format!(
                    "recall@10 and p50 with embedding by ef: {} ({})",
                    parts.join("; "),
                    fixtures.scale()
                ),
            ))
        },
    },
    Claim {
        id: "8.2-from-50-to-120",
        article: "ef_search 50 -> 120: recall 0.96 -> 0.99, latency 12 -> 22 ms",
        peer: "hnswlib on this data: .943 at 50 [corpora]",
        check: |fixtures| {
            let (low, fast) = fixtures.recall_at(50)?;
            let (high, slow) = fixtures.recall_at(120)?;
            Ok(Verdict::new(
                low >= 0.96 && high >= 0.99 && slow <= 22.0,
                format!(
                    "recall@10 {low:.4} -> {high:.4}, p50 {fast:.2} -> {slow:.2} ms ({})",
                    fixtures.scale()
                ),
            ))
        },
    },
    Claim {
        id: "8.2-sweet-spot-80",
        article: "for most real-time apps, ef_search = 80 is a sweet spot",
        peer: "",
        check: |fixtures| {
            let (recall, ms) = fixtures.recall_at(80)?;
            let default = fixtures.recall()?;
            Ok(Verdict::new(
                recall >= 0.95 && ms < 10.0,
                format!(
                    "recall@10 {recall:.4}, p50 {ms:.2} ms; with the default ef_search {default:.4} ({})",
                    fixtures.scale()
                ),
            ))
        },
    },
    Claim {
        id: "8.3-cpu-bound",
        article: "embedding and normalisation are CPU-bound: offload them",
        peer: "",
        check: |fixtures| {
            let step = fixtures.at_highest_rate()?;
            Ok(Verdict::new(
                step.cpu_pct >= 75.0,
                format!("at the highest rate with p99 <= 22 ms the one core is {:.0} % busy", step.cpu_pct),
            ))
        },
    },
    Claim {
        id: "8.3-pipeline-queries",
        article: "I/O-bound: keep connections open, pipeline multiple queries",
        peer: "",
        check: |fixtures| {
            let bench = fixtures.packages()?;
            let agent = api::agent();
            let url = bench.server().url("/collections/packages/search");
            let queries = bench.unused_queries(400)?;
            let ms = |body: &serde_json::Value| -> Result<f64> {
                Ok(api::call(&agent, "POST", &url, Some(body))?.expect(200)?.took.as_secs_f64() * 1e3)
            };
            ms(&json!({"text": "warm", "k": 5}))?;
            let (mut single, mut multiple) = (Vec::new(), Vec::new());
            for chunk in queries.chunks_exact(20) {
                let (first, second) = chunk.split_at(10);
                let mut sum = 0.0;
                for query in first {
                    sum += ms(&json!({"text": query, "k": 5}))?;
                }
                single.push(sum / 10.0);
                let searches: Vec<_> = second.iter().map(|query| json!({"text": query, "k": 5})).collect();
                multiple.push(ms(&json!({"searches": searches}))? / 10.0);
            }
            let (single, multiple) = (Sample::new(single).median(), Sample::new(multiple).median());
            Ok(Verdict::new(
                multiple < single,
                format!(
                    "a query takes {single:.2} ms in a request of its own, {multiple:.2} ms in a request of ten (medians, one core)"
                ),
            ))
        },
    },
    Claim {
        id: "8.4-latency-doctor",
        article: "redis-cli LATENCY DOCTOR",
        peer: "",
        check: |fixtures| {
            /// The minimum number of searches for the doctor's advice.
            const SEARCHES: usize = 25;
            let knowledge = fixtures.knowledge_base()?;
            for _ in 0..SEARCHES {
                knowledge.api.search_text("kb", "where does the time go", 5)?.expect(200)?;
            }
            let response = knowledge.api.get("/doctor")?.expect(200)?;
            let is_complete =
                response.body["searches"].as_u64().is_some_and(|searches| searches >= SEARCHES as u64);
            Ok(Verdict::new(
                is_complete && response.body["advice"].is_array(),
                format!(
                    "`nearfield doctor` on {} searches: {}",
                    response.body["searches"], response.body["advice"]
                ),
            ))
        },
    },
    Claim {
        id: "8.4-profile",
        article: "python -m cProfile: where does the time go?",
        peer: "",
        check: |fixtures| {
            let knowledge = fixtures.knowledge_base()?;
            let header =
                knowledge.api.search_text("kb", "profile", 5)?.expect(200)?.server_timing.unwrap_or_default();
            let metrics = knowledge.api.get("/metrics")?;
            let is_complete =
                ["queue", "embed", "search", "fetch"].iter().all(|stage| header.contains(stage));
            Ok(Verdict::new(is_complete && metrics.status == 200, format!("Server-Timing: {header}")))
        },
    },
    Claim {
        id: "8.4-60-30-10",
        article: "typical: 60 % embedding, 30 % Redis network, 10 % Python",
        peer: "11 to 24 ms of embedding alone [embedding]",
        check: |fixtures| {
            let sequential = fixtures.sequential()?;
            let share = |part: f64| part / sequential.total_us * 100.0;
            let rest =
                100.0 - share(sequential.embed_us) - share(sequential.search_us) - share(sequential.fetch_us);
            Ok(Verdict::new(
                sequential.total_us / 1e3 < 11.0,
                format!(
                    "embed {:.0} %, search {:.0} %, fetch {:.0} %, rest {rest:.0} % of {:.2} ms: no network between stages; required: less in total than the peer's embedding ({})",
                    share(sequential.embed_us),
                    share(sequential.search_us),
                    share(sequential.fetch_us),
                    sequential.total_us / 1e3,
                    fixtures.scale(),
                ),
            ))
        },
    },
];

impl Fixtures<'_> {
    /// Recall against exact float32 search, and median milliseconds, of 300 text searches at one ef_search.
    pub(super) fn recall_at(&mut self, ef: usize) -> Result<(f64, f64)> {
        let global = self.global;
        let searches = self.arguments.searches.get();
        let bench = self.packages()?;
        let (queries, truth) = bench.queries_with_neighbours(searches.min(300), global)?;
        let _pin = bench.pin_client()?;
        let agent = api::agent();
        let (mut found, mut times) = (Vec::new(), Vec::new());
        for query in &queries {
            let url = bench.server().url(&format!("/search?k=10&ef_search={ef}&q={}", encode(query)));
            let response = api::call(&agent, "GET", &url, None)?;
            times.push(response.took.as_secs_f64() * 1e3);
            let hits = response.hits()?;
            let ids: Vec<u32> = hits
                .iter()
                .map(|hit| hit.id.parse::<u32>())
                .collect::<Result<_, _>>()
                .context("an id is not a number")?;
            found.extend(ids.into_iter().chain(std::iter::repeat(u32::MAX)).take(crate::ground_truth::K));
        }
        Ok((crate::ground_truth::recall(&truth, &found), Sample::new(times).median()))
    }
}
