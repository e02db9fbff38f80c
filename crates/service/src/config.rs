//! What a service is opened with. The program reads it from flags, environment and configuration file.

use std::{path::PathBuf, time::Duration};

use embed::ComputeType;
use engine::{Cpu, Durability, Level};

use crate::Error;

/// Connections to one Redis at most: more only cost it memory, for it works on one thread.
const CONNECTIONS_MAX: usize = 1024;

/// Where documents and vectors are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// In the data directory, by the engine in this process.
    #[default]
    Directory,
    /// In a Redis with the search module, or in a cluster of them.
    Redis(RedisStore),
}

/// A Redis, and how to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisStore {
    /// `redis://[user][:password@]host[:port][/db]`, or `redis-cluster://` with several hosts after
    /// commas; with `rediss` for TLS. `?protocol=resp2` speaks the older protocol. Never shown: it may
    /// hold a password.
    pub url: String,
    /// Connections to each server, all of them kept open.
    pub connections: usize,
    /// How long a call may wait for room on them.
    pub wait_timeout: Duration,
    /// How long one command, or one pipeline of them, may take.
    pub command_timeout: Duration,
    /// Replicas of a primary a write has to reach before it is acknowledged.
    pub wait_replicas: usize,
    /// Whether replicas answer searches and reads, which may then be a little behind.
    pub read_from_replicas: bool,
}

impl RedisStore {
    /// Connections where nothing else is said.
    pub const CONNECTIONS: usize = 4;
    /// Wait timeout where nothing else is said.
    pub const WAIT_TIMEOUT: Duration = Duration::from_secs(1);
    /// Command timeout where nothing else is said.
    pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

    /// The Redis at `url`, with everything else at its default.
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

/// How to open a service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where documents and vectors are kept.
    pub store: Store,
    /// Directory of the store, where it is [`Store::Directory`].
    pub data_dir: PathBuf,
    /// Directory whose sub-directories are models, by name.
    pub models_dir: PathBuf,
    /// Worker threads, for searches and again for documents on their way in; one a core by default.
    pub workers: usize,
    /// Whether each worker stays on a core of its own, as far as there are enough.
    pub pin_workers: bool,
    /// Jobs that may wait for a worker before `Overloaded` is answered.
    pub queue_max: usize,
    /// How long the oldest search may have waited for a worker before `Overloaded` is answered to new ones.
    pub queue_wait: Duration,
    /// Deadline of a call that brings none.
    pub timeout: Duration,
    /// Instruction set to use at most; the best, if `None`.
    pub cpu_level: Option<Level>,
    /// Arithmetic queries are embedded in; the best for the machine, if `None`.
    pub query_compute: Option<ComputeType>,
    /// Arithmetic documents are embedded in; the best for the machine, if `None`.
    pub document_compute: Option<ComputeType>,
    /// Bytes of the store's page cache.
    pub cache_bytes: usize,
    /// Bytes of the cache of query vectors; none, if 0.
    pub query_cache_bytes: usize,
    /// Bytes of the disk that are left free; none, if 0.
    pub disk_reserve_bytes: u64,
    /// Bytes of memory that collections may take before writes are refused; no limit, if 0.
    pub memory_max_bytes: u64,
    /// When a write is durable, where it is [`Store::Directory`].
    pub durability: Durability,
    /// Vectors that may wait for the graph before writers are slowed.
    pub tail_max: usize,
    /// Threads that feed the graphs.
    pub index_threads: usize,
}

impl Config {
    /// The data directory and the models at these paths, with every other option at its default.
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

    /// The instruction set kernels use.
    pub(crate) fn cpu(&self) -> Cpu {
        let detected = Cpu::detect();
        self.cpu_level.map_or(detected, |level| detected.at_most(level))
    }

    /// Whether a service can be opened with it.
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

    /// What works but is hardly meant.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let crowded = (self.workers > 2 * cores).then(|| {
            format!(
                "{} workers on {cores} cores: more than two a core make every search slower; use {cores}",
                self.workers
            )
        });
        crowded.into_iter().chain(self.durability_warning()).collect()
    }

    /// What is lost with the power or the process although it was acknowledged, if anything is.
    pub fn durability_warning(&self) -> Option<String> {
        let (Store::Directory, delay) = (&self.store, self.durability.delay_max()) else { return None };
        (!delay.is_zero()).then(|| {
            format!(
                "durability is {}: what was acknowledged in the last {} s is lost if the power fails or the process is \
                 killed",
                self.durability.name(),
                delay.as_secs()
            )
        })
    }
}
