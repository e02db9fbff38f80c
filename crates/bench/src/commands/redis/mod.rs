//! `redis`: our service with a real Redis as its store, beside redis-py on the same server, in turn.

mod knn;
pub(crate) mod load;
mod memory;
pub(crate) mod pipelining;

use std::num::NonZero;

use anyhow::{Result, ensure};
use nearfield::service::{Algorithm, Config, Context, Service};
use tokio::runtime::Runtime;

use crate::{
    corpus::Document,
    machine::Pinned,
    packages::{self, Corpus},
    redis_py::RedisPy,
    redis_server::RedisServer,
    report::Format,
    setting::Setting,
    vectors::Vectors,
};

/// Arguments of `redis`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Load the first so many packages only
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    limit: usize,
    /// Documents in a pipeline
    #[arg(long, value_name = "N", default_value = "500")]
    batch: NonZero<usize>,
    /// Parts that the documents are loaded in; clients take turns after each
    #[arg(long, value_name = "N", default_value = "5")]
    slices: NonZero<usize>,
    /// Rounds of queries and of pipelines; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Queries in a round
    #[arg(long, value_name = "N", default_value_t = 5000)]
    queries: usize,
    /// Queries under way at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    in_flight: usize,
    /// Hits asked for
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// Breadth of search
    #[arg(long, default_value_t = 80)]
    ef: usize,
    /// Core of the server
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of each client while the others wait
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Leave redis-py with hiredis out: the article installs redis alone
    #[arg(long)]
    no_hiredis: bool,
}

/// One server, everybody who talks to it, and what is loaded.
struct Stand<'a> {
    arguments: &'a Arguments,
    service: Service,
    runtime: Runtime,
    /// redis-py as the article installs it first.
    pythons: Vec<RedisPy>,
    documents: Vec<Document>,
    vectors: Vectors,
    queries: Vectors,
    server: RedisServer,
    /// This process, its service and its runtime.
    _pinned: Pinned,
}

/// Who talks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Ours,
    /// By its place in [`Stand::pythons`].
    Python(usize),
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    ensure!(
        arguments.runs > 0 && arguments.in_flight > 0,
        "there is nothing to measure: no runs, or no queries"
    );
    let mut stand = Stand::new(arguments, setting)?;
    pipelining::run(&mut stand, format)?;
    load::run(&mut stand, load::FLAT, format)?;
    let loaded = load::run(&mut stand, load::HNSW, format)?;
    knn::run(&mut stand, setting, format)?;
    memory::run(&mut stand, &loaded, setting, format)
}

impl<'a> Stand<'a> {
    fn new(arguments: &'a Arguments, setting: &Setting) -> Result<Stand<'a>> {
        let Corpus { documents, vectors, queries } =
            Corpus::read(setting, arguments.limit, arguments.queries)?;
        let server = RedisServer::start(&setting.cache_dir, Some(arguments.server_core))?;
        let mut pythons = Vec::new();
        for hiredis in [false, true] {
            if !(hiredis && arguments.no_hiredis) {
                let mut python = RedisPy::start(&server, &setting.cache_dir, arguments.client_core, hiredis)?;
                python.take_documents(&setting.source.packages(), &vectors, documents.len())?;
                pythons.push(python);
            }
        }
        let pinned = Pinned::to(arguments.client_core)?;
        let config =
            Config { store: server.store(), ..setting.service(&setting.cache_dir.join("redis-no-data"))? };
        let service = Service::open(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Stand {
            arguments,
            service,
            runtime,
            pythons,
            documents,
            vectors,
            queries,
            server,
            _pinned: pinned,
        })
    }

    /// Everybody, ours first.
    fn clients(&self) -> Vec<Client> {
        std::iter::once(Client::Ours).chain((0..self.pythons.len()).map(Client::Python)).collect()
    }

    fn name(&self, client: Client) -> &str {
        match client {
            Client::Ours => "nearfield",
            Client::Python(place) => &self.pythons[place].name,
        }
    }

    /// Makes a collection of ours under the prefix `{name}:`.
    fn create(&self, name: &str, algorithm: Algorithm, dim: usize) -> Result<()> {
        let schema = packages::schema(name, algorithm, dim, None);
        self.runtime.block_on(self.service.put_collection(&Context::local(), name, schema, false))?;
        Ok(())
    }

    /// Makes the same by a command of redis-py's.
    fn create_in_python(&mut self, name: &str, algorithm: Algorithm, dim: usize) -> Result<()> {
        let prefix = format!("{name}:");
        let dim = dim.to_string();
        let mut words =
            vec!["FT.CREATE", name, "ON", "HASH", "PREFIX", "1", &prefix, "SCHEMA", "content", "TEXT"];
        words.extend(["embedding", "VECTOR"]);
        let common = ["TYPE", "FLOAT32", "DIM", &dim, "DISTANCE_METRIC", "COSINE"];
        match algorithm {
            Algorithm::Flat => words.extend(["FLAT", "6"].iter().chain(&common)),
            Algorithm::Hnsw { m, ef_construction, .. } => {
                let (m, ef_construction) = (m.to_string(), ef_construction.to_string());
                let own = ["M", &m, "EF_CONSTRUCTION", &ef_construction];
                words.extend(["HNSW", "10"].iter().chain(&common).chain(&own));
                return self.pythons[0].command(&words).map(drop);
            }
        }
        self.pythons[0].command(&words)?;
        Ok(())
    }
}
