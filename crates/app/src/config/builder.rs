//! Settings under construction: every default, then the values of the sources.

use std::{collections::HashMap, path::PathBuf};

use server::serve::{ServerSettings, TlsFiles};
use service::Durability;
use service::{self, RedisStore, Store};

use server::access::{AcceptedKey, ApiKey, Role};

use super::{error::ConfigError, settings::Settings, store_url::StoreUrl};

/// Settings under construction. A new one holds the defaults: those of `service::Config::new`, `ServerSettings::new` and
/// `RedisStore::new`, which state them.
pub(super) struct SettingsBuilder {
    pub(super) home: PathBuf,
    /// The server's settings, and in them those of the service.
    pub(super) server: ServerSettings,
    pub(super) store: StoreUrl,
    /// How a Redis is used, if `store` names one.
    pub(super) redis: RedisStore,
    /// Set explicitly.
    pub(super) durability: Option<Durability>,
    pub(super) api_keys: Vec<ApiKey>,
    pub(super) write_keys: Vec<ApiKey>,
    pub(super) read_keys: Vec<ApiKey>,
    pub(super) collection_keys: Vec<AcceptedKey>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) ca_cert: Option<PathBuf>,
    pub(super) log: String,
    pub(super) log_json: bool,
}

impl SettingsBuilder {
    /// The defaults.
    pub(super) fn new(home: PathBuf) -> SettingsBuilder {
        SettingsBuilder {
            server: ServerSettings::new(service::Config::new(home.join("data"), home.join("models"))),
            home,
            store: StoreUrl::from("directory"),
            redis: RedisStore::new(""),
            durability: None,
            api_keys: Vec::new(),
            write_keys: Vec::new(),
            read_keys: Vec::new(),
            collection_keys: Vec::new(),
            tls_cert: None,
            tls_key: None,
            ca_cert: None,
            log: "info".to_owned(),
            log_json: false,
        }
    }

    /// The API keys of all roles.
    pub(super) fn keys(&self) -> Vec<AcceptedKey> {
        let with_role =
            |keys: &[ApiKey], role| keys.iter().map(|key| AcceptedKey::new(key, role)).collect::<Vec<_>>();
        [
            with_role(&self.api_keys, Role::Admin),
            with_role(&self.write_keys, Role::Write),
            with_role(&self.read_keys, Role::Read),
            self.collection_keys.clone(),
        ]
        .concat()
    }

    /// Fails if a key is listed more than once: which of its roles counts would depend on the order.
    fn check_distinct_keys(&self) -> Result<(), ConfigError> {
        let digests = |keys: &[ApiKey]| keys.iter().map(ApiKey::digest).collect::<Vec<_>>();
        let lists = [
            ("api_key", digests(&self.api_keys)),
            ("write_key", digests(&self.write_keys)),
            ("read_key", digests(&self.read_keys)),
            ("keys", self.collection_keys.iter().map(|key| key.digest).collect()),
        ];
        let mut seen = HashMap::new();
        for (setting, digests) in lists {
            for (number, digest) in (1..).zip(digests) {
                let place = format!("number {number} of {setting}");
                if let Some(first) = seen.insert(digest, place.clone()) {
                    return Err(ConfigError::RepeatedKey { first, second: place });
                }
            }
        }
        Ok(())
    }

    /// Checks what concerns several settings at once.
    pub(super) fn build(mut self, mut warnings: Vec<String>) -> Result<Settings, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.server.service.workers;
        if workers > 2 * cores {
            warnings.push(format!(
                "workers is {workers}, more than two per core ({cores} cores): they compete for the processor"
            ));
        }
        self.check_distinct_keys()?;
        self.server.keys.keys = self.keys();
        self.server.tls = match (self.tls_cert, self.tls_key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (Some(_), None) => return Err(ConfigError::Missing { key: "tls_key" }),
            (None, Some(_)) => return Err(ConfigError::Missing { key: "tls_cert" }),
        };
        if self.store.is_redis() {
            let url = self.store.reveal().to_owned();
            self.server.service.store = Store::Redis(RedisStore { url, ..self.redis });
            if let Some(durability) = self.durability {
                warnings.push(format!(
                    "durability is {} and does nothing: documents are kept in Redis, whose appendfsync setting decides \
                     when writes are durable",
                    durability.name()
                ));
            }
        }
        if let Some(durability) = self.durability {
            self.server.service.durability = durability;
        }
        Ok(Settings {
            home: self.home,
            client_key: [self.api_keys, self.write_keys, self.read_keys].into_iter().flatten().next(),
            server: self.server,
            ca_cert: self.ca_cert,
            log: self.log,
            log_json: self.log_json,
            warnings,
        })
    }
}
