//! Section 8: benchmarks and tuning.

use anyhow::{Context, Result};
use index::VectorType;
use serde_json::json;

use super::{Row, Verdict, site, world::World};
use crate::{open_loop::encode, sample::Sample};

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "8.1-p95-of-1000",
        article: "p95 of 1,000 searches for \"how to reset password?\"",
        peer: "",
        check: |world| {
            let knowledge = world.knowledge()?;
            let mut times = Vec::new();
            for _ in 0..1000 {
                times.push(
                    knowledge.site.ask("kb", "how to reset password?", 5)?.expect(200)?.took.as_secs_f64()
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
    Row {
        id: "8.2-m",
        article: "M: higher -> better recall, more RAM; start at 16",
        peer: "hnswlib: see nearfield-bench index",
        check: |world| {
            let mut points = Vec::new();
            for m in [8, 16, 48] {
                let graph = world.swept(m, 200, VectorType::Float32)?;
                points.push((m, graph.round(50).recall_at_10, graph.built.bytes_per_vector));
            }
            let rising = points.is_sorted_by(|a, b| a.1 < b.1 && a.2 < b.2);
            let told: Vec<String> =
                points.iter().map(|(m, recall, bytes)| format!("M {m}: {recall:.4}, {bytes:.0} B")).collect();
            Ok(Verdict::new(
                rising,
                format!(
                    "recall@10 at ef 50 and bytes a vector: {} ({} vectors)",
                    told.join("; "),
                    world.arguments.sweep
                ),
            ))
        },
    },
    Row {
        id: "8.2-ef-construction",
        article: "ef_construction: higher -> slower build, better graph; start at 200",
        peer: "",
        check: |world| {
            let mut points = Vec::new();
            for ef_construction in [100, 200, 500] {
                let graph = world.swept(16, ef_construction, VectorType::Float32)?;
                points.push((ef_construction, graph.round(50).recall_at_10, graph.built.build_s()));
            }
            let slower = points.is_sorted_by(|a, b| a.2 < b.2);
            let better = points[2].1 >= points[0].1;
            let told: Vec<String> =
                points.iter().map(|(ef, recall, build)| format!("{ef}: {build:.1} s, {recall:.4}")).collect();
            Ok(Verdict::new(
                slower && better,
                format!(
                    "build and recall@10 at ef 50: {} ({} vectors)",
                    told.join("; "),
                    world.arguments.sweep
                ),
            ))
        },
    },
    Row {
        id: "8.2-ef-search",
        article: "ef_search: higher -> slower query, better accuracy; start at 50 to 150",
        peer: "550 queries a second at .995, 1,050 at .99, 2,100 at .95, without embedding [redis]",
        check: |world| {
            let points: Vec<(usize, f64, f64)> = [10, 40, 80, 200, 400]
                .into_iter()
                .map(|ef| world.recall_at(ef).map(|(recall, ms)| (ef, recall, ms)))
                .collect::<Result<_>>()?;
            let better = points.is_sorted_by(|a, b| a.1 <= b.1);
            let slower = points[4].2 > points[0].2;
            let told: Vec<String> =
                points.iter().map(|(ef, recall, ms)| format!("{ef}: {recall:.4}, {ms:.2} ms")).collect();
            Ok(Verdict::new(
                better && slower,
                format!("recall@10 and p50 with embedding by ef: {} ({})", told.join("; "), world.scale()),
            ))
        },
    },
    Row {
        id: "8.2-from-50-to-120",
        article: "ef_search 50 -> 120: recall 0.96 -> 0.99, latency 12 -> 22 ms",
        peer: "hnswlib on this data: .943 at 50 [corpora]",
        check: |world| {
            let (low, fast) = world.recall_at(50)?;
            let (high, slow) = world.recall_at(120)?;
            Ok(Verdict::new(
                low >= 0.96 && high >= 0.99 && slow <= 22.0,
                format!("recall@10 {low:.4} -> {high:.4}, p50 {fast:.2} -> {slow:.2} ms ({})", world.scale()),
            ))
        },
    },
    Row {
        id: "8.2-sweet-spot-80",
        article: "for most real-time apps, ef_search = 80 is a sweet spot",
        peer: "",
        check: |world| {
            let (recall, ms) = world.recall_at(80)?;
            let default = world.recall()?;
            Ok(Verdict::new(
                recall >= 0.95 && ms < 10.0,
                format!(
                    "recall@10 {recall:.4}, p50 {ms:.2} ms; it is the default, which gives {default:.4} ({})",
                    world.scale()
                ),
            ))
        },
    },
    Row {
        id: "8.3-cpu-bound",
        article: "embedding and normalisation are CPU-bound: offload them",
        peer: "",
        check: |world| {
            let loaded = world.loaded()?;
            Ok(Verdict::new(
                loaded.cpu_pct >= 75.0,
                format!(
                    "at the highest rate with p99 <= 22 ms the one core is {:.0} % busy: nothing waits for anything else",
                    loaded.cpu_pct
                ),
            ))
        },
    },
    Row {
        id: "8.3-pipeline-queries",
        article: "I/O-bound: keep connections open, pipeline multiple queries",
        peer: "",
        check: |world| {
            let bench = world.packages()?;
            let agent = site::agent();
            let url = bench.server().url("/collections/packages/search");
            let queries = bench.fresh(400)?;
            let ms = |body: &serde_json::Value| -> Result<f64> {
                Ok(site::call(&agent, "POST", &url, Some(body))?.expect(200)?.took.as_secs_f64() * 1e3)
            };
            ms(&json!({"text": "warm", "k": 5}))?;
            let (mut alone, mut together) = (Vec::new(), Vec::new());
            for ten in queries.chunks_exact(20) {
                let (singles, several) = ten.split_at(10);
                let mut sum = 0.0;
                for query in singles {
                    sum += ms(&json!({"text": query, "k": 5}))?;
                }
                alone.push(sum / 10.0);
                let searches: Vec<_> = several.iter().map(|query| json!({"text": query, "k": 5})).collect();
                together.push(ms(&json!({"searches": searches}))? / 10.0);
            }
            let (alone, together) = (Sample::new(alone).median(), Sample::new(together).median());
            Ok(Verdict::new(
                together < alone,
                format!(
                    "a query costs {alone:.2} ms in a request of its own, {together:.2} ms in a request of ten (medians, one core)"
                ),
            ))
        },
    },
    Row {
        id: "8.4-latency-doctor",
        article: "redis-cli LATENCY DOCTOR",
        peer: "",
        check: |world| {
            /// As many as the doctor wants to see before it speaks.
            const SEARCHES: usize = 25;
            let knowledge = world.knowledge()?;
            for _ in 0..SEARCHES {
                knowledge.site.ask("kb", "where does the time go", 5)?.expect(200)?;
            }
            let told = knowledge.site.get("/doctor")?.expect(200)?;
            let whole = told.body["searches"].as_u64().is_some_and(|searches| searches >= SEARCHES as u64);
            Ok(Verdict::new(
                whole && told.body["advice"].is_array(),
                format!("`nearfield doctor` on {} searches: {}", told.body["searches"], told.body["advice"]),
            ))
        },
    },
    Row {
        id: "8.4-profile",
        article: "python -m cProfile: where does the time go?",
        peer: "",
        check: |world| {
            let knowledge = world.knowledge()?;
            let header =
                knowledge.site.ask("kb", "profile", 5)?.expect(200)?.server_timing.unwrap_or_default();
            let metrics = knowledge.site.get("/metrics")?;
            let told = ["queue", "embed", "search", "fetch"].iter().all(|stage| header.contains(stage));
            Ok(Verdict::new(told && metrics.status == 200, format!("Server-Timing: {header}")))
        },
    },
    Row {
        id: "8.4-60-30-10",
        article: "typical: 60 % embedding, 30 % Redis network, 10 % Python",
        peer: "11 to 24 ms of embedding alone [embedding]",
        check: |world| {
            let alone = world.alone()?;
            let share = |part: f64| part / alone.total_us * 100.0;
            let rest = 100.0 - share(alone.embed_us) - share(alone.search_us) - share(alone.fetch_us);
            Ok(Verdict::new(
                alone.total_us / 1e3 < 11.0,
                format!(
                    "embed {:.0} %, search {:.0} %, fetch {:.0} %, rest {rest:.0} % of {:.2} ms: no network between stages; demanded: the whole in less than the peer's embedding ({})",
                    share(alone.embed_us),
                    share(alone.search_us),
                    share(alone.fetch_us),
                    alone.total_us / 1e3,
                    world.scale(),
                ),
            ))
        },
    },
];

impl World<'_> {
    /// Recall against exact float32 search and median milliseconds of 300 text searches at a breadth.
    pub(super) fn recall_at(&mut self, ef: usize) -> Result<(f64, f64)> {
        let setting = self.setting;
        let bench = self.packages()?;
        let (queries, truth) = bench.judged(300, setting)?;
        let _pinned = bench.pinned()?;
        let agent = site::agent();
        let (mut found, mut times) = (Vec::new(), Vec::new());
        for query in &queries {
            let url = bench.server().url(&format!("/search?k=10&ef_search={ef}&q={}", encode(query)));
            let reply = site::call(&agent, "GET", &url, None)?;
            times.push(reply.took.as_secs_f64() * 1e3);
            let hits = reply.hits()?;
            let ids: Vec<u32> = hits
                .iter()
                .map(|hit| hit.id.parse::<u32>())
                .collect::<Result<_, _>>()
                .context("ids are numbers")?;
            found.extend(ids.into_iter().chain(std::iter::repeat(u32::MAX)).take(crate::truth::K));
        }
        Ok((crate::truth::recall(&truth, &found), Sample::new(times).median()))
    }
}
