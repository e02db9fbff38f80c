//! `restart`: the time until a server with many documents is ready, after a clean stop and after SIGKILL during
//! writes, and the recall of its results from then on.

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
    global_options::GlobalOptions,
    packages,
    random::Random,
    report::{Format, Report, Row},
    sample::Sample,
    server::{Launch, Server},
    vectors::Vectors,
};

const DIM: usize = 384;
/// Number of cluster centres of the vectors.
const CENTRES: usize = 1000;
/// Queries sent as soon as the server is ready.
const QUERIES: usize = 100;
const K: usize = 10;
/// Documents per write.
const BATCH: NonZero<usize> = NonZero::new(500).expect("500 is not zero");

/// Arguments of `restart`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RestartArguments {
    /// Documents, each with a text of a few words and a random vector of 384 values
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    documents: usize,
    /// Runs of each kind of restart
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &RestartArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let dir = global.cache_dir.join(format!("restart-{}-{}", arguments.documents, arguments.seed));
    let (complete, data_dir) = (dir.join("complete"), dir.join("data"));
    let corpus = SyntheticCorpus::new(arguments.documents, arguments.seed);
    if !complete.exists() {
        eprintln!("loading {} documents into {}", arguments.documents, dir.display());
        fs::create_dir_all(&data_dir)?;
        load(&corpus, global, &data_dir)?;
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
                kill_while_writing(before, &corpus, run)?;
            }
            let started = Instant::now();
            let server = Server::start(&launch)?;
            ready_ms.push(started.elapsed().as_secs_f64() * 1e3);
            tail = tail.max(
                collection_info(&server)?["tail"]
                    .as_u64()
                    .context("the collection's description has no tail")?,
            );
            recall = recall.min(measure_recall(&server, &corpus, run)?);
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
                .with_rounded("recall_at_10_min", recall, 4),
        )?;
    }
    report.finish()
}

/// Reproducible documents and vectors.
struct SyntheticCorpus {
    documents: Vec<Document>,
    vectors: Vectors,
}

impl SyntheticCorpus {
    fn new(count: usize, seed: u64) -> SyntheticCorpus {
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
            .map(|id| Document { id, text: format!("document {id} of {count}, with a few more words") })
            .collect();
        let vectors = Vectors { path: String::new().into(), dim: DIM, values, key: format!("corpus-{seed}") };
        SyntheticCorpus { documents, vectors }
    }
}

fn load(corpus: &SyntheticCorpus, global: &GlobalOptions, data_dir: &std::path::Path) -> Result<()> {
    let service = Service::open(global.service_without_model(data_dir)?)?;
    let mut schema = packages::schema(packages::NAME, packages::HNSW, DIM, None);
    packages::quantize(&mut schema, Quantization::Int8);
    packages::fill(&service, schema, &corpus.documents, Some(&corpus.vectors), BATCH)?;
    service.close();
    Ok(())
}

fn call(server: &Server, method: &str, path: &str, body: &Value) -> Result<Value> {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(server.url(path))
        .header("content-type", "application/json")
        .body(if body.is_null() { String::new() } else { body.to_string() })?;
    let agent = ureq::Agent::new_with_defaults();
    let text = agent.run(request)?.body_mut().read_to_string()?;
    Ok(serde_json::from_str(&text)?)
}

fn collection_info(server: &Server) -> Result<Value> {
    call(server, "GET", &format!("/collections/{}", packages::NAME), &Value::Null)
}

/// Overwrites documents and kills the server meanwhile.
fn kill_while_writing(server: Server, corpus: &SyntheticCorpus, run: usize) -> Result<()> {
    let path = format!("/collections/{}/documents", packages::NAME);
    let started = Instant::now();
    let lifetime = Duration::from_millis(2000 + 300 * run as u64);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for first in (0..corpus.documents.len()).step_by(100) {
                let rows = (first..corpus.documents.len()).take(100).map(|row| {
                    json!({"id": row.to_string(), "content": format!("{}, in run {run}", corpus.documents[row].text),
                           "embedding": corpus.vectors.row(row)})
                });
                // The kill breaks the connection.
                if call(&server, "POST", &path, &rows.collect()).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(lifetime.saturating_sub(started.elapsed()));
        server.kill()?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer thread panicked"))
    })
}

/// Recall of the server's results against its exact search.
fn measure_recall(server: &Server, corpus: &SyntheticCorpus, run: usize) -> Result<f64> {
    let mut random = Random::new(1000 + run as u64);
    let path = format!("/collections/{}/search", packages::NAME);
    let mut found = 0;
    for _ in 0..QUERIES {
        let near = corpus.vectors.row(random.below(corpus.documents.len()));
        let query: Vec<f32> = near.iter().map(|value| value + 0.3 * random.normal() as f32).collect();
        let ids = |exact: bool| -> Result<HashSet<String>> {
            let search = json!({"vector": query, "k": K, "exact": exact, "fields": []});
            let response = call(server, "POST", &path, &search)?;
            let results = response["results"].as_array().with_context(|| response.to_string())?;
            Ok(results.iter().filter_map(|hit| hit["id"].as_str().map(str::to_owned)).collect())
        };
        let (exact, approximate) = (ids(true)?, ids(false)?);
        ensure!(exact.len() == K, "exact search returned {} hits instead of {K}", exact.len());
        found += exact.intersection(&approximate).count();
    }
    Ok(found as f64 / (QUERIES * K) as f64)
}
