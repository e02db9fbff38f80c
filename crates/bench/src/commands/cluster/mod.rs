//! `cluster`: Redis Clusters as the store, by number of primaries, alternating with a single Redis.

mod counters;
mod load;
mod search;

use std::num::NonZero;

use anyhow::{Context as _, Result, ensure};
use nearfield::service::{Config, Service, Store};
use tokio::runtime::Runtime;

use crate::{
    commands::redis::load::{FLAT, HNSW},
    global_options::GlobalOptions,
    machine::{self, CorePin},
    packages::Corpus,
    redis_cluster,
    redis_server::RedisServer,
    report::Format,
};

/// Arguments of `cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArguments {
    /// Number of packages to load, from the first
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    limit: usize,
    /// Primaries of each cluster
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,3")]
    primaries: Vec<NonZero<usize>>,
    /// Documents per write, divided among the primaries
    #[arg(long, value_name = "N", default_value = "500")]
    batch: NonZero<usize>,
    /// Slices in which the documents are loaded; the stores alternate after each
    #[arg(long, value_name = "N", default_value = "4")]
    slices: NonZero<usize>,
    /// Queries per round
    #[arg(long, value_name = "N", default_value_t = 500)]
    queries: usize,
    /// Measured rounds of queries, after one warm-up round
    #[arg(long, default_value = "3")]
    runs: NonZero<usize>,
    /// Values of ef_search for HNSW
    #[arg(long, value_delimiter = ',', default_value = "20,40,80")]
    ef: Vec<usize>,
    /// Core of this process; the nodes of each store are distributed over all cores, starting with the first
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

/// All stores, and the data to load into each.
struct ClusterBench<'a> {
    arguments: &'a ClusterArguments,
    stores: Vec<StoreUnderTest>,
    runtime: Runtime,
    corpus: Corpus,
    /// Pins this process, its services and its runtime.
    _pin: CorePin,
}

/// A store, and an in-process service over it.
struct StoreUnderTest {
    /// Its URL scheme.
    name: &'static str,
    service: Service,
    /// Its primaries. Declared after the service, so that they are dropped after it.
    nodes: Vec<RedisServer>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &ClusterArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    ensure!(
        arguments.queries > 0 && !arguments.ef.is_empty(),
        "nothing to measure: --queries and --ef must not be empty"
    );
    let bench = ClusterBench::new(arguments, global)?;
    for target in [FLAT, HNSW] {
        load::run(&bench, target, format)?;
    }
    search::run(&bench, global, format)
}

impl<'a> ClusterBench<'a> {
    fn new(arguments: &'a ClusterArguments, global: &GlobalOptions) -> Result<ClusterBench<'a>> {
        let corpus = Corpus::read(global, arguments.limit, arguments.queries)?;
        let single = vec![RedisServer::start(&global.cache_dir, Some(0))?];
        let mut servers = vec![("redis", single[0].store(), single)];
        for primaries in &arguments.primaries {
            let cores: Vec<usize> = (0..primaries.get()).map(|node| node % machine::cores()).collect();
            let nodes = redis_cluster::start(&global.cache_dir, &cores)?;
            servers.push(("redis-cluster", redis_cluster::store(&nodes), nodes));
        }
        let pin = CorePin::to_core(arguments.client_core)?;
        let store_under_test = |(name, store, nodes): (&'static str, Store, Vec<RedisServer>)| {
            let config = Config { store, ..global.service(&global.cache_dir.join("redis-no-data"))? };
            let service = Service::open(config).with_context(|| format!("open {name}"))?;
            Ok(StoreUnderTest { name, service, nodes })
        };
        let stores = servers.into_iter().map(store_under_test).collect::<Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(ClusterBench { arguments, stores, runtime, corpus, _pin: pin })
    }
}
