//! Section 9: pitfalls. Each is provoked and must be rejected before anything is written.

use std::time::Instant;

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Claim, Verdict,
    api::{self, Api},
    fixtures::Fixtures,
};
use crate::{machine, open_loop::encode};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "9.1-forgot-to-normalise",
        article: "without normalisation scores become meaningless",
        peer: "not under COSINE: Redis normalises [wire 04]; a zero vector gives -nan and disturbs the order",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("lengths", &json!({}))?;
            api.write(
                "lengths",
                &[
                    json!({"id": "near", "embedding": [0.001, 0.0001, 0, 0]}),
                    json!({"id": "far", "embedding": [500, 900, 0, 0]}),
                ],
            )?;
            let hits = api.search("lengths", &json!({"vector": [20, 0, 0, 0], "k": 2}))?;
            let is_ordered = hits.first().is_some_and(|hit| hit.id == "near")
                && hits.iter().all(|hit| (0.0..=2.0).contains(&hit.distance));
            let zero = rejection(api, "lengths", &json!([0, 0, 0, 0]))?;
            Ok(Verdict::new(
                is_ordered && zero.is_rejected,
                format!(
                    "ordered by direction regardless of length: {is_ordered}; zero vector: {}",
                    zero.summary
                ),
            ))
        },
    },
    Claim {
        id: "9.2-mismatched-dimensions",
        article: "a 768-dim vector into DIM 384: ERR vector dimensions do not match",
        peer: "no error at HSET: the document is silently missing from the index [wire 03]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("dims", &json!({"dim": 384}))?;
            let response = rejection(api, "dims", &json!(vec![0.5; 768]))?;
            let named = ["vector dimensions do not match", "384", "768", "embedding"]
                .iter()
                .all(|part| response.summary.contains(part));
            let query = api.post("/collections/dims/search", &json!({"vector": vec![0.5; 768]}))?;
            Ok(Verdict::new(
                response.is_rejected
                    && named
                    && query.status == 422
                    && query.mentions("vector dimensions do not match"),
                format!("document: {}; query: {}", response.summary, query.summary()),
            ))
        },
    },
    Claim {
        id: "9.3-blob-truncation",
        article: "binary data decoded as UTF-8 is corrupted (decode_responses)",
        peer: "a blob of 3 bytes is accepted silently at HSET [wire 03]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("blobs", &json!({}))?;
            let cut = rejection(api, "blobs", &json!({"base64": BASE64_STANDARD.encode([0u8, 1, 2])}))?;
            let invalid = rejection(api, "blobs", &json!({"base64": "not base64!"}))?;
            Ok(Verdict::new(
                cut.is_rejected && invalid.is_rejected && cut.summary.contains('3'),
                format!("3 bytes instead of 16: {}; invalid base64: {}", cut.summary, invalid.summary),
            ))
        },
    },
    Claim {
        id: "9.3-not-a-number",
        article: "corrupted vectors: NaN, infinite",
        peer: "a NaN vector is accepted silently [wire 03]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("nan", &json!({}))?;
            let blob = |value: f32| json!({"base64": BASE64_STANDARD.encode(crate::vectors::bytes(&[1.0, 0.0, value, 0.0]))});
            let nan = rejection(api, "nan", &blob(f32::NAN))?;
            let infinite = rejection(api, "nan", &blob(f32::INFINITY))?;
            let named = nan.summary.contains("embedding") && nan.summary.contains('2');
            Ok(Verdict::new(
                nan.is_rejected && infinite.is_rejected && named,
                format!("{}; {}", nan.summary, infinite.summary),
            ))
        },
    },
    Claim {
        id: "9.5-excessive-ef-search",
        article: "ef_search too high (e.g. 500) blows up latency and memory",
        peer: "",
        check: |fixtures| {
            let (_, default) = fixtures.recall_at(80)?;
            let before = machine::rss_mib(fixtures.packages()?.server().pid())?;
            let (recall, high) = fixtures.recall_at(500)?;
            let grown = machine::rss_mib(fixtures.packages()?.server().pid())? - before;
            let url = fixtures.packages()?.server().url("/search?q=x&ef_search=1000000");
            let excessive = api::call(&api::agent(), "GET", &url, None)?;
            Ok(Verdict::new(
                high < 30.0 && grown < 64.0 && excessive.status == 422,
                format!(
                    "ef 500: p50 {high:.2} ms, {default:.2} at 80, recall@10 {recall:.4}, {:+} MiB; 1,000,000: {}",
                    grown.round() as i64,
                    excessive.summary()
                ),
            ))
        },
    },
    Claim {
        id: "9.5-invalid-k",
        article: "tune gradually",
        peer: "K up to 1,000,000 and more is accepted [wire 05]",
        check: |fixtures| {
            let knowledge = fixtures.knowledge_base()?;
            let mut statuses = Vec::new();
            for k in ["0", "-1", "1000000", "1.5", "x"] {
                statuses.push((k, knowledge.api.get(&format!("/search?q=x&k={k}"))?.status));
            }
            Ok(Verdict::new(
                statuses.iter().all(|(_, status)| [400, 422].contains(status)),
                format!("k and status: {statuses:?}"),
            ))
        },
    },
    Claim {
        id: "9.6-thread-safety",
        article: "a client is not thread-safe: one per thread",
        peer: "",
        check: thread_safety,
    },
    Claim {
        id: "9.7-process-pool-overhead",
        article: "stick to 1-2 times the number of cores",
        peer: "",
        check: |fixtures| {
            let mut launch = fixtures.launch("many-workers")?;
            let workers = machine::cores() * 2 + 1;
            launch.arguments = vec!["--workers".to_owned(), workers.to_string()];
            let api = Api::start(&launch)?;
            let log = api.server.log();
            drop(api);
            let mut launch = fixtures.launch("default-workers")?;
            launch.arguments = vec!["--workers".to_owned(), machine::cores().to_string()];
            let api = Api::start(&launch)?;
            let no_warning = !api.server.log().contains("workers");
            let warning =
                log.lines().find(|line| line.contains("workers")).unwrap_or("no warning").trim().to_owned();
            Ok(Verdict::new(
                log.contains("workers") && no_warning,
                format!(
                    "--workers {workers}: {warning}; --workers {}: no warning: {no_warning}",
                    machine::cores()
                ),
            ))
        },
    },
];

/// The response to a document that must be rejected.
struct Rejection {
    /// Whether it was rejected as invalid and was not stored.
    is_rejected: bool,
    summary: String,
}

fn rejection(api: &Api, collection: &str, vector: &Value) -> Result<Rejection> {
    let response = api
        .post(&format!("/collections/{collection}/documents"), &json!({"id": "bad", "embedding": vector}))?;
    let stored = api.get(&format!("/collections/{collection}/documents/bad"))?.status;
    Ok(Rejection {
        is_rejected: [400, 422].contains(&response.status) && stored == 404,
        summary: response.summary(),
    })
}

/// Whether two results have the same documents at the same distances. The last digits of a vector may depend on
/// the texts embedded in the same batch.
fn agree(a: &[api::Hit], b: &[api::Hit]) -> bool {
    let same = |(a, b): (&api::Hit, &api::Hit)| a.id == b.id && (a.distance - b.distance).abs() < 1e-5;
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Whether the same searches give the same results on one connection and on 32 concurrent connections.
fn thread_safety(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let knowledge = fixtures.knowledge_base()?;
    let urls: Vec<String> = knowledge
        .queries
        .iter()
        .map(|(query, _)| knowledge.api.server.url(&format!("/search?k=5&q={}", encode(query))))
        .collect();
    let search = |agent: &ureq::Agent, url: &str| -> Result<Vec<api::Hit>> {
        api::call(agent, "GET", url, None)?.hits()
    };
    let agent = api::agent();
    let expected: Vec<Vec<api::Hit>> = urls.iter().map(|url| search(&agent, url)).collect::<Result<_>>()?;
    let started = Instant::now();
    let same: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..32)
            .map(|offset| {
                let (urls, expected) = (&urls, &expected);
                scope.spawn(move || {
                    let agent = api::agent();
                    let order = (0..urls.len()).map(|position| (position + offset * 5) % urls.len());
                    order
                        .filter(|position| {
                            search(&agent, &urls[*position])
                                .is_ok_and(|hits| agree(&hits, &expected[*position]))
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    let all = urls.len() * 32;
    Ok(Verdict::new(
        same == all,
        format!(
            "{same} of {all} results on 32 connections equal those on one connection, in {:.1} s",
            started.elapsed().as_secs_f64()
        ),
    ))
}
