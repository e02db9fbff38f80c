//! All settings. To add one, add an entry to [`SETTINGS`] (and a field for the value to `service::Config` or
//! `server::serve::ServerSettings`, with its default): the key in the file, the environment variable, the flag, its
//! `--help`, the precedence of the sources, the checks, and the table in `docs/operations.md` follow from the entry. Add the
//! values it takes and rejects to `limits.rs`, and regenerate the table with
//! `WRITE_DOCS=1 cargo test -p nearfield --lib settings_table`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use server::{access::ApiKey, http::Origin};
use service::{ComputeType, Durability, Level};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    builder::SettingsBuilder,
    collection_keys::collection_keys,
    error::ConfigError,
    setting::{Assignment, DefaultValue, Flag, Kind, Setting},
    store_url::{self, StoreUrl},
    value::SettingValue,
};

/// A number that is stored as it is.
macro_rules! count {
    ($range:expr, $($field:ident).+) => {
        number!($range, |number| number.try_into().expect("the range fits the type"), |value| value, $($field).+)
    };
}

/// A number of milliseconds, stored as a `Duration`.
macro_rules! milliseconds {
    ($range:expr, $($field:ident).+) => {
        number!($range, |number| Duration::from_millis(number), |value| value.as_millis(), $($field).+)
    };
}

/// A number of seconds, stored as a `Duration`.
macro_rules! seconds {
    ($range:expr, $($field:ident).+) => {
        number!($range, |number| Duration::from_secs(number), |value| value.as_secs(), $($field).+)
    };
}

/// A number of KiB, stored in bytes.
macro_rules! kibibytes {
    ($range:expr, $($field:ident).+) => {
        number!(
            $range,
            |number| (number << 10).try_into().expect("the range fits the type"),
            |value| value >> 10,
            $($field).+
        )
    };
}

/// A number of MiB, stored in bytes.
macro_rules! mebibytes {
    ($range:expr, $($field:ident).+) => {
        number!(
            $range,
            |number| (number << 20).try_into().expect("the range fits the type"),
            |value| value >> 20,
            $($field).+
        )
    };
}

/// The kind and the default of a number that `$store` converts to the type of the field, and `$show` back.
macro_rules! number {
    ($range:expr, |$number:ident| $store:expr, |$value:ident| $show:expr, $($field:ident).+) => {
        (
            Kind::Number {
                range: $range,
                set: |settings, $number| settings.$($field).+ = $store,
            },
            DefaultValue::Value(|settings| {
                let $value = settings.$($field).+;
                $show.to_string()
            }),
        )
    };
}

/// The kind and the default of a switch.
macro_rules! switch {
    ($($field:ident).+) => {
        (
            Kind::Switch { set: |settings, is_on| settings.$($field).+ = is_on },
            DefaultValue::Value(|settings| settings.$($field).+.to_string()),
        )
    };
}

/// The kind of a path, stored as it is or in an option.
macro_rules! path {
    ($($field:ident).+) => {
        Kind::Path { set: |settings, path| settings.$($field).+ = path.into() }
    };
}

/// The kind of one of the values `$type::ALL`, stored in an option.
macro_rules! choice {
    ($type:ident, $($field:ident).+) => {
        Kind::Choice {
            names: || $type::ALL.map($type::name).to_vec(),
            set: |settings, position| settings.$($field).+ = Some($type::ALL[position]),
        }
    };
}

/// The kind of a list of API keys. An invalid key is described, never shown.
macro_rules! api_keys {
    ($field:ident) => {
        (
            Kind::List {
                allowed: ApiKey::ALLOWED,
                read: |value, allowed| {
                    let keys = value.list(allowed, |text| ApiKey::new(text), ApiKey::describe)?;
                    Ok(Box::new(move |settings: &mut SettingsBuilder| settings.$field.clone_from(&keys)))
                },
            },
            DefaultValue::None,
        )
    };
}

const fn setting(
    key: &'static str,
    (kind, default): (Kind, DefaultValue),
    flag: Flag,
    help: &'static str,
) -> Setting {
    Setting { key, kind, flag, flag_name: None, default, help }
}

/// Every setting, in the order of the documentation.
pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "data_dir",
        (path!(server.service.data_dir), DefaultValue::Description("data in the home directory")),
        Flag::All("DIR"),
        "Data directory",
    ),
    setting(
        "models_dir",
        (path!(server.service.models_dir), DefaultValue::Description("models in the home directory")),
        Flag::All("DIR"),
        "Directory whose subdirectories are embedding models",
    ),
    setting(
        "store",
        (
            Kind::Text { allowed: store_url::ALLOWED, read: store },
            DefaultValue::Value(|settings| settings.store.reveal().to_owned()),
        ),
        Flag::All("URL"),
        "Where documents are kept: directory (the data directory), redis://USER:PASSWORD@HOST:PORT, or \
         redis-cluster://USER:PASSWORD@HOST:PORT,HOST:PORT; rediss:// and rediss-cluster:// use TLS. Other users of the machine \
         can see flags: set a URL with a password in the environment or the file",
    ),
    setting(
        "redis_connections",
        count!(1..=1024, redis.connections),
        Flag::All("N"),
        "Connections per Redis server",
    ),
    setting(
        "redis_timeout_ms",
        milliseconds!(1..=600_000, redis.command_timeout),
        Flag::All("MS"),
        "Time limit of a Redis command, in milliseconds",
    ),
    setting(
        "wait_replicas",
        count!(0..=100, redis.wait_replicas),
        Flag::All("N"),
        "Redis replicas that must have received a write before it is acknowledged",
    ),
    setting(
        "read_from_replicas",
        switch!(redis.read_from_replicas),
        Flag::All(""),
        "Let replicas of a Redis Cluster answer searches and reads; they may lag slightly behind",
    ),
    setting(
        "cpu",
        (choice!(Level, server.service.cpu_level), DefaultValue::Description("the best available")),
        Flag::All("LEVEL"),
        "Highest instruction set to use: scalar, avx2 or avx512",
    ),
    setting(
        "query_compute",
        (
            choice!(ComputeType, server.service.query_compute),
            DefaultValue::Value(|_| ComputeType::Int8.name().to_owned()),
        ),
        Flag::All("TYPE"),
        "Arithmetic for embedding queries: int8, bf16 or f32",
    ),
    setting(
        "document_compute",
        (
            choice!(ComputeType, server.service.document_compute),
            DefaultValue::Description("bf16 if the processor has it, otherwise f32"),
        ),
        Flag::All("TYPE"),
        "Arithmetic for embedding documents: int8, bf16 or f32",
    ),
    setting(
        "workers",
        (count!(1..=1024, server.service.workers).0, DefaultValue::Description("one per core")),
        Flag::All("N"),
        "Worker threads for searches, and as many for writes",
    ),
    setting(
        "pin_workers",
        switch!(server.service.pin_workers),
        Flag::Serve(""),
        "Pin each worker thread to its own core",
    ),
    setting(
        "index_threads",
        (
            count!(1..=256, server.service.index_threads).0,
            DefaultValue::Description("half of the cores, rounded up"),
        ),
        Flag::None,
        "Threads that link vectors into graphs",
    ),
    setting(
        "tail_max",
        count!(1..=10_000_000, server.service.tail_max),
        Flag::None,
        "Vectors that may wait for the graph before writers are slowed",
    ),
    setting(
        "cache_mib",
        mebibytes!(1..=1_048_576, server.service.cache_bytes),
        Flag::None,
        "Page cache of the store, in MiB",
    ),
    setting(
        "query_cache_mib",
        mebibytes!(0..=65_536, server.service.query_cache_bytes),
        Flag::Serve("MIB"),
        "Cache of query vectors, in MiB; 0 disables it",
    ),
    setting(
        "memory_max_mib",
        mebibytes!(0..=16_777_216, server.service.memory_max_bytes),
        Flag::None,
        "Memory that collections may use before writes are rejected, in MiB; 0 for no limit",
    ),
    setting(
        "disk_reserve_mib",
        mebibytes!(0..=16_777_216, server.service.disk_reserve_bytes),
        Flag::None,
        "Disk space that writes leave free, in MiB",
    ),
    setting(
        "durability",
        (
            choice!(Durability, durability),
            DefaultValue::Value(|settings| settings.server.service.durability.name().to_owned()),
        ),
        Flag::Serve("WHEN"),
        "When a write to the data directory is durable: before it is acknowledged (always), within a second (everysec), or \
         within half a minute (none). Writes that are not yet durable are lost if the power fails or the process is killed",
    ),
    setting(
        "listen",
        (
            Kind::Text {
                allowed: "an IP address and a port, such as 127.0.0.1:8000 or [::1]:8000",
                read: listen,
            },
            DefaultValue::Value(|settings| settings.server.listen.to_string()),
        ),
        Flag::Serve("ADDRESS:PORT"),
        "Address and port to listen on",
    ),
    setting(
        "api_key",
        api_keys!(api_keys),
        Flag::Serve("KEY"),
        "API key for everything, including collections and backups. Other users of the machine can see flags: prefer the \
         environment or the file",
    ),
    setting(
        "write_key",
        api_keys!(write_keys),
        Flag::Serve("KEY"),
        "API key for searching, reading and writing documents",
    ),
    setting(
        "read_key",
        api_keys!(read_keys),
        Flag::Serve("KEY"),
        "API key for searching and reading documents",
    ),
    setting(
        "keys",
        (
            Kind::Tables {
                allowed: "tables of key (or sha256), role and collections in the configuration file",
                read: |value, allowed| {
                    let keys = collection_keys(value, allowed)?;
                    Ok(Box::new(move |settings| settings.collection_keys = keys.clone()))
                },
            },
            DefaultValue::None,
        ),
        Flag::None,
        "API keys for certain collections",
    ),
    setting(
        "rate_limit",
        count!(0..=1_000_000, server.rate_limit),
        Flag::Serve("N"),
        "Requests per second per API key, or per address if no keys are set; 0 for no limit",
    ),
    Setting {
        flag_name: Some("trusted-proxy"),
        ..setting(
            "trusted_proxies",
            (
                Kind::List { allowed: "networks such as 10.0.0.0/8 or fd00::/8", read: networks },
                DefaultValue::None,
            ),
            Flag::Serve("NETWORK"),
            "Network of a proxy whose X-Forwarded-For and Forwarded headers are trusted",
        )
    },
    setting(
        "ca_cert",
        (path!(ca_cert), DefaultValue::None),
        Flag::All("FILE"),
        "PEM certificates that commands trust in addition to public authorities when they talk to a server over HTTPS",
    ),
    setting(
        "tls_cert",
        (path!(tls_cert), DefaultValue::None),
        Flag::Serve("FILE"),
        "Certificate chain in PEM; with tls_key, the server speaks HTTPS. Reloaded on SIGHUP",
    ),
    setting(
        "tls_key",
        (path!(tls_key), DefaultValue::None),
        Flag::Serve("FILE"),
        "Private key of tls_cert, in PEM",
    ),
    Setting {
        flag_name: Some("cors-origin"),
        ..setting(
            "cors_origins",
            (
                Kind::List {
                    allowed: "origins such as https://app.example.com, without a path and without *",
                    read: origins,
                },
                DefaultValue::None,
            ),
            Flag::Serve("ORIGIN"),
            "Web origin whose pages may use the API, such as https://app.example.com",
        )
    },
    setting(
        "queue_max",
        count!(1..=1_000_000, server.service.queue_max),
        Flag::Serve("N"),
        "Jobs that may wait for a worker before requests are rejected with 503",
    ),
    setting(
        "queue_wait_ms",
        milliseconds!(1..=600_000, server.service.queue_wait),
        Flag::Serve("MS"),
        "Queueing delay of the oldest search, in milliseconds, from which new searches are rejected with 503",
    ),
    setting(
        "timeout_ms",
        milliseconds!(1..=600_000, server.service.timeout),
        Flag::Serve("MS"),
        "Time limit of a request without an X-Timeout-Ms header, in milliseconds",
    ),
    setting(
        "connections_max",
        count!(1..=65_536, server.connections_max),
        Flag::Serve("N"),
        "Connections served at once",
    ),
    setting(
        "connections_reserved",
        count!(0..=65_536, server.connections_reserved),
        Flag::None,
        "Connections of these that only callers with an API key may use, if keys are set; at most half of connections_max",
    ),
    setting(
        "connections_per_address",
        count!(1..=65_536, server.connections_per_address),
        Flag::None,
        "Connections that callers without a valid API key may have from one address, if keys are set; beyond it, the one that \
         is idle for longest is closed. Does not apply to loopback and trusted proxies",
    ),
    setting(
        "header_timeout_ms",
        milliseconds!(1..=600_000, server.header_timeout),
        Flag::None,
        "Time limit of a request's head, and of a TLS handshake, in milliseconds",
    ),
    setting(
        "idle_timeout_ms",
        milliseconds!(1..=600_000, server.idle_timeout),
        Flag::None,
        "Time a connection may be idle between requests, in milliseconds",
    ),
    setting(
        "body_timeout_ms",
        milliseconds!(1..=600_000, server.body_timeout),
        Flag::None,
        "Time a request body may pause, or stay below 4 KiB per second, and a response may stay unread, in milliseconds",
    ),
    setting(
        "response_memory_mib",
        mebibytes!(64..=1_048_576, server.response_bytes_max),
        Flag::None,
        "Memory for responses that clients have not read yet, in MiB, shared fairly between API keys (without keys, between \
         addresses); beyond it, large responses are rejected with 503",
    ),
    setting(
        "response_timeout_ms",
        milliseconds!(1..=3_600_000, server.response_timeout),
        Flag::None,
        "Time a client may take to read a response of more than 64 KiB of documents, in milliseconds",
    ),
    setting(
        "read_rate_min_kib",
        kibibytes!(1..=1_048_576, server.read_rate_min),
        Flag::None,
        "KiB per second that a client must read on average while it reads a response; it may fall behind by body_timeout_ms",
    ),
    setting(
        "grace_s",
        seconds!(0..=3600, server.grace),
        Flag::Serve("S"),
        "Seconds that requests in flight may take when the server stops",
    ),
    setting(
        "log",
        (
            Kind::Text { allowed: LOG_ALLOWED, read: log },
            DefaultValue::Value(|settings| settings.log.clone()),
        ),
        Flag::All("FILTER"),
        "What is logged: a level (error, warn, info, debug, trace, off), also per module, such as warn,service=debug",
    ),
    setting("log_json", switch!(log_json), Flag::All(""), "Write log lines as JSON"),
];

/// The setting named `key`.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// What `log` may be.
pub(crate) const LOG_ALLOWED: &str = "levels, alone or for a module, such as info or warn,service=debug";

/// A store. An invalid URL is described, never shown.
fn store(value: &SettingValue<'_>, allowed: &str) -> Result<Assignment, ConfigError> {
    let url = StoreUrl::from(value.text(allowed)?);
    if url.is_valid() {
        Ok(Box::new(move |settings| settings.store = url.clone()))
    } else {
        Err(value.error(allowed, url.describe()))
    }
}

fn log(value: &SettingValue<'_>, allowed: &str) -> Result<Assignment, ConfigError> {
    let text = value.text(allowed)?;
    // EnvFilter takes an unknown level for the name of a module: with `inof`, nothing would be logged.
    let is_level = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    if text.split(',').all(is_level) && EnvFilter::try_new(text).is_ok() {
        let text = text.to_owned();
        Ok(Box::new(move |settings| settings.log.clone_from(&text)))
    } else {
        Err(value.error(allowed, text))
    }
}

fn listen(value: &SettingValue<'_>, allowed: &str) -> Result<Assignment, ConfigError> {
    let text = value.text(allowed)?;
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let address: SocketAddr = numeric.parse().map_err(|_| value.error(allowed, text))?;
    Ok(Box::new(move |settings| settings.server.listen = address))
}

fn networks(value: &SettingValue<'_>, allowed: &str) -> Result<Assignment, ConfigError> {
    let parse =
        |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let networks = value.list(allowed, parse, str::to_owned)?;
    Ok(Box::new(move |settings| settings.server.trusted_proxies.clone_from(&networks)))
}

fn origins(value: &SettingValue<'_>, allowed: &str) -> Result<Assignment, ConfigError> {
    let origins = value.list(allowed, Origin::new, str::to_owned)?;
    Ok(Box::new(move |settings| settings.server.cors_origins.clone_from(&origins)))
}
