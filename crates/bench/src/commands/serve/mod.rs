//! `serve`: the real server under open-loop load on `GET /search` and one query at a time, how many
//! texts a second become vectors inside it, and what a second core adds.

mod alone;
mod cores;
mod embedding;
mod in_process;
mod stacks;
mod zipf;

use std::{
    num::NonZero,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use embed::Model;
use nearfield::service::{Quantization, Service};
use serde_json::Value;

use self::zipf::Zipf;
use crate::{
    corpus,
    machine::{self, Pinned},
    open_loop::{self, Outcome, Step, encode},
    packages,
    random::Random,
    report::{Format, Report, Row},
    server::{Launch, Server},
    setting::Setting,
    truth,
    vectors::{self, Vectors},
};

/// How long a server may be busy by itself before it is measured.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(900);
/// For how long a server must have done nothing to count as idle.
const QUIET_SECONDS: u32 = 5;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Text to vector through the service, on one core and on two.
    Embedding,
    /// Text to JSON through the server, one query at a time.
    Alone,
    /// Text to JSON through the server, no query asked twice, no cache.
    Search,
    /// The given queries by Zipf's law, with the cache on.
    Mix,
    /// Text to documents in this process, on one core and on two.
    Cores,
    /// As `search`, over one Redis Stack on the server's cores: ours with it as the store, and the article's
    /// own stack.
    Stacks,
}

/// How the index holds vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Held {
    /// In 8-bit codes.
    Int8,
    /// In 4-bit codes.
    Int4,
    /// As they are.
    None,
}

impl Held {
    fn quantization(self) -> Quantization {
        match self {
            Held::Int8 => Quantization::Int8,
            Held::Int4 => Quantization::Int4,
            Held::None => Quantization::None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Held::Int8 => "int8",
            Held::Int4 => "int4",
            Held::None => "none",
        }
    }
}

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these parts
    #[arg(long, value_delimiter = ',', default_value = "embedding,alone,search,mix,cores")]
    pub(crate) part: Vec<Part>,
    /// How often each is measured: all are printed, of text to vector the medians
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// How the index holds vectors
    #[arg(long, value_enum, default_value = "int8")]
    pub(crate) quantization: Held,
    /// The first so many packages
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    pub(crate) documents: usize,
    /// Rates offered, queries a second
    #[arg(long, value_delimiter = ',', conflicts_with = "budget_ms")]
    pub(crate) qps: Vec<f64>,
    /// Find the highest rates whose 99th percentile stays within these
    #[arg(long, value_delimiter = ',', default_value = "10,22,30,50,100")]
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
    /// Tokens of a query on average.
    tokens_mean: f64,
    /// The server's resident memory at the end.
    pub(crate) rss_mib: f64,
    /// That of the Redis behind it.
    redis_rss_mib: Option<f64>,
    /// The server's share of one core, with that of the Redis behind it.
    pub(crate) cpu_pct: f64,
    /// Processor time of the server for a query, user and system.
    cpu_us_per_query: f64,
}

impl Measured {
    /// Every request answered, the 99th percentile within the budget.
    pub(crate) fn within(&self, budget_ms: f64) -> bool {
        self.outcome.failed() == 0 && self.outcome.latency_ms.quantile(0.99) <= budget_ms
    }
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let wants = |part| arguments.part.contains(&part);
    if wants(Part::Embedding) {
        embedding::run(arguments, setting, format)?;
    }
    if wants(Part::Alone) || wants(Part::Search) {
        let mut bench = Bench::start(arguments, setting)?;
        bench.settle()?;
        if wants(Part::Alone) {
            alone::run(&mut bench, arguments, format)?;
        }
        if wants(Part::Search) {
            search(&mut bench, setting, format)?;
        }
    }
    if wants(Part::Mix) {
        let mut bench = Bench::start_with(arguments, setting, Mix::Zipf)?;
        bench.settle()?;
        search(&mut bench, setting, format)?;
    }
    if wants(Part::Cores) {
        let kept = Kept::load(arguments, setting)?;
        let queries = corpus::queries(&setting.source.packages_queries())?;
        cores::run(arguments, setting, &kept.data_dir, queries, format)?;
    }
    if wants(Part::Stacks) {
        stacks::run(arguments, setting, format)?;
    }
    Ok(())
}

/// A row for each run at each rate, given or found.
fn search(bench: &mut Bench, setting: &Setting, format: Format) -> Result<()> {
    let recall = bench.recall(setting)?;
    let arguments = bench.arguments.clone();
    let mut report = Report::new(format, "serve");
    let mut rates: Vec<(Option<f64>, f64)> = arguments.qps.iter().map(|rate| (None, *rate)).collect();
    let mut first = 25.0;
    if rates.is_empty() {
        for &budget_ms in &arguments.budget_ms {
            let rate = bench.highest_rate_from(first, budget_ms)?.offered_qps;
            eprintln!("highest rate found within {budget_ms} ms: {rate:.0}");
            rates.push((Some(budget_ms), rate));
            first = rate;
        }
    }
    for (budget_ms, rate) in rates {
        for run in 1..=arguments.runs {
            let measured = bench.step(rate)?;
            report.push(bench.row(budget_ms, run, &measured, recall))?;
        }
    }
    report.finish()
}

/// Which queries are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    /// None twice; the server keeps no vectors of queries.
    Distinct,
    /// The given ones by Zipf's law; the server keeps vectors of queries as it does by default.
    Zipf,
}

/// The documents, loaded into a data directory that is kept for later runs.
struct Kept {
    documents: Vec<corpus::Document>,
    vectors: Vectors,
    data_dir: PathBuf,
}

/// What is asked.
struct System {
    name: &'static str,
    server: Server,
    /// The process of the Redis behind it, if there is one: its memory and time count as well.
    redis: Option<u32>,
}

impl System {
    /// Processor seconds of all its processes.
    fn cpu_seconds(&self) -> Result<f64> {
        let redis = self.redis.map(machine::cpu_seconds).transpose()?;
        Ok(machine::cpu_seconds(self.server.pid())? + redis.unwrap_or_default())
    }
}

impl Kept {
    /// Loads the documents with vectors made beforehand, unless an earlier run has. One that was
    /// interrupted is gone on with: documents that stand there are not written again.
    fn load(arguments: &Arguments, setting: &Setting) -> Result<Kept> {
        let model = setting.model()?;
        let (documents, vectors) = packages_with_vectors(arguments, setting, &model)?;
        let held = arguments.quantization;
        let name = format!("serve-{}-{}-{}", vectors.key, documents.len(), held.name());
        let dir = setting.cache_dir.join(name);
        let (complete, data_dir) = (dir.join("complete"), dir.join("data"));
        if !complete.exists() {
            eprintln!("loading {} documents into {}", documents.len(), dir.display());
            std::fs::create_dir_all(&dir)?;
            let started = Instant::now();
            let service = Service::open(setting.service(&data_dir)?)?;
            packages::fill(
                &service,
                packages::own_schema(&model, held.quantization()),
                &documents,
                Some(&vectors),
                NonZero::new(500).expect("500 is not 0"),
            )?;
            service.close();
            std::fs::write(&complete, format!("{:.0} s", started.elapsed().as_secs_f64()))?;
        }
        Ok(Kept { documents, vectors, data_dir })
    }
}

/// The documents, and their vectors made beforehand.
fn packages_with_vectors(
    arguments: &Arguments,
    setting: &Setting,
    model: &Model,
) -> Result<(Vec<corpus::Document>, Vectors)> {
    let source = setting.source.packages();
    let documents = corpus::documents(&source, arguments.documents)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = vectors::of_texts(&setting.cache_dir, model, &source, &texts)?;
    Ok((documents, vectors))
}

/// A server with its documents, and queries it has not seen.
pub(crate) struct Bench {
    system: System,
    arguments: Arguments,
    mix: Mix,
    given: Vec<String>,
    model: Model,
    documents: Vec<corpus::Document>,
    vectors: Vectors,
    queries: Vec<String>,
    used: usize,
}

impl Bench {
    /// Starts a server over the documents, without a cache of queries.
    pub(crate) fn start(arguments: &Arguments, setting: &Setting) -> Result<Bench> {
        Bench::start_with(arguments, setting, Mix::Distinct)
    }

    fn start_with(arguments: &Arguments, setting: &Setting, mix: Mix) -> Result<Bench> {
        let kept = Kept::load(arguments, setting)?;
        let mut launched = vec!["--cpu", setting.cpu().level().name()];
        if mix == Mix::Distinct {
            launched.extend(["--query-cache-mib", "0"]);
        }
        let launch = Launch {
            data_dir: kept.data_dir.clone(),
            models_dir: setting.models_dir()?,
            cores: arguments.server_cores.clone(),
            arguments: launched.into_iter().map(str::to_owned).collect(),
        };
        let Kept { documents, vectors, .. } = kept;
        let system = System { name: "nearfield", server: Server::start(&launch)?, redis: None };
        Bench::of(system, arguments, setting, mix, (documents, vectors))
    }

    fn of(
        system: System,
        arguments: &Arguments,
        setting: &Setting,
        mix: Mix,
        (documents, vectors): (Vec<corpus::Document>, Vectors),
    ) -> Result<Bench> {
        let mut bench = Bench {
            system,
            arguments: arguments.clone(),
            mix,
            given: corpus::queries(&setting.source.packages_queries())?,
            model: setting.model()?,
            documents,
            vectors,
            queries: Vec::new(),
            used: 0,
        };
        bench.make_queries(arguments.distinct)?;
        Ok(bench)
    }

    /// Waits until the server has done what it does in the background by itself: refining its graph,
    /// which it begins within a second or two.
    fn settle(&self) -> Result<()> {
        let pid = self.system.server.pid();
        let started = Instant::now();
        let mut quiet = 0;
        while started.elapsed() < SETTLE_TIMEOUT {
            let before = machine::cpu_seconds(pid)?;
            std::thread::sleep(Duration::from_secs(1));
            let is_busy = machine::cpu_seconds(pid)? - before >= 0.05;
            quiet = if is_busy { 0 } else { quiet + 1 };
            if quiet == QUIET_SECONDS {
                return Ok(());
            }
        }
        bail!("the server is still busy by itself after {} s", SETTLE_TIMEOUT.as_secs())
    }

    /// Tokens of a query on average.
    fn tokens_mean(&self, queries: &[String]) -> f64 {
        let tokens = queries.iter().map(|query| self.model.tokenize_query(query).ids.len()).sum::<usize>();
        tokens as f64 / queries.len() as f64
    }

    /// The server.
    pub(crate) fn server(&self) -> &Server {
        &self.system.server
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
        self.system.server.is_running()
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

    /// The next queries of the mix.
    fn asked(&mut self, count: usize) -> Result<Vec<String>> {
        if self.mix == Mix::Distinct {
            return self.fresh(count);
        }
        let mut random = Random::new(self.arguments.seed + self.used as u64);
        self.used += count;
        let zipf = Zipf::new(self.given.len());
        Ok((0..count).map(|_| self.given[zipf.draw(&mut random)].clone()).collect())
    }

    /// The first given queries, and the [`truth::K`] exact nearest documents of each, by float32
    /// vectors of documents and queries.
    pub(crate) fn judged(&self, count: usize, setting: &Setting) -> Result<(Vec<String>, Vec<u32>)> {
        let model = setting.model()?;
        let judged: Vec<String> = self.given.iter().take(count).cloned().collect();
        let texts: Vec<&str> = judged.iter().map(String::as_str).collect();
        let queries =
            vectors::of_texts(&setting.cache_dir, &model, &setting.source.packages_queries(), &texts)?;
        let truth = truth::neighbours(&setting.cache_dir, &self.vectors, &queries)?;
        Ok((judged, truth))
    }

    /// The share of the exact [`truth::K`] nearest documents that the server answers, text to JSON.
    pub(crate) fn recall(&self, setting: &Setting) -> Result<f64> {
        let (queries, truth) = self.judged(self.arguments.recall_queries, setting)?;
        let _pinned = self.pinned()?;
        let agent = ureq::Agent::new_with_defaults();
        let mut found = Vec::with_capacity(truth.len());
        for query in queries {
            let url = self.system.server.url(&format!("/search?q={}&k={}", encode(&query), truth::K));
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
        let (k, address) = (arguments.k, self.system.server.address);
        // A Poisson schedule may be a few standard deviations longer than its mean.
        let mean = rate * (step.duration + step.warm_up).as_secs_f64();
        let queries = self.asked((mean + 6.0 * mean.sqrt()).ceil() as usize + 10)?;
        let tokens_mean = self.tokens_mean(&queries);
        let mut requests = queries
            .iter()
            .map(|query| open_loop::get_request(address, &format!("/search?q={}&k={k}", encode(query))));
        let cpu_before = self.system.cpu_seconds()?;
        let started = Instant::now();
        let _pinned = self.pinned()?;
        let outcome = open_loop::run(address, &step, &mut requests)?;
        let cpu_s = self.system.cpu_seconds()? - cpu_before;
        let cpu_pct = cpu_s / started.elapsed().as_secs_f64() * 100.0;
        // Those of the warm-up are not in the outcome, but about as many a second.
        let answered = outcome.qps * (step.duration + step.warm_up).as_secs_f64();
        let cpu_us_per_query = cpu_s * 1e6 / answered;
        let rss_mib = machine::rss_mib(self.system.server.pid())?;
        let redis_rss_mib = self.system.redis.map(machine::rss_mib).transpose()?;
        Ok(Measured {
            offered_qps: rate,
            outcome,
            tokens_mean,
            rss_mib,
            redis_rss_mib,
            cpu_pct,
            cpu_us_per_query,
        })
    }

    /// The step with the highest rate found whose 99th percentile stays within the budget: doubled
    /// until one does not, then the gap is halved five times.
    pub(crate) fn highest_rate(&mut self, budget_ms: f64) -> Result<Measured> {
        self.highest_rate_from(25.0, budget_ms)
    }

    fn highest_rate_from(&mut self, first: f64, budget_ms: f64) -> Result<Measured> {
        let mut best = self.step(first)?;
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

    fn row(&self, budget_ms: Option<f64>, run: usize, measured: &Measured, recall: f64) -> Row {
        let outcome = &measured.outcome;
        let (mix, cache) = match self.mix {
            Mix::Distinct => ("distinct", "off"),
            Mix::Zipf => ("zipf", "on"),
        };
        let quantization = match self.system.redis {
            None => self.arguments.quantization.name(),
            Some(_) => Held::None.name(),
        };
        Row::new()
            .with("system", self.system.name)
            .with("documents", self.documents.len())
            .with("quantization", quantization)
            .with("cores", self.arguments.server_cores.len())
            .with("mix", mix)
            .with("cache", cache)
            .with_rounded("tokens_mean", measured.tokens_mean, 1)
            .with("k", self.arguments.k)
            .with("connections", self.arguments.connections)
            .with("seconds", self.arguments.seconds)
            .with("budget_ms", budget_ms)
            .with("run", run)
            .with_rounded("offered_qps", measured.offered_qps, 1)
            .with_rounded("qps", outcome.qps, 1)
            .with_rounded("p50_ms", outcome.latency_ms.median(), 2)
            .with_rounded("p95_ms", outcome.latency_ms.quantile(0.95), 2)
            .with_rounded("p99_ms", outcome.latency_ms.quantile(0.99), 2)
            .with_rounded("rss_mib", measured.rss_mib, 0)
            .with("redis_rss_mib", measured.redis_rss_mib.map(f64::round))
            .with_rounded("cpu_pct", measured.cpu_pct, 0)
            .with_rounded("cpu_us_per_query", measured.cpu_us_per_query, 0)
            .with_rounded("end_to_end_recall_at_10", recall, 4)
            .with("errors", outcome.errors_text())
    }
}
