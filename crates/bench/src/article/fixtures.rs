//! Fixtures of the checks: servers, corpora and measurements, each created on first use and shared by all rows.

use std::{
    collections::HashMap,
    num::NonZero,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    ArticleArguments, Verdict,
    api::{Api, agent, call},
    bm25::Bm25,
    cluster::ClusterFixture,
    graph::{Graph, Parameters},
    redis::RedisFixture,
};
use crate::{
    commands::serve,
    global_options::GlobalOptions,
    machine,
    open_loop::encode,
    peer::Peers,
    repository,
    sample::Sample,
    server::{self, Launch},
};

/// Queries over which the recall of the packages is measured, at most.
const RECALL_QUERIES: usize = 1000;

/// The shared fixtures.
pub(super) struct Fixtures<'a> {
    pub(super) arguments: &'a ArticleArguments,
    pub(super) global: &'a GlobalOptions,
    /// Temporary directory.
    pub(super) dir: TempDir,
    /// A server over an empty data directory, in which rows create collections of their own.
    api: Option<Api>,
    /// A server over the bundled knowledge base, indexed with the command line.
    knowledge_base: Option<KnowledgeBase>,
    /// A server over the packages.
    packages: Option<serve::ServerBench>,
    /// A server over Redis Stack.
    redis: Option<RedisFixture>,
    /// A server over a Redis Cluster.
    cluster: Option<ClusterFixture>,
    sequential: Option<SequentialSearches>,
    at_highest_rate: Option<serve::StepResult>,
    recall: Option<f64>,
    graphs: HashMap<Parameters, Graph>,
}

/// The bundled knowledge base, behind a server.
pub(super) struct KnowledgeBase {
    pub(super) api: Api,
    /// The output of `nearfield index`.
    pub(super) index_report: Value,
    /// How long indexing took.
    pub(super) elapsed: Duration,
    /// Queries with the ids of the relevant articles.
    pub(super) queries: Vec<(String, Vec<String>)>,
    /// A keyword index of the same articles.
    bm25: Bm25,
}

/// Distinct searches of packages, one at a time.
#[derive(Clone, Debug)]
pub(super) struct SequentialSearches {
    /// Latency at the client in milliseconds.
    pub(super) ms: Sample,
    /// Timings reported by the server: embedding, search, fetch and total, medians in microseconds.
    pub(super) embed_us: f64,
    pub(super) search_us: f64,
    pub(super) fetch_us: f64,
    pub(super) total_us: f64,
}

/// Numbers of queries that found a relevant article.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerCounts {
    pub(super) queries: usize,
    /// Found by the server.
    pub(super) found: usize,
    /// Found by BM25.
    pub(super) found_by_bm25: usize,
}

impl<'a> Fixtures<'a> {
    pub(super) fn new(arguments: &'a ArticleArguments, global: &'a GlobalOptions) -> Result<Fixtures<'a>> {
        let dir = global.temporary_dir()?;
        Ok(Fixtures {
            arguments,
            global,
            dir,
            api: None,
            knowledge_base: None,
            packages: None,
            redis: None,
            cluster: None,
            sequential: None,
            at_highest_rate: None,
            recall: None,
            graphs: HashMap::new(),
        })
    }

    /// The launch options of a server over a sub-directory of the temporary directory, on all cores.
    pub(super) fn launch(&self, name: &str) -> Result<Launch> {
        Ok(Launch {
            data_dir: self.dir.path().join(name),
            models_dir: self.global.models_dir()?,
            cores: Vec::new(),
            arguments: Vec::new(),
        })
    }

    /// The server in which rows create collections of their own.
    pub(super) fn api(&mut self) -> Result<&mut Api> {
        if self.api.is_none() {
            self.api = Some(Api::start(&self.launch("api")?)?);
        }
        self.api.as_mut().context("the fixture was just created")
    }

    /// Runs the `nearfield` command over a sub-directory of the temporary directory.
    pub(super) fn command(&self, data: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(server::binary()?);
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.dir.path().join(data))
            .arg("--models-dir")
            .arg(self.global.models_dir()?)
            .env_remove("NEARFIELD_DATA")
            .stdin(Stdio::null());
        command.output().with_context(|| format!("run {command:?}"))
    }

    /// The verdict on a feature that does not exist yet: not checked, with the reason. Once the command's help
    /// mentions `word`, the verdict is "not met", until the row is given a real check.
    pub(super) fn not_available_yet(&self, help_of: &[&str], word: &str, why: &str) -> Result<Verdict> {
        let mut command = Command::new(server::binary()?);
        let output = command.args(help_of).arg("--help").output()?;
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && help.contains(word) {
            return Ok(Verdict::new(
                false,
                format!(
                    "`nearfield {} --help` mentions {word}, but this row does not check it yet",
                    help_of.join(" ")
                ),
            ));
        }
        Ok(Verdict::not_checked(why))
    }

    /// The bundled knowledge base, indexed with the command line and served.
    pub(super) fn knowledge_base(&mut self) -> Result<&KnowledgeBase> {
        if self.knowledge_base.is_none() {
            let demo = repository::path("demo")?;
            let csv = demo.join("knowledge_base.csv");
            let started = Instant::now();
            let output = self.command(
                "knowledge",
                &["index", &csv.to_string_lossy(), "--collection", "kb", "--tag", "category", "--json"],
            )?;
            let elapsed = started.elapsed();
            ensure!(output.status.success(), "nearfield index: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.lines().last().context("nearfield index --json printed nothing")?;
            let index_report =
                serde_json::from_str(last).with_context(|| format!("nearfield index printed {last}"))?;
            let api = Api::start(&self.launch("knowledge")?)?;
            let queries = queries_with_answers(&demo.join("eval"))?;
            let bm25 = Bm25::new(articles(&demo.join("eval"))?);
            self.knowledge_base = Some(KnowledgeBase { api, index_report, elapsed, queries, bm25 });
        }
        self.knowledge_base.as_ref().context("the fixture was just created")
    }

    /// The server over the packages, pinned to the first core; the load generator uses the last core.
    pub(super) fn packages(&mut self) -> Result<&mut serve::ServerBench> {
        if self.packages.is_none() {
            let arguments = serve::ServeArguments {
                part: Vec::new(),
                runs: 0,
                quantization: serve::QuantizationArg::None,
                documents: self.arguments.documents,
                qps: Vec::new(),
                budget_ms: Vec::new(),
                seconds: self.arguments.seconds,
                server_cores: vec![0],
                client_core: machine::cores() - 1,
                connections: 256,
                k: 5,
                recall_queries: RECALL_QUERIES.min(self.arguments.documents),
                queries: NonZero::<usize>::MIN,
                quiet_seconds: 0,
                distinct: 100_000.min(20 * self.arguments.documents),
                seed: 1,
                peers: Peers::None,
            };
            self.packages = Some(serve::ServerBench::start(&arguments, self.global)?);
        }
        self.packages.as_mut().context("the fixture was just created")
    }

    /// The server over Redis Stack, in which rows create collections of their own.
    pub(super) fn redis(&mut self) -> Result<&mut RedisFixture> {
        if self.redis.is_none() {
            self.redis = Some(RedisFixture::start(self)?);
        }
        self.redis.as_mut().context("the fixture was just created")
    }

    /// A server over a Redis Cluster.
    pub(super) fn cluster(&mut self) -> Result<&mut ClusterFixture> {
        if self.cluster.is_none() {
            self.cluster = Some(ClusterFixture::start(self)?);
        }
        self.cluster.as_mut().context("the fixture was just created")
    }

    /// Takes the cluster out of the fixtures, for a row that breaks it.
    pub(super) fn take_cluster(&mut self) -> Option<ClusterFixture> {
        self.cluster.take()
    }

    /// Distinct sequential searches of the packages, after a tenth as many for warm-up.
    pub(super) fn sequential(&mut self) -> Result<SequentialSearches> {
        if self.sequential.is_none() {
            let searches = self.arguments.searches.get();
            let warm_up = searches.div_ceil(10);
            let bench = self.packages()?;
            let _pin = bench.pin_client()?;
            let agent = agent();
            let mut ms = Vec::new();
            let mut stages: [Vec<f64>; 4] = Default::default();
            for query in bench.unused_queries(searches + warm_up)? {
                let url = bench.server().url(&format!("/search?k=5&q={}", encode(&query)));
                let response = call(&agent, "GET", &url, None)?.expect(200)?;
                ms.push(response.took.as_secs_f64() * 1e3);
                for (values, name) in stages.iter_mut().zip(["embed_us", "search_us", "fetch_us", "total_us"])
                {
                    let value = response.body["timing"][name].as_f64();
                    values.push(value.with_context(|| format!("no timing.{name} in {}", response.body))?);
                }
            }
            let median = |values: &Vec<f64>| Sample::new(values[warm_up..].to_vec()).median();
            self.sequential = Some(SequentialSearches {
                ms: Sample::new(ms.split_off(warm_up)),
                embed_us: median(&stages[0]),
                search_us: median(&stages[1]),
                fetch_us: median(&stages[2]),
                total_us: median(&stages[3]),
            });
        }
        self.sequential.clone().context("it was just measured")
    }

    /// The highest open-loop rate on one core whose 99th percentile is within the article's 22 ms.
    pub(super) fn at_highest_rate(&mut self) -> Result<serve::StepResult> {
        if self.at_highest_rate.is_none() {
            self.at_highest_rate = Some(self.packages()?.highest_rate(22.0)?);
        }
        self.at_highest_rate.clone().context("it was just measured")
    }

    /// Recall of the server's results against exact float32 search.
    pub(super) fn recall(&mut self) -> Result<f64> {
        if self.recall.is_none() {
            let global = self.global;
            self.recall = Some(self.packages()?.recall(global)?);
        }
        self.recall.context("it was just measured")
    }

    /// A graph with these parameters.
    pub(super) fn graph_with(&mut self, parameters: Parameters) -> Result<&Graph> {
        if !self.graphs.contains_key(&parameters) {
            eprintln!("building {parameters:?}");
            self.graphs.insert(parameters, Graph::build(parameters, self.global)?);
        }
        Ok(&self.graphs[&parameters])
    }

    /// A graph with the article's parameters over the first `1 / part` of the vectors of the sweep.
    pub(super) fn graph(&mut self, part: usize) -> Result<&Graph> {
        let rows = self.arguments.sweep / part;
        self.graph_with(Parameters { rows, ..Parameters::ARTICLE })
    }

    /// How many queries of the knowledge base find a relevant article among the first `k` hits.
    pub(super) fn answer_counts(&mut self, k: usize) -> Result<AnswerCounts> {
        let knowledge = self.knowledge_base()?;
        let (mut found, mut found_by_bm25) = (0, 0);
        for (query, relevant) in &knowledge.queries {
            let hits = knowledge.api.search_text("kb", query, k)?.hits()?;
            found += usize::from(hits.iter().any(|hit| relevant.contains(&hit.id)));
            let hits = knowledge.bm25.search(query, k);
            found_by_bm25 +=
                usize::from(hits.iter().any(|id| relevant.iter().any(|relevant| relevant == id)));
        }
        Ok(AnswerCounts { found, found_by_bm25, queries: knowledge.queries.len() })
    }

    /// A verdict about 250,000 documents; with fewer it counts as not checked.
    pub(super) fn at_full_scale(&self, verdict: Verdict) -> Verdict {
        if self.arguments.documents >= 250_000 { verdict } else { Verdict::not_checked(verdict.ours) }
    }

    /// The number of packages searched, for output.
    pub(super) fn scale(&self) -> String {
        format!("{} packages", self.arguments.documents)
    }
}

/// Queries and the ids of their relevant articles, from a test collection in the layout of `nearfield eval`.
fn queries_with_answers(dir: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let judgements: Vec<(String, String)> = read(dir, "qrels.tsv")?
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .collect();
    read(dir, "queries.jsonl")?
        .lines()
        .map(|line| {
            let query: Value = serde_json::from_str(line)?;
            let id = query["id"].as_str().context("a query has an id")?;
            let text = query["text"].as_str().context("a query has a text")?;
            let answers =
                judgements.iter().filter(|(query, _)| query == id).map(|(_, answer)| answer.clone());
            Ok((text.to_owned(), answers.collect()))
        })
        .collect()
}

/// Ids and texts of the articles, from the same collection.
fn articles(dir: &Path) -> Result<Vec<(String, String)>> {
    read(dir, "corpus.jsonl")?
        .lines()
        .map(|line| {
            let article: Value = serde_json::from_str(line)?;
            let part =
                |name: &str| article[name].as_str().with_context(|| format!("an article has no {name}"));
            Ok((part("id")?.to_owned(), format!("{} {}", part("title")?, part("text")?)))
        })
        .collect()
}

fn read(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
