//! The article's introduction.

use serde_json::json;

use super::{Claim, Verdict, fixtures::Fixtures};
use anyhow::Result;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "0-semantic",
        article: "the component must be semantic: intent expressed in natural language is understood",
        peer: "",
        check: |fixtures| {
            let counts = fixtures.answer_counts(5)?;
            Ok(Verdict::new(
                counts.found > counts.found_by_bm25,
                format!(
                    "relevant article among the first 5 hits for {} of {} questions in users' words; keyword search (BM25): {}",
                    counts.found, counts.queries, counts.found_by_bm25
                ),
            ))
        },
    },
    Claim {
        id: "0-real-time",
        article: "and real-time: results in milliseconds",
        peer: "",
        check: visible_immediately,
    },
    Claim {
        id: "0-thousands-of-queries",
        article: "serving thousands of queries per second",
        peer: "134 per second at best on 2 cores, p99 570 ms, bugs fixed; 8 per second as printed [stack]",
        check: |fixtures| {
            let step = fixtures.at_highest_rate()?;
            let qps = step.outcome.qps;
            Ok(Verdict::new(
                qps >= 1000.0,
                format!("{qps:.0} per second on one core at p99 <= 22 ms ({})", fixtures.scale()),
            ))
        },
    },
    Claim {
        id: "0-millions-of-vectors",
        article: "scale to millions of vectors",
        peer: "",
        check: |fixtures| {
            let documents = fixtures.packages()?.documents();
            Ok(match documents {
                1_000_000.. => Verdict::new(true, format!("{documents} documents searched in this run")),
                _ => Verdict::not_checked(format!(
                    "largest collection of this run: {documents}; a million was not measured"
                )),
            })
        },
    },
    Claim {
        id: "0-sub-10-ms",
        article: "sub-10 ms latency at high QPS",
        peer: "p99 570 ms at its best rate [stack]",
        check: |fixtures| {
            let sequential = fixtures.sequential()?;
            let highest = fixtures.packages()?.highest_rate(10.0)?;
            let p99 = highest.outcome.latency_ms.quantile(0.99);
            Ok(Verdict::new(
                highest.is_within(10.0) && highest.outcome.qps >= 1000.0,
                format!(
                    "one at a time p99 {:.1} ms; highest rate at p99 <= 10 ms: {:.0} per second (p99 {p99:.1} ms, one core, {}); required: 1,000",
                    sequential.ms.quantile(0.99),
                    highest.outcome.qps,
                    fixtures.scale()
                ),
            ))
        },
    },
];

/// The first search after a write finds the document, a hundred times.
fn visible_immediately(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = fixtures.api()?;
    api.recreate("realtime", &json!({}))?;
    let (mut found, mut slowest_ms) = (0, 0f64);
    for number in 0..100 {
        let angle = f64::from(number) * 0.06;
        let vector = json!([angle.cos(), angle.sin(), 0.0, 0.0]);
        api.write("realtime", &[json!({"id": number.to_string(), "embedding": vector})])?;
        let response = api.post("/collections/realtime/search", &json!({"vector": vector, "k": 1}))?;
        slowest_ms = slowest_ms.max(response.took.as_secs_f64() * 1e3);
        found += usize::from(response.hits()?.first().is_some_and(|hit| hit.id == number.to_string()));
    }
    Ok(Verdict::new(
        found == 100 && slowest_ms < 50.0,
        format!(
            "{found} of 100 documents found by the first search after their write; slowest search {slowest_ms:.1} ms"
        ),
    ))
}
