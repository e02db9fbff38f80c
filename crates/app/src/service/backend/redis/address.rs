//! Where the Redis is, without what must not be shown.

use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion};

use super::Error;

/// A Redis's address.
pub(super) struct Address {
    pub(super) client: Client,
    /// Host and port, for messages. Never user or password.
    shown: String,
}

impl Address {
    /// Reads `redis://...` or `rediss://...`.
    pub(super) fn parse(url: &str) -> Result<Address, Error> {
        // The cause may quote the URL, and with it a password.
        let refused = |_| {
            Error::invalid(
                "store",
                "the URL of the store cannot be read: it is redis://[user][:password@]host[:port][/0], or rediss:// for TLS",
            )
            .at("store")
        };
        let info = url.into_connection_info().map_err(refused)?;
        let database = info.redis_settings().db();
        if database != 0 {
            return Err(Error::invalid(
                "store",
                format!("the URL of the store names database {database}, but the search module works in database 0 only"),
            )
            .at("store"));
        }
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}")
            }
            other => other.to_string(),
        };
        if let ConnectionAddr::TcpTls { .. } = info.addr() {
            // Whoever was first has installed one, and any will do.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        // RESP3 says when hits are not all there are; the client's own default is RESP2.
        let names_protocol = url.rsplit_once('?').is_some_and(|(_, options)| options.contains("protocol="));
        let mut settings = info.redis_settings().clone();
        if !names_protocol {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client =
            Client::open(info.set_tcp_settings(tcp).set_redis_settings(settings)).map_err(refused)?;
        Ok(Address { client, shown })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
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
    fn the_newer_protocol_is_spoken_unless_the_older_is_named() {
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
    fn a_password_is_never_shown() {
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
}
