//! What can be set on the command line.

use std::path::PathBuf;

use super::StoreUrl;

/// Flags of every command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Directory of data and models [env: NEARFIELD_HOME]
    #[arg(long, value_name = "DIR", global = true)]
    pub home: Option<PathBuf>,
    /// Configuration file, in place of nearfield.toml in the home directory [env: NEARFIELD_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Directory of the store, in place of data in the home directory [env: NEARFIELD_DATA_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Where documents are kept: directory, a Redis as redis://USER:PASSWORD@HOST:PORT/0, or a Redis Cluster
    /// as redis-cluster://USER:PASSWORD@HOST:PORT,HOST:PORT (rediss for TLS).
    /// Safer in the environment, which other users cannot read [default: directory] [env: NEARFIELD_STORE]
    #[arg(long, value_name = "URL", global = true)]
    pub store: Option<StoreUrl>,
    /// Connections to each Redis, kept open [default: 4] [env: NEARFIELD_REDIS_CONNECTIONS]
    #[arg(long, value_name = "N", global = true)]
    pub redis_connections: Option<String>,
    /// Time a command to the Redis may take, in milliseconds [default: 2000] [env: NEARFIELD_REDIS_TIMEOUT_MS]
    #[arg(long, value_name = "MS", global = true)]
    pub redis_timeout_ms: Option<String>,
    /// Replicas of a Redis a write has to reach before it is acknowledged [default: 0] [env:
    /// NEARFIELD_WAIT_REPLICAS]
    #[arg(long, value_name = "N", global = true)]
    pub wait_replicas: Option<String>,
    /// Let replicas of a Redis Cluster answer searches and reads, which may be a little behind [env:
    /// NEARFIELD_READ_FROM_REPLICAS]
    #[arg(long, global = true)]
    pub read_from_replicas: bool,
    /// Directory of models, in place of models in the home directory [env: NEARFIELD_MODELS_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    pub models_dir: Option<PathBuf>,
    /// Certificates in PEM to trust beside public authorities, when talking to a server over HTTPS [env:
    /// NEARFIELD_CA_CERT]
    #[arg(long, value_name = "FILE", global = true)]
    pub ca_cert: Option<PathBuf>,
    /// Instruction set to use at most: scalar, avx2 or avx512 [env: NEARFIELD_CPU]
    #[arg(long, value_name = "LEVEL", global = true)]
    pub cpu: Option<String>,
    /// Arithmetic queries are embedded in: int8, bf16 or f32 [default: int8] [env: NEARFIELD_QUERY_COMPUTE]
    #[arg(long, value_name = "KIND", global = true)]
    pub query_compute: Option<String>,
    /// Arithmetic documents are embedded in: int8, bf16 or f32; bf16, if not given, where the processor
    /// has it, otherwise f32 [env: NEARFIELD_DOCUMENT_COMPUTE]
    #[arg(long, value_name = "KIND", global = true)]
    pub document_compute: Option<String>,
    /// Worker threads; one a core, if not given [env: NEARFIELD_WORKERS]
    #[arg(long, value_name = "N", global = true)]
    pub workers: Option<String>,
    /// What is logged, such as info or nearfield=debug [env: NEARFIELD_LOG]
    #[arg(long, value_name = "FILTER", global = true)]
    pub log: Option<String>,
    /// Log lines as JSON [env: NEARFIELD_LOG_JSON]
    #[arg(long, global = true)]
    pub log_json: bool,
}

/// Flags of commands that serve.
#[derive(Clone, Default, clap::Args)]
pub struct ServeFlags {
    /// Address and port to serve on [default: 127.0.0.1:8000] [env: NEARFIELD_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// A key that opens everything, 16 characters or more; may be repeated. Safer in the
    /// environment, which other users cannot read [env: NEARFIELD_API_KEY]
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub api_key: Vec<String>,
    /// A key for searching, reading and writing documents; may be repeated [env: NEARFIELD_WRITE_KEY]
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub write_key: Vec<String>,
    /// A key for searching and reading documents; may be repeated. Keys for certain collections stand in
    /// nearfield.toml [env: NEARFIELD_READ_KEY]
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub read_key: Vec<String>,
    /// Requests a second that one key, or without keys one address, may make; 0 for no limit [default: 0]
    /// [env: NEARFIELD_RATE_LIMIT]
    #[arg(long, value_name = "N")]
    pub rate_limit: Option<String>,
    /// A network whose word (X-Forwarded-For) on where a request came from is taken; may be repeated [env:
    /// NEARFIELD_TRUSTED_PROXIES]
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    pub trusted_proxies: Vec<String>,
    /// Certificate chain in PEM: the server speaks HTTPS. Read again at SIGHUP [env: NEARFIELD_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM [env: NEARFIELD_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// An origin whose pages may call, such as `https://app.example.com`; may be repeated [env: NEARFIELD_CORS_ORIGINS]
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    pub cors_origins: Vec<String>,
    /// When a write to the data directory is durable: always before it is answered; within a second (everysec) or half
    /// a minute (none) of that, which is lost if the power fails or the process is killed [default: always] [env:
    /// NEARFIELD_DURABILITY]
    #[arg(long, value_name = "WHEN")]
    pub durability: Option<String>,
    /// Jobs that may wait for a worker before 503 is answered [default: 1024] [env: NEARFIELD_QUEUE_MAX]
    #[arg(long, value_name = "N")]
    pub queue_max: Option<String>,
    /// How long the oldest search may have waited for a worker, in milliseconds, before 503 is answered to new ones
    /// [default: 50] [env: NEARFIELD_QUEUE_WAIT_MS]
    #[arg(long, value_name = "MS")]
    pub queue_wait_ms: Option<String>,
    /// Memory for the vectors of queries asked before; 0 for none [default: 8] [env: NEARFIELD_QUERY_CACHE_MIB]
    #[arg(long, value_name = "MIB")]
    pub query_cache_mib: Option<String>,
    /// Keep each worker on a core of its own [env: NEARFIELD_PIN_WORKERS]
    #[arg(long)]
    pub pin_workers: bool,
    /// Time a request may take, in milliseconds [default: 30000] [env: NEARFIELD_TIMEOUT_MS]
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<String>,
    /// Connections served at once [default: 1024] [env: NEARFIELD_CONNECTIONS_MAX]
    #[arg(long, value_name = "N")]
    pub connections_max: Option<String>,
    /// Seconds that requests in flight may take at a stop [default: 10] [env: NEARFIELD_GRACE_S]
    #[arg(long, value_name = "S")]
    pub grace_s: Option<String>,
}

impl std::fmt::Debug for ServeFlags {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServeFlags")
            .field("listen", &self.listen)
            .field("api_keys", &self.api_key.len())
            .field("cors_origins", &self.cors_origins)
            .finish_non_exhaustive()
    }
}
