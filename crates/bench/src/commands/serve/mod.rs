//! `serve`: the real server under open-loop load on `GET /search` and with one query at a time; embedding
//! throughput; the gain of a second core.

mod cores;
mod embedding;
mod in_process;
mod sequential;
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
    global_options::GlobalOptions,
    ground_truth,
    machine::{self, CorePin},
    open_loop::{self, Outcome, Step, encode},
    packages,
    peer::Peers,
    random::Random,
    report::{Format, Report, Row},
    server::{Launch, Server},
    vectors::{self, Vectors},
};

/// How long a server's background work may take before it is measured.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(900);

/// The first rate tried, in queries per second.
const FIRST_RATE: f64 = 25.0;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ServePart {
    /// Text to vector through the service, on one core and on two.
    Embedding,
    /// Text to JSON through the server, one query at a time.
    Sequential,
    /// Text to JSON through the server, no query repeated, no cache.
    Search,
    /// Zipf-distributed queries, with the query cache.
    Mix,
    /// Text to documents in this process, on one core and on two.
    Cores,
    /// Like `search`, over Redis Stack on the server's cores: Nearfield with it as the store, and the article's
    /// own stack.
    Stacks,
}

/// The quantization of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum QuantizationArg {
    /// 8-bit codes.
    Int8,
    /// 4-bit codes.
    Int4,
    /// No quantization.
    None,
}

impl QuantizationArg {
    fn quantization(self) -> Quantization {
        match self {
            QuantizationArg::Int8 => Quantization::Int8,
            QuantizationArg::Int4 => Quantization::Int4,
            QuantizationArg::None => Quantization::None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            QuantizationArg::Int8 => "int8",
            QuantizationArg::Int4 => "int4",
            QuantizationArg::None => "none",
        }
    }
}

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServeArguments {
    /// Parts to run
    #[arg(long, value_delimiter = ',', default_value = "embedding,sequential,search,mix,cores")]
    pub(crate) part: Vec<ServePart>,
    /// Runs of each measurement; all are printed (for `embedding`, the medians)
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// Quantization of the index
    #[arg(long, value_enum, default_value = "int8")]
    pub(crate) quantization: QuantizationArg,
    /// Number of packages to load, from the first
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    pub(crate) documents: usize,
    /// Offered rates, in queries per second
    #[arg(long, value_delimiter = ',', conflicts_with = "budget_ms")]
    pub(crate) qps: Vec<f64>,
    /// Latency budgets in ms: find the highest rates whose 99th percentile stays within each
    #[arg(long, value_delimiter = ',', default_value = "10,22,30,50,100")]
    pub(crate) budget_ms: Vec<f64>,
    /// Length of a step in seconds
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
    /// Hits per query
    #[arg(long, default_value_t = 10)]
    pub(crate) k: usize,
    /// Queries per run of `sequential`
    #[arg(long, value_name = "N", default_value = "2000")]
    pub(crate) queries: NonZero<usize>,
    /// Queries whose results are compared with exact search
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) recall_queries: usize,
    /// Distinct queries to generate; more are generated when needed
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) distinct: usize,
    /// Seconds without CPU use after which a server counts as idle
    #[arg(long, default_value_t = 5, hide = true)]
    pub(crate) quiet_seconds: u32,
    /// Seed of queries and schedules
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Whether to measure the article's stack as well (`stacks`)
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) peers: Peers,
}

/// The result of a step.
#[derive(Clone, Debug)]
pub(crate) struct StepResult {
    /// Queries due per second.
    pub(crate) offered_qps: f64,
    /// The load generator's result.
    pub(crate) outcome: Outcome,
    /// Mean tokens per query.
    tokens_mean: f64,
    /// The server's resident memory at the end.
    pub(crate) rss_mib: f64,
    /// Resident memory of the Redis behind the server.
    redis_rss_mib: Option<f64>,
    /// CPU usage in percent of one core, of the server and the Redis behind it.
    pub(crate) cpu_pct: f64,
    /// CPU microseconds of the server per query, user and system.
    cpu_us_per_query: f64,
}

impl StepResult {
    /// Whether every request was answered and the 99th percentile is within the budget.
    pub(crate) fn is_within(&self, budget_ms: f64) -> bool {
        self.outcome.failed() == 0 && self.outcome.latency_ms.quantile(0.99) <= budget_ms
    }
}

/// Measures and prints.
pub(crate) fn run(arguments: &ServeArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let is_chosen = |part| arguments.part.contains(&part);
    if is_chosen(ServePart::Embedding) {
        embedding::run(arguments, global, format)?;
    }
    if is_chosen(ServePart::Sequential) || is_chosen(ServePart::Search) {
        let mut bench = ServerBench::start(arguments, global)?;
        bench.wait_until_idle()?;
        if is_chosen(ServePart::Sequential) {
            sequential::run(&mut bench, arguments, format)?;
        }
        if is_chosen(ServePart::Search) {
            search(&mut bench, global, format)?;
        }
    }
    if is_chosen(ServePart::Mix) {
        let mut bench = ServerBench::start_with(arguments, global, QueryMix::Zipf)?;
        bench.wait_until_idle()?;
        search(&mut bench, global, format)?;
    }
    if is_chosen(ServePart::Cores) {
        let stored = StoredCollection::load(arguments, global)?;
        let queries = corpus::queries(&global.data.package_queries()?)?;
        cores::run(arguments, global, &stored.data_dir, queries, format)?;
    }
    if is_chosen(ServePart::Stacks) {
        stacks::run(arguments, global, format)?;
    }
    Ok(())
}

/// Measures and prints one row per run and rate; the rates are given or found.
fn search(bench: &mut ServerBench, global: &GlobalOptions, format: Format) -> Result<()> {
    let recall = bench.recall(global)?;
    let arguments = bench.arguments.clone();
    let mut report = Report::new(format, "serve");
    let mut rates: Vec<(Option<f64>, f64)> = arguments.qps.iter().map(|rate| (None, *rate)).collect();
    let mut first = FIRST_RATE;
    if rates.is_empty() {
        for &budget_ms in &arguments.budget_ms {
            let rate = bench.highest_rate_from(first, budget_ms)?.offered_qps;
            eprintln!("highest rate with p99 within {budget_ms} ms: {rate:.0}");
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

/// The query mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryMix {
    /// No query is repeated; the server has no query cache.
    Distinct,
    /// The given queries, Zipf-distributed; the server has its default query cache.
    Zipf,
}

/// The documents, loaded into a data directory that later runs reuse.
struct StoredCollection {
    documents: Vec<corpus::Document>,
    vectors: Vectors,
    data_dir: PathBuf,
}

/// A server to measure.
struct SystemUnderTest {
    name: &'static str,
    server: Server,
    /// The process id of the Redis behind it, if any; its memory and CPU time count as well.
    redis: Option<u32>,
}

impl SystemUnderTest {
    /// CPU seconds of all its processes.
    fn cpu_seconds(&self) -> Result<f64> {
        let redis = self.redis.map(machine::cpu_seconds).transpose()?;
        Ok(machine::cpu_seconds(self.server.pid())? + redis.unwrap_or_default())
    }
}

impl StoredCollection {
    /// Loads the documents with vectors computed beforehand, unless an earlier run has. An interrupted load is
    /// resumed; documents already written are not written again.
    fn load(arguments: &ServeArguments, global: &GlobalOptions) -> Result<StoredCollection> {
        let model = global.model()?;
        let (documents, vectors) = packages_with_vectors(arguments, global, &model)?;
        let quantization = arguments.quantization;
        let name = format!("serve-{}-{}-{}", vectors.key, documents.len(), quantization.name());
        let dir = global.cache_dir.join(name);
        let (complete, data_dir) = (dir.join("complete"), dir.join("data"));
        if !complete.exists() {
            eprintln!("loading {} documents into {}", documents.len(), dir.display());
            std::fs::create_dir_all(&dir)?;
            let started = Instant::now();
            let service = Service::open(global.service(&data_dir)?)?;
            packages::fill(
                &service,
                packages::own_schema(&model, quantization.quantization()),
                &documents,
                Some(&vectors),
                NonZero::new(500).expect("500 is not 0"),
            )?;
            service.close();
            std::fs::write(&complete, format!("{:.0} s", started.elapsed().as_secs_f64()))?;
        }
        Ok(StoredCollection { documents, vectors, data_dir })
    }
}

/// The documents and their vectors.
fn packages_with_vectors(
    arguments: &ServeArguments,
    global: &GlobalOptions,
    model: &Model,
) -> Result<(Vec<corpus::Document>, Vectors)> {
    let source = global.data.packages()?;
    let documents = corpus::documents(&source, arguments.documents)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = vectors::of_texts(&global.cache_dir, model, &source, &texts)?;
    Ok((documents, vectors))
}

/// A server with its documents, and queries that have not been sent yet.
pub(crate) struct ServerBench {
    system: SystemUnderTest,
    arguments: ServeArguments,
    mix: QueryMix,
    source_queries: Vec<String>,
    model: Model,
    documents: Vec<corpus::Document>,
    vectors: Vectors,
    queries: Vec<String>,
    used: usize,
}

impl ServerBench {
    /// Starts a server over the documents, without a query cache.
    pub(crate) fn start(arguments: &ServeArguments, global: &GlobalOptions) -> Result<ServerBench> {
        ServerBench::start_with(arguments, global, QueryMix::Distinct)
    }

    fn start_with(arguments: &ServeArguments, global: &GlobalOptions, mix: QueryMix) -> Result<ServerBench> {
        let stored = StoredCollection::load(arguments, global)?;
        let mut options = vec!["--cpu", global.cpu().level().name()];
        if mix == QueryMix::Distinct {
            options.extend(["--query-cache-mib", "0"]);
        }
        let launch = Launch {
            data_dir: stored.data_dir.clone(),
            models_dir: global.models_dir()?,
            cores: arguments.server_cores.clone(),
            arguments: options.into_iter().map(str::to_owned).collect(),
        };
        let StoredCollection { documents, vectors, .. } = stored;
        let system = SystemUnderTest { name: "nearfield", server: Server::start(&launch)?, redis: None };
        ServerBench::of(system, arguments, global, mix, (documents, vectors))
    }

    fn of(
        system: SystemUnderTest,
        arguments: &ServeArguments,
        global: &GlobalOptions,
        mix: QueryMix,
        (documents, vectors): (Vec<corpus::Document>, Vectors),
    ) -> Result<ServerBench> {
        let mut bench = ServerBench {
            system,
            arguments: arguments.clone(),
            mix,
            source_queries: corpus::queries(&global.data.package_queries()?)?,
            model: global.model()?,
            documents,
            vectors,
            queries: Vec::new(),
            used: 0,
        };
        bench.generate_queries(arguments.distinct)?;
        Ok(bench)
    }

    /// Waits until the server has finished its background work, which is refining the graph and starts within a
    /// second or two.
    fn wait_until_idle(&self) -> Result<()> {
        let pid = self.system.server.pid();
        let started = Instant::now();
        let mut idle_seconds = 0;
        while started.elapsed() < SETTLE_TIMEOUT {
            let before = machine::cpu_seconds(pid)?;
            std::thread::sleep(Duration::from_secs(1));
            let is_busy = machine::cpu_seconds(pid)? - before >= 0.05;
            idle_seconds = if is_busy { 0 } else { idle_seconds + 1 };
            if idle_seconds >= self.arguments.quiet_seconds {
                return Ok(());
            }
        }
        bail!("the server's background work has not finished after {} s", SETTLE_TIMEOUT.as_secs())
    }

    /// Mean tokens per query.
    fn tokens_mean(&self, queries: &[String]) -> f64 {
        let tokens = queries.iter().map(|query| self.model.tokenize_query(query).ids.len()).sum::<usize>();
        tokens as f64 / queries.len() as f64
    }

    /// The server.
    pub(crate) fn server(&self) -> &Server {
        &self.system.server
    }

    /// Pins this thread to the client's core.
    pub(crate) fn pin_client(&self) -> Result<CorePin> {
        CorePin::to_core(self.arguments.client_core)
    }

    /// The number of documents.
    pub(crate) fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Whether the server is still running.
    pub(crate) fn server_is_running(&mut self) -> Result<bool> {
        self.system.server.is_running()
    }

    /// The number of connections of the following steps.
    pub(crate) fn connections_mut(&mut self) -> &mut usize {
        &mut self.arguments.connections
    }

    fn generate_queries(&mut self, count: usize) -> Result<()> {
        self.queries =
            corpus::distinct_queries(&self.source_queries, &self.documents, count, self.arguments.seed)?;
        Ok(())
    }

    /// The next queries that have not been sent yet.
    pub(crate) fn unused_queries(&mut self, count: usize) -> Result<Vec<String>> {
        if self.used + count > self.queries.len() {
            // The same seed yields the same queries first, so the used ones stay at the front.
            self.generate_queries((self.used + count) * 2)?;
        }
        let unused = self.queries[self.used..self.used + count].to_vec();
        self.used += count;
        Ok(unused)
    }

    /// The next queries of the mix.
    fn next_queries(&mut self, count: usize) -> Result<Vec<String>> {
        if self.mix == QueryMix::Distinct {
            return self.unused_queries(count);
        }
        let mut random = Random::new(self.arguments.seed + self.used as u64);
        self.used += count;
        let zipf = Zipf::new(self.source_queries.len());
        Ok((0..count).map(|_| self.source_queries[zipf.draw(&mut random)].clone()).collect())
    }

    /// The first given queries, and the [`ground_truth::K`] exact nearest documents of each by float32 vectors.
    pub(crate) fn queries_with_neighbours(
        &self,
        count: usize,
        global: &GlobalOptions,
    ) -> Result<(Vec<String>, Vec<u32>)> {
        let model = global.model()?;
        let queries: Vec<String> = self.source_queries.iter().take(count).cloned().collect();
        let texts: Vec<&str> = queries.iter().map(String::as_str).collect();
        let query_vectors =
            vectors::of_texts(&global.cache_dir, &model, &global.data.package_queries()?, &texts)?;
        let truth = ground_truth::exact_neighbours(&global.cache_dir, &self.vectors, &query_vectors)?;
        Ok((queries, truth))
    }

    /// The share of the exact [`ground_truth::K`] nearest documents in the server's responses, text to JSON.
    pub(crate) fn recall(&self, global: &GlobalOptions) -> Result<f64> {
        let (queries, truth) = self.queries_with_neighbours(self.arguments.recall_queries, global)?;
        let _pin = self.pin_client()?;
        let agent = ureq::Agent::new_with_defaults();
        let mut found = Vec::with_capacity(truth.len());
        for query in queries {
            let url = self.system.server.url(&format!("/search?q={}&k={}", encode(&query), ground_truth::K));
            let response: Value = serde_json::from_str(&agent.get(url).call()?.body_mut().read_to_string()?)?;
            let hits = response["results"].as_array().context("the response has no results")?;
            let ids = hits.iter().map(|hit| hit["id"].as_str()?.parse::<u32>().ok());
            let ids: Vec<u32> = ids.collect::<Option<_>>().context("the id of a hit is not a number")?;
            found.extend(ids.into_iter().chain(std::iter::repeat(u32::MAX)).take(ground_truth::K));
        }
        Ok(ground_truth::recall(&truth, &found))
    }

    /// Runs one step at a rate.
    pub(crate) fn step(&mut self, rate: f64) -> Result<StepResult> {
        ensure!(rate > 0.0 && rate.is_finite(), "a rate must be positive, not {rate}");
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
        // A Poisson schedule may exceed its mean by a few standard deviations.
        let mean = rate * (step.duration + step.warm_up).as_secs_f64();
        let queries = self.next_queries((mean + 6.0 * mean.sqrt()).ceil() as usize + 10)?;
        let tokens_mean = self.tokens_mean(&queries);
        let mut requests = queries
            .iter()
            .map(|query| open_loop::get_request(address, &format!("/search?q={}&k={k}", encode(query))));
        let cpu_before = self.system.cpu_seconds()?;
        let started = Instant::now();
        let _pin = self.pin_client()?;
        let outcome = open_loop::run(address, &step, &mut requests)?;
        let cpu_s = self.system.cpu_seconds()? - cpu_before;
        let cpu_pct = cpu_s / started.elapsed().as_secs_f64() * 100.0;
        // The outcome excludes the warm-up, which has about the same rate.
        let answered = outcome.qps * (step.duration + step.warm_up).as_secs_f64();
        let cpu_us_per_query = cpu_s * 1e6 / answered;
        let rss_mib = machine::rss_mib(self.system.server.pid())?;
        let redis_rss_mib = self.system.redis.map(machine::rss_mib).transpose()?;
        Ok(StepResult {
            offered_qps: rate,
            outcome,
            tokens_mean,
            rss_mib,
            redis_rss_mib,
            cpu_pct,
            cpu_us_per_query,
        })
    }

    /// The step with the highest rate found whose 99th percentile stays within the budget: the rate is doubled
    /// until it does not, then the interval is halved five times.
    pub(crate) fn highest_rate(&mut self, budget_ms: f64) -> Result<StepResult> {
        self.highest_rate_from(FIRST_RATE, budget_ms)
    }

    fn highest_rate_from(&mut self, first: f64, budget_ms: f64) -> Result<StepResult> {
        let mut best = self.step(first)?;
        if !best.is_within(budget_ms) {
            return Ok(best);
        }
        let mut too_high = loop {
            let higher = self.step(best.offered_qps * 2.0)?;
            if !higher.is_within(budget_ms) {
                break higher.offered_qps;
            }
            best = higher;
        };
        for _ in 0..5 {
            let between = self.step((best.offered_qps + too_high) / 2.0)?;
            if between.is_within(budget_ms) {
                best = between;
            } else {
                too_high = between.offered_qps;
            }
        }
        Ok(best)
    }

    fn row(&self, budget_ms: Option<f64>, run: usize, measured: &StepResult, recall: f64) -> Row {
        let outcome = &measured.outcome;
        let (mix, cache) = match self.mix {
            QueryMix::Distinct => ("distinct", "off"),
            QueryMix::Zipf => ("zipf", "on"),
        };
        let quantization = match self.system.redis {
            None => self.arguments.quantization.name(),
            Some(_) => QuantizationArg::None.name(),
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
