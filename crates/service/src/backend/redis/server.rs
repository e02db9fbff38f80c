//! The properties of a server, read once a connection to it is open.

use redis::Value;

use super::{Error, error, reply};

/// The properties of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerInfo {
    /// Changes with every start of the server.
    pub(super) run_id: String,
    pub(super) version: String,
    /// Version of the search module, such as 21005 for 2.10.5.
    pub(super) search_version: u32,
    /// Its `maxmemory-policy`.
    eviction: String,
    /// Its used memory.
    pub(super) memory_bytes: u64,
    /// Whether it is a search coordinator, which forwards index commands to the other servers of its
    /// cluster.
    pub(super) has_coordinator: bool,
}

/// The `name:value` lines of `INFO`.
struct InfoSection(String);

impl InfoSection {
    fn line(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

impl ServerInfo {
    /// Parses the replies to `INFO` and `MODULE LIST`. Rejects a server that cannot be the store, or
    /// that is a cluster node when a single server is expected, and vice versa.
    pub(super) fn read(info: Value, modules: Value, is_cluster: bool) -> Result<ServerInfo, Error> {
        let info = InfoSection(reply::text(info, "INFO")?);
        let text = |name: &str| info.line(name).unwrap_or_default().to_owned();
        let is_node = info.line("cluster_enabled") == Some("1") || info.line("redis_mode") == Some("cluster");
        match (is_node, is_cluster) {
            (true, false) => {
                return Err(unsuitable("it is a cluster node: set the store to redis-cluster://HOST:PORT"));
            }
            (false, true) => {
                return Err(unsuitable("it is not a cluster node: set the store to redis://HOST:PORT"));
            }
            _ => {}
        }
        let search_version = search_module(modules)?
            .ok_or_else(|| unsuitable("it has no search module: use Redis Stack, or load redisearch.so"))?;
        Ok(ServerInfo {
            run_id: text("run_id"),
            version: text("redis_version"),
            search_version,
            eviction: text("maxmemory_policy"),
            memory_bytes: text("used_memory").parse().unwrap_or(0),
            has_coordinator: false,
        })
    }

    /// Warnings about its configuration.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.eviction.is_empty() && self.eviction != "noeviction" {
            warnings.push(format!(
                "Redis may evict documents when its memory is full (maxmemory-policy {}): set it to noeviction",
                self.eviction
            ));
        }
        warnings
    }
}

/// Whether the server is a search coordinator, from `COMMAND INFO FT.SEARCH`: a coordinator does not
/// treat the name of an index as a key to route by.
pub(super) fn has_coordinator(value: Value) -> Result<bool, Error> {
    const WHAT: &str = "COMMAND INFO";
    /// Position of the first key in a command's entry.
    const FIRST_KEY: usize = 3;
    let command = reply::items(value, WHAT)?.into_iter().next().ok_or_else(|| error::reply(WHAT))?;
    let first_key = reply::items(command, WHAT)?.into_iter().nth(FIRST_KEY);
    Ok(reply::integer(first_key.ok_or_else(|| error::reply(WHAT))?, WHAT)? == 0)
}

fn unsuitable(reason: &str) -> Error {
    Error::unavailable(
        "redis-unsupported",
        format!("this Redis server cannot be used as the store: {reason}"),
    )
}

/// The version of the search module, if it is loaded.
fn search_module(modules: Value) -> Result<Option<u32>, Error> {
    const WHAT: &str = "MODULE LIST";
    for module in reply::items(modules, WHAT)? {
        let (mut is_search, mut version) = (false, 0);
        for (name, value) in reply::pairs(module, WHAT)? {
            match &*reply::text(name, WHAT)? {
                "name" => is_search = matches!(&*reply::text(value, WHAT)?, "search" | "ft" | "searchlight"),
                "ver" => version = reply::integer(value, WHAT)?,
                _ => {}
            }
        }
        if is_search {
            return u32::try_from(version).map(Some).map_err(|_| error::reply(WHAT));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: &str = "*1\r\n*8\r\n$4\r\nname\r\n$6\r\nsearch\r\n$3\r\nver\r\n:21005\r\n$4\r\npath\r\n$1\r\nx\r\n$4\r\nargs\r\n*0\r\n";

    fn info(lines: &str) -> Value {
        Value::BulkString(format!("# Server\r\n{lines}").replace('\n', "\r\n").into_bytes())
    }

    #[test]
    fn parses_the_properties_of_a_server() {
        let lines = "redis_version:7.4.1\nrun_id:abc\nused_memory:1048576\nmaxmemory_policy:noeviction\ncluster_enabled:0\n";
        let server = ServerInfo::read(info(lines), reply::recorded(MODULES), false).unwrap();
        assert_eq!((&*server.version, &*server.run_id, server.search_version), ("7.4.1", "abc", 21005));
        assert_eq!(server.memory_bytes, 1 << 20);
        assert_eq!(server.warnings(), Vec::<String>::new());
    }

    #[test]
    fn rejects_an_unsupported_server_with_the_reason() {
        let error = ServerInfo::read(info("run_id:a\n"), Value::Array(vec![]), false).unwrap_err();
        assert!(error.message.contains("search module"), "{error}");
        let error =
            ServerInfo::read(info("cluster_enabled:1\n"), reply::recorded(MODULES), false).unwrap_err();
        assert!(error.message.contains("redis-cluster://"), "{error}");
        let error =
            ServerInfo::read(info("cluster_enabled:0\n"), reply::recorded(MODULES), true).unwrap_err();
        assert!(error.message.contains("redis://"), "{error}");
    }

    #[test]
    fn detects_a_search_coordinator_by_its_command_table() {
        let alone = "*1\r\n*6\r\n$9\r\nFT.SEARCH\r\n:-1\r\n*2\r\n+readonly\r\n+module\r\n:1\r\n:1\r\n:1\r\n";
        assert!(!has_coordinator(reply::recorded(alone)).unwrap());
        assert!(has_coordinator(reply::recorded(&alone.replace(":1\r\n", ":0\r\n"))).unwrap());
        assert_eq!(has_coordinator(reply::recorded("*1\r\n*-1\r\n")).unwrap_err().code, "redis-reply");
    }

    #[test]
    fn warns_about_an_eviction_policy() {
        let server =
            ServerInfo::read(info("maxmemory_policy:allkeys-lru\n"), reply::recorded(MODULES), false)
                .unwrap();
        assert!(server.warnings()[0].contains("allkeys-lru"));
    }
}
