//! What kind of server it is: asked once a connection to it is open.

use redis::Value;

use super::{Error, error, reply};

/// What is known of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerInfo {
    /// Another after every start.
    pub(super) run_id: String,
    pub(super) version: String,
    /// Version of the search module, such as 21005 for 2.10.5.
    pub(super) search_version: u32,
    /// What it does where memory runs out.
    eviction: String,
    /// Bytes it holds in memory.
    pub(super) memory_bytes: u64,
    /// Whether it asks the other servers of its cluster by itself what concerns an index.
    pub(super) has_coordinator: bool,
}

/// Lines of `INFO`.
struct InfoSection(String);

impl InfoSection {
    fn line(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

impl ServerInfo {
    /// Reads `INFO` and `MODULE LIST`; a server that cannot be the store, or not this kind of it, is
    /// refused.
    pub(super) fn read(info: Value, modules: Value, is_cluster: bool) -> Result<ServerInfo, Error> {
        let info = InfoSection(reply::text(info, "INFO")?);
        let text = |name: &str| info.line(name).unwrap_or_default().to_owned();
        let is_node = info.line("cluster_enabled") == Some("1") || info.line("redis_mode") == Some("cluster");
        match (is_node, is_cluster) {
            (true, false) => {
                return Err(unsuitable(
                    "it is a node of a cluster: name the store redis-cluster://HOST:PORT",
                ));
            }
            (false, true) => {
                return Err(unsuitable("it is no node of a cluster: name the store redis://HOST:PORT"));
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

    /// What is odd about it.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.eviction.is_empty() && self.eviction != "noeviction" {
            warnings.push(format!(
                "Redis may drop documents by itself when its memory is full (maxmemory-policy {}): set noeviction",
                self.eviction
            ));
        }
        warnings
    }
}

/// Whether a server spreads searches over its cluster, from `COMMAND INFO FT.SEARCH`: then the name
/// of an index is no key, by which others would route it.
pub(super) fn has_coordinator(value: Value) -> Result<bool, Error> {
    const WHAT: &str = "COMMAND INFO";
    /// Where the position of the first key stands.
    const FIRST_KEY: usize = 3;
    let command = reply::items(value, WHAT)?.into_iter().next().ok_or_else(|| error::reply(WHAT))?;
    let first_key = reply::items(command, WHAT)?.into_iter().nth(FIRST_KEY);
    Ok(reply::integer(first_key.ok_or_else(|| error::reply(WHAT))?, WHAT)? == 0)
}

fn unsuitable(why: &str) -> Error {
    Error::unavailable("redis-unsupported", format!("this Redis cannot be the store: {why}"))
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
    fn a_server_tells_what_it_is() {
        let lines = "redis_version:7.4.1\nrun_id:abc\nused_memory:1048576\nmaxmemory_policy:noeviction\ncluster_enabled:0\n";
        let server = ServerInfo::read(info(lines), reply::recorded(MODULES), false).unwrap();
        assert_eq!((&*server.version, &*server.run_id, server.search_version), ("7.4.1", "abc", 21005));
        assert_eq!(server.memory_bytes, 1 << 20);
        assert_eq!(server.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_server_that_cannot_be_the_store_is_refused_with_the_reason() {
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
    fn a_server_that_spreads_searches_itself_is_told_by_its_commands() {
        let alone = "*1\r\n*6\r\n$9\r\nFT.SEARCH\r\n:-1\r\n*2\r\n+readonly\r\n+module\r\n:1\r\n:1\r\n:1\r\n";
        assert!(!has_coordinator(reply::recorded(alone)).unwrap());
        assert!(has_coordinator(reply::recorded(&alone.replace(":1\r\n", ":0\r\n"))).unwrap());
        assert_eq!(has_coordinator(reply::recorded("*1\r\n*-1\r\n")).unwrap_err().code, "redis-reply");
    }

    #[test]
    fn one_that_drops_documents_is_warned_of() {
        let server =
            ServerInfo::read(info("maxmemory_policy:allkeys-lru\n"), reply::recorded(MODULES), false)
                .unwrap();
        assert!(server.warnings()[0].contains("allkeys-lru"));
    }
}
