//! The server: listens, passes requests from sockets to the interfaces, and stops gracefully.

mod address;
mod closing;
mod connection_table;
mod connections;
mod header_timeout;
#[cfg(unix)]
mod local_socket;
mod notify;
mod open_files;
pub mod signals;
mod supervisor;
mod tls;
mod unread_body;
mod write_timeout;

use std::{
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use address::ServerAddress;
pub use connections::{ConnectionSettings, run};
#[cfg(unix)]
use local_socket::LocalSocket;
#[cfg(unix)]
pub use local_socket::connect_local;
use notify::notify;
use supervisor::Supervisor;
pub use tls::{Tls, TlsError, TlsFiles};

use service::{Progress, Service, Store, SystemClock};

use crate::{
    access::{AcceptedKey, AccessControl, AccessSettings, ApiKeys, ResponseBudget},
    http::{self, HttpSettings, Origin, RequestHandler},
};

/// Where a server listens by default.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

/// Ports tried after the requested one if a fallback is allowed.
const PORTS_TRIED: u16 = 100;

/// Length of the accept queue. With the usual 128, a burst of clients would have to retry after a second.
#[cfg(target_os = "linux")]
const BACKLOG: i32 = 4096;

/// How often the recorder drains its histograms.
const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why a server cannot start. Messages name the address or path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The file with the server's address cannot be written.
    #[error("cannot write {path}: {source}")]
    AddressFile {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("{0}")]
    Open(#[from] service::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Threads, timers or signal handlers are not available.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    /// A part of the server that it cannot do without panicked, repeatedly if it was started again.
    #[error("the server stopped because its task {0:?} panicked; the log has the messages")]
    Panicked(&'static str),
}

/// A server that listens but does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    unavailable_address: Option<SocketAddr>,
    metrics: Option<PrometheusHandle>,
    tls: Option<Tls>,
    settings: ServerSettings,
}

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Configuration of the service.
    pub service: service::Config,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// API keys that are accepted; without any, none is required.
    pub keys: ServerKeys,
    /// Requests per second and key, or per address without keys; 0: unlimited.
    pub rate_limit: u32,
    /// Networks whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may read responses.
    pub cors_origins: Vec<Origin>,
    /// Certificate chain and private key, to serve HTTPS.
    pub tls: Option<TlsFiles>,
    /// Concurrent connections.
    pub connections_max: usize,
    /// How many of them only callers with an API key may use; at most half.
    pub connections_reserved: usize,
    /// Concurrent connections without a valid API key from one IPv4 address or IPv6 /64 network.
    pub connections_per_address: usize,
    /// Grace period: how long requests in flight may take once the server stops.
    pub grace: Duration,
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a request body may pause, and a response may stay unread.
    pub body_timeout: Duration,
    /// Memory for responses that clients have not read yet, in bytes.
    pub response_bytes_max: usize,
    /// How long a client may take to read a large response.
    pub response_timeout: Duration,
    /// Bytes per second that a client must read on average while it reads a response.
    pub read_rate_min: u32,
    /// The service manager's notification socket (NOTIFY_SOCKET).
    pub notify_socket: Option<OsString>,
}

impl ServerSettings {
    /// Settings of a server of `service`, with all others at their defaults.
    pub fn new(service: service::Config) -> ServerSettings {
        let ConnectionSettings {
            http,
            header_timeout,
            idle_timeout,
            connections_max,
            connections_reserved,
            connections_per_address,
            grace,
            read_rate_min,
            ..
        } = ConnectionSettings::default();
        ServerSettings {
            service,
            listen: DEFAULT_ADDRESS,
            keys: ServerKeys::default(),
            rate_limit: AccessSettings::default().rate_limit,
            trusted_proxies: http.trusted_proxies,
            cors_origins: http.cors_origins,
            tls: None,
            connections_max,
            connections_reserved,
            connections_per_address,
            grace,
            header_timeout,
            idle_timeout,
            body_timeout: http.body_timeout,
            response_bytes_max: http.response_budget.bytes_max(),
            response_timeout: http.response_timeout,
            read_rate_min,
            notify_socket: None,
        }
    }

    /// The URL for clients on this machine, unless the port is 0.
    pub fn url(&self) -> String {
        address::url(self.listen, self.tls.is_some())
    }
}

/// The keys a server accepts.
#[derive(Clone, Debug, Default)]
pub struct ServerKeys {
    /// All keys.
    pub keys: Vec<AcceptedKey>,
    /// How many of them come from flags and the environment, so that only a restart revokes them.
    pub permanent: usize,
}

impl Server {
    /// Installs the metrics recorder and listens. With `port_fallback`, the following ports are tried if the requested
    /// one is taken.
    pub fn bind(settings: &ServerSettings, port_fallback: bool) -> Result<Server, ServeError> {
        let tls = settings.tls.clone().map(Tls::new).transpose()?;
        let (listener, address) = listen(settings.listen, port_fallback)?;
        let is_fallback = settings.listen.port() != 0 && address != settings.listen;
        Ok(Server {
            listener,
            address,
            unavailable_address: is_fallback.then_some(settings.listen),
            metrics: install_metrics_recorder(),
            tls,
            settings: settings.clone(),
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requested address, if it was taken and a following port is used instead.
    pub fn unavailable_address(&self) -> Option<SocketAddr> {
        self.unavailable_address
    }

    /// The URL for clients on this machine.
    pub fn url(&self) -> String {
        address::url(self.address, self.tls.is_some())
    }

    /// Opens the store, reporting the progress at `/readyz`, and serves until SIGTERM or SIGINT; then waits for requests
    /// in flight and closes the store. A second signal ends the process at once. Blocks; call it outside any runtime.
    ///
    /// SIGHUP reloads the certificate and, with `load_keys`, the keys. If that fails, the previous ones stay.
    pub fn run(
        self,
        load_keys: impl Fn() -> Result<ServerKeys, Box<dyn std::error::Error>> + Send + Sync + 'static,
    ) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("nearfield-http")
            .enable_all()
            .build()
            .map_err(ServeError::Runtime)?;
        let http = self.http_settings();
        let settings = self.connection_settings(http.clone());
        let (url, manager) = (self.url(), self.settings.notify_socket.clone());
        let progress = Arc::new(Progress::default());
        let startup = RequestHandler::without_shedding(http::startup_router(progress.clone()));
        let handler = Arc::new(ArcSwap::from_pointee(startup));
        let stop = signals::stop_token().map_err(ServeError::Runtime)?;
        let supervisor = Supervisor::new(stop.clone());
        let served: Result<Option<Service>, ServeError> = runtime.block_on(async {
            self.listener.set_nonblocking(true).map_err(ServeError::Runtime)?;
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(ServeError::Runtime)?;
            signals::ignore_file_size_signal().map_err(ServeError::Runtime)?;
            if let Some(metrics) = self.metrics {
                supervisor.spawn("metrics", move || run_metrics_upkeep(metrics.clone()));
            }
            // Before the store is open, so that a certificate can be replaced during a long opening.
            let (access, tls) = (http.access.clone(), self.tls.clone());
            signals::on_reload(&supervisor, move || reload(&load_keys, &access, tls.as_ref()))
                .map_err(ServeError::Runtime)?;
            let local_settings = settings.clone();
            let serving = tokio::spawn(connections::serve_with(
                vec![listener],
                handler.clone(),
                settings,
                supervisor.clone(),
            ));
            let watching = supervisor.clone();
            let serving = tokio::spawn(async move {
                if serving.await.is_err() {
                    watching.give_up("connections");
                }
            });
            let opened = tokio::select! {
                opened = open(self.settings.service.clone(), progress) => opened?,
                // Nothing has been written yet.
                () = stop.cancelled() => return Ok(None),
            };
            handler.store(Arc::new(RequestHandler::new(opened.clone(), http.clone())));
            // Commands on a Redis connect to the Redis itself.
            let local = match &self.settings.service.store {
                Store::Directory => {
                    let data_dir = &self.settings.service.data_dir;
                    let serving = serve_local(data_dir, &handler, &local_settings, &supervisor);
                    Some((ServerAddress::write(data_dir, url.clone())?, serving))
                }
                Store::Redis(_) => None,
            };
            tracing::info!(url, "serving");
            notify(manager.as_deref(), "READY=1");
            stop.cancelled().await;
            notify(manager.as_deref(), "STOPPING=1");
            // Ends when all requests are answered or the grace period is over.
            let _ = serving.await;
            if let Some((_address_file, Some(serving))) = local {
                let _ = serving.await;
            }
            Ok(Some(opened))
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Some(service) = served? {
            service.close();
        }
        tracing::info!("stopped");
        supervisor.failed().map_or(Ok(()), |task| Err(ServeError::Panicked(task)))
    }

    fn http_settings(&self) -> HttpSettings {
        HttpSettings {
            access: Arc::new(AccessControl::new(AccessSettings {
                keys: ApiKeys::new(&self.settings.keys.keys),
                rate_limit: self.settings.rate_limit,
                ..AccessSettings::default()
            })),
            trusted_proxies: self.settings.trusted_proxies.clone(),
            cors_origins: self.settings.cors_origins.clone(),
            body_timeout: self.settings.body_timeout,
            response_budget: Arc::new(ResponseBudget::new(self.settings.response_bytes_max)),
            response_timeout: self.settings.response_timeout,
            overload_retry_timeout: self.settings.service.timeout,
            metrics: self.metrics.clone(),
            stopping: CancellationToken::new(),
        }
    }

    fn connection_settings(&self, http: HttpSettings) -> ConnectionSettings {
        ConnectionSettings {
            http,
            header_timeout: self.settings.header_timeout,
            idle_timeout: self.settings.idle_timeout,
            write_timeout: self.settings.body_timeout,
            read_rate_min: self.settings.read_rate_min,
            connections_max: open_files::connection_limit(
                self.settings.connections_max,
                connections::EXTRA_CONNECTIONS_MAX,
            ),
            connections_reserved: self.settings.connections_reserved,
            connections_per_address: self.settings.connections_per_address,
            grace: self.settings.grace,
            tls: self.tls.clone(),
        }
    }
}

/// Serves the commands of this machine in the background. Where there are no Unix sockets, commands need `--url`.
fn serve_local(
    data_dir: &Path,
    handler: &Arc<ArcSwap<RequestHandler>>,
    settings: &ConnectionSettings,
    supervisor: &Supervisor,
) -> Option<JoinHandle<()>> {
    #[cfg(unix)]
    match LocalSocket::bind(data_dir) {
        Ok(socket) => {
            return Some(tokio::spawn(socket.serve(handler.clone(), settings.clone(), supervisor.clone())));
        }
        Err(error) => tracing::warn!(
            "commands reach this server only with --url: cannot listen in {}: {error}",
            data_dir.display()
        ),
    }
    None
}

/// Opens the service on a temporary thread: opening frees about 100 MB, which the allocator would keep for a thread
/// that lives on.
async fn open(config: service::Config, progress: Arc<Progress>) -> Result<Service, ServeError> {
    let (sender, opened) = tokio::sync::oneshot::channel();
    if let Some(warning) = config.durability_warning() {
        tracing::warn!("{warning}");
    }
    let thread = std::thread::Builder::new().name("nearfield-open".to_owned());
    let spawned = thread.spawn(move || {
        let opened = Service::open_with_progress(config, Arc::new(SystemClock), &progress);
        // The receiver is gone only when the process is stopping.
        let _ = sender.send(opened);
    });
    spawned.map_err(ServeError::Runtime)?;
    match opened.await {
        Ok(opened) => Ok(opened?),
        Err(_) => {
            Err(ServeError::Runtime(io::Error::other("opening the store panicked; the log has the message")))
        }
    }
}

/// Reloads the keys and the certificate.
fn reload(
    load_keys: &impl Fn() -> Result<ServerKeys, Box<dyn std::error::Error>>,
    access: &AccessControl,
    tls: Option<&Tls>,
) {
    match load_keys() {
        Ok(loaded) if loaded.keys.is_empty() && access.requires_key() => {
            tracing::error!(
                "keys not reloaded: the new configuration has none, which would permit every request"
            );
        }
        Ok(loaded) => {
            access.replace_keys(ApiKeys::new(&loaded.keys));
            tracing::info!("reloaded the keys");
            if loaded.permanent > 0 {
                tracing::warn!(
                    "{} of the keys come from flags or the environment and stay valid until a restart; a reload revokes only \
                     keys in the file",
                    loaded.permanent
                );
            }
        }
        Err(error) => tracing::error!("keys not reloaded: {error}"),
    }
    match tls.map(Tls::reload) {
        Some(Ok(())) => tracing::info!("reloaded the certificate"),
        Some(Err(error)) => tracing::error!("certificate not reloaded: {error}"),
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
                    (true, _) => {
                        "; another program uses it: stop that program, or choose another address with --listen"
                    }
                    (_, io::ErrorKind::PermissionDenied) => "; ports below 1024 need privileges",
                    _ => "",
                };
                return Err(ServeError::Listen { address, source, hint });
            }
        }
    }
}

/// Makes the accept queue longer than the standard library's.
fn lengthen_backlog(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::listen(listener, BACKLOG) {
        tracing::debug!("cannot lengthen the accept queue: {error}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// Installs the metrics recorder once per process.
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

    /// The kernel limits the queue to net.core.somaxconn, which is 4096 since Linux 5.4.
    #[cfg(target_os = "linux")]
    #[test]
    fn hundreds_of_clients_can_connect_at_once() {
        let (_listener, address) = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        // Nothing accepts: with the default queue the 130th client would time out.
        let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500));
        let connections: Vec<_> = (0..400).map(connect).collect();
        assert_eq!(connections.iter().filter(|connection| connection.is_err()).count(), 0);
    }

    #[test]
    fn a_taken_port_is_reported_or_skipped() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = first.local_addr().unwrap();
        let message = listen(taken, false).unwrap_err().to_string();
        assert!(message.contains(&taken.to_string()) && message.contains("--listen"), "{message}");
        let (_second, address) = listen(taken, true).unwrap();
        assert!(address.port() > taken.port());
    }
}
