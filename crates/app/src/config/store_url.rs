//! Where documents are kept, as it is given.

use std::fmt;

/// A store's URL, which is never shown: it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

/// What a store's URL names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The data directory.
    Directory,
    /// A Redis, or a cluster of them.
    Redis,
}

/// What may be given.
pub(super) const ALLOWED: &str = "directory, redis://[[USER]:PASSWORD@]HOST[:PORT], redis-cluster:// with several hosts after commas, or the \
                                  same with rediss:// or rediss-cluster:// for TLS; what is special in a password is percent-encoded, and \
                                  the database is 0, the only one that is indexed";

impl StoreUrl {
    /// What it names; `None` for what no store has.
    pub(super) fn place(&self) -> Option<Place> {
        if self.0 == "directory" {
            return Some(Place::Directory);
        }
        let (scheme, rest) = self.0.split_once("://")?;
        let is_cluster = match scheme {
            "redis" | "rediss" => false,
            "redis-cluster" | "rediss-cluster" => true,
            _ => return None,
        };
        let place = rest.split('?').next().unwrap_or_default();
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let hosts = authority.rsplit('@').next().unwrap_or_default();
        let is_host = |host: &str| !host.is_empty() && !host.starts_with(':');
        let is_named =
            if is_cluster { hosts.split(',').all(is_host) } else { is_host(hosts) && !hosts.contains(',') };
        let is_named = is_named && matches!(database, "" | "0");
        (is_named && self.0.bytes().all(|byte| byte.is_ascii_graphic()) && !self.0.contains('#'))
            .then_some(Place::Redis)
    }

    /// What can be told of one that is refused: no more than its scheme.
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
        let place = |url: &str| StoreUrl::from(url).place();
        assert_eq!(place("directory"), Some(Place::Directory));
        for url in [
            "redis://localhost",
            "redis://127.0.0.1:6379/0",
            "rediss://ada:p%40ss@redis.example.com:6380/0?protocol=resp2",
            "redis://:secret@[::1]:6379",
            "redis-cluster://one",
            "rediss-cluster://ada:secret@one:7001,two:7002/0?protocol=resp2",
        ] {
            assert_eq!(place(url), Some(Place::Redis), "{url}");
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
            assert_eq!(place(url), None, "{url}");
            let refused = StoreUrl::from(url);
            assert_eq!(refused.describe(), described);
            assert!(!format!("{refused:?}").contains("secret"));
        }
    }
}
