//! `redis`: Nearfield with Redis Stack as its store, alternating with redis-py on the same server.

mod knn;
pub(crate) mod load;
mod memory;
pub(crate) mod pipelining;

use std::{num::NonZero, time::Duration};

use anyhow::{Result, ensure};
use nearfield::service::{Algorithm, Config, Context, Service};
use tokio::runtime::Runtime;

use crate::{
    corpus::Document,
    global_options::GlobalOptions,
    machine::CorePin,
    packages::{self, Corpus},
    peer::Peers,
    redis_py::RedisPy,
    redis_server::RedisServer,
    report::Format,
    vectors::Vectors,
};

/// The position of redis-py, as the article installs it, among [`RedisBench::clients`].
const REDIS_PY: usize = 1;

/// Arguments of `redis`.
#[derive(Debug, clap::Args)]
pub(crate) struct RedisArguments {
    /// Number of packages to load, from the first
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    limit: usize,
    /// Documents per pipeline
    #[arg(long, value_name = "N", default_value = "500")]
    batch: NonZero<usize>,
    /// Slices in which the documents are loaded; the clients alternate after each
    #[arg(long, value_name = "N", default_value = "5")]
    slices: NonZero<usize>,
    /// Rounds of queries and of pipelines; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Queries per round
    #[arg(long, value_name = "N", default_value_t = 5000)]
    queries: usize,
    /// Queries in flight
    #[arg(long, value_name = "N", default_value_t = 16)]
    in_flight: usize,
    /// Hits per query
    #[arg(long, default_value_t = 10)]
    k: usize,
    /// ef_search
    #[arg(long, default_value_t = 80)]
    ef: usize,
    /// Divisor of the number of writes per pipeline size
    #[arg(long, value_name = "N", default_value = "1", hide = true)]
    fewer_writes: NonZero<usize>,
    /// Core of the server
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of each client while the others wait
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Whether to measure redis-py as well
    #[arg(long, value_enum, default_value = "all")]
    peers: Peers,
    /// Leave out redis-py with hiredis (the article installs redis without it)
    #[arg(long)]
    no_hiredis: bool,
}

/// One server, all clients, and the data to load.
struct RedisBench<'a> {
    arguments: &'a RedisArguments,
    service: Service,
    runtime: Runtime,
    /// redis-py as the article installs it, then with hiredis.
    pythons: Vec<RedisPy>,
    documents: Vec<Document>,
    vectors: Vectors,
    queries: Vectors,
    server: RedisServer,
    /// Pins this process, its service and its runtime.
    _pin: CorePin,
}

/// A client of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Nearfield,
    /// By its position in [`RedisBench::pythons`].
    Python(usize),
}

/// Measures and prints.
pub(crate) fn run(arguments: &RedisArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    ensure!(
        arguments.runs > 0 && arguments.in_flight > 0,
        "nothing to measure: --runs and --in-flight must be at least 1"
    );
    let mut bench = RedisBench::new(arguments, global)?;
    pipelining::run(&mut bench, format)?;
    load::run(&mut bench, load::FLAT, format)?;
    let used_memory = load::run(&mut bench, load::HNSW, format)?;
    knn::run(&mut bench, global, format)?;
    memory::run(&bench, used_memory, global, format)
}

impl<'a> RedisBench<'a> {
    fn new(arguments: &'a RedisArguments, global: &GlobalOptions) -> Result<RedisBench<'a>> {
        let Corpus { documents, vectors, queries } =
            Corpus::read(global, arguments.limit, arguments.queries)?;
        let server = RedisServer::start(&global.cache_dir, Some(arguments.server_core))?;
        let mut pythons = Vec::new();
        for hiredis in [false, true] {
            if arguments.peers == Peers::All && !(hiredis && arguments.no_hiredis) {
                let mut python = RedisPy::start(&server, &global.cache_dir, arguments.client_core, hiredis)?;
                python.read_documents(&global.data.packages()?, &vectors, documents.len())?;
                pythons.push(python);
            }
        }
        let pin = CorePin::to_core(arguments.client_core)?;
        let config = Config {
            store: server.store(),
            // A closed loop must not be shed.
            queue_wait: Duration::MAX,
            ..global.service(&global.cache_dir.join("redis-no-data"))?
        };
        let service = Service::open(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(RedisBench {
            arguments,
            service,
            runtime,
            pythons,
            documents,
            vectors,
            queries,
            server,
            _pin: pin,
        })
    }

    /// All clients, Nearfield first.
    fn clients(&self) -> Vec<Client> {
        std::iter::once(Client::Nearfield).chain((0..self.pythons.len()).map(Client::Python)).collect()
    }

    fn name(&self, client: Client) -> &str {
        match client {
            Client::Nearfield => "nearfield",
            Client::Python(position) => &self.pythons[position].name,
        }
    }

    /// Creates a collection of Nearfield's under the prefix `{name}:`.
    fn create_collection(&self, name: &str, algorithm: Algorithm, dim: usize) -> Result<()> {
        let schema = packages::schema(name, algorithm, dim, None);
        self.runtime.block_on(self.service.put_collection(&Context::local(), name, schema, false))?;
        Ok(())
    }

    /// Creates an equivalent index with `FT.CREATE`.
    fn create_index(&self, name: &str, algorithm: Algorithm, dim: usize) -> Result<()> {
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
                let hnsw = ["M", &m, "EF_CONSTRUCTION", &ef_construction];
                words.extend(["HNSW", "10"].iter().chain(&common).chain(&hnsw));
                return self.server.command(&words).map(drop);
            }
        }
        self.server.command(&words)?;
        Ok(())
    }
}
