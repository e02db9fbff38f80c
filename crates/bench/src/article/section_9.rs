//! Section 9: pitfalls. Each is made on purpose and must be caught before anything is written.

use std::time::Instant;

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Row, Verdict,
    site::{self, Site},
    world::World,
};
use crate::{machine, open_loop::encode};

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "9.1-forgot-to-normalise",
        article: "without normalisation scores become meaningless",
        peer: "not under COSINE: Redis normalises [wire 04]; a zero vector gives -nan and damages the order",
        check: |world| {
            let site = world.site()?;
            site.fresh("lengths", &json!({}))?;
            site.write(
                "lengths",
                &[
                    json!({"id": "near", "embedding": [0.001, 0.0001, 0, 0]}),
                    json!({"id": "far", "embedding": [500, 900, 0, 0]}),
                ],
            )?;
            let hits = site.search("lengths", &json!({"vector": [20, 0, 0, 0], "k": 2}))?;
            let order = hits.first().is_some_and(|hit| hit.id == "near")
                && hits.iter().all(|hit| (0.0..=2.0).contains(&hit.distance));
            let zero = refused(site, "lengths", &json!([0, 0, 0, 0]))?;
            Ok(Verdict::new(
                order && zero.held,
                format!("order by direction whatever the lengths: {order}; zero vector: {}", zero.told),
            ))
        },
    },
    Row {
        id: "9.2-mismatched-dimensions",
        article: "a 768-dim vector into DIM 384: ERR vector dimensions do not match",
        peer: "no error at HSET: the document is left out in silence [wire 03]",
        check: |world| {
            let site = world.site()?;
            site.fresh("dims", &json!({"dim": 384}))?;
            let answer = refused(site, "dims", &json!(vec![0.5; 768]))?;
            let named = ["vector dimensions do not match", "384", "768", "embedding"]
                .iter()
                .all(|part| answer.told.contains(part));
            let query = site.post("/collections/dims/search", &json!({"vector": vec![0.5; 768]}))?;
            Ok(Verdict::new(
                answer.held && named && query.status == 422 && query.says("vector dimensions do not match"),
                format!("document: {}; query: {}", answer.told, query.told()),
            ))
        },
    },
    Row {
        id: "9.3-blob-truncation",
        article: "binary data decoded as UTF-8 is corrupted (decode_responses)",
        peer: "a blob of 3 bytes is taken at HSET in silence [wire 03]",
        check: |world| {
            let site = world.site()?;
            site.fresh("blobs", &json!({}))?;
            let cut = refused(site, "blobs", &json!({"base64": BASE64_STANDARD.encode([0u8, 1, 2])}))?;
            let junk = refused(site, "blobs", &json!({"base64": "not base64!"}))?;
            Ok(Verdict::new(
                cut.held && junk.held && cut.told.contains('3'),
                format!("3 bytes for 16: {}; junk: {}", cut.told, junk.told),
            ))
        },
    },
    Row {
        id: "9.3-not-a-number",
        article: "corrupted vectors: NaN, infinite",
        peer: "a NaN vector is taken in silence [wire 03]",
        check: |world| {
            let site = world.site()?;
            site.fresh("nan", &json!({}))?;
            let blob = |value: f32| json!({"base64": BASE64_STANDARD.encode(crate::vectors::bytes(&[1.0, 0.0, value, 0.0]))});
            let nan = refused(site, "nan", &blob(f32::NAN))?;
            let infinite = refused(site, "nan", &blob(f32::INFINITY))?;
            let named = nan.told.contains("embedding") && nan.told.contains('2');
            Ok(Verdict::new(nan.held && infinite.held && named, format!("{}; {}", nan.told, infinite.told)))
        },
    },
    Row {
        id: "9.5-excessive-ef-search",
        article: "ef_search too high (e.g. 500) blows up latency and memory",
        peer: "",
        check: |world| {
            let (_, usual) = world.recall_at(80)?;
            let before = machine::rss_mib(world.packages()?.server().pid())?;
            let (recall, high) = world.recall_at(500)?;
            let grown = machine::rss_mib(world.packages()?.server().pid())? - before;
            let url = world.packages()?.server().url("/search?q=x&ef_search=1000000");
            let absurd = site::call(&site::agent(), "GET", &url, None)?;
            Ok(Verdict::new(
                high < 30.0 && grown < 64.0 && absurd.status == 422,
                format!(
                    "ef 500: p50 {high:.2} ms against {usual:.2} at 80, recall@10 {recall:.4}, {:+} MiB; 1,000,000: {}",
                    grown.round() as i64,
                    absurd.told()
                ),
            ))
        },
    },
    Row {
        id: "9.5-absurd-k",
        article: "tune gradually",
        peer: "K up to 1,000,000 and more is tried [wire 05]",
        check: |world| {
            let knowledge = world.knowledge()?;
            let mut statuses = Vec::new();
            for k in ["0", "-1", "1000000", "1.5", "x"] {
                statuses.push((k, knowledge.site.get(&format!("/search?q=x&k={k}"))?.status));
            }
            Ok(Verdict::new(
                statuses.iter().all(|(_, status)| [400, 422].contains(status)),
                format!("k and status: {statuses:?}"),
            ))
        },
    },
    Row {
        id: "9.6-thread-safety",
        article: "a client is not thread-safe: one a thread",
        peer: "",
        check: thread_safety,
    },
    Row {
        id: "9.7-process-pool-overhead",
        article: "stick to 1-2 times the number of cores",
        peer: "",
        check: |world| {
            let mut launch = world.launch("crowded")?;
            let workers = machine::cores() * 2 + 1;
            launch.arguments = vec!["--workers".to_owned(), workers.to_string()];
            let site = Site::start(&launch)?;
            let warned = site.server.log();
            drop(site);
            let mut launch = world.launch("usual")?;
            launch.arguments = vec!["--workers".to_owned(), machine::cores().to_string()];
            let site = Site::start(&launch)?;
            let silent = !site.server.log().contains("workers");
            let line = warned
                .lines()
                .find(|line| line.contains("workers"))
                .unwrap_or("no warning")
                .trim()
                .to_owned();
            Ok(Verdict::new(
                warned.contains("workers") && silent,
                format!("--workers {workers}: {line}; --workers {}: silent {silent}", machine::cores()),
            ))
        },
    },
];

/// What came of a document that must be refused.
struct Refusal {
    /// Refused as invalid, and nothing of it is there.
    held: bool,
    told: String,
}

fn refused(site: &Site, collection: &str, vector: &Value) -> Result<Refusal> {
    let reply = site
        .post(&format!("/collections/{collection}/documents"), &json!({"id": "bad", "embedding": vector}))?;
    let stands = site.get(&format!("/collections/{collection}/documents/bad"))?.status;
    Ok(Refusal { held: [400, 422].contains(&reply.status) && stands == 404, told: reply.told() })
}

/// Whether two answers name the same documents at the same distances. A vector may differ in its last
/// digits by what else was embedded with it.
fn agree(a: &[site::Hit], b: &[site::Hit]) -> bool {
    let same = |(a, b): (&site::Hit, &site::Hit)| a.id == b.id && (a.distance - b.distance).abs() < 1e-5;
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// The same searches one after the other and on 32 connections at once give the same answers.
fn thread_safety(world: &mut World<'_>) -> Result<Verdict> {
    let knowledge = world.knowledge()?;
    let questions: Vec<String> = knowledge
        .questions
        .iter()
        .map(|(question, _)| knowledge.site.server.url(&format!("/search?k=5&q={}", encode(question))))
        .collect();
    let ask = |agent: &ureq::Agent, url: &str| -> Result<Vec<site::Hit>> {
        site::call(agent, "GET", url, None)?.hits()
    };
    let agent = site::agent();
    let expected: Vec<Vec<site::Hit>> =
        questions.iter().map(|url| ask(&agent, url)).collect::<Result<_>>()?;
    let started = Instant::now();
    let same: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..32)
            .map(|offset| {
                let (questions, expected) = (&questions, &expected);
                scope.spawn(move || {
                    let agent = site::agent();
                    let order = (0..questions.len()).map(|place| (place + offset * 5) % questions.len());
                    order
                        .filter(|place| {
                            ask(&agent, &questions[*place]).is_ok_and(|hits| agree(&hits, &expected[*place]))
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    let all = questions.len() * 32;
    Ok(Verdict::new(
        same == all,
        format!(
            "{same} of {all} answers on 32 connections equal those of one connection, in {:.1} s",
            started.elapsed().as_secs_f64()
        ),
    ))
}
