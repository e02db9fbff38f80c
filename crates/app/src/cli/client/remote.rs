//! Calls over the network.

use std::{io::Write, net::IpAddr, time::Duration};

use anyhow::Context as _;
use axum::http::{Request, Uri, header};
use ureq::{
    Agent,
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector as _, TcpConnector},
    },
};

use super::{Call, Reply, Unreachable, tls::Tls, trust::Trust};
use crate::cli::exit::Usage;

/// Longest answer taken: a page of documents with their vectors is far below.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// Header that asks for time: the most a server grants, since a batch of long texts takes long.
const TIMEOUT_HEADER: &str = "x-timeout-ms";
const TIMEOUT_MS: &str = "60000";

/// A server.
#[derive(Debug)]
pub(crate) struct Remote {
    url: String,
    authorization: Option<header::HeaderValue>,
    agent: Agent,
}

impl Remote {
    /// A server at `url`. Nothing is sent yet.
    pub(super) fn new(url: &str, key: Option<&str>, trust: Trust) -> Result<Remote, Usage> {
        let url = url.trim_end_matches('/').to_owned();
        let wrong = || {
            Usage(format!("--url {url}: expected http://HOST:PORT or https://HOST[:PORT], without a query"))
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.to_owned();
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(wrong());
        }
        let authorization = key
            .map(|key| header::HeaderValue::from_str(&format!("Bearer {key}")))
            .transpose()
            .map_err(|_| Usage("the API key has characters that no key has".to_owned()))?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(10 * 60)))
            .user_agent(concat!("nearfield/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&host) {
            config = config.proxy(None);
        }
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(Tls::new(trust.config()));
        let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Ok(Remote { url, authorization, agent })
    }

    /// The server's address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Makes a call.
    pub(super) fn call(&self, call: &Call<'_>) -> Result<Reply, Unreachable> {
        let no_answer = |source: ureq::Error| Unreachable::no_answer(&self.url, source);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.url, call.path))
            .header(header::ACCEPT, "application/json")
            .header(TIMEOUT_HEADER, TIMEOUT_MS);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer = match call.body {
            Some((content_type, body)) => request
                .header(header::CONTENT_TYPE, content_type)
                .body(body)
                .map_err(|error| no_answer(error.into()))
                .and_then(|request| self.agent.run(request).map_err(no_answer)),
            None => request
                .body(())
                .map_err(|error| no_answer(error.into()))
                .and_then(|request| self.agent.run(request).map_err(no_answer)),
        };
        reply(answer?).map_err(no_answer)
    }

    /// Writes the body of an answer to `out` as it comes, however long it is and takes.
    pub(super) fn download(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let no_answer = |source: ureq::Error| Unreachable::no_answer(&self.url, source);
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer = request.config().timeout_global(None).build().call().map_err(no_answer)?;
        if !answer.status().is_success() {
            return reply(answer).map_err(no_answer)?.accept().map(drop).map_err(Into::into);
        }
        let mut body = answer.into_body().into_reader();
        std::io::copy(&mut body, out).with_context(|| format!("reading from {}", self.url))?;
        Ok(())
    }
}

/// An answer read to its end.
fn reply(answer: ureq::http::Response<ureq::Body>) -> Result<Reply, ureq::Error> {
    let (head, mut body) = answer.into_parts();
    Ok(Reply {
        status: head.status.as_u16(),
        retry_after: super::retry_after(&head.headers),
        body: body.with_config().limit(BODY_BYTES_MAX).read_to_vec()?,
    })
}

/// Whether calls to `host` stay on this machine, so that no proxy has a part in them.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_are_taken() {
        for url in ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x/?a=b"] {
            assert!(Remote::new(url, None, Trust::default()).is_err(), "{url}");
        }
        assert_eq!(
            Remote::new("http://127.0.0.1:8000/", Some("key"), Trust::default()).unwrap().url(),
            "http://127.0.0.1:8000"
        );
        assert!(Remote::new("http://x", Some("a\nb"), Trust::default()).is_err());
    }

    #[test]
    fn loopback_is_known_by_its_names() {
        assert!(["localhost", "127.0.0.1", "127.9.9.9", "[::1]"].iter().all(|host| is_loopback(host)));
        assert!(!["example.com", "10.0.0.1", "localhost.example.com"].iter().any(|host| is_loopback(host)));
    }
}
