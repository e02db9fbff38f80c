//! Authentication and rate limiting of requests.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    ApiKeys, Denial, Grant,
    limits::{CallerId, Limits, Network},
};

/// Settings of [`AccessControl`].
#[derive(Clone, Debug)]
pub struct AccessSettings {
    /// The keys that are accepted; without any, every caller may do everything.
    pub keys: ApiKeys,
    /// Wrong keys per minute and network after which keys of this network are no longer checked.
    pub wrong_keys_max: u32,
    /// Requests per second and key, or per network without a key; 0: unlimited.
    pub rate_limit: u32,
}

impl Default for AccessSettings {
    fn default() -> AccessSettings {
        AccessSettings { keys: ApiKeys::default(), wrong_keys_max: 10, rate_limit: 0 }
    }
}

/// Authenticates and rate-limits callers. One instance serves all interfaces, so that limits hold across them.
#[derive(Debug)]
pub struct AccessControl {
    keys: ArcSwap<ApiKeys>,
    limits: Limits,
}

impl Default for AccessControl {
    fn default() -> AccessControl {
        AccessControl::new(AccessSettings::default())
    }
}

impl AccessControl {
    /// Access control with these settings.
    pub fn new(settings: AccessSettings) -> AccessControl {
        let AccessSettings { keys, wrong_keys_max, rate_limit } = settings;
        AccessControl { keys: ArcSwap::from_pointee(keys), limits: Limits::new(wrong_keys_max, rate_limit) }
    }

    /// Replaces the keys. Limits keep their counts, which belong to the digests of keys.
    pub fn replace_keys(&self, keys: ApiKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// Whether callers need a key.
    pub fn requires_key(&self) -> bool {
        !self.keys.load().is_empty()
    }

    /// Fails while keys from `network` are not checked because of too many wrong ones.
    pub fn check_lockout(&self, network: Option<Network>) -> Result<(), Denial> {
        match network.and_then(|network| self.limits.lockout(network)) {
            Some(retry_after) => Err(Denial::LockedOut { retry_after }),
            None => Ok(()),
        }
    }

    /// The grant of a caller that sent `key`. A wrong key counts towards the lockout of its network; `None` is a caller
    /// within the process.
    pub fn authenticate(&self, key: Option<&[u8]>, network: Option<Network>) -> Result<Grant, Denial> {
        let keys = self.keys.load();
        if keys.is_empty() {
            return Ok(Grant::unrestricted());
        }
        self.check_lockout(network)?;
        let Some(key) = key else { return Err(Denial::KeyMissing) };
        match keys.grant(key) {
            Some(grant) => Ok(grant),
            None => {
                network.into_iter().for_each(|network| self.limits.record_wrong_key(network));
                Err(Denial::KeyUnknown)
            }
        }
    }

    /// Counts a request against the limit of its caller.
    pub fn check_rate(&self, caller: CallerId) -> Result<(), Denial> {
        match self.limits.check_rate(caller) {
            Some(retry_after) => Err(Denial::RateLimited { retry_after }),
            None => Ok(()),
        }
    }
}
