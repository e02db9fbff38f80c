//! Section 2: vector search fundamentals.

use anyhow::Result;
use embed::ComputeType;
use serde_json::json;

use super::{Claim, Verdict, fixtures::Fixtures};
use crate::{random::Random, sample::Sample};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "2.1-embedding",
        article: "an embedding is a dense, fixed-length vector that captures meaning",
        peer: "",
        check: |fixtures| {
            let model = fixtures.global.model()?;
            let texts = ["a", "how to reset a password", &"many words ".repeat(150)];
            let batch: Vec<_> = texts.iter().map(|text| model.tokenize(text)).collect();
            let vectors = model.embed(&batch, ComputeType::F32);
            let dense = vectors.iter().filter(|value| **value != 0.0).count();
            let is_complete = vectors.len() == texts.len() * 384;
            Ok(Verdict::new(
                is_complete && dense * 100 >= vectors.len() * 99,
                format!(
                    "texts of 3, {} and {} tokens: {} values each, {dense} of {} nonzero",
                    batch[1].ids.len(),
                    batch[2].ids.len(),
                    model.dim(),
                    vectors.len()
                ),
            ))
        },
    },
    Claim {
        id: "2.1-cosine-is-inner-product",
        article: "for normalised vectors, cosine similarity and inner product are one",
        peer: "",
        check: |fixtures| {
            let mut worst: f64 = 0.0;
            let (vectors, query) = random_vectors(50, 8, 3, true);
            let api = fixtures.api()?;
            api.recreate("cosine", &json!({"dim": 8, "metric": "cosine"}))?;
            api.recreate("ip", &json!({"dim": 8, "metric": "ip"}))?;
            let documents: Vec<_> = vectors
                .iter()
                .enumerate()
                .map(|(id, vector)| json!({"id": id.to_string(), "embedding": vector}))
                .collect();
            let search = json!({"vector": query, "k": 50, "exact": true});
            let mut lists = Vec::new();
            for collection in ["cosine", "ip"] {
                api.write(collection, &documents)?;
                lists.push(api.search(collection, &search)?);
            }
            for (a, b) in lists[0].iter().zip(&lists[1]) {
                worst = worst.max((a.distance - b.distance).abs());
            }
            let same = lists[0].len() == 50
                && lists[0].iter().map(|hit| &hit.id).eq(lists[1].iter().map(|hit| &hit.id));
            Ok(Verdict::new(
                same && worst < 1e-5,
                format!("same 50 hits in the same order: {same}; largest difference {worst:.1e}"),
            ))
        },
    },
    Claim {
        id: "2.1-cosine-formula",
        article: "cosine(q, d) = q·d / (‖q‖ ‖d‖)",
        peer: "",
        check: |fixtures| {
            let (vectors, query) = random_vectors(50, 8, 4, false);
            let api = fixtures.api()?;
            api.recreate("formula", &json!({"dim": 8}))?;
            let documents: Vec<_> = vectors
                .iter()
                .enumerate()
                .map(|(id, vector)| json!({"id": id.to_string(), "embedding": vector}))
                .collect();
            api.write("formula", &documents)?;
            let hits = api.search("formula", &json!({"vector": query, "k": 50}))?;
            let mut worst: f64 = 0.0;
            for hit in &hits {
                let vector = &vectors[hit.id.parse::<usize>()?];
                worst = worst.max((hit.score - cosine(&query, vector)).abs());
            }
            Ok(Verdict::new(
                hits.len() == 50 && worst < 1e-5,
                format!(
                    "{} scores of vectors of any length compared with the formula in double precision: largest difference {worst:.1e}",
                    hits.len()
                ),
            ))
        },
    },
    Claim {
        id: "2.1-linear-scan",
        article: "an exact linear scan costs O(N·D)",
        peer: "",
        check: |fixtures| {
            let (small, large) = (search_us(fixtures, true, 4)?, search_us(fixtures, true, 1)?);
            let ratio = large / small;
            Ok(Verdict::new(
                (2.0..=8.0).contains(&ratio),
                format!(
                    "exact search of {} and {} vectors: {small:.0} and {large:.0} us, {ratio:.1} times as long for 4 times the vectors",
                    fixtures.arguments.sweep / 4,
                    fixtures.arguments.sweep
                ),
            ))
        },
    },
    Claim {
        id: "2.1-hnsw-logarithmic",
        article: "HNSW reduces query time to O(log N)",
        peer: "",
        check: |fixtures| {
            let (small, large) = (search_us(fixtures, false, 4)?, search_us(fixtures, false, 1)?);
            let ratio = large / small;
            Ok(Verdict::new(
                ratio < 2.0,
                format!(
                    "ef 80 over {} and {} vectors: {small:.0} and {large:.0} us, {ratio:.2} times as long for 4 times the vectors",
                    fixtures.arguments.sweep / 4,
                    fixtures.arguments.sweep
                ),
            ))
        },
    },
    Claim {
        id: "2.1-recall-above-0.99",
        article: "while keeping recall > 0.99",
        peer: "1,050 queries per second at recall .99 over the wire, without embedding [redis]",
        check: |fixtures| {
            let (recall, p50_ms) = fixtures.recall_at(400)?;
            Ok(Verdict::new(
                recall > 0.99,
                format!(
                    "recall@10 {recall:.4} at ef_search 400, {p50_ms:.1} ms with embedding ({})",
                    fixtures.scale()
                ),
            ))
        },
    },
    Claim {
        id: "2.1-m-range",
        article: "M: typical range 8 to 48",
        peer: "",
        check: |fixtures| accepted(fixtures, "m", [8, 48], 100_000),
    },
    Claim {
        id: "2.1-ef-construction-range",
        article: "ef_construction: typical range 100 to 500",
        peer: "",
        check: |fixtures| accepted(fixtures, "ef_construction", [100, 500], 1_000_000),
    },
    Claim {
        id: "2.1-ef-search-range",
        article: "ef_search: typical range 10 to 200",
        peer: "`EF_SEARCH` is rejected; its name is EF_RUNTIME [wire 01]",
        check: |fixtures| accepted(fixtures, "ef_search", [10, 200], 1_000_000),
    },
];

/// Whether both ends of a parameter's range work and an excessive value is rejected with the parameter's name.
fn accepted(
    fixtures: &mut Fixtures<'_>,
    parameter: &str,
    ends: [usize; 2],
    excessive: usize,
) -> Result<Verdict> {
    let api = fixtures.api()?;
    for value in ends {
        api.recreate("range", &json!({parameter: value}))?;
        let info = api.get("/collections/range")?.expect(200)?;
        let fields = info.body["schema"]["fields"].to_string();
        if !fields.contains(&format!("\"{parameter}\":{value}")) {
            return Ok(Verdict::new(
                false,
                format!("{parameter} {value} was accepted but is reported as {fields}"),
            ));
        }
        api.write("range", &[json!({"id": "a", "embedding": [1, 0, 0, 0]})])?;
        if api.search("range", &json!({"vector": [1, 0, 0, 0], "k": 1}))?.len() != 1 {
            return Ok(Verdict::new(false, format!("with {parameter} {value} the document is not found")));
        }
    }
    api.drop_collection("range")?;
    let schema = json!({"fields": [{"name": "embedding", "kind": "vector", "dim": 4, parameter: excessive}]});
    let rejected = api.put("/collections/range", &schema)?;
    Ok(Verdict::new(
        rejected.status == 422 && rejected.mentions(parameter),
        format!(
            "{} and {} accepted and searched; {excessive} rejected: {}",
            ends[0],
            ends[1],
            rejected.summary()
        ),
    ))
}

/// Median microseconds of a search in the index over the first `1 / part` of the vectors of the sweep.
fn search_us(fixtures: &mut Fixtures<'_>, exact: bool, part: usize) -> Result<f64> {
    let graph = fixtures.graph(part)?;
    let times = graph.times_us(80, exact, 200);
    Ok(Sample::new(times).median())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Random vectors and a query, optionally of unit length.
fn random_vectors(count: usize, dim: usize, seed: u64, unit: bool) -> (Vec<Vec<f32>>, Vec<f32>) {
    let mut random = Random::new(seed);
    let mut vector = || {
        let values: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
        let norm = if unit { values.iter().map(|value| value * value).sum::<f64>().sqrt() } else { 1.0 };
        values.iter().map(|value| (value / norm) as f32).collect::<Vec<f32>>()
    };
    ((0..count).map(|_| vector()).collect(), vector())
}
