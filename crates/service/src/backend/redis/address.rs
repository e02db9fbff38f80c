//! The address of a Redis server, displayed without credentials.

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

use super::{Error, error};

/// The address of one server.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) client: Client,
    /// Host and port for messages. Never contains user or password.
    display: String,
}

/// The addresses in a store's URL.
pub(super) struct Addresses {
    /// The single server, or some of the servers of a cluster.
    pub(super) seeds: Vec<Address>,
    pub(super) is_cluster: bool,
}

impl Addresses {
    /// Parses `redis://...` or `redis-cluster://...`, or either with `rediss`.
    pub(super) fn parse(url: &str) -> Result<Addresses, Error> {
        let parse_seeds = |scheme: &str, rest: &str| {
            let (authority, options) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let (login, hosts) = match authority.rsplit_once('@') {
                Some((login, hosts)) => (format!("{login}@"), hosts),
                None => (String::new(), authority),
            };
            hosts
                .split(',')
                .map(|host| Address::parse(&format!("{scheme}://{login}{host}{options}")))
                .collect::<Result<Vec<_>, _>>()
        };
        for scheme in ["redis", "rediss"] {
            if let Some(rest) = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("-cluster://")) {
                return Ok(Addresses { seeds: parse_seeds(scheme, rest)?, is_cluster: true });
            }
        }
        Ok(Addresses { seeds: vec![Address::parse(url)?], is_cluster: false })
    }
}

impl Address {
    /// Parses `redis://...` or `rediss://...`.
    fn parse(url: &str) -> Result<Address, Error> {
        // The cause may quote the URL and with it a password.
        let invalid = |_| {
            Error::invalid(
                "store",
                "invalid store URL: expected redis://[user][:password@]host[:port][/0], or redis-cluster:// with comma-separated hosts; use rediss for TLS",
            )
            .at("store")
        };
        let info = url.into_connection_info().map_err(invalid)?;
        let database = info.redis_settings().db();
        if database != 0 {
            return Err(Error::invalid(
                "store",
                format!("the store URL selects database {database}, but the search module works only in database 0"),
            )
            .at("store"));
        }
        if let ConnectionAddr::TcpTls { .. } = info.addr() {
            // Fails if a provider is already installed; any provider will do.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        // With RESP3 a reply says when hits are incomplete; the client's default is RESP2.
        let names_protocol = url.rsplit_once('?').is_some_and(|(_, options)| options.contains("protocol="));
        let mut settings = info.redis_settings().clone();
        if !names_protocol {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        Address::from_info(info.set_tcp_settings(tcp).set_redis_settings(settings)).map_err(invalid)
    }

    fn from_info(info: ConnectionInfo) -> Result<Address, RedisError> {
        let display = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                host_and_port(host, *port)
            }
            other => other.to_string(),
        };
        Ok(Address { client: Client::open(info)?, display })
    }

    /// The address of another server with the same credentials and options. An empty host means the
    /// host of this one.
    pub(super) fn with_host(&self, host: &str, port: u16) -> Result<Address, Error> {
        let info = self.client.get_connection_info().clone();
        let addr = match info.addr().clone() {
            ConnectionAddr::TcpTls { host: own, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: if host.is_empty() { own } else { host.to_owned() },
                port,
                insecure,
                tls_params,
            },
            ConnectionAddr::Tcp(own, _) if host.is_empty() => ConnectionAddr::Tcp(own, port),
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        Address::from_info(info.set_addr(addr)).map_err(|_| error::reply("the address of a server"))
    }
}

fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.display)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_resp3_unless_the_url_selects_resp2() {
        let protocol = |url| {
            let address = Address::parse(url).unwrap();
            address.client.get_connection_info().redis_settings().protocol()
        };
        assert_eq!(protocol("redis://h"), ProtocolVersion::RESP3);
        assert_eq!(protocol("redis://:protocol=resp2@h/0"), ProtocolVersion::RESP3);
        assert_eq!(protocol("redis://h/?protocol=resp2"), ProtocolVersion::RESP2);
        assert_eq!(protocol("redis://h/?protocol=resp3"), ProtocolVersion::RESP3);
    }

    #[test]
    fn never_displays_a_password() {
        for url in ["redis://user:sesame@example.org:6390/0", "rediss://:sesame@example.org:6390/0"] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.to_string(), "example.org:6390");
            assert!(!format!("{address:?}").contains("sesame"));
        }
        for url in
            ["sesame", "redis://user:sesame@host:port", "http://user:sesame@host", "redis://u:sesame@h/1"]
        {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.code, "store");
            assert!(!error.message.contains("sesame"), "{}", error.message);
        }
    }

    #[test]
    fn parses_a_cluster_url_with_several_hosts_and_one_login() {
        let url = "rediss-cluster://ada:sesame@one:7001,two:7002,[::1]:7003/0?protocol=resp2";
        let Addresses { seeds, is_cluster } = Addresses::parse(url).unwrap();
        assert!(is_cluster);
        let display: Vec<String> = seeds.iter().map(ToString::to_string).collect();
        assert_eq!(display, ["one:7001", "two:7002", "[::1]:7003"]);
        for seed in &seeds {
            let info = seed.client.get_connection_info();
            assert_eq!(info.redis_settings().password(), Some("sesame"));
            assert_eq!(info.redis_settings().protocol(), ProtocolVersion::RESP2);
            assert!(matches!(info.addr(), ConnectionAddr::TcpTls { .. }));
        }
        let other = seeds[0].with_host("four", 7004).unwrap();
        assert_eq!(other.to_string(), "four:7004");
        assert_eq!(other.client.get_connection_info().redis_settings().username(), Some("ada"));
        assert_eq!(seeds[1].with_host("", 7005).unwrap().to_string(), "two:7005");
        assert!(!Addresses::parse("redis://h").unwrap().is_cluster);
        for wrong in
            ["redis-cluster://", "redis-cluster://a,,b", "redis-cluster://:sesame@a:x", "redis-cluster://a/3"]
        {
            let error = Addresses::parse(wrong).map(|_| ()).unwrap_err();
            assert_eq!(error.code, "store", "{wrong}");
            assert!(!error.message.contains("sesame"), "{}", error.message);
        }
    }
}
