//! `cluster`: a Redis Cluster as the store, by its number of primaries, beside a single Redis; in turn.

mod load;
mod node;
mod search;

use std::num::NonZero;

use anyhow::{Context as _, Result, ensure};
use nearfield::service::{Config, Service, Store};
use tokio::runtime::Runtime;

use crate::{
    commands::redis::load::{FLAT, HNSW},
    machine::{self, Pinned},
    packages::Corpus,
    redis_cluster,
    redis_server::RedisServer,
    report::Format,
    setting::Setting,
};

/// Arguments of `cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Load the first so many packages only
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    limit: usize,
    /// Primaries of each cluster
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,3")]
    primaries: Vec<NonZero<usize>>,
    /// Documents in a write, which is divided among the primaries
    #[arg(long, value_name = "N", default_value = "500")]
    batch: NonZero<usize>,
    /// Parts that the documents are loaded in; stores take turns after each
    #[arg(long, value_name = "N", default_value = "4")]
    slices: NonZero<usize>,
    /// Queries in a round
    #[arg(long, value_name = "N", default_value_t = 500)]
    queries: usize,
    /// Rounds of queries that are counted, after one that is not
    #[arg(long, default_value = "3")]
    runs: NonZero<usize>,
    /// Breadths of search in HNSW
    #[arg(long, value_delimiter = ',', default_value = "20,40,80")]
    ef: Vec<usize>,
    /// Core of this process; the nodes of each store are dealt out to all cores, beginning with the first
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

/// All stores, and what is loaded into each.
struct Stand<'a> {
    arguments: &'a Arguments,
    stores: Vec<Contender>,
    runtime: Runtime,
    corpus: Corpus,
    /// This process, its services and its runtime.
    _pinned: Pinned,
}

/// A store, and a service of this process over it.
struct Contender {
    /// Its scheme.
    name: &'static str,
    service: Service,
    /// Its primaries. After the service: that ends before they do.
    nodes: Vec<RedisServer>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    ensure!(
        arguments.queries > 0 && !arguments.ef.is_empty(),
        "there is nothing to measure: no queries, or no breadth of search"
    );
    let stand = Stand::new(arguments, setting)?;
    for target in [FLAT, HNSW] {
        load::run(&stand, target, format)?;
    }
    search::run(&stand, setting, format)
}

impl<'a> Stand<'a> {
    fn new(arguments: &'a Arguments, setting: &Setting) -> Result<Stand<'a>> {
        let corpus = Corpus::read(setting, arguments.limit, arguments.queries)?;
        let alone = vec![RedisServer::start(&setting.cache_dir, Some(0))?];
        let mut servers = vec![("redis", alone[0].store(), alone)];
        for primaries in &arguments.primaries {
            let cores: Vec<usize> = (0..primaries.get()).map(|node| node % machine::cores()).collect();
            let nodes = redis_cluster::start(&setting.cache_dir, &cores)?;
            servers.push(("redis-cluster", redis_cluster::store(&nodes), nodes));
        }
        let pinned = Pinned::to(arguments.client_core)?;
        let contender = |(name, store, nodes): (&'static str, Store, Vec<RedisServer>)| {
            let config = Config { store, ..setting.service(&setting.cache_dir.join("redis-no-data"))? };
            let service = Service::open(config).with_context(|| format!("open {name}"))?;
            Ok(Contender { name, service, nodes })
        };
        let stores = servers.into_iter().map(contender).collect::<Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Stand { arguments, stores, runtime, corpus, _pinned: pinned })
    }
}
