//! The server: listens, brings requests from sockets to the HTTP door, and stops gracefully.

mod address;
mod connections;
mod log;
pub(crate) mod signals;
mod unstalled;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

pub use address::Address;
pub use connections::{ServeSettings, run};
pub use log::start_log;

use crate::{
    config::{ConfigError, Settings},
    http::{self, ApiKeys, HttpSettings},
    service::{Service, Store},
};

/// Ports tried after the one asked for, where others will do.
const PORTS_TRIED: u16 = 100;

/// How often histograms are tidied.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why a server did not start. Messages name the address or path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings do not allow it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The file that tells where the server is cannot be written.
    #[error("cannot write {path}: {source}")]
    AddressFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Threads, timers or signals are not to be had.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

/// A server that listens but does not answer yet: what has to be done before a service is opened.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    moved_from: Option<SocketAddr>,
    metrics: Option<PrometheusHandle>,
    settings: Settings,
}

impl Server {
    /// Checks that `settings` may be served with, installs the recorder of metrics, and listens.
    /// With `port_fallback`, a taken port is answered by trying those after it.
    pub fn bind(settings: &Settings, port_fallback: bool) -> Result<Server, ServeError> {
        settings.check_exposure()?;
        let (listener, address) = listen(settings.listen, port_fallback)?;
        let moved = settings.listen.port() != 0 && address != settings.listen;
        Ok(Server {
            listener,
            address,
            moved_from: moved.then_some(settings.listen),
            metrics: record_metrics(),
            settings: settings.clone(),
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that was asked for, if it was taken.
    pub fn moved_from(&self) -> Option<SocketAddr> {
        self.moved_from
    }

    /// Where a client of this machine finds it.
    pub fn url(&self) -> String {
        address::url(self.address)
    }

    /// Answers until SIGTERM or SIGINT, then lets requests in flight finish and closes `service`.
    /// A second signal ends the process at once. Blocking; call it outside any runtime.
    pub fn run(self, service: Service) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("nearfield-http")
            .enable_all()
            .build()
            .map_err(ServeError::Runtime)?;
        let settings = ServeSettings {
            http: HttpSettings {
                api_keys: Arc::new(ArcSwap::from_pointee(ApiKeys::new(&self.settings.keys))),
                rate_limit: self.settings.rate_limit,
                wrong_keys_max: HttpSettings::default().wrong_keys_max,
                trusted_proxies: self.settings.trusted_proxies.clone(),
                cors_origins: self.settings.cors_origins.clone(),
                body_timeout: self.settings.body_timeout,
                overload_patience: self.settings.timeout,
                metrics: self.metrics.clone(),
                stopping: CancellationToken::new(),
            },
            header_timeout: self.settings.header_timeout,
            write_timeout: self.settings.body_timeout,
            connections_max: self.settings.connections_max,
            grace: self.settings.grace,
        };
        // A Redis is nobody's alone: who wants its documents goes there, not through this server.
        let written = match self.settings.store {
            Store::Directory => Some(Address::write(&self.settings.data_dir, self.address)?),
            Store::Redis(_) => None,
        };
        let url = self.url();
        let served = runtime.block_on(async {
            self.listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let stop = signals::stop()?;
            if let Some(metrics) = self.metrics {
                tokio::spawn(tidy(metrics));
            }
            tracing::info!(url, "serving");
            run(vec![listener], service.clone(), settings, stop).await;
            Ok(())
        });
        drop(written);
        runtime.shutdown_timeout(Duration::from_secs(1));
        service.close();
        tracing::info!("stopped");
        served.map_err(ServeError::Runtime)
    }
}

fn listen(wanted: SocketAddr, port_fallback: bool) -> Result<(TcpListener, SocketAddr), ServeError> {
    let mut address = wanted;
    loop {
        let source =
            match TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => return Ok((listener, address)),
                Err(source) => source,
            };
        let taken = source.kind() == io::ErrorKind::AddrInUse;
        let next = address.port().checked_add(1).filter(|next| next - wanted.port() <= PORTS_TRIED);
        match next {
            Some(next) if taken && port_fallback => address.set_port(next),
            _ => {
                let hint = match (taken, source.kind()) {
                    (true, _) => "; another program has it: stop that, or choose another with --listen",
                    (_, io::ErrorKind::PermissionDenied) => "; ports below 1024 need privileges",
                    _ => "",
                };
                return Err(ServeError::Listen { address, source, hint });
            }
        }
    }
}

/// Installs the recorder, or takes up the one installed before.
fn record_metrics() -> Option<PrometheusHandle> {
    static INSTALLED: std::sync::OnceLock<Option<PrometheusHandle>> = std::sync::OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let handle = PrometheusBuilder::new()
                .set_buckets(&http::SECONDS_BUCKETS)
                .and_then(PrometheusBuilder::install_recorder);
            match handle {
                Ok(handle) => {
                    http::describe_metrics();
                    Some(handle)
                }
                Err(error) => {
                    tracing::warn!("metrics are off: {error}");
                    None
                }
            }
        })
        .clone()
}

async fn tidy(metrics: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP);
    loop {
        every.tick().await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_or_the_next_is_taken() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = first.local_addr().unwrap();
        let message = listen(taken, false).unwrap_err().to_string();
        assert!(message.contains(&taken.to_string()) && message.contains("--listen"), "{message}");
        let (_second, address) = listen(taken, true).unwrap();
        assert!(address.port() > taken.port());
    }
}
