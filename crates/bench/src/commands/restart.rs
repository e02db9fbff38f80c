//! `restart`: how soon a server with many documents is ready, after a good end and after it was killed in the middle
//! of writing, and whether its answers are right from that moment on.

use std::{
    collections::HashSet,
    fs,
    num::NonZero,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nearfield::service::{Quantization, Service};
use serde_json::{Value, json};

use crate::{
    corpus::Document,
    packages,
    random::Random,
    report::{Format, Report, Row},
    sample::Sample,
    server::{Launch, Server},
    setting::Setting,
    vectors::Vectors,
};

const DIM: usize = 384;
/// Vectors lie around so many points.
const CENTRES: usize = 1000;
/// Questions asked as soon as it is ready.
const QUESTIONS: usize = 100;
const K: usize = 10;
/// Documents of a write.
const BATCH: NonZero<usize> = NonZero::new(500).expect("it is not zero");

/// Arguments of `restart`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Documents, each with a text of a few words and a vector of 384 values it brings itself
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    documents: usize,
    /// How often each is done
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seed of everything drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let dir = setting.cache_dir.join(format!("restart-{}-{}", arguments.documents, arguments.seed));
    let (complete, data_dir) = (dir.join("complete"), dir.join("data"));
    let made = Made::new(arguments.documents, arguments.seed);
    if !complete.exists() {
        eprintln!("loading {} documents into {}", arguments.documents, dir.display());
        fs::create_dir_all(&data_dir)?;
        load(&made, setting, &data_dir)?;
        fs::write(&complete, "")?;
    }
    let launch = Launch {
        data_dir,
        models_dir: dir.join("models"),
        cores: Vec::new(),
        arguments: vec!["--log".to_owned(), "warn".to_owned()],
    };
    let mut report = Report::new(format, "restart");
    for end in ["stopped", "killed while writing"] {
        let mut ready_ms = Vec::new();
        let (mut recall, mut tail) = (1f64, 0);
        for run in 0..arguments.runs {
            let before = Server::start(&launch)?;
            if end == "stopped" {
                drop(before);
            } else {
                kill_while_writing(before, &made, run)?;
            }
            let started = Instant::now();
            let server = Server::start(&launch)?;
            ready_ms.push(started.elapsed().as_secs_f64() * 1e3);
            tail = tail.max(ask_info(&server)?["tail"].as_u64().context("a tail")?);
            recall = recall.min(recall_now(&server, &made, run)?);
        }
        let ready = Sample::new(ready_ms);
        report.push(
            Row::new()
                .with("documents", arguments.documents)
                .with("end", end)
                .with("runs", arguments.runs)
                .with_rounded("ready_ms_median", ready.median(), 0)
                .with_rounded("ready_ms_max", ready.max(), 0)
                .with("tail_max", tail)
                .with_rounded("recall_at_10_least", recall, 4),
        )?;
    }
    report.finish()
}

/// Documents and vectors that everybody can make again.
struct Made {
    documents: Vec<Document>,
    vectors: Vectors,
}

impl Made {
    fn new(count: usize, seed: u64) -> Made {
        let mut random = Random::new(seed);
        let centres: Vec<f32> = (0..CENTRES * DIM).map(|_| random.normal() as f32).collect();
        let mut values = Vec::with_capacity(count * DIM);
        for _ in 0..count {
            let centre = random.below(CENTRES) * DIM;
            values.extend(
                centres[centre..centre + DIM].iter().map(|value| value + 0.7 * random.normal() as f32),
            );
        }
        let documents = (0..count as u64)
            .map(|id| Document { id, text: format!("document {id} of {count}, as good as any other") })
            .collect();
        let vectors = Vectors { path: String::new().into(), dim: DIM, values, key: format!("made-{seed}") };
        Made { documents, vectors }
    }
}

fn load(made: &Made, setting: &Setting, data_dir: &std::path::Path) -> Result<()> {
    let service = Service::open(setting.service_without_model(data_dir)?)?;
    let mut schema = packages::schema(packages::NAME, packages::HNSW, DIM, None);
    packages::quantize(&mut schema, Quantization::Int8);
    packages::fill(&service, schema, &made.documents, Some(&made.vectors), BATCH)?;
    service.close();
    Ok(())
}

fn ask(server: &Server, method: &str, path: &str, body: &Value) -> Result<Value> {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(server.url(path))
        .header("content-type", "application/json")
        .body(if body.is_null() { String::new() } else { body.to_string() })?;
    let agent = ureq::Agent::new_with_defaults();
    let text = agent.run(request)?.body_mut().read_to_string()?;
    Ok(serde_json::from_str(&text)?)
}

fn ask_info(server: &Server) -> Result<Value> {
    ask(server, "GET", &format!("/collections/{}", packages::NAME), &Value::Null)
}

/// Rewrites documents until the server is killed in the middle of it.
fn kill_while_writing(server: Server, made: &Made, run: usize) -> Result<()> {
    let path = format!("/collections/{}/documents", packages::NAME);
    let started = Instant::now();
    let life = Duration::from_millis(2000 + 300 * run as u64);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for first in (0..made.documents.len()).step_by(100) {
                let rows = (first..made.documents.len()).take(100).map(|row| {
                    json!({"id": row.to_string(), "content": format!("{}, in run {run}", made.documents[row].text),
                           "embedding": made.vectors.row(row)})
                });
                // The end comes as a broken connection.
                if ask(&server, "POST", &path, &rows.collect()).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(life.saturating_sub(started.elapsed()));
        server.kill()?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))
    })
}

/// Recall of the answers as they are now, against exact ones.
fn recall_now(server: &Server, made: &Made, run: usize) -> Result<f64> {
    let mut random = Random::new(1000 + run as u64);
    let path = format!("/collections/{}/search", packages::NAME);
    let mut found = 0;
    for _ in 0..QUESTIONS {
        let near = made.vectors.row(random.below(made.documents.len()));
        let asked: Vec<f32> = near.iter().map(|value| value + 0.3 * random.normal() as f32).collect();
        let ids = |exact: bool| -> Result<HashSet<String>> {
            let question = json!({"vector": asked, "k": K, "exact": exact, "fields": []});
            let answer = ask(server, "POST", &path, &question)?;
            let results = answer["results"].as_array().with_context(|| answer.to_string())?;
            Ok(results.iter().filter_map(|hit| hit["id"].as_str().map(str::to_owned)).collect())
        };
        let (exact, approximate) = (ids(true)?, ids(false)?);
        ensure!(exact.len() == K, "{} of {K} hits", exact.len());
        found += exact.intersection(&approximate).count();
    }
    Ok(found as f64 / (QUESTIONS * K) as f64)
}
