//! One source of settings: what it sets, checked as it is read.

use std::{
    ffi::OsString,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use embed::Compute;
use engine::Level;
use serde::Deserialize;

use super::{ApiKey, ConfigError, Flags, Origin, ServeFlags, StoreUrl, in_file, store_url};

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
    pub(super) timeout_ms: Option<u64>,
    pub(super) cache_mib: Option<usize>,
    pub(super) query_cache_mib: Option<usize>,
    pub(super) pin_workers: Option<bool>,
    pub(super) tail_max: Option<usize>,
    pub(super) index_threads: Option<usize>,
    pub(super) log: Option<String>,
    pub(super) log_json: Option<bool>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) api_key: Option<Vec<ApiKey>>,
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
    timeout_ms: Option<i64>,
    cache_mib: Option<i64>,
    query_cache_mib: Option<i64>,
    pin_workers: Option<bool>,
    tail_max: Option<i64>,
    index_threads: Option<i64>,
    log: Option<String>,
    log_json: Option<bool>,
    listen: Option<String>,
    api_key: Option<OneOrMany>,
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
const TAIL_MAX: RangeInclusive<u64> = 1..=10_000_000;
const INDEX_THREADS: RangeInclusive<u64> = 1..=256;
const CONNECTIONS_MAX: RangeInclusive<u64> = 1..=65_536;
const GRACE_S: RangeInclusive<u64> = 0..=3600;
const IO_TIMEOUT_MS: RangeInclusive<u64> = 1..=600_000;

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
            set("timeout_ms", &serve.timeout_ms)?;
            set("connections_max", &serve.connections_max)?;
            set("grace_s", &serve.grace_s)?;
            layer.pin_workers = serve.pin_workers.then_some(true);
            layer.api_key = keys(&serve.api_key, "--api-key")?;
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
        let file: File = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::File { path: path.to_owned(), line, message: error.message().to_owned() }
        })?;
        let from = in_file(path);
        let base = path.parent().unwrap_or(Path::new(""));
        let mut layer = Layer {
            data_dir: file.data_dir.map(|dir| base.join(dir)),
            models_dir: file.models_dir.map(|dir| base.join(dir)),
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
            ("timeout_ms", file.timeout_ms),
            ("cache_mib", file.cache_mib),
            ("query_cache_mib", file.query_cache_mib),
            ("tail_max", file.tail_max),
            ("index_threads", file.index_threads),
            ("connections_max", file.connections_max),
            ("grace_s", file.grace_s),
            ("header_timeout_ms", file.header_timeout_ms),
            ("body_timeout_ms", file.body_timeout_ms),
        ];
        let numbers = numbers.map(|(key, number)| (key, number.map(|number| number.to_string())));
        for (key, text) in texts.into_iter().chain(numbers) {
            if let Some(text) = text {
                layer.set(key, &text, &from)?;
            }
        }
        layer.api_key = keys(&file.api_key.map_or_else(Vec::new, OneOrMany::into_vec), &from)?;
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
            "timeout_ms" => self.timeout_ms = Some(number("timeout_ms", text, TIMEOUT_MS, from)?),
            "cache_mib" => self.cache_mib = Some(size("cache_mib", text, CACHE_MIB, from)?),
            "query_cache_mib" => {
                self.query_cache_mib = Some(size("query_cache_mib", text, QUERY_CACHE_MIB, from)?);
            }
            "pin_workers" => self.pin_workers = Some(boolean("pin_workers", text, from)?),
            "tail_max" => self.tail_max = Some(size("tail_max", text, TAIL_MAX, from)?),
            "index_threads" => self.index_threads = Some(size("index_threads", text, INDEX_THREADS, from)?),
            "log" => self.log = Some(text.to_owned()),
            "log_json" => self.log_json = Some(boolean("log_json", text, from)?),
            "listen" => self.listen = Some(listen(text, from)?),
            "api_key" => self.api_key = keys(&split(text), from)?,
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
            timeout_ms: self.timeout_ms.or(below.timeout_ms),
            cache_mib: self.cache_mib.or(below.cache_mib),
            query_cache_mib: self.query_cache_mib.or(below.query_cache_mib),
            pin_workers: self.pin_workers.or(below.pin_workers),
            tail_max: self.tail_max.or(below.tail_max),
            index_threads: self.index_threads.or(below.index_threads),
            log: self.log.or(below.log),
            log_json: self.log_json.or(below.log_json),
            listen: self.listen.or(below.listen),
            api_key: self.api_key.or(below.api_key),
            cors_origins: self.cors_origins.or(below.cors_origins),
            connections_max: self.connections_max.or(below.connections_max),
            grace_s: self.grace_s.or(below.grace_s),
            header_timeout_ms: self.header_timeout_ms.or(below.header_timeout_ms),
            body_timeout_ms: self.body_timeout_ms.or(below.body_timeout_ms),
        }
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

/// Keys, or `None` where none are given. A refused key is described, never shown.
fn keys(texts: &[String], from: &str) -> Result<Option<Vec<ApiKey>>, ConfigError> {
    let mut keys = Vec::with_capacity(texts.len());
    for text in texts {
        match ApiKey::new(text.as_str()) {
            Some(key) => keys.push(key),
            None => {
                let found = format!("one of {} characters", text.chars().count());
                return refuse("api_key", from, "16 to 1024 visible ASCII characters", &found);
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
