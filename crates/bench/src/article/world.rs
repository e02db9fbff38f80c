//! What the rows are checked on: servers, corpora and measurements, each made when a row first
//! asks for it and shared by all that do.

use std::{
    collections::HashMap,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Arguments, Verdict,
    graph::{Graph, Parameters},
    on_cluster::OnCluster,
    on_redis::OnRedis,
    site::{Site, agent, call},
    words::Words,
};
use crate::{
    commands::serve,
    machine,
    open_loop::encode,
    repository,
    sample::Sample,
    server::{self, Launch},
    setting::Setting,
};

/// Everything rows are checked on.
pub(super) struct World<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) setting: &'a Setting,
    /// Scratch space.
    pub(super) dir: TempDir,
    /// A server over an empty data directory: rows make collections of their own in it.
    site: Option<Site>,
    /// A server over the bundled knowledge base, loaded by the command line.
    knowledge: Option<Knowledge>,
    /// A server over the packages.
    packages: Option<serve::Bench>,
    /// A server over a real Redis.
    redis: Option<OnRedis>,
    /// A server over a real Redis Cluster.
    cluster: Option<OnCluster>,
    alone: Option<Alone>,
    loaded: Option<serve::Measured>,
    recall: Option<f64>,
    graphs: HashMap<Parameters, Graph>,
}

/// The knowledge base of the repository behind a server.
pub(super) struct Knowledge {
    pub(super) site: Site,
    /// What `nearfield index` said.
    pub(super) told: Value,
    /// How long it took.
    pub(super) took: Duration,
    /// Questions with the ids of the articles that answer them.
    pub(super) questions: Vec<(String, Vec<String>)>,
    /// The same articles, found by their words.
    words: Words,
}

/// Distinct searches of packages, one at a time.
#[derive(Clone, Debug)]
pub(super) struct Alone {
    /// Seen by the client.
    pub(super) ms: Sample,
    /// Told by the server: embedding, search, fetch and total, medians in microseconds.
    pub(super) embed_us: f64,
    pub(super) search_us: f64,
    pub(super) fetch_us: f64,
    pub(super) total_us: f64,
}

/// Questions that found their article.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) asked: usize,
    /// By the server.
    pub(super) answered: usize,
    /// By words alone.
    pub(super) by_words: usize,
}

impl<'a> World<'a> {
    pub(super) fn new(arguments: &'a Arguments, setting: &'a Setting) -> Result<World<'a>> {
        std::fs::create_dir_all(&setting.cache_dir)?;
        let dir = tempfile::tempdir_in(&setting.cache_dir)?;
        Ok(World {
            arguments,
            setting,
            dir,
            site: None,
            knowledge: None,
            packages: None,
            redis: None,
            cluster: None,
            alone: None,
            loaded: None,
            recall: None,
            graphs: HashMap::new(),
        })
    }

    /// How to start a server over a directory of the scratch space, on all cores.
    pub(super) fn launch(&self, name: &str) -> Result<Launch> {
        Ok(Launch {
            data_dir: self.dir.path().join(name),
            models_dir: self.setting.models_dir()?,
            cores: Vec::new(),
            arguments: Vec::new(),
        })
    }

    /// The server for collections of the rows' own.
    pub(super) fn site(&mut self) -> Result<&mut Site> {
        if self.site.is_none() {
            self.site = Some(Site::start(&self.launch("site")?)?);
        }
        self.site.as_mut().context("just started")
    }

    /// Runs the `nearfield` command over a directory of the scratch space.
    pub(super) fn command(&self, data: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(server::binary()?);
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.dir.path().join(data))
            .arg("--models-dir")
            .arg(self.setting.models_dir()?)
            .env_remove("NEARFIELD_SHARED")
            .stdin(Stdio::null());
        command.output().with_context(|| format!("run {command:?}"))
    }

    /// Whether the command line knows nothing of `word` yet: then the row waits for it, and says
    /// why. Once it does, the row is not met until it is checked in earnest.
    pub(super) fn awaits(&self, help_of: &[&str], word: &str, why: &str) -> Result<Verdict> {
        let mut command = Command::new(server::binary()?);
        let output = command.args(help_of).arg("--help").output()?;
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && help.contains(word) {
            return Ok(Verdict::new(
                false,
                format!(
                    "`nearfield {} --help` names {word} now, but this row does not check it",
                    help_of.join(" ")
                ),
            ));
        }
        Ok(Verdict::not_yet(why))
    }

    /// The knowledge base of the repository, indexed by the command line and served.
    pub(super) fn knowledge(&mut self) -> Result<&Knowledge> {
        if self.knowledge.is_none() {
            let demo = repository::path("demo")?;
            let csv = demo.join("knowledge_base.csv");
            let started = Instant::now();
            let output = self.command(
                "knowledge",
                &["index", &csv.to_string_lossy(), "--collection", "kb", "--tag", "category", "--json"],
            )?;
            let took = started.elapsed();
            ensure!(output.status.success(), "nearfield index: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.lines().last().context("nearfield index --json printed nothing")?;
            let told =
                serde_json::from_str(last).with_context(|| format!("nearfield index printed {last}"))?;
            let site = Site::start(&self.launch("knowledge")?)?;
            let questions = questions(&demo.join("eval"))?;
            let words = Words::of(articles(&demo.join("eval"))?);
            self.knowledge = Some(Knowledge { site, told, took, questions, words });
        }
        self.knowledge.as_ref().context("just made")
    }

    /// The server over the packages, held to the first core; the load comes from the last.
    pub(super) fn packages(&mut self) -> Result<&mut serve::Bench> {
        if self.packages.is_none() {
            let arguments = serve::Arguments {
                part: Vec::new(),
                runs: 0,
                quantization: serve::Held::None,
                documents: self.arguments.documents,
                qps: Vec::new(),
                budget_ms: Vec::new(),
                seconds: self.arguments.seconds,
                server_cores: vec![0],
                client_core: machine::cores() - 1,
                connections: 256,
                k: 5,
                recall_queries: 1000,
                distinct: 100_000.min(20 * self.arguments.documents),
                seed: 1,
            };
            self.packages = Some(serve::Bench::start(&arguments, self.setting)?);
        }
        self.packages.as_mut().context("just started")
    }

    /// A server over a real Redis, for collections of the rows' own.
    pub(super) fn redis(&mut self) -> Result<&mut OnRedis> {
        if self.redis.is_none() {
            self.redis = Some(OnRedis::start(self)?);
        }
        self.redis.as_mut().context("just started")
    }

    /// A server over a real Redis Cluster.
    pub(super) fn cluster(&mut self) -> Result<&mut OnCluster> {
        if self.cluster.is_none() {
            self.cluster = Some(OnCluster::start(self)?);
        }
        self.cluster.as_mut().context("just started")
    }

    /// The cluster, for who breaks it.
    pub(super) fn take_cluster(&mut self) -> Option<OnCluster> {
        self.cluster.take()
    }

    /// 1,000 distinct searches of the packages, one after the other.
    pub(super) fn alone(&mut self) -> Result<Alone> {
        if self.alone.is_none() {
            let bench = self.packages()?;
            let _pinned = bench.pinned()?;
            let agent = agent();
            let mut ms = Vec::new();
            let mut stages: [Vec<f64>; 4] = Default::default();
            for query in bench.fresh(1100)? {
                let url = bench.server().url(&format!("/search?k=5&q={}", encode(&query)));
                let reply = call(&agent, "GET", &url, None)?.expect(200)?;
                ms.push(reply.took.as_secs_f64() * 1e3);
                for (values, name) in stages.iter_mut().zip(["embed_us", "search_us", "fetch_us", "total_us"])
                {
                    let value = reply.body["timing"][name].as_f64();
                    values.push(value.with_context(|| format!("no timing.{name} in {}", reply.body))?);
                }
            }
            // The first hundred warm caches and connections.
            let median = |values: &Vec<f64>| Sample::new(values[100..].to_vec()).median();
            self.alone = Some(Alone {
                ms: Sample::new(ms.split_off(100)),
                embed_us: median(&stages[0]),
                search_us: median(&stages[1]),
                fetch_us: median(&stages[2]),
                total_us: median(&stages[3]),
            });
        }
        self.alone.clone().context("just measured")
    }

    /// The highest open-loop rate on one core whose 99th percentile is within the article's 22 ms.
    pub(super) fn loaded(&mut self) -> Result<serve::Measured> {
        if self.loaded.is_none() {
            self.loaded = Some(self.packages()?.highest_rate(22.0)?);
        }
        self.loaded.clone().context("just measured")
    }

    /// Recall of the server's answers against exact float32 search.
    pub(super) fn recall(&mut self) -> Result<f64> {
        if self.recall.is_none() {
            let setting = self.setting;
            self.recall = Some(self.packages()?.recall(setting)?);
        }
        self.recall.context("just measured")
    }

    /// A graph, built when it is first asked for.
    pub(super) fn graph_with(&mut self, parameters: Parameters) -> Result<&Graph> {
        if !self.graphs.contains_key(&parameters) {
            eprintln!("building {parameters:?}");
            self.graphs.insert(parameters, Graph::build(parameters, self.setting)?);
        }
        Ok(&self.graphs[&parameters])
    }

    /// A graph with the article's parameters over the first `1 / part` of the sweep's vectors.
    pub(super) fn graph(&mut self, part: usize) -> Result<&Graph> {
        let rows = self.arguments.sweep / part;
        self.graph_with(Parameters { rows, ..Parameters::ARTICLE })
    }

    /// How many questions about the knowledge base find the right article among the first `k`.
    pub(super) fn answered(&mut self, k: usize) -> Result<Answered> {
        let knowledge = self.knowledge()?;
        let (mut answered, mut by_words) = (0, 0);
        for (question, right) in &knowledge.questions {
            let hits = knowledge.site.ask("kb", question, k)?.hits()?;
            answered += usize::from(hits.iter().any(|hit| right.contains(&hit.id)));
            let hits = knowledge.words.search(question, k);
            by_words += usize::from(hits.iter().any(|id| right.iter().any(|right| right == id)));
        }
        Ok(Answered { answered, by_words, asked: knowledge.questions.len() })
    }

    /// A verdict about 250,000 documents: with fewer there is none.
    pub(super) fn at_full_scale(&self, verdict: Verdict) -> Verdict {
        if self.arguments.documents >= 250_000 { verdict } else { Verdict::not_yet(verdict.ours) }
    }

    /// How many packages are searched, for the rows that say so.
    pub(super) fn scale(&self) -> String {
        format!("{} packages", self.arguments.documents)
    }
}

/// Questions and the ids that answer them, from a collection in the layout of `nearfield eval`.
fn questions(dir: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let judged: Vec<(String, String)> = read(dir, "qrels.tsv")?
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
            let answers = judged.iter().filter(|(query, _)| query == id).map(|(_, answer)| answer.clone());
            Ok((text.to_owned(), answers.collect()))
        })
        .collect()
}

/// Ids and texts, from the same collection.
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
