//! One source of settings: what it sets, checked as it is read.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use embed::ComputeType;
use engine::{Durability, Level};
use ipnet::IpNet;

use super::{
    ApiKey, ConfigError, Flags, KnownKey, Origin, ServeFlags, StoreUrl,
    given::{Given, Raw},
    list,
};

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
    pub(super) query_compute: Option<ComputeType>,
    pub(super) document_compute: Option<ComputeType>,
    pub(super) workers: Option<usize>,
    pub(super) queue_max: Option<usize>,
    pub(super) queue_wait_ms: Option<u64>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) cache_mib: Option<usize>,
    pub(super) query_cache_mib: Option<usize>,
    pub(super) pin_workers: Option<bool>,
    pub(super) disk_reserve_mib: Option<u64>,
    pub(super) memory_max_mib: Option<u64>,
    pub(super) durability: Option<Durability>,
    pub(super) tail_max: Option<usize>,
    pub(super) index_threads: Option<usize>,
    pub(super) log: Option<String>,
    pub(super) log_json: Option<bool>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) api_key: Option<Vec<ApiKey>>,
    pub(super) write_key: Option<Vec<ApiKey>>,
    pub(super) read_key: Option<Vec<ApiKey>>,
    pub(super) keys: Option<Vec<KnownKey>>,
    pub(super) rate_limit: Option<u64>,
    pub(super) trusted_proxies: Option<Vec<IpNet>>,
    pub(super) notify_socket: Option<OsString>,
    pub(super) ca_cert: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) cors_origins: Option<Vec<Origin>>,
    pub(super) connections_max: Option<usize>,
    pub(super) grace_s: Option<u64>,
    pub(super) header_timeout_ms: Option<u64>,
    pub(super) idle_timeout_ms: Option<u64>,
    pub(super) body_timeout_ms: Option<u64>,
}

impl Layer {
    /// What the command line sets.
    pub(super) fn from_flags(flags: &Flags, serve: Option<&ServeFlags>) -> Result<Layer, ConfigError> {
        let mut layer = Layer { home: flags.home.clone(), config: flags.config.clone(), ..Layer::default() };
        layer.set_flags(&[
            ("data_dir", path(&flags.data_dir)),
            ("models_dir", path(&flags.models_dir)),
            ("ca_cert", path(&flags.ca_cert)),
            ("store", flags.store.as_ref().map(|url| Raw::Word(url.reveal().as_ref()))),
            ("redis_connections", word(&flags.redis_connections)),
            ("redis_timeout_ms", word(&flags.redis_timeout_ms)),
            ("wait_replicas", word(&flags.wait_replicas)),
            ("read_from_replicas", switch(flags.read_from_replicas)),
            ("cpu", word(&flags.cpu)),
            ("query_compute", word(&flags.query_compute)),
            ("document_compute", word(&flags.document_compute)),
            ("workers", word(&flags.workers)),
            ("log", word(&flags.log)),
            ("log_json", switch(flags.log_json)),
        ])?;
        let Some(serve) = serve else { return Ok(layer) };
        layer.set_flags(&[
            ("listen", word(&serve.listen)),
            ("api_key", words(&serve.api_key)),
            ("write_key", words(&serve.write_key)),
            ("read_key", words(&serve.read_key)),
            ("rate_limit", word(&serve.rate_limit)),
            ("trusted_proxies", words(&serve.trusted_proxies)),
            ("tls_cert", path(&serve.tls_cert)),
            ("tls_key", path(&serve.tls_key)),
            ("cors_origins", words(&serve.cors_origins)),
            ("durability", word(&serve.durability)),
            ("queue_max", word(&serve.queue_max)),
            ("queue_wait_ms", word(&serve.queue_wait_ms)),
            ("query_cache_mib", word(&serve.query_cache_mib)),
            ("pin_workers", switch(serve.pin_workers)),
            ("timeout_ms", word(&serve.timeout_ms)),
            ("connections_max", word(&serve.connections_max)),
            ("grace_s", word(&serve.grace_s)),
        ])?;
        Ok(layer)
    }

    fn set_flags(&mut self, flags: &[(&str, Option<Raw<'_>>)]) -> Result<(), ConfigError> {
        for &(key, raw) in flags {
            let setting = list::find(key).expect("every flag is of a setting");
            let Some(raw) = raw else { continue };
            // What may be repeated is named for one of them.
            let flag = match key {
                "trusted_proxies" => "--trusted-proxy".to_owned(),
                "cors_origins" => "--cors-origin".to_owned(),
                key => format!("--{}", key.replace('_', "-")),
            };
            (setting.set)(self, &Given { key: setting.key, from: flag, raw })?;
        }
        Ok(())
    }

    /// What variables named `NEARFIELD_KEY` set. An empty one counts as not set. One that is not known is a warning
    /// and no error: Kubernetes gives every container variables named for its services (`NEARFIELD_PORT`).
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
            match (key.as_str(), list::find(&key)) {
                ("home", _) => layer.home = Some(value.into()),
                ("config", _) => layer.config = Some(value.into()),
                (_, Some(setting)) => {
                    let raw = Raw::Word(&value);
                    (setting.set)(&mut layer, &Given { key: setting.key, from: name.to_owned(), raw })?;
                }
                (_, None) => {
                    warnings.push(format!("environment variable {name} is not known and does nothing"));
                }
            }
        }
        Ok(layer)
    }

    /// Keys in it.
    pub(super) fn keys_count(&self) -> usize {
        let Layer { api_key, write_key, read_key, keys, .. } = self;
        let plain = [api_key, write_key, read_key].into_iter().flatten().map(Vec::len).sum::<usize>();
        plain + keys.as_ref().map_or(0, Vec::len)
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
            durability: self.durability.or(below.durability),
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
            ca_cert: self.ca_cert.or(below.ca_cert),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            cors_origins: self.cors_origins.or(below.cors_origins),
            connections_max: self.connections_max.or(below.connections_max),
            grace_s: self.grace_s.or(below.grace_s),
            header_timeout_ms: self.header_timeout_ms.or(below.header_timeout_ms),
            idle_timeout_ms: self.idle_timeout_ms.or(below.idle_timeout_ms),
            body_timeout_ms: self.body_timeout_ms.or(below.body_timeout_ms),
        }
    }
}

fn word(value: &Option<String>) -> Option<Raw<'_>> {
    value.as_ref().map(|text| Raw::Word(text.as_ref()))
}

fn words(values: &[String]) -> Option<Raw<'_>> {
    (!values.is_empty()).then_some(Raw::Words(values))
}

fn path(value: &Option<PathBuf>) -> Option<Raw<'_>> {
    value.as_ref().map(|path| Raw::Word(path.as_os_str()))
}

fn switch(is_on: bool) -> Option<Raw<'static>> {
    is_on.then(|| Raw::Word("true".as_ref()))
}
