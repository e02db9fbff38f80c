//! Settings: defaults, then the configuration file, then the environment, then flags. The only
//! reader of environment and configuration file.

mod file;
mod flags;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod given;
mod key_table;
mod layer;
mod list;
mod store_url;

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use embed::ComputeType;
use engine::{Durability, Level};
use etcetera::AppStrategy;
use ipnet::IpNet;

pub use flags::{Flags, ServeFlags};
use layer::Layer;
pub use server::access::{ApiKey, KnownKey, Role};
pub use server::http::Origin;
use server::serve::{ServerKeys, ServerSettings, TlsFiles};
pub use store_url::StoreUrl;

use service::{self, RedisStore, Store};

/// Name of the configuration file in the home directory.
pub const FILE_NAME: &str = "nearfield.toml";

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of everything that has no directory of its own below.
    pub home: PathBuf,
    /// Where documents are kept.
    pub store: Store,
    /// Directory of the store, if it is one.
    pub data_dir: PathBuf,
    /// Directory whose sub-directories are models.
    pub models_dir: PathBuf,
    /// Instruction set to use at most; the best the machine has, if `None`.
    pub cpu: Option<Level>,
    /// Arithmetic queries are embedded in; the best for the machine, if `None`.
    pub query_compute: Option<ComputeType>,
    /// Arithmetic documents are embedded in; the best for the machine, if `None`.
    pub document_compute: Option<ComputeType>,
    /// Worker threads.
    pub workers: usize,
    /// Jobs that may wait for a worker.
    pub queue_max: usize,
    /// How long the oldest search may have waited for a worker before new ones are refused.
    pub queue_wait: Duration,
    /// Deadline of a call that brings none.
    pub timeout: Duration,
    /// Bytes of the store's page cache.
    pub cache_bytes: usize,
    /// Bytes of the cache of query vectors; none, if 0.
    pub query_cache_bytes: usize,
    /// Whether each worker stays on a core of its own.
    pub pin_workers: bool,
    /// Bytes of the disk that are left free; none, if 0.
    pub disk_reserve_bytes: u64,
    /// Bytes of memory that collections may take before writes are refused; no limit, if 0.
    pub memory_max_bytes: u64,
    /// When a write is durable, where documents are kept in a directory.
    pub durability: Durability,
    /// Vectors that may wait for the graph before writers are slowed.
    pub tail_max: usize,
    /// Threads that feed the graphs.
    pub index_threads: usize,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Keys that open the door; none needed, if empty.
    pub keys: Vec<KnownKey>,
    /// A key as it was given, for commands that talk to a server.
    pub own_key: Option<ApiKey>,
    /// Origins whose pages may read answers.
    pub cors_origins: Vec<Origin>,
    /// How many of the keys are from flags and the environment: a process keeps those for as long as it runs.
    pub lasting_keys: usize,
    /// Requests a second that one key, or without keys one address, may make; no limit, if 0.
    pub rate_limit: u32,
    /// Networks whose word on where a request came from is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificates that commands which talk to a server trust beside public authorities.
    pub ca_cert: Option<PathBuf>,
    /// The files of TLS; none, without it.
    pub tls: Option<TlsFiles>,
    /// Connections served at once.
    pub connections_max: usize,
    /// How long requests in flight may take once a stop was asked for.
    pub grace: Duration,
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request to begin.
    pub idle_timeout: Duration,
    /// How long a body may stand still, and how far it may fall behind a slow pace.
    pub body_timeout: Duration,
    /// Where a service manager listens, as it says itself in NOTIFY_SOCKET.
    pub notify_socket: Option<OsString>,
    /// Things that are allowed but look like mistakes, one sentence each.
    pub warnings: Vec<String>,
}

/// Why settings are refused. The message names the key, where it was set, and what is allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that is out of range or of the wrong form.
    #[error("{from}: {key} must be {allowed}, found {found:?}")]
    Value {
        /// Where it was set.
        from: String,
        /// The key.
        key: &'static str,
        /// What may be given.
        allowed: String,
        /// What was given; never a secret.
        found: String,
    },
    /// The file named by `--config` or `NEARFIELD_CONFIG`, or the one in the home directory, cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key.
    #[error("configuration file {path}, line {line}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong, without a value: it may be a key.
        message: String,
    },
    /// The server could be reached from other machines, by anybody.
    #[error(
        "listen is {listen}, which other machines can reach, and no API key is set: give --api-key (or \
         NEARFIELD_API_KEY), or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address.
        listen: SocketAddr,
    },
    /// One of two settings that go together is not set.
    #[error("tls_cert and tls_key go together: {key} is not set")]
    Missing {
        /// The setting.
        key: &'static str,
    },
    /// The platform's data directory could not be found.
    #[error("no home directory was found for this user: set NEARFIELD_HOME or --home")]
    NoHome,
}

impl Settings {
    /// Settings of this process: its environment and configuration file below `flags` (and
    /// `serve`, where a server is meant).
    pub fn load(flags: &Flags, serve: Option<&ServeFlags>) -> Result<Settings, ConfigError> {
        Settings::from_sources(flags, serve, std::env::vars_os())
    }

    /// [`Settings::load`] with another environment.
    pub fn from_sources(
        flags: &Flags,
        serve: Option<&ServeFlags>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Settings, ConfigError> {
        let mut warnings = Vec::new();
        let mut env = Layer::from_environment(environment, &mut warnings)?;
        let mut top = Layer::from_flags(flags, serve)?;
        let home = match top.home.take().or(env.home.take()) {
            Some(home) => home,
            None => platform_home()?,
        };
        let file = match top.config.take().or(env.config.take()) {
            Some(path) => file::read(&path)?,
            None => {
                let path = home.join(FILE_NAME);
                if path.try_exists().unwrap_or(true) { file::read(&path)? } else { Layer::default() }
            }
        };
        let above = top.over(env);
        let lasting_keys = above.keys_count();
        Ok(Settings { lasting_keys, ..Settings::settle(home, above.over(file), warnings)? })
    }

    fn settle(home: PathBuf, layer: Layer, mut warnings: Vec<String>) -> Result<Settings, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = layer.workers.unwrap_or(cores);
        if workers > 2 * cores {
            warnings.push(format!(
                "workers is {workers}, more than twice the {cores} cores of this machine: they will wait for each other"
            ));
        }
        let store = match layer.store {
            Some(url) if url.place() == Some(store_url::Place::Redis) => Store::Redis(RedisStore {
                connections: layer.redis_connections.unwrap_or(RedisStore::CONNECTIONS),
                command_timeout: layer
                    .redis_timeout_ms
                    .map_or(RedisStore::COMMAND_TIMEOUT, Duration::from_millis),
                wait_replicas: layer.wait_replicas.unwrap_or(0),
                read_from_replicas: layer.read_from_replicas.unwrap_or(false),
                ..RedisStore::new(url.reveal())
            }),
            _ => Store::Directory,
        };
        if let (Store::Redis(_), Some(durability)) = (&store, layer.durability) {
            warnings.push(format!(
                "durability is {} and does nothing: documents are kept in a Redis, whose appendfsync says when they are \
                 durable",
                durability.name()
            ));
        }
        Ok(Settings {
            store,
            data_dir: layer.data_dir.unwrap_or_else(|| home.join("data")),
            models_dir: layer.models_dir.unwrap_or_else(|| home.join("models")),
            home,
            cpu: layer.cpu,
            query_compute: layer.query_compute,
            document_compute: layer.document_compute,
            workers,
            queue_max: layer.queue_max.unwrap_or(1024),
            queue_wait: Duration::from_millis(layer.queue_wait_ms.unwrap_or(50)),
            timeout: Duration::from_millis(layer.timeout_ms.unwrap_or(30_000)),
            cache_bytes: layer.cache_mib.unwrap_or(8) << 20,
            query_cache_bytes: layer.query_cache_mib.unwrap_or(8) << 20,
            pin_workers: layer.pin_workers.unwrap_or(false),
            memory_max_bytes: layer.memory_max_mib.unwrap_or(0) << 20,
            disk_reserve_bytes: layer.disk_reserve_mib.unwrap_or(64) << 20,
            durability: layer.durability.unwrap_or_default(),
            tail_max: layer.tail_max.unwrap_or(10_000),
            index_threads: layer.index_threads.unwrap_or_else(|| cores.div_ceil(2)),
            log: layer.log.unwrap_or_else(|| "info".to_owned()),
            log_json: layer.log_json.unwrap_or(false),
            listen: layer.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8000))),
            lasting_keys: 0,
            keys: {
                let of = |keys: &Option<Vec<ApiKey>>, role| -> Vec<KnownKey> {
                    keys.iter().flatten().map(|key| KnownKey::new(key, role)).collect()
                };
                let mut keys = of(&layer.api_key, Role::Admin);
                keys.extend(of(&layer.write_key, Role::Write));
                keys.extend(of(&layer.read_key, Role::Read));
                keys.extend(layer.keys.unwrap_or_default());
                keys
            },
            own_key: [layer.api_key, layer.write_key, layer.read_key].into_iter().flatten().flatten().next(),
            rate_limit: u32::try_from(layer.rate_limit.unwrap_or(0)).expect("its range is within 32 bits"),
            trusted_proxies: layer.trusted_proxies.unwrap_or_default(),
            ca_cert: layer.ca_cert,
            tls: match (layer.tls_cert, layer.tls_key) {
                (None, None) => None,
                (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
                (cert, _) => {
                    let key = if cert.is_some() { "tls_key" } else { "tls_cert" };
                    return Err(ConfigError::Missing { key });
                }
            },
            cors_origins: layer.cors_origins.unwrap_or_default(),
            connections_max: layer.connections_max.unwrap_or(1024),
            grace: Duration::from_secs(layer.grace_s.unwrap_or(10)),
            header_timeout: Duration::from_millis(layer.header_timeout_ms.unwrap_or(10_000)),
            idle_timeout: Duration::from_millis(layer.idle_timeout_ms.unwrap_or(75_000)),
            body_timeout: Duration::from_millis(layer.body_timeout_ms.unwrap_or(30_000)),
            notify_socket: layer.notify_socket,
            warnings,
        })
    }

    /// What a server is started with. An address that other machines can reach requires a key.
    pub fn server(&self) -> Result<ServerSettings, ConfigError> {
        if !self.listen.ip().is_loopback() && self.keys.is_empty() {
            return Err(ConfigError::Exposed { listen: self.listen });
        }
        Ok(ServerSettings {
            service: self.service(),
            listen: self.listen,
            keys: self.server_keys(),
            rate_limit: self.rate_limit,
            trusted_proxies: self.trusted_proxies.clone(),
            cors_origins: self.cors_origins.clone(),
            tls: self.tls.clone(),
            connections_max: self.connections_max,
            grace: self.grace,
            header_timeout: self.header_timeout,
            idle_timeout: self.idle_timeout,
            body_timeout: self.body_timeout,
            notify_socket: self.notify_socket.clone(),
        })
    }

    /// The keys a server accepts.
    pub fn server_keys(&self) -> ServerKeys {
        ServerKeys { keys: self.keys.clone(), permanent: self.lasting_keys }
    }

    /// What the service is opened with.
    pub fn service(&self) -> service::Config {
        service::Config {
            store: self.store.clone(),
            data_dir: self.data_dir.clone(),
            models_dir: self.models_dir.clone(),
            workers: self.workers,
            queue_max: self.queue_max,
            queue_wait: self.queue_wait,
            timeout: self.timeout,
            cpu_level: self.cpu,
            query_compute: self.query_compute,
            document_compute: self.document_compute,
            cache_bytes: self.cache_bytes,
            query_cache_bytes: self.query_cache_bytes,
            pin_workers: self.pin_workers,
            disk_reserve_bytes: self.disk_reserve_bytes,
            memory_max_bytes: self.memory_max_bytes,
            durability: self.durability,
            tail_max: self.tail_max,
            index_threads: self.index_threads,
        }
    }
}

fn platform_home() -> Result<PathBuf, ConfigError> {
    let strategy = etcetera::choose_app_strategy(etcetera::AppStrategyArgs {
        top_level_domain: "dev".to_owned(),
        author: "nearfield".to_owned(),
        app_name: "nearfield".to_owned(),
    })
    .map_err(|_| ConfigError::NoHome)?;
    Ok(strategy.data_dir())
}

#[cfg(test)]
mod limits;
#[cfg(test)]
mod tests;
