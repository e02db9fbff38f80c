//! One source of settings: what it sets, checked as it is read.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use embed::Compute;
use engine::Level;
use serde::Deserialize;

use ipnet::IpNet;

use super::{ApiKey, ConfigError, Flags, KnownKey, Origin, Role, ServeFlags, StoreUrl, in_file, store_url};
use crate::service;

/// What one source sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) home: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) models_dir: Option<PathBuf>,
    pub(super) store: Option<StoreUrl>,
    pub(super) redis_connections: Option<usize>,
    pub(super) redis_timeout_ms: Option<u64>,
    pub(super) wait_replicas: Option<usize>,
    pub(super) read_from_replicas: Option<bool>,
    pub(super) cpu: Option<Level>,
    pub(super) query_compute: Option<Compute>,
    pub(super) document_compute: Option<Compute>,
    pub(super) workers: Option<usize>,
    pub(super) queue_max: Option<usize>,
    pub(super) queue_wait_ms: Option<u64>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) cache_mib: Option<usize>,
    pub(super) query_cache_mib: Option<usize>,
    pub(super) pin_workers: Option<bool>,
    pub(super) disk_reserve_mib: Option<u64>,
    pub(super) memory_max_mib: Option<u64>,
    pub(super) tail_max: Option<usize>,
    pub(super) index_threads: Option<usize>,
    pub(super) log: Option<String>,
    pub(super) log_json: Option<bool>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) api_key: Option<Vec<ApiKey>>,
    pub(super) write_key: Option<Vec<ApiKey>>,
    pub(super) read_key: Option<Vec<ApiKey>>,
    pub(super) keys: Option<Vec<KnownKey>>,
    pub(super) rate_limit: Option<u32>,
    pub(super) trusted_proxies: Option<Vec<IpNet>>,
    pub(super) notify_socket: Option<OsString>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) cors_origins: Option<Vec<Origin>>,
    pub(super) connections_max: Option<usize>,
    pub(super) grace_s: Option<u64>,
    pub(super) header_timeout_ms: Option<u64>,
    pub(super) body_timeout_ms: Option<u64>,
}

/// The file as TOML gives it; a relative path in it is relative to the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    models_dir: Option<PathBuf>,
    store: Option<String>,
    redis_connections: Option<i64>,
    redis_timeout_ms: Option<i64>,
    wait_replicas: Option<i64>,
    read_from_replicas: Option<bool>,
    cpu: Option<String>,
    query_compute: Option<String>,
    document_compute: Option<String>,
    workers: Option<i64>,
    queue_max: Option<i64>,
    queue_wait_ms: Option<i64>,
    timeout_ms: Option<i64>,
    cache_mib: Option<i64>,
    query_cache_mib: Option<i64>,
    pin_workers: Option<bool>,
    disk_reserve_mib: Option<i64>,
    memory_max_mib: Option<i64>,
    tail_max: Option<i64>,
    index_threads: Option<i64>,
    log: Option<String>,
    log_json: Option<bool>,
    listen: Option<String>,
    api_key: Option<OneOrMany>,
    write_key: Option<OneOrMany>,
    read_key: Option<OneOrMany>,
    keys: Option<Vec<KeyTable>>,
    rate_limit: Option<i64>,
    trusted_proxies: Option<Vec<String>>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    cors_origins: Option<Vec<String>>,
    connections_max: Option<i64>,
    grace_s: Option<i64>,
    header_timeout_ms: Option<i64>,
    body_timeout_ms: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

const WORKERS: RangeInclusive<u64> = 1..=1024;
const REDIS_CONNECTIONS: RangeInclusive<u64> = 1..=1024;
const REDIS_TIMEOUT_MS: RangeInclusive<u64> = 1..=600_000;
const WAIT_REPLICAS: RangeInclusive<u64> = 0..=100;
const QUEUE_MAX: RangeInclusive<u64> = 1..=1_000_000;
const TIMEOUT_MS: RangeInclusive<u64> = 1..=600_000;
const CACHE_MIB: RangeInclusive<u64> = 1..=1_048_576;
const QUERY_CACHE_MIB: RangeInclusive<u64> = 0..=65_536;
const MEMORY_MAX_MIB: RangeInclusive<u64> = 0..=16_777_216;
const DISK_RESERVE_MIB: RangeInclusive<u64> = 0..=16_777_216;
const TAIL_MAX: RangeInclusive<u64> = 1..=10_000_000;
const INDEX_THREADS: RangeInclusive<u64> = 1..=256;
const CONNECTIONS_MAX: RangeInclusive<u64> = 1..=65_536;
const GRACE_S: RangeInclusive<u64> = 0..=3600;
const IO_TIMEOUT_MS: RangeInclusive<u64> = 1..=600_000;
const RATE_LIMIT: RangeInclusive<u64> = 0..=1_000_000;

impl Layer {
    /// What the command line sets.
    pub(super) fn from_flags(flags: &Flags, serve: Option<&ServeFlags>) -> Result<Layer, ConfigError> {
        let mut layer = Layer {
            home: flags.home.clone(),
            config: flags.config.clone(),
            data_dir: flags.data_dir.clone(),
            models_dir: flags.models_dir.clone(),
            log: flags.log.clone(),
            log_json: flags.log_json.then_some(true),
            read_from_replicas: flags.read_from_replicas.then_some(true),
            ..Layer::default()
        };
        let mut set = |key: &'static str, text: &Option<String>| match text {
            Some(text) => layer.set(key, text, &format!("--{}", key.replace('_', "-"))).map(drop),
            None => Ok(()),
        };
        set("cpu", &flags.cpu)?;
        set("query_compute", &flags.query_compute)?;
        set("document_compute", &flags.document_compute)?;
        set("workers", &flags.workers)?;
        set("redis_connections", &flags.redis_connections)?;
        set("redis_timeout_ms", &flags.redis_timeout_ms)?;
        set("wait_replicas", &flags.wait_replicas)?;
        if let Some(serve) = serve {
            set("listen", &serve.listen)?;
            set("queue_max", &serve.queue_max)?;
            set("query_cache_mib", &serve.query_cache_mib)?;
            set("queue_wait_ms", &serve.queue_wait_ms)?;
            set("timeout_ms", &serve.timeout_ms)?;
            set("connections_max", &serve.connections_max)?;
            set("grace_s", &serve.grace_s)?;
            set("rate_limit", &serve.rate_limit)?;
            layer.pin_workers = serve.pin_workers.then_some(true);
            layer.api_key = keys("api_key", &serve.api_key, "--api-key")?;
            layer.write_key = keys("write_key", &serve.write_key, "--write-key")?;
            layer.read_key = keys("read_key", &serve.read_key, "--read-key")?;
            layer.trusted_proxies = networks(&serve.trusted_proxies, "--trusted-proxy")?;
            layer.tls_cert = serve.tls_cert.clone();
            layer.tls_key = serve.tls_key.clone();

            layer.cors_origins = origins(&serve.cors_origins, "--cors-origin")?;
        }
        layer.store = flags.store.clone().map(|url| store(url, "--store")).transpose()?;
        Ok(layer)
    }

    /// What variables named `NEARFIELD_KEY` set. An empty one counts as not set.
    pub(super) fn from_environment(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        warnings: &mut Vec<String>,
    ) -> Result<Layer, ConfigError> {
        let mut layer = Layer::default();
        for (name, value) in environment {
            if name == "NOTIFY_SOCKET" {
                layer.notify_socket = Some(value);
                continue;
            }
            let Some(name) = name.to_str().filter(|name| name.starts_with("NEARFIELD_")) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            let key = name["NEARFIELD_".len()..].to_ascii_lowercase();
            match key.as_str() {
                "home" => layer.home = Some(value.into()),
                "config" => layer.config = Some(value.into()),
                "data_dir" => layer.data_dir = Some(value.into()),
                "models_dir" => layer.models_dir = Some(value.into()),
                "tls_cert" => layer.tls_cert = Some(value.into()),
                "tls_key" => layer.tls_key = Some(value.into()),
                key => {
                    let Some(text) = value.to_str() else {
                        return Err(ConfigError::NotUnicode { name: name.to_owned() });
                    };
                    if !layer.set(key, text, name)? {
                        warnings.push(format!("environment variable {name} is not known and does nothing"));
                    }
                }
            }
        }
        Ok(layer)
    }

    /// What the file sets.
    pub(super) fn from_file(path: &Path) -> Result<Layer, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Layer::parse(path, &text)
    }

    /// [`Layer::from_file`], where `text` is what stands in it.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::File { path: path.to_owned(), line, message: without_value(error.message()) }
        })?;
        let from = in_file(path);
        let base = path.parent().unwrap_or(Path::new(""));
        let mut layer = Layer {
            data_dir: file.data_dir.map(|dir| base.join(dir)),
            models_dir: file.models_dir.map(|dir| base.join(dir)),
            tls_cert: file.tls_cert.map(|path| base.join(path)),
            tls_key: file.tls_key.map(|path| base.join(path)),
            log: file.log,
            log_json: file.log_json,
            pin_workers: file.pin_workers,
            read_from_replicas: file.read_from_replicas,
            ..Layer::default()
        };
        let texts = [
            ("cpu", file.cpu),
            ("query_compute", file.query_compute),
            ("document_compute", file.document_compute),
            ("listen", file.listen),
            ("store", file.store),
        ];
        let numbers = [
            ("workers", file.workers),
            ("redis_connections", file.redis_connections),
            ("redis_timeout_ms", file.redis_timeout_ms),
            ("wait_replicas", file.wait_replicas),
            ("queue_max", file.queue_max),
            ("queue_wait_ms", file.queue_wait_ms),
            ("timeout_ms", file.timeout_ms),
            ("cache_mib", file.cache_mib),
            ("query_cache_mib", file.query_cache_mib),
            ("disk_reserve_mib", file.disk_reserve_mib),
            ("memory_max_mib", file.memory_max_mib),
            ("tail_max", file.tail_max),
            ("index_threads", file.index_threads),
            ("connections_max", file.connections_max),
            ("grace_s", file.grace_s),
            ("header_timeout_ms", file.header_timeout_ms),
            ("body_timeout_ms", file.body_timeout_ms),
            ("rate_limit", file.rate_limit),
        ];
        let numbers = numbers.map(|(key, number)| (key, number.map(|number| number.to_string())));
        for (key, text) in texts.into_iter().chain(numbers) {
            if let Some(text) = text {
                layer.set(key, &text, &from)?;
            }
        }
        let many = |keys: Option<OneOrMany>| keys.map_or_else(Vec::new, OneOrMany::into_vec);
        layer.api_key = keys("api_key", &many(file.api_key), &from)?;
        layer.write_key = keys("write_key", &many(file.write_key), &from)?;
        layer.read_key = keys("read_key", &many(file.read_key), &from)?;
        layer.trusted_proxies = networks(&file.trusted_proxies.unwrap_or_default(), &from)?;
        let known = file.keys.unwrap_or_default().into_iter().map(|key| key.known(&from));
        layer.keys = Some(known.collect::<Result<_, _>>()?);
        layer.cors_origins = origins(&file.cors_origins.unwrap_or_default(), &from)?;
        Ok(layer)
    }

    /// Sets one key from text; `false` if there is no such key.
    fn set(&mut self, key: &str, text: &str, from: &str) -> Result<bool, ConfigError> {
        match key {
            "cpu" => self.cpu = Some(cpu(text, from)?),
            "query_compute" => self.query_compute = Some(compute("query_compute", text, from)?),
            "document_compute" => self.document_compute = Some(compute("document_compute", text, from)?),
            "workers" => self.workers = Some(size("workers", text, WORKERS, from)?),
            "store" => self.store = Some(store(text.into(), from)?),
            "redis_connections" => {
                self.redis_connections = Some(size("redis_connections", text, REDIS_CONNECTIONS, from)?);
            }
            "redis_timeout_ms" => {
                self.redis_timeout_ms = Some(number("redis_timeout_ms", text, REDIS_TIMEOUT_MS, from)?);
            }
            "wait_replicas" => {
                self.wait_replicas = Some(size("wait_replicas", text, WAIT_REPLICAS, from)?);
            }
            "read_from_replicas" => {
                self.read_from_replicas = Some(boolean("read_from_replicas", text, from)?);
            }
            "queue_max" => self.queue_max = Some(size("queue_max", text, QUEUE_MAX, from)?),
            "queue_wait_ms" => {
                self.queue_wait_ms = Some(number("queue_wait_ms", text, TIMEOUT_MS, from)?);
            }
            "timeout_ms" => self.timeout_ms = Some(number("timeout_ms", text, TIMEOUT_MS, from)?),
            "cache_mib" => self.cache_mib = Some(size("cache_mib", text, CACHE_MIB, from)?),
            "query_cache_mib" => {
                self.query_cache_mib = Some(size("query_cache_mib", text, QUERY_CACHE_MIB, from)?);
            }
            "pin_workers" => self.pin_workers = Some(boolean("pin_workers", text, from)?),
            "memory_max_mib" => {
                self.memory_max_mib = Some(number("memory_max_mib", text, MEMORY_MAX_MIB, from)?);
            }
            "disk_reserve_mib" => {
                self.disk_reserve_mib = Some(number("disk_reserve_mib", text, DISK_RESERVE_MIB, from)?);
            }
            "tail_max" => self.tail_max = Some(size("tail_max", text, TAIL_MAX, from)?),
            "index_threads" => self.index_threads = Some(size("index_threads", text, INDEX_THREADS, from)?),
            "log" => self.log = Some(text.to_owned()),
            "log_json" => self.log_json = Some(boolean("log_json", text, from)?),
            "listen" => self.listen = Some(listen(text, from)?),
            "api_key" => self.api_key = keys("api_key", &split(text), from)?,
            "write_key" => self.write_key = keys("write_key", &split(text), from)?,
            "read_key" => self.read_key = keys("read_key", &split(text), from)?,
            "trusted_proxies" => self.trusted_proxies = networks(&split(text), from)?,
            "rate_limit" => {
                let limit = number("rate_limit", text, RATE_LIMIT, from)?;
                self.rate_limit = Some(u32::try_from(limit).expect("RATE_LIMIT is within 32 bits"));
            }
            "cors_origins" => self.cors_origins = origins(&split(text), from)?,
            "connections_max" => {
                self.connections_max = Some(size("connections_max", text, CONNECTIONS_MAX, from)?)
            }
            "grace_s" => self.grace_s = Some(number("grace_s", text, GRACE_S, from)?),
            "header_timeout_ms" => {
                self.header_timeout_ms = Some(number("header_timeout_ms", text, IO_TIMEOUT_MS, from)?);
            }
            "body_timeout_ms" => {
                self.body_timeout_ms = Some(number("body_timeout_ms", text, IO_TIMEOUT_MS, from)?)
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// This source with `below` under it.
    pub(super) fn over(self, below: Layer) -> Layer {
        Layer {
            home: self.home.or(below.home),
            config: self.config.or(below.config),
            data_dir: self.data_dir.or(below.data_dir),
            models_dir: self.models_dir.or(below.models_dir),
            store: self.store.or(below.store),
            redis_connections: self.redis_connections.or(below.redis_connections),
            redis_timeout_ms: self.redis_timeout_ms.or(below.redis_timeout_ms),
            wait_replicas: self.wait_replicas.or(below.wait_replicas),
            read_from_replicas: self.read_from_replicas.or(below.read_from_replicas),
            cpu: self.cpu.or(below.cpu),
            query_compute: self.query_compute.or(below.query_compute),
            document_compute: self.document_compute.or(below.document_compute),
            workers: self.workers.or(below.workers),
            queue_max: self.queue_max.or(below.queue_max),
            queue_wait_ms: self.queue_wait_ms.or(below.queue_wait_ms),
            timeout_ms: self.timeout_ms.or(below.timeout_ms),
            cache_mib: self.cache_mib.or(below.cache_mib),
            query_cache_mib: self.query_cache_mib.or(below.query_cache_mib),
            pin_workers: self.pin_workers.or(below.pin_workers),
            disk_reserve_mib: self.disk_reserve_mib.or(below.disk_reserve_mib),
            memory_max_mib: self.memory_max_mib.or(below.memory_max_mib),
            tail_max: self.tail_max.or(below.tail_max),
            index_threads: self.index_threads.or(below.index_threads),
            log: self.log.or(below.log),
            log_json: self.log_json.or(below.log_json),
            listen: self.listen.or(below.listen),
            api_key: self.api_key.or(below.api_key),
            write_key: self.write_key.or(below.write_key),
            read_key: self.read_key.or(below.read_key),
            keys: self.keys.or(below.keys),
            rate_limit: self.rate_limit.or(below.rate_limit),
            trusted_proxies: self.trusted_proxies.or(below.trusted_proxies),
            notify_socket: self.notify_socket.or(below.notify_socket),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            cors_origins: self.cors_origins.or(below.cors_origins),
            connections_max: self.connections_max.or(below.connections_max),
            grace_s: self.grace_s.or(below.grace_s),
            header_timeout_ms: self.header_timeout_ms.or(below.header_timeout_ms),
            body_timeout_ms: self.body_timeout_ms.or(below.body_timeout_ms),
        }
    }
}

/// What is wrong with a value, without the value: it may be a key.
fn without_value(message: &str) -> String {
    let shown = message.find(['"', '`']).filter(|_| message.starts_with("invalid "));
    match (shown, message.rfind(", expected ")) {
        (Some(value), Some(expected)) if value < expected => {
            format!("{}{}", message[..value].trim_end(), &message[expected..])
        }
        (Some(value), _) => message[..value].trim_end().to_owned(),
        (None, _) => message.to_owned(),
    }
}

fn refuse<T>(
    key: &'static str,
    from: &str,
    allowed: impl Into<String>,
    found: &str,
) -> Result<T, ConfigError> {
    Err(ConfigError::Value { from: from.to_owned(), key, allowed: allowed.into(), found: found.to_owned() })
}

fn number(key: &'static str, text: &str, range: RangeInclusive<u64>, from: &str) -> Result<u64, ConfigError> {
    match text.trim().parse::<u64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => refuse(key, from, format!("a whole number from {} to {}", range.start(), range.end()), text),
    }
}

fn size(key: &'static str, text: &str, range: RangeInclusive<u64>, from: &str) -> Result<usize, ConfigError> {
    number(key, text, range, from).map(|number| {
        usize::try_from(number).expect("every range above ends below the smallest usize in use")
    })
}

fn boolean(key: &'static str, text: &str, from: &str) -> Result<bool, ConfigError> {
    match text.trim() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => refuse(key, from, "true or false", text),
    }
}

fn cpu(text: &str, from: &str) -> Result<Level, ConfigError> {
    match Level::from_name(text.trim()) {
        Some(level) => Ok(level),
        None => refuse("cpu", from, Level::ALL.map(Level::name).join(", "), text),
    }
}

/// A store. A refused URL is described, never shown.
fn store(url: StoreUrl, from: &str) -> Result<StoreUrl, ConfigError> {
    match url.place() {
        Some(_) => Ok(url),
        None => refuse("store", from, store_url::ALLOWED, &url.describe()),
    }
}

fn compute(key: &'static str, text: &str, from: &str) -> Result<Compute, ConfigError> {
    match Compute::from_name(text.trim()) {
        Some(compute) => Ok(compute),
        None => refuse(key, from, Compute::ALL.map(Compute::name).join(", "), text),
    }
}

fn listen(text: &str, from: &str) -> Result<SocketAddr, ConfigError> {
    let numeric = match text.trim().strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.trim().to_owned(),
    };
    match numeric.parse() {
        Ok(address) => Ok(address),
        Err(_) => {
            refuse("listen", from, "an IP address and a port, such as 127.0.0.1:8000 or [::1]:8000", text)
        }
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

const KEY_ALLOWED: &str = "16 to 1024 visible ASCII characters";

/// A key that is for certain collections, as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    key: Option<String>,
    /// Of the key, in hexadecimal, for a file that many may read.
    sha256: Option<String>,
    role: String,
    #[serde(default)]
    collections: Vec<String>,
}

impl KeyTable {
    fn known(self, from: &str) -> Result<KnownKey, ConfigError> {
        let digest = match (&self.key, &self.sha256) {
            (Some(key), None) => match ApiKey::new(key.as_str()) {
                Some(key) => key.digest(),
                None => {
                    let found = format!("one of {} characters", key.chars().count());
                    return refuse("keys.key", from, KEY_ALLOWED, &found);
                }
            },
            (None, Some(text)) => match digest(text) {
                Some(digest) => digest,
                None => {
                    // It may be the key itself, put in the wrong place.
                    let found = format!("{} characters", text.chars().count());
                    return refuse("keys.sha256", from, "64 hexadecimal digits", &found);
                }
            },
            _ => return refuse("keys", from, "a key or its sha256, one of them", "both or neither"),
        };
        let Some(role) = Role::ALL.into_iter().find(|role| role.name() == self.role) else {
            return refuse("keys.role", from, Role::ALL.map(Role::name).join(", "), &self.role);
        };
        if role == Role::Admin && !self.collections.is_empty() {
            return refuse(
                "keys.collections",
                from,
                "none for an admin, who sees all",
                &self.collections.join(", "),
            );
        }
        for name in &self.collections {
            if service::check_name(name).is_err() {
                return refuse("keys.collections", from, "names of collections", name);
            }
        }
        Ok(KnownKey { digest, role, collections: self.collections })
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

/// Networks, or `None` where none are given.
fn networks(texts: &[String], from: &str) -> Result<Option<Vec<IpNet>>, ConfigError> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        let parsed = text.parse::<IpNet>().ok();
        match parsed.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) {
            Some(network) => networks.push(network),
            None => return refuse("trusted_proxies", from, "networks such as 10.0.0.0/8 or fd00::/8", text),
        }
    }
    Ok((!networks.is_empty()).then_some(networks))
}

/// Keys, or `None` where none are given. A refused key is described, never shown.
fn keys(setting: &'static str, texts: &[String], from: &str) -> Result<Option<Vec<ApiKey>>, ConfigError> {
    let mut keys = Vec::with_capacity(texts.len());
    for text in texts {
        match ApiKey::new(text.as_str()) {
            Some(key) => keys.push(key),
            None => {
                let found = format!("one of {} characters", text.chars().count());
                return refuse(setting, from, KEY_ALLOWED, &found);
            }
        }
    }
    Ok((!keys.is_empty()).then_some(keys))
}

fn origins(texts: &[String], from: &str) -> Result<Option<Vec<Origin>>, ConfigError> {
    let mut origins = Vec::with_capacity(texts.len());
    for text in texts {
        match Origin::new(text) {
            Some(origin) => origins.push(origin),
            None => {
                let allowed = "origins such as https://app.example.com, without a path and without *";
                return refuse("cors_origins", from, allowed, text);
            }
        }
    }
    Ok((!origins.is_empty()).then_some(origins))
}
