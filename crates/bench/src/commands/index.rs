//! `index`: recall and queries a second by `ef_search`, the article's table 8.2, beside hnswlib
//! with the same parameters on the same vectors in the same run.

use std::{path::PathBuf, time::Instant};

use ::index::{Algorithm, Cpu, Index, Metric, Options, Quantization, Search, VectorType};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    corpus,
    machine::Pinned,
    peer::{Peer, number},
    report::{Format, Report, Row},
    sample::{Sample, median},
    setting::Setting,
    truth,
    vectors::{self, Vectors},
};

/// The largest difference in recall from hnswlib at equal parameters.
const RECALL_DIFFERENCE_MAX: f64 = 0.005;

/// Arguments of `index`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Use the first so many documents only
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Use the first so many queries only
    #[arg(long, value_name = "N", default_value_t = 5000)]
    queries: usize,
    /// Breadths of search
    #[arg(long, value_delimiter = ',', default_value = "10,20,40,50,80,120,200,400")]
    ef: Vec<usize>,
    /// Links a node
    #[arg(long, default_value_t = 16)]
    m: usize,
    /// Breadth while building
    #[arg(long, default_value_t = 200)]
    ef_construction: usize,
    /// Rounds over all breadths; the medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Core ours and the peer are held to, in turn
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Leave hnswlib out
    #[arg(long)]
    no_peer: bool,
}

/// What a round over the queries gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) qps: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) recall_at_10: f64,
}

/// What building gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Built {
    pub(crate) build_s: f64,
    pub(crate) bytes_per_vector: f64,
}

/// One engine's rounds, by place in the list of breadths.
struct Engine {
    name: String,
    built: Built,
    rounds: Vec<Vec<Round>>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, setting)?;
    let truth = truth::neighbours(&setting.cache_dir, &corpus, &queries)?;
    let mut peer = match arguments.no_peer {
        true => None,
        false => Some(Hnswlib::start(&corpus, &queries, arguments, setting)?),
    };
    let _pinned = Pinned::to(arguments.core)?;

    eprintln!("building ours over {} vectors", corpus.rows());
    let algorithm = Algorithm::Hnsw { m: arguments.m, ef_construction: arguments.ef_construction };
    let options = Options {
        dim: corpus.dim,
        metric: Metric::Cosine,
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        algorithm,
    };
    let (ours, built) = build(&corpus, options, setting.cpu())?;
    let mut engines = vec![Engine::new("nearfield", built, arguments)];
    if let Some(peer) = &mut peer {
        eprintln!("building hnswlib's");
        let (name, built) = peer.build(arguments)?;
        engines.push(Engine::new(&name, built, arguments));
    }
    for run in 0..arguments.runs {
        for (place, &ef) in arguments.ef.iter().enumerate() {
            // Who goes first changes from round to round.
            for turn in 0..engines.len() {
                let engine = (run + turn) % engines.len();
                let round = match (engine, &mut peer) {
                    (1, Some(peer)) => peer.search(ef, &truth)?,
                    _ => search(&ours, &queries, ef, &truth),
                };
                engines[engine].rounds[place].push(round);
            }
        }
        eprintln!("round {} of {} done", run + 1, arguments.runs);
    }
    print(arguments, &corpus, &engines, format)
}

impl Engine {
    fn new(name: &str, built: Built, arguments: &Arguments) -> Engine {
        Engine { name: name.to_owned(), built, rounds: vec![Vec::new(); arguments.ef.len()] }
    }

    fn median(&self, place: usize, of: fn(&Round) -> f64) -> f64 {
        median(&self.rounds[place].iter().map(of).collect::<Vec<_>>())
    }
}

/// The vectors of the first `limit` packages and the first `count` queries.
pub(crate) fn packages(limit: usize, count: usize, setting: &Setting) -> Result<(Vectors, Vectors)> {
    let model = setting.model()?;
    let source = &setting.source;
    let documents = corpus::documents(&source.packages(), limit)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let corpus = vectors::of_texts(&setting.cache_dir, &model, &source.packages(), &texts)?;
    let queries = corpus::queries(&source.packages_queries())?;
    let texts: Vec<&str> = queries.iter().take(count).map(String::as_str).collect();
    let queries = vectors::of_texts(&setting.cache_dir, &model, &source.packages_queries(), &texts)?;
    Ok((corpus, queries))
}

/// Builds an index on this thread, vector by vector.
pub(crate) fn build(corpus: &Vectors, options: Options, cpu: Cpu) -> Result<(Index, Built)> {
    let index = Index::new(options, cpu);
    let started = Instant::now();
    for row in 0..corpus.rows() {
        let owner = u32::try_from(row).context("owners are 32-bit numbers")?;
        index.upsert(owner, corpus.row(row));
        index.drain(usize::MAX);
    }
    let build_s = started.elapsed().as_secs_f64();
    let stats = index.stats();
    ensure!(stats.vectors == corpus.rows() && stats.tail == 0, "not everything is in the graph: {stats:?}");
    Ok((index, Built { build_s, bytes_per_vector: stats.bytes as f64 / corpus.rows() as f64 }))
}

/// One search for each query on this thread, and how much of the truth it found.
pub(crate) fn search(index: &Index, queries: &Vectors, ef: usize, truth: &[u32]) -> Round {
    let search = Search { k: truth::K, ef, allowed: None, exact: false };
    let mut found = Vec::with_capacity(truth.len());
    let mut times = Vec::with_capacity(queries.rows());
    let started = Instant::now();
    for row in 0..queries.rows() {
        let begun = Instant::now();
        let neighbours = index.search(queries.row(row), &search);
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        let owners = neighbours.iter().map(|neighbour| neighbour.owner);
        found.extend(owners.chain(std::iter::repeat(u32::MAX)).take(truth::K));
    }
    let seconds = started.elapsed().as_secs_f64();
    let times = Sample::new(times);
    Round {
        qps: queries.rows() as f64 / seconds,
        p50_us: times.median(),
        p99_us: times.quantile(0.99),
        recall_at_10: truth::recall(truth, &found),
    }
}

/// hnswlib in its Python process.
struct Hnswlib {
    peer: Peer,
    vectors: PathBuf,
    queries: PathBuf,
    ids: PathBuf,
    rows: usize,
    query_rows: usize,
    dim: usize,
}

impl Hnswlib {
    fn start(
        corpus: &Vectors,
        queries: &Vectors,
        arguments: &Arguments,
        setting: &Setting,
    ) -> Result<Hnswlib> {
        let peer = Peer::start("hnswlib", &[], &setting.cache_dir, arguments.core)?;
        Ok(Hnswlib {
            peer,
            vectors: corpus.path.clone(),
            queries: queries.path.clone(),
            ids: setting.cache_dir.join(format!("hnswlib-{}.u32", std::process::id())),
            rows: corpus.rows(),
            query_rows: queries.rows(),
            dim: corpus.dim,
        })
    }

    fn build(&mut self, arguments: &Arguments) -> Result<(String, Built)> {
        let answer = self.peer.ask(&json!({
            "do": "build", "vectors": self.vectors, "rows": self.rows, "dim": self.dim,
            "m": arguments.m, "ef_construction": arguments.ef_construction,
        }))?;
        let built = Built {
            build_s: number(&answer, "build_s")?,
            bytes_per_vector: number(&answer, "bytes_per_vector")?,
        };
        let version = answer["version"].as_str().context("the answer has no version")?;
        Ok((format!("hnswlib {version}"), built))
    }

    fn search(&mut self, ef: usize, truth: &[u32]) -> Result<Round> {
        let answer = self.peer.ask(&json!({
            "do": "search", "queries": self.queries, "rows": self.query_rows,
            "k": truth::K, "ef": ef, "ids": self.ids,
        }))?;
        let found = vectors::read_ids(&self.ids)?;
        Ok(Round {
            qps: number(&answer, "qps")?,
            p50_us: number(&answer, "p50_us")?,
            p99_us: number(&answer, "p99_us")?,
            recall_at_10: truth::recall(truth, &found),
        })
    }
}

impl Drop for Hnswlib {
    fn drop(&mut self) {
        // Absent if no search was answered.
        let _ = std::fs::remove_file(&self.ids);
    }
}

fn print(arguments: &Arguments, corpus: &Vectors, engines: &[Engine], format: Format) -> Result<()> {
    let mut report = Report::new(format, "index");
    for (place, &ef) in arguments.ef.iter().enumerate() {
        let peer_recall = engines.get(1).map(|peer| peer.median(place, |round| round.recall_at_10));
        for engine in engines {
            let recall = engine.median(place, |round| round.recall_at_10);
            let difference = peer_recall.map(|peer| recall - peer);
            report.push(
                Row::new()
                    .with("engine", engine.name.as_str())
                    .with("type", "FLOAT32")
                    .with("documents", corpus.rows())
                    .with("core", arguments.core)
                    .with("runs", arguments.runs)
                    .with("m", arguments.m)
                    .with("ef_construction", arguments.ef_construction)
                    .with("ef_search", ef)
                    .with_rounded("recall_at_10", recall, 4)
                    .with_rounded("qps", engine.median(place, |round| round.qps), 0)
                    .with_rounded("p50_us", engine.median(place, |round| round.p50_us), 1)
                    .with_rounded("p99_us", engine.median(place, |round| round.p99_us), 1)
                    .with_rounded("build_s", engine.built.build_s, 1)
                    .with_rounded("bytes_per_vector", engine.built.bytes_per_vector, 0)
                    .with("recall_within_0.005_of_hnswlib", difference.map_or(Value::Null, verdict)),
            )?;
        }
    }
    report.finish()
}

fn verdict(difference: f64) -> Value {
    let met = if difference.abs() <= RECALL_DIFFERENCE_MAX { "met" } else { "not met" };
    Value::from(met)
}
