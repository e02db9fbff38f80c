//! Every setting there is, with what it takes.

use std::net::{IpAddr, SocketAddr};

use embed::ComputeType;
use engine::{Durability, Level};
use ipnet::IpNet;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{ApiKey, ConfigError, Origin, StoreUrl, given::Given, key_table, layer::Layer, store_url};

/// A setting: a key of the file, the variable `NEARFIELD_KEY`, and often a flag.
pub(super) struct Setting {
    pub(super) key: &'static str,
    /// Reads what is given into a layer's field of the same name.
    pub(super) set: fn(&mut Layer, &Given<'_>) -> Result<(), ConfigError>,
}

macro_rules! settings {
    ($($key:ident = $read:expr,)*) => {
        /// Every setting.
        pub(super) const SETTINGS: &[Setting] = &[$(Setting {
            key: stringify!($key),
            set: |layer, given| {
                let read: fn(&Given<'_>) -> Result<_, ConfigError> = $read;
                layer.$key = Some(read(given)?);
                Ok(())
            },
        }),*];
    };
}

settings! {
    data_dir = |given| given.path(),
    models_dir = |given| given.path(),
    store = store,
    redis_connections = |given| given.size(1..=1024),
    redis_timeout_ms = |given| given.number(1..=600_000),
    wait_replicas = |given| given.size(0..=100),
    read_from_replicas = |given| given.boolean(),
    cpu = |given| given.one_of(&Level::ALL, Level::name),
    query_compute = |given| given.one_of(&ComputeType::ALL, ComputeType::name),
    document_compute = |given| given.one_of(&ComputeType::ALL, ComputeType::name),
    workers = |given| given.size(1..=1024),
    queue_max = |given| given.size(1..=1_000_000),
    queue_wait_ms = |given| given.number(1..=600_000),
    timeout_ms = |given| given.number(1..=600_000),
    cache_mib = |given| given.size(1..=1_048_576),
    query_cache_mib = |given| given.size(0..=65_536),
    pin_workers = |given| given.boolean(),
    disk_reserve_mib = |given| given.number(0..=16_777_216),
    memory_max_mib = |given| given.number(0..=16_777_216),
    durability = |given| given.one_of(&Durability::ALL, Durability::name),
    tail_max = |given| given.size(1..=10_000_000),
    index_threads = |given| given.size(1..=256),
    log = log,
    log_json = |given| given.boolean(),
    listen = listen,
    api_key = api_keys,
    write_key = api_keys,
    read_key = api_keys,
    keys = key_table::known_keys,
    rate_limit = |given| given.number(0..=1_000_000),
    trusted_proxies = networks,
    ca_cert = |given| given.path(),
    tls_cert = |given| given.path(),
    tls_key = |given| given.path(),
    cors_origins = origins,
    connections_max = |given| given.size(1..=65_536),
    grace_s = |given| given.number(0..=3600),
    header_timeout_ms = |given| given.number(1..=600_000),
    idle_timeout_ms = |given| given.number(1..=600_000),
    body_timeout_ms = |given| given.number(1..=600_000),
}

/// The setting of this key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// A store. A refused URL is described, never shown.
fn store(given: &Given<'_>) -> Result<StoreUrl, ConfigError> {
    let url = StoreUrl::from(given.text(store_url::ALLOWED)?);
    match url.place() {
        Some(_) => Ok(url),
        None => Err(given.refuse(store_url::ALLOWED, url.describe())),
    }
}

fn log(given: &Given<'_>) -> Result<String, ConfigError> {
    let allowed = "levels, alone or for a module, such as info or warn,service=debug";
    let text = given.text(allowed)?;
    // The filter takes a lone word for a module's name: with `inof`, nothing would be logged any more.
    let is_level = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    if text.split(',').all(is_level) && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err(given.refuse(allowed, text))
    }
}

fn listen(given: &Given<'_>) -> Result<SocketAddr, ConfigError> {
    let allowed = "an IP address and a port, such as 127.0.0.1:8000 or [::1]:8000";
    let text = given.text(allowed)?;
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| given.refuse(allowed, text))
}

fn networks(given: &Given<'_>) -> Result<Vec<IpNet>, ConfigError> {
    let read =
        |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    given.each("networks such as 10.0.0.0/8 or fd00::/8", read, str::to_owned)
}

fn origins(given: &Given<'_>) -> Result<Vec<Origin>, ConfigError> {
    let allowed = "origins such as https://app.example.com, without a path and without *";
    given.each(allowed, Origin::new, str::to_owned)
}

/// Keys. A refused key is described, never shown.
fn api_keys(given: &Given<'_>) -> Result<Vec<ApiKey>, ConfigError> {
    given.each(ApiKey::ALLOWED, |text| ApiKey::new(text), ApiKey::describe)
}
