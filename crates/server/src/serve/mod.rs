//! The server: listens, brings requests from sockets to the HTTP door, and stops gracefully.

mod address;
mod connections;
mod header_timeout;
mod notify;
mod open_files;
pub mod signals;
mod tls;
mod write_timeout;

use std::{
    ffi::OsString,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

pub use address::ServerAddress;
pub use connections::{ConnectionSettings, run};
use notify::notify;
pub use tls::{Tls, TlsError, TlsFiles};

use service::{Progress, Service, Store, SystemClock};

use crate::{
    access::{KnownKey, Origin},
    http::{self, ApiKeys, HttpSettings, RequestHandler},
};

/// Ports tried after the one asked for, where others will do.
const PORTS_TRIED: u16 = 100;

/// Connections that may wait to be accepted: a burst of clients beyond the usual 128 would be sent away to try again
/// after a second.
#[cfg(target_os = "linux")]
const BACKLOG: i32 = 4096;

/// How often histograms are tidied.
const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why a server did not start. Messages name the address or path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
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
    /// The store cannot be opened.
    #[error("{0}")]
    Open(#[from] service::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Threads, timers or signals are not to be had.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    moved_from: Option<SocketAddr>,
    metrics: Option<PrometheusHandle>,
    tls: Option<Tls>,
    settings: ServerSettings,
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// How the service is opened.
    pub service: service::Config,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// API keys that are accepted; none is required if there are none.
    pub keys: ServerKeys,
    /// Requests per second and key, or per address without keys; 0: unlimited.
    pub rate_limit: u32,
    /// Networks whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may read responses.
    pub cors_origins: Vec<Origin>,
    /// Certificate chain and private key, to serve HTTPS.
    pub tls: Option<TlsFiles>,
    /// Connections served at once.
    pub connections_max: usize,
    /// How long requests in flight may take after a stop was requested.
    pub grace: Duration,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a body may make no progress.
    pub body_timeout: Duration,
    /// The service manager's notification socket (NOTIFY_SOCKET).
    pub notify_socket: Option<OsString>,
}

/// The keys a server accepts.
#[derive(Clone, Debug, Default)]
pub struct ServerKeys {
    /// All of them.
    pub keys: Vec<KnownKey>,
    /// How many of them come from flags and the environment, and so last as long as the process.
    pub permanent: usize,
}

impl Server {
    /// Installs the metrics recorder and listens.
    /// With `port_fallback`, a taken port is answered by trying those after it.
    pub fn bind(settings: &ServerSettings, port_fallback: bool) -> Result<Server, ServeError> {
        let tls = settings.tls.clone().map(Tls::new).transpose()?;
        let (listener, address) = listen(settings.listen, port_fallback)?;
        let moved = settings.listen.port() != 0 && address != settings.listen;
        Ok(Server {
            listener,
            address,
            moved_from: moved.then_some(settings.listen),
            metrics: install_metrics_recorder(),
            tls,
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
        address::url(self.address, self.tls.is_some())
    }

    /// Opens the store, telling meanwhile how far that has come, and answers until SIGTERM or SIGINT; then lets
    /// requests in flight finish and closes the store. A second signal ends the process at once. Blocking; call it
    /// outside any runtime.
    ///
    /// At SIGHUP the certificate and, by `reread`, the keys are read again; what cannot be used leaves the old ones.
    pub fn run(
        self,
        reread: impl Fn() -> Result<ServerKeys, Box<dyn std::error::Error>> + Send + 'static,
    ) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("nearfield-http")
            .enable_all()
            .build()
            .map_err(ServeError::Runtime)?;
        let http = HttpSettings {
            api_keys: Arc::new(ArcSwap::from_pointee(ApiKeys::new(&self.settings.keys.keys))),
            wrong_keys_max: HttpSettings::default().wrong_keys_max,
            rate_limit: self.settings.rate_limit,
            trusted_proxies: self.settings.trusted_proxies.clone(),
            cors_origins: self.settings.cors_origins.clone(),
            body_timeout: self.settings.body_timeout,
            overload_retry_timeout: self.settings.service.timeout,
            metrics: self.metrics.clone(),
            stopping: CancellationToken::new(),
        };
        let settings = ConnectionSettings {
            http: http.clone(),
            header_timeout: self.settings.header_timeout,
            idle_timeout: self.settings.idle_timeout,
            write_timeout: self.settings.body_timeout,
            connections_max: open_files::connection_limit(
                self.settings.connections_max,
                connections::HEALTH_CONNECTIONS_MAX,
            ),
            grace: self.settings.grace,
            tls: self.tls.clone(),
        };
        let (url, manager) = (self.url(), self.settings.notify_socket.clone());
        let progress = Arc::new(Progress::default());
        let app = Arc::new(ArcSwap::from_pointee(RequestHandler::without_shedding(http::startup_router(
            progress.clone(),
        ))));
        let stop = signals::stop_token().map_err(ServeError::Runtime)?;
        let served: Result<Option<Service>, ServeError> = runtime.block_on(async {
            self.listener.set_nonblocking(true).map_err(ServeError::Runtime)?;
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(ServeError::Runtime)?;
            signals::ignore_file_size_signal().map_err(ServeError::Runtime)?;
            if let Some(metrics) = self.metrics {
                tokio::spawn(run_metrics_upkeep(metrics));
            }
            // From the beginning on: who renews a certificate does not know that the store is still being opened.
            let (keys, tls) = (http.api_keys.clone(), self.tls.clone());
            signals::on_reload(move || reload(&reread, &keys, tls.as_ref())).map_err(ServeError::Runtime)?;
            let serving =
                tokio::spawn(connections::serve_with(vec![listener], app.clone(), settings, stop.clone()));
            let opened = tokio::select! {
                opened = open(self.settings.service.clone(), progress) => opened?,
                // Nothing is written yet that would have to be finished.
                () = stop.cancelled() => return Ok(None),
            };
            let router = http::router(opened.clone(), http.clone());
            app.store(Arc::new(RequestHandler::with_shedding(router, opened.clone())));
            // A Redis is nobody's alone: who wants its documents goes there, not through this server.
            let address_file = match self.settings.service.store {
                Store::Directory => Some({
                    let certificate = self.tls.as_ref().map(Tls::certificate_file);
                    ServerAddress::write(&self.settings.service.data_dir, url.clone(), certificate)?
                }),
                Store::Redis(_) => None,
            };
            tracing::info!(url, "serving");
            notify(manager.as_deref(), "READY=1");
            stop.cancelled().await;
            notify(manager.as_deref(), "STOPPING=1");
            // It ends when what was in flight is answered, or the grace is over.
            let _ = serving.await;
            drop(address_file);
            Ok(Some(opened))
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Some(service) = served? {
            service.close();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Opens the service on a thread that ends: an allocator keeps at hand what a thread has freed, and opening frees a
/// hundred megabytes.
async fn open(config: service::Config, progress: Arc<Progress>) -> Result<Service, ServeError> {
    let (sender, opened) = tokio::sync::oneshot::channel();
    if let Some(warning) = config.may_be_lost() {
        tracing::warn!("{warning}");
    }
    let thread = std::thread::Builder::new().name("nearfield-open".to_owned());
    let spawned = thread.spawn(move || {
        let opened = Service::open_telling(config, Arc::new(SystemClock), &progress);
        // Who has stopped waiting ends the process.
        let _ = sender.send(opened);
    });
    spawned.map_err(ServeError::Runtime)?;
    match opened.await {
        Ok(opened) => Ok(opened?),
        Err(_) => {
            Err(ServeError::Runtime(io::Error::other("opening the store ended in a fault of the program")))
        }
    }
}

/// Takes over the keys and the certificate as they stand now.
fn reload(
    reread: &impl Fn() -> Result<ServerKeys, Box<dyn std::error::Error>>,
    keys: &ArcSwap<ApiKeys>,
    tls: Option<&Tls>,
) {
    match reread() {
        Ok(read) if read.keys.is_empty() && !keys.load().is_empty() => {
            tracing::error!("the keys stay as they were: without any, everybody would be let in");
        }
        Ok(read) => {
            keys.store(Arc::new(ApiKeys::new(&read.keys)));
            tracing::info!("the keys were read again");
            if read.permanent > 0 {
                tracing::warn!(
                    "{} of the keys are from flags or the environment and stay until a restart: only those in the file \
                     can be taken back",
                    read.permanent
                );
            }
        }
        Err(error) => tracing::error!("the keys stay as they were: {error}"),
    }
    match tls.map(Tls::reload) {
        Some(Ok(())) => tracing::info!("the certificate was read again"),
        Some(Err(error)) => tracing::error!("the certificate stays as it was: {error}"),
        None => {}
    }
}

fn listen(wanted: SocketAddr, port_fallback: bool) -> Result<(TcpListener, SocketAddr), ServeError> {
    let mut address = wanted;
    loop {
        let source =
            match TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => {
                    lengthen_backlog(&listener);
                    return Ok((listener, address));
                }
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

/// Lets more connections wait to be accepted than the standard library does.
fn lengthen_backlog(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::listen(listener, BACKLOG) {
        tracing::debug!("fewer connections than wished may wait to be accepted: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// Installs the recorder, or takes up the one installed before.
fn install_metrics_recorder() -> Option<PrometheusHandle> {
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

async fn run_metrics_upkeep(metrics: PrometheusHandle) {
    let mut every = tokio::time::interval(METRICS_UPKEEP_INTERVAL);
    loop {
        every.tick().await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel cuts the backlog at net.core.somaxconn, which is 4096 on Linux since 5.4.
    #[cfg(target_os = "linux")]
    #[test]
    fn hundreds_of_clients_may_come_at_once() {
        let (_listener, address) = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        // Anonymous accepts: the 130th would wait for a second, and again and again.
        let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500));
        let connections: Vec<_> = (0..400).map(connect).collect();
        assert_eq!(connections.iter().filter(|connection| connection.is_err()).count(), 0);
    }

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
