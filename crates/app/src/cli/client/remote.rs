//! Requests over the network.

#[cfg(unix)]
use std::path::Path;
use std::{io::Write, net::IpAddr, time::Duration};

use anyhow::Context as _;
use axum::http::{Request, Uri, header};
use ureq::{
    Agent,
    config::ConfigBuilder,
    typestate::AgentScope,
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector as _, TcpConnector},
    },
};

#[cfg(unix)]
use super::local::LocalConnector;
use super::{
    message::{self, ApiRequest, ApiResponse},
    tls::TlsConnector,
    trust::{self, TrustedCertificates},
};
use crate::cli::error::{ConnectionError, UsageError};

/// Maximum length of a response. A page of documents with vectors is much shorter.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// The longest deadline that a server grants: batches of long texts take time.
const TIMEOUT_HEADER: &str = "x-timeout-ms";
const TIMEOUT_MS: &str = "60000";

/// A server.
#[derive(Debug)]
pub(crate) struct Remote {
    /// What requests begin with.
    base: String,
    url: String,
    authorization: Option<header::HeaderValue>,
    agent: Agent,
}

impl Remote {
    /// A client of the server at `url`. Nothing is sent yet.
    pub(super) fn new(
        url: &str,
        key: Option<&str>,
        trust: TrustedCertificates,
    ) -> Result<Remote, UsageError> {
        let url = url.trim_end_matches('/').to_owned();
        let invalid = || {
            UsageError(format!(
                "--url {url}: expected http://HOST:PORT or https://HOST[:PORT], without a query"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let host = uri.host().ok_or_else(invalid)?.to_owned();
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(invalid());
        }
        let mut config = config();
        if is_loopback(&host) {
            config = config.proxy(None);
        }
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(TlsConnector::new(trust.config()));
        let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Ok(Remote { base: url.clone(), url, authorization: authorization(key)?, agent })
    }

    /// A client of the server that holds `data_dir`; its URL `url` is only shown. Nothing is sent yet.
    #[cfg(unix)]
    pub(super) fn local(data_dir: &Path, url: &str, key: Option<&str>) -> Result<Remote, UsageError> {
        let connector = LocalConnector { data_dir: data_dir.to_owned() };
        let config = config().proxy(None).build();
        Ok(Remote {
            // An address, so that no name is looked up.
            base: "http://127.0.0.1".to_owned(),
            url: url.to_owned(),
            authorization: authorization(key)?,
            agent: Agent::with_parts(config, connector, DefaultResolver::default()),
        })
    }

    /// The server's URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Executes a request.
    pub(super) fn execute(&self, call: &ApiRequest<'_>) -> Result<ApiResponse, ConnectionError> {
        let no_response = |source: ureq::Error| connection_error(&self.url, source);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.base, call.path))
            .header(header::ACCEPT, "application/json")
            .header(TIMEOUT_HEADER, TIMEOUT_MS);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = match call.body {
            Some((content_type, body)) => request
                .header(header::CONTENT_TYPE, content_type)
                .body(body)
                .map_err(|error| no_response(error.into()))
                .and_then(|request| self.agent.run(request).map_err(no_response)),
            None => request
                .body(())
                .map_err(|error| no_response(error.into()))
                .and_then(|request| self.agent.run(request).map_err(no_response)),
        };
        read_response(response?).map_err(no_response)
    }

    /// Writes the body of a response to `out` as it arrives, without limits on length or time.
    pub(super) fn download(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let no_response = |source: ureq::Error| connection_error(&self.url, source);
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = request.config().timeout_global(None).build().call().map_err(no_response)?;
        if !response.status().is_success() {
            return read_response(response)
                .map_err(no_response)?
                .error_for_status()
                .map(drop)
                .map_err(Into::into);
        }
        let mut body = response.into_body().into_reader();
        std::io::copy(&mut body, out).with_context(|| format!("reading from {}", self.url))?;
        Ok(())
    }
}

fn config() -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_global(Some(Duration::from_secs(10 * 60)))
        .user_agent(concat!("nearfield/", env!("CARGO_PKG_VERSION")))
}

fn authorization(key: Option<&str>) -> Result<Option<header::HeaderValue>, UsageError> {
    key.map(|key| header::HeaderValue::from_str(&format!("Bearer {key}")))
        .transpose()
        .map_err(|_| UsageError("the API key contains invalid characters".to_owned()))
}

fn connection_error(url: &str, source: ureq::Error) -> ConnectionError {
    let hint = if trust::is_untrusted_certificate(&source) {
        " (to trust a self-signed certificate or a private authority, add --ca-cert FILE)"
    } else {
        ""
    };
    ConnectionError::NoResponse { url: url.to_owned(), source: Box::new(source), hint }
}

/// Reads a response to its end.
fn read_response(response: ureq::http::Response<ureq::Body>) -> Result<ApiResponse, ureq::Error> {
    let (head, mut body) = response.into_parts();
    Ok(ApiResponse {
        status: head.status.as_u16(),
        retry_after: message::retry_after(&head.headers),
        body: body.with_config().limit(BODY_BYTES_MAX).read_to_vec()?,
    })
}

/// Whether `host` is this machine. Proxies are then bypassed.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_http_and_https_urls() {
        for url in ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x/?a=b"] {
            assert!(Remote::new(url, None, TrustedCertificates::default()).is_err(), "{url}");
        }
        assert_eq!(
            Remote::new("http://127.0.0.1:8000/", Some("key"), TrustedCertificates::default()).unwrap().url(),
            "http://127.0.0.1:8000"
        );
        assert!(Remote::new("http://x", Some("a\nb"), TrustedCertificates::default()).is_err());
    }

    #[test]
    fn recognises_loopback_hosts() {
        assert!(["localhost", "127.0.0.1", "127.9.9.9", "[::1]"].iter().all(|host| is_loopback(host)));
        assert!(!["example.com", "10.0.0.1", "localhost.example.com"].iter().any(|host| is_loopback(host)));
    }
}
