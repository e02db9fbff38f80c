//! The URL of a store.

use std::fmt;

/// The URL of a store. Never shown: it may contain a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

/// What is allowed.
pub(super) const ALLOWED: &str = "directory, redis://[[USER]:PASSWORD@]HOST[:PORT], redis-cluster:// with several hosts separated by commas, \
                                  or the same with rediss:// or rediss-cluster:// for TLS; special characters in a password are \
                                  percent-encoded, and the database is 0, the only one that RediSearch indexes";

impl StoreUrl {
    /// Whether it names the data directory.
    pub(super) fn is_directory(&self) -> bool {
        self.0 == "directory"
    }

    /// Whether it names the data directory or a Redis.
    pub(super) fn is_valid(&self) -> bool {
        self.is_directory() || self.is_redis()
    }

    /// Whether it is a valid URL of a Redis or a Redis Cluster.
    pub(super) fn is_redis(&self) -> bool {
        let Some((scheme, rest)) = self.0.split_once("://") else { return false };
        let is_cluster = match scheme {
            "redis" | "rediss" => false,
            "redis-cluster" | "rediss-cluster" => true,
            _ => return false,
        };
        let address = rest.split('?').next().unwrap_or_default();
        let (authority, database) = address.split_once('/').unwrap_or((address, ""));
        let hosts = authority.rsplit('@').next().unwrap_or_default();
        let is_host = |host: &str| !host.is_empty() && !host.starts_with(':');
        let has_hosts =
            if is_cluster { hosts.split(',').all(is_host) } else { is_host(hosts) && !hosts.contains(',') };
        has_hosts
            && matches!(database, "" | "0")
            && self.0.bytes().all(|byte| byte.is_ascii_graphic())
            && !self.0.contains('#')
    }

    /// What an error may show of an invalid one: at most its scheme.
    pub(super) fn describe(&self) -> String {
        let is_scheme = |scheme: &&str| {
            (1..=16).contains(&scheme.len())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        match self.0.split_once("://").map(|(scheme, _)| scheme).filter(is_scheme) {
            Some(scheme) => format!("{scheme}://..."),
            None => format!("{} characters without a scheme", self.0.chars().count()),
        }
    }

    /// The URL itself, to connect with.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for StoreUrl {
    fn from(url: &str) -> StoreUrl {
        StoreUrl(url.trim().to_owned())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoreUrl(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_store_urls_and_describes_invalid_ones_without_secrets() {
        let kind = |url: &str| (StoreUrl::from(url).is_directory(), StoreUrl::from(url).is_redis());
        assert_eq!(kind("directory"), (true, false));
        for url in [
            "redis://localhost",
            "redis://127.0.0.1:6379/0",
            "rediss://ada:p%40ss@redis.example.com:6380/0?protocol=resp2",
            "redis://:secret@[::1]:6379",
            "redis-cluster://one",
            "rediss-cluster://ada:secret@one:7001,two:7002/0?protocol=resp2",
        ] {
            assert_eq!(kind(url), (false, true), "{url}");
        }
        for (url, described) in [
            ("http://ada:secret@host", "http://..."),
            ("redis://", "redis://..."),
            ("redis://ada:secret@", "redis://..."),
            ("redis://ada:secret@:6379", "redis://..."),
            ("redis://ada:se cret@host", "redis://..."),
            ("redis://ada:secret@host/1", "redis://..."),
            ("redis://ada:secret@one,two", "redis://..."),
            ("redis-cluster://ada:secret@one,,two", "redis-cluster://..."),
            ("redis://ada:sec/ret@host", "redis://..."),
            ("ada:secret@host:6379", "20 characters without a scheme"),
            ("ada:secret://host", "17 characters without a scheme"),
            ("", "0 characters without a scheme"),
        ] {
            assert_eq!(kind(url), (false, false), "{url}");
            let invalid = StoreUrl::from(url);
            assert_eq!(invalid.describe(), described);
            assert!(!format!("{invalid:?}").contains("secret"));
        }
    }
}
