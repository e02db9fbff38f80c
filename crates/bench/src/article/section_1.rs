//! Section 1: why latency matters; its table of budgets.

use anyhow::Result;

use super::{Row, Verdict, world::World};

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "1-chatbot-50-ms",
        article: "conversational AI: < 50 ms per turn",
        peer: "11 to 24 ms for the embedding of one short query [embedding]",
        check: |world| within(world, 50.0),
    },
    Row {
        id: "1-product-search-100-ms",
        article: "e-commerce product search: < 100 ms",
        peer: "",
        check: |world| within(world, 100.0),
    },
    Row {
        id: "1-fraud-10-ms",
        article: "fraud detection: < 10 ms",
        peer: "",
        check: |world| within(world, 10.0),
    },
    Row {
        id: "1-recommendation-30-ms",
        article: "recommendation engines: < 30 ms",
        peer: "",
        check: |world| within(world, 30.0),
    },
    Row {
        id: "1-every-millisecond",
        article: "each millisecond saved compounds: know where they go",
        peer: "",
        check: |world| {
            let alone = world.alone()?;
            let parts = alone.embed_us + alone.search_us + alone.fetch_us;
            Ok(Verdict::new(
                alone.total_us > 0.0 && parts <= alone.total_us * 1.05,
                format!(
                    "every answer tells its stages: embed {:.0}, search {:.0}, fetch {:.0} of {:.0} us (medians)",
                    alone.embed_us, alone.search_us, alone.fetch_us, alone.total_us
                ),
            ))
        },
    },
];

/// The 99th percentile of distinct searches, text to JSON, one at a time, within a budget.
fn within(world: &mut World<'_>, budget_ms: f64) -> Result<Verdict> {
    let alone = world.alone()?;
    let p99 = alone.ms.quantile(0.99);
    Ok(Verdict::new(
        p99 < budget_ms,
        format!("p50 {:.1}, p99 {p99:.1} ms, text to JSON ({})", alone.ms.median(), world.scale()),
    ))
}
