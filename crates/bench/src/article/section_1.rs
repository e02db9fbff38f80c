//! Section 1: why latency matters; its table of budgets.

use anyhow::Result;

use super::{Claim, Verdict, fixtures::Fixtures};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "1-chatbot-50-ms",
        article: "conversational AI: < 50 ms per turn",
        peer: "11 to 24 ms for the embedding of one short query [embedding]",
        check: |fixtures| within(fixtures, 50.0),
    },
    Claim {
        id: "1-product-search-100-ms",
        article: "e-commerce product search: < 100 ms",
        peer: "",
        check: |fixtures| within(fixtures, 100.0),
    },
    Claim {
        id: "1-fraud-10-ms",
        article: "fraud detection: < 10 ms",
        peer: "",
        check: |fixtures| within(fixtures, 10.0),
    },
    Claim {
        id: "1-recommendation-30-ms",
        article: "recommendation engines: < 30 ms",
        peer: "",
        check: |fixtures| within(fixtures, 30.0),
    },
    Claim {
        id: "1-every-millisecond",
        article: "each millisecond saved compounds: know where they go",
        peer: "",
        check: |fixtures| {
            let sequential = fixtures.sequential()?;
            let parts = sequential.embed_us + sequential.search_us + sequential.fetch_us;
            Ok(Verdict::new(
                sequential.total_us > 0.0 && parts <= sequential.total_us * 1.05,
                format!(
                    "every response reports its stages: embed {:.0}, search {:.0}, fetch {:.0} of {:.0} us (medians)",
                    sequential.embed_us, sequential.search_us, sequential.fetch_us, sequential.total_us
                ),
            ))
        },
    },
];

/// Whether the 99th percentile of distinct sequential searches, text to JSON, is within a budget.
fn within(fixtures: &mut Fixtures<'_>, budget_ms: f64) -> Result<Verdict> {
    let sequential = fixtures.sequential()?;
    let p99 = sequential.ms.quantile(0.99);
    Ok(Verdict::new(
        p99 < budget_ms,
        format!("p50 {:.1}, p99 {p99:.1} ms, text to JSON ({})", sequential.ms.median(), fixtures.scale()),
    ))
}
