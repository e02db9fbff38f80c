//! The configuration of a service. The program reads it from flags, environment variables and a configuration file.

use std::{path::PathBuf, time::Duration};

use embed::ComputeType;
use engine::{Cpu, Durability, Level};

use crate::Error;

/// The maximum number of connections to one Redis server. More would only cost memory: Redis executes commands on
/// one thread.
const CONNECTIONS_MAX: usize = 1024;

/// Where documents and vectors are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// In the data directory, managed by the engine in this process.
    #[default]
    Directory,
    /// In Redis with the search module, or in a cluster of such servers.
    Redis(RedisStore),
}

/// The address of a Redis server or cluster, and the connection settings.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisStore {
    /// `redis://[user][:password@]host[:port][/db]`, or `redis-cluster://` with comma-separated hosts;
    /// `rediss` and `rediss-cluster` use TLS. `?protocol=resp2` selects the older protocol. Never displayed,
    /// because it may contain a password.
    pub url: String,
    /// Connections per server, all kept open.
    pub connections: usize,
    /// The maximum time that a call waits for a free connection.
    pub wait_timeout: Duration,
    /// The maximum duration of one command or pipeline.
    pub command_timeout: Duration,
    /// The number of replicas that must have a write before it is acknowledged.
    pub wait_replicas: usize,
    /// Whether replicas serve searches and reads; their data may lag behind the primary.
    pub read_from_replicas: bool,
}

impl RedisStore {
    /// The default number of connections.
    pub const CONNECTIONS: usize = 4;
    /// The default wait timeout.
    pub const WAIT_TIMEOUT: Duration = Duration::from_secs(1);
    /// The default command timeout.
    pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

    /// The Redis at `url`, with default settings.
    pub fn new(url: impl Into<String>) -> RedisStore {
        RedisStore {
            url: url.into(),
            connections: RedisStore::CONNECTIONS,
            wait_timeout: RedisStore::WAIT_TIMEOUT,
            command_timeout: RedisStore::COMMAND_TIMEOUT,
            wait_replicas: 0,
            read_from_replicas: false,
        }
    }

    fn check(&self) -> Result<(), Error> {
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return Err(Error::invalid(
                "config",
                format!("redis_connections is {}; it must be 1 to {CONNECTIONS_MAX}", self.connections),
            )
            .at("redis_connections"));
        }
        if self.command_timeout.is_zero() {
            return Err(Error::invalid("config", "redis_timeout_ms is 0; it must be at least 1")
                .at("redis_timeout_ms"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RedisStore {
            url: _,
            connections,
            wait_timeout,
            command_timeout,
            wait_replicas,
            read_from_replicas,
        } = self;
        f.debug_struct("RedisStore")
            .field("connections", connections)
            .field("wait_timeout", wait_timeout)
            .field("command_timeout", command_timeout)
            .field("wait_replicas", wait_replicas)
            .field("read_from_replicas", read_from_replicas)
            .finish_non_exhaustive()
    }
}

/// The configuration of a service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where documents and vectors are stored.
    pub store: Store,
    /// The directory of the store, for [`Store::Directory`].
    pub data_dir: PathBuf,
    /// The directory of the models, one subdirectory per model name.
    pub models_dir: PathBuf,
    /// Worker threads per pool (one pool for searches, one for writes); by default one per core.
    pub workers: usize,
    /// Whether to pin each worker to its own core, as far as there are enough cores.
    pub pin_workers: bool,
    /// The number of queued jobs above which new ones are rejected as `Overloaded`.
    pub queue_max: usize,
    /// The queue delay of the oldest search above which new searches are rejected as `Overloaded`.
    pub queue_wait: Duration,
    /// The timeout of calls without their own deadline.
    pub timeout: Duration,
    /// The highest instruction set level to use; `None` uses the best available.
    pub cpu_level: Option<Level>,
    /// The compute type for embedding queries; `None` selects the best for the machine.
    pub query_compute: Option<ComputeType>,
    /// The compute type for embedding documents; `None` selects the best for the machine.
    pub document_compute: Option<ComputeType>,
    /// The size of the store's page cache in bytes.
    pub cache_bytes: usize,
    /// The size of the query vector cache in bytes; 0 disables it.
    pub query_cache_bytes: usize,
    /// The number of bytes to leave free on the disk.
    pub disk_reserve_bytes: u64,
    /// The memory use of collections, in bytes, above which writes are rejected; 0 means no limit.
    pub memory_max_bytes: u64,
    /// When a write becomes durable, for [`Store::Directory`].
    pub durability: Durability,
    /// The number of vectors not yet in the graph above which writes are throttled.
    pub tail_max: usize,
    /// Threads that insert vectors into the graphs.
    pub index_threads: usize,
}

impl Config {
    /// The configuration for these paths, with defaults for every other option.
    pub fn new(data_dir: impl Into<PathBuf>, models_dir: impl Into<PathBuf>) -> Config {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Config {
            store: Store::default(),
            data_dir: data_dir.into(),
            models_dir: models_dir.into(),
            workers: cores,
            pin_workers: false,
            queue_max: 1024,
            queue_wait: Duration::from_millis(50),
            timeout: Duration::from_secs(30),
            cpu_level: None,
            query_compute: None,
            document_compute: None,
            cache_bytes: 8 << 20,
            query_cache_bytes: 8 << 20,
            disk_reserve_bytes: 64 << 20,
            memory_max_bytes: 0,
            durability: Durability::default(),
            tail_max: 10_000,
            index_threads: cores.div_ceil(2),
        }
    }

    /// The instruction set that the kernels use.
    pub(crate) fn cpu(&self) -> Cpu {
        let detected = Cpu::detect();
        self.cpu_level.map_or(detected, |level| detected.at_most(level))
    }

    /// Validates the configuration.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let counts =
            [("workers", self.workers), ("queue_max", self.queue_max), ("index_threads", self.index_threads)];
        for (name, count) in counts {
            if count == 0 {
                return Err(Error::invalid("config", format!("{name} is 0; it must be at least 1")).at(name));
            }
        }
        if let Store::Redis(store) = &self.store {
            store.check()?;
        }
        Ok(())
    }

    /// Warnings about settings that work but are probably unintended.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let oversubscribed = (self.workers > 2 * cores).then(|| {
            format!(
                "{} workers on {cores} cores: more than two workers per core slow down every search; set workers to {cores}",
                self.workers
            )
        });
        oversubscribed.into_iter().chain(self.durability_warning()).collect()
    }

    /// A warning if the durability setting allows acknowledged writes to be lost in a crash.
    pub fn durability_warning(&self) -> Option<String> {
        let (Store::Directory, delay) = (&self.store, self.durability.delay_max()) else { return None };
        (!delay.is_zero()).then(|| {
            format!(
                "durability is {}: writes acknowledged in the last {} s are lost if the power fails or the process is \
                 killed",
                self.durability.name(),
                delay.as_secs()
            )
        })
    }
}
