//! `serve`: the real server under open-loop load on `GET /search`, and how many texts a second become
//! vectors inside it.

mod embedding;

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nearfield::service::Service;
use serde_json::Value;

use crate::{
    corpus,
    machine::{self, Pinned},
    open_loop::{self, Outcome, Step, encode},
    packages,
    report::{Format, Report, Row},
    server::{Launch, Server},
    setting::Setting,
    truth,
    vectors::{self, Vectors},
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Text to vector through the service, on one core and on two.
    Embedding,
    /// Text to JSON through the server.
    Search,
}

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these parts
    #[arg(long, value_delimiter = ',', default_value = "embedding,search")]
    pub(crate) part: Vec<Part>,
    /// Rounds of text to vector; the medians are printed
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// The first so many packages
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    pub(crate) documents: usize,
    /// Rates offered, queries a second
    #[arg(long, value_delimiter = ',', conflicts_with = "budget_ms")]
    pub(crate) qps: Vec<f64>,
    /// Find the highest rates whose 99th percentile stays within these
    #[arg(long, value_delimiter = ',', default_value = "22")]
    pub(crate) budget_ms: Vec<f64>,
    /// Length of a step
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Cores of the server
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub(crate) server_cores: Vec<usize>,
    /// Core of the load generator
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: usize,
    /// Connections of the load generator
    #[arg(long, default_value_t = 256)]
    pub(crate) connections: usize,
    /// Hits asked for
    #[arg(long, default_value_t = 10)]
    pub(crate) k: usize,
    /// Queries whose answers are compared with exact search
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) recall_queries: usize,
    /// Different queries at least; more are made if the steps need them
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) distinct: usize,
    /// Seed of queries and schedules
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What a step gave.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Queries due a second.
    pub(crate) offered_qps: f64,
    /// What the generator saw.
    pub(crate) outcome: Outcome,
    /// The server's resident memory at the end.
    pub(crate) rss_mib: f64,
    /// The server's share of one core.
    pub(crate) cpu_pct: f64,
}

impl Measured {
    /// Every request answered, the 99th percentile within the budget.
    pub(crate) fn within(&self, budget_ms: f64) -> bool {
        self.outcome.failed() == 0 && self.outcome.latency_ms.quantile(0.99) <= budget_ms
    }
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    if arguments.part.contains(&Part::Embedding) {
        embedding::run(arguments, setting, format)?;
    }
    if arguments.part.contains(&Part::Search) {
        search(arguments, setting, format)?;
    }
    Ok(())
}

fn search(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let mut bench = Bench::start(arguments, setting)?;
    let recall = bench.recall(setting)?;
    let mut report = Report::new(format, "serve");
    if arguments.qps.is_empty() {
        for &budget_ms in &arguments.budget_ms {
            let measured = bench.highest_rate(budget_ms)?;
            report.push(bench.row(Some(budget_ms), &measured, recall))?;
        }
    } else {
        for &rate in &arguments.qps {
            let measured = bench.step(rate)?;
            report.push(bench.row(None, &measured, recall))?;
        }
    }
    report.finish()
}

/// A server with its documents, and queries it has not seen.
pub(crate) struct Bench {
    server: Server,
    arguments: Arguments,
    given: Vec<String>,
    documents: Vec<corpus::Document>,
    queries: Vec<String>,
    used: usize,
    corpus: Vectors,
}

impl Bench {
    /// Loads the documents, with vectors made beforehand, into a data directory kept for later
    /// runs, and starts a server over it.
    pub(crate) fn start(arguments: &Arguments, setting: &Setting) -> Result<Bench> {
        let model = setting.model()?;
        let source = setting.source.packages();
        let documents = corpus::documents(&source, arguments.documents)?;
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        let corpus = vectors::of_texts(&setting.cache_dir, &model, &source, &texts)?;
        let dir = setting.cache_dir.join(format!("serve-{}-{}", corpus.key, documents.len()));
        let complete = dir.join("complete");
        if !complete.exists() {
            eprintln!("loading {} documents into {}", documents.len(), dir.display());
            let data_dir = dir.join("data");
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            std::fs::create_dir_all(&dir)?;
            let started = Instant::now();
            let service = Service::open(setting.service(&data_dir)?)?;
            packages::fill(
                &service,
                &model,
                &documents,
                Some(&corpus),
                NonZero::new(500).expect("500 is not 0"),
            )?;
            service.close();
            std::fs::write(&complete, format!("{:.0} s", started.elapsed().as_secs_f64()))?;
        }
        let given = corpus::queries(&setting.source.packages_queries())?;
        let launch = Launch {
            data_dir: dir.join("data"),
            models_dir: setting.models_dir()?,
            cores: arguments.server_cores.clone(),
            arguments: ["--cpu", setting.cpu().level().name(), "--query-cache-mib", "0"]
                .map(str::to_owned)
                .into(),
        };
        let server = Server::start(&launch)?;
        let mut bench = Bench {
            server,
            arguments: arguments.clone(),
            given,
            documents,
            queries: Vec::new(),
            used: 0,
            corpus,
        };
        bench.make_queries(arguments.distinct)?;
        Ok(bench)
    }

    /// The server.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Holds this thread to the core of the client.
    pub(crate) fn pinned(&self) -> Result<Pinned> {
        Pinned::to(self.arguments.client_core)
    }

    /// How many documents it has.
    pub(crate) fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Whether the server has survived so far.
    pub(crate) fn server_is_running(&mut self) -> Result<bool> {
        self.server.is_running()
    }

    /// Connections of the steps to come.
    pub(crate) fn connections_mut(&mut self) -> &mut usize {
        &mut self.arguments.connections
    }

    fn make_queries(&mut self, count: usize) -> Result<()> {
        self.queries = corpus::distinct_queries(&self.given, &self.documents, count, self.arguments.seed)?;
        Ok(())
    }

    /// The next queries nobody has asked yet.
    pub(crate) fn fresh(&mut self, count: usize) -> Result<Vec<String>> {
        if self.used + count > self.queries.len() {
            // The same seed gives the same queries first, so those used stay used.
            self.make_queries((self.used + count) * 2)?;
        }
        let fresh = self.queries[self.used..self.used + count].to_vec();
        self.used += count;
        Ok(fresh)
    }

    /// The first given queries, and the [`truth::K`] exact nearest documents of each, by float32
    /// vectors of documents and queries.
    pub(crate) fn judged(&self, count: usize, setting: &Setting) -> Result<(Vec<String>, Vec<u32>)> {
        let model = setting.model()?;
        let judged: Vec<String> = self.given.iter().take(count).cloned().collect();
        let texts: Vec<&str> = judged.iter().map(String::as_str).collect();
        let queries =
            vectors::of_texts(&setting.cache_dir, &model, &setting.source.packages_queries(), &texts)?;
        let truth = truth::neighbours(&setting.cache_dir, &self.corpus, &queries)?;
        Ok((judged, truth))
    }

    /// The share of the exact [`truth::K`] nearest documents that the server answers, text to JSON.
    pub(crate) fn recall(&self, setting: &Setting) -> Result<f64> {
        let (queries, truth) = self.judged(self.arguments.recall_queries, setting)?;
        let _pinned = self.pinned()?;
        let agent = ureq::Agent::new_with_defaults();
        let mut found = Vec::with_capacity(truth.len());
        for query in queries {
            let url = self.server.url(&format!("/search?q={}&k={}", encode(&query), truth::K));
            let answer: Value = serde_json::from_str(&agent.get(url).call()?.body_mut().read_to_string()?)?;
            let hits = answer["results"].as_array().context("the answer has no results")?;
            let ids = hits.iter().map(|hit| hit["id"].as_str()?.parse::<u32>().ok());
            let ids: Vec<u32> = ids.collect::<Option<_>>().context("an id is not a number")?;
            found.extend(ids.into_iter().chain(std::iter::repeat(u32::MAX)).take(truth::K));
        }
        Ok(truth::recall(&truth, &found))
    }

    /// One step at a rate.
    pub(crate) fn step(&mut self, rate: f64) -> Result<Measured> {
        ensure!(rate > 0.0 && rate.is_finite(), "a rate is positive, not {rate}");
        let arguments = &self.arguments;
        let step = Step {
            rate,
            duration: Duration::from_secs_f64(arguments.seconds),
            warm_up: Duration::from_secs_f64((arguments.seconds / 5.0).min(2.0)),
            grace: Duration::from_secs(5),
            connections: arguments.connections,
            seed: arguments.seed,
        };
        let (k, address) = (arguments.k, self.server.address);
        // A Poisson schedule may be a few standard deviations longer than its mean.
        let mean = rate * (step.duration + step.warm_up).as_secs_f64();
        let queries = self.fresh((mean + 6.0 * mean.sqrt()).ceil() as usize + 10)?;
        let mut requests = queries
            .iter()
            .map(|query| open_loop::get_request(address, &format!("/search?q={}&k={k}", encode(query))));
        let pid = self.server.pid();
        let cpu_before = machine::cpu_seconds(pid)?;
        let started = Instant::now();
        let _pinned = self.pinned()?;
        let outcome = open_loop::run(address, &step, &mut requests)?;
        let cpu_pct = (machine::cpu_seconds(pid)? - cpu_before) / started.elapsed().as_secs_f64() * 100.0;
        Ok(Measured { offered_qps: rate, outcome, rss_mib: machine::rss_mib(pid)?, cpu_pct })
    }

    /// The step with the highest rate found whose 99th percentile stays within the budget: doubled
    /// until one does not, then the gap is halved five times.
    pub(crate) fn highest_rate(&mut self, budget_ms: f64) -> Result<Measured> {
        let mut best = self.step(25.0)?;
        if !best.within(budget_ms) {
            return Ok(best);
        }
        let mut too_fast = loop {
            let faster = self.step(best.offered_qps * 2.0)?;
            if !faster.within(budget_ms) {
                break faster.offered_qps;
            }
            best = faster;
        };
        for _ in 0..5 {
            let between = self.step((best.offered_qps + too_fast) / 2.0)?;
            if between.within(budget_ms) {
                best = between;
            } else {
                too_fast = between.offered_qps;
            }
        }
        Ok(best)
    }

    fn row(&self, budget_ms: Option<f64>, measured: &Measured, recall: f64) -> Row {
        let outcome = &measured.outcome;
        Row::new()
            .with("documents", self.documents.len())
            .with("cores", self.arguments.server_cores.len())
            .with("cache", "off")
            .with("k", self.arguments.k)
            .with("connections", self.arguments.connections)
            .with("seconds", self.arguments.seconds)
            .with("budget_ms", budget_ms)
            .with_rounded("offered_qps", measured.offered_qps, 1)
            .with_rounded("qps", outcome.qps, 1)
            .with_rounded("p50_ms", outcome.latency_ms.median(), 2)
            .with_rounded("p95_ms", outcome.latency_ms.quantile(0.95), 2)
            .with_rounded("p99_ms", outcome.latency_ms.quantile(0.99), 2)
            .with_rounded("rss_mib", measured.rss_mib, 0)
            .with_rounded("cpu_pct", measured.cpu_pct, 0)
            .with_rounded("end_to_end_recall_at_10", recall, 4)
            .with("errors", outcome.errors_text())
    }
}
