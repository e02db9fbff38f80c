//! The article's introduction.

use serde_json::json;

use super::{Row, Verdict, world::World};
use anyhow::Result;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "0-semantic",
        article: "the component must be semantic: intent expressed in natural language is understood",
        peer: "",
        check: |world| {
            let found = world.answered(5)?;
            Ok(Verdict::new(
                found.answered > found.by_words,
                format!(
                    "right article among the first 5 for {} of {} questions in users' own words; matching words alone (BM25): {}",
                    found.answered, found.asked, found.by_words
                ),
            ))
        },
    },
    Row {
        id: "0-real-time",
        article: "and real-time: results in milliseconds",
        peer: "",
        check: visible_at_once,
    },
    Row {
        id: "0-thousands-of-queries",
        article: "serving thousands of queries per second",
        peer: "134 a second at best on 2 cores, p99 570 ms, bugs fixed; 8 a second as printed [stack]",
        check: |world| {
            let loaded = world.loaded()?;
            let qps = loaded.outcome.qps;
            Ok(Verdict::new(
                qps >= 1000.0,
                format!("{qps:.0} a second on one core at p99 <= 22 ms ({})", world.scale()),
            ))
        },
    },
    Row {
        id: "0-millions-of-vectors",
        article: "scale to millions of vectors",
        peer: "",
        check: |world| {
            let documents = world.packages()?.documents();
            Ok(match documents {
                1_000_000.. => Verdict::new(true, format!("{documents} documents searched in this run")),
                _ => Verdict::not_yet(format!(
                    "largest collection of this run: {documents}; a million not measured"
                )),
            })
        },
    },
    Row {
        id: "0-sub-10-ms",
        article: "sub-10 ms latency at high QPS",
        peer: "p99 570 ms at its best rate [stack]",
        check: |world| {
            let alone = world.alone()?;
            let highest = world.packages()?.highest_rate(10.0)?;
            let p99 = highest.outcome.latency_ms.quantile(0.99);
            Ok(Verdict::new(
                highest.within(10.0) && highest.outcome.qps >= 1000.0,
                format!(
                    "alone p99 {:.1} ms; highest rate at p99 <= 10 ms: {:.0} a second (p99 {p99:.1} ms, one core, {}); demanded: 1,000",
                    alone.ms.quantile(0.99),
                    highest.outcome.qps,
                    world.scale()
                ),
            ))
        },
    },
];

/// A document is found by the first search after its write was answered, a hundred times.
fn visible_at_once(world: &mut World<'_>) -> Result<Verdict> {
    let site = world.site()?;
    site.fresh("realtime", &json!({}))?;
    let (mut found, mut slowest_ms) = (0, 0f64);
    for number in 0..100 {
        let angle = f64::from(number) * 0.06;
        let vector = json!([angle.cos(), angle.sin(), 0.0, 0.0]);
        site.write("realtime", &[json!({"id": number.to_string(), "embedding": vector})])?;
        let reply = site.post("/collections/realtime/search", &json!({"vector": vector, "k": 1}))?;
        slowest_ms = slowest_ms.max(reply.took.as_secs_f64() * 1e3);
        found += usize::from(reply.hits()?.first().is_some_and(|hit| hit.id == number.to_string()));
    }
    Ok(Verdict::new(
        found == 100 && slowest_ms < 50.0,
        format!(
            "{found} of 100 documents found by the search right after their write; slowest search {slowest_ms:.1} ms"
        ),
    ))
}
