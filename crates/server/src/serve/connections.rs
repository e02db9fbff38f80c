//! Connections: accepted up to a limit, each served until it ends or the server stops.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, Response, Version, header},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use metrics::gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{io::InspectReader, sync::CancellationToken};

use super::{
    closing,
    connection_table::{CLOSING_MAX, ConnectionLimits, ConnectionSlot, ConnectionTable},
    header_timeout::{HeaderTimeouts, HeaderTimer},
    supervisor::Supervisor,
    tls::Tls,
    unread_body,
    write_timeout::WriteTimeoutStream,
};
use crate::{
    access::Network,
    http::{self, CONNECTIONS, HealthOnly, HttpSettings, Peer, RequestHandler},
};
use service::Service;

/// Connections beyond the limit that are accepted for health checks.
const HEALTH_CONNECTIONS_MAX: usize = 32;

/// How long the request head may take on such a connection.
const HEALTH_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Further connections whose clients get time to read the rejection.
const REJECTED_CONNECTIONS_MAX: usize = 64;

/// Connections that may be open beyond the limit: for health checks, rejected, or being closed for others.
pub(super) const EXTRA_CONNECTIONS_MAX: usize =
    HEALTH_CONNECTIONS_MAX + REJECTED_CONNECTIONS_MAX + CLOSING_MAX;

/// Headers per request.
const HEADERS_MAX: usize = 100;

/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Pause after the system failed to accept a connection, for example because of too many open files.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Settings of the HTTP interface.
    pub http: HttpSettings,
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request to begin.
    pub idle_timeout: Duration,
    /// How long a client may leave a response unread.
    pub write_timeout: Duration,
    /// Bytes per second that a client must read on average while it reads a response.
    pub read_rate_min: u32,
    /// Concurrent connections.
    pub connections_max: usize,
    /// How many of them only callers with an API key may use; at most half.
    pub connections_reserved: usize,
    /// Concurrent connections without a valid API key from one IPv4 address or IPv6 /64 network.
    pub connections_per_address: usize,
    /// How long requests in flight may take once `stop` has fired.
    pub grace: Duration,
    /// Serves HTTPS if set.
    pub tls: Option<Tls>,
}

impl Default for ConnectionSettings {
    fn default() -> ConnectionSettings {
        ConnectionSettings {
            http: HttpSettings::default(),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            read_rate_min: 64 << 10,
            connections_max: 1024,
            connections_reserved: 128,
            connections_per_address: 512,
            grace: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// Serves connections to `listeners` until `stop` fires. From then on `/readyz` answers 503 and only health checks are
/// accepted; requests in flight may finish within the grace period, and the rest is cut off.
pub async fn run(
    listeners: Vec<TcpListener>,
    service: Service,
    settings: ConnectionSettings,
    stop: CancellationToken,
) {
    let handler = RequestHandler::new(service, settings.http.clone());
    let handler = Arc::new(ArcSwap::from_pointee(handler));
    serve_with(listeners, handler, settings, Supervisor::new(stop)).await;
}

/// [`run`] with a replaceable handler: each request is answered by the handler that is set when it arrives.
pub(super) async fn serve_with(
    listeners: Vec<TcpListener>,
    handler: Arc<ArcSwap<RequestHandler>>,
    settings: ConnectionSettings,
    supervisor: Supervisor,
) {
    assert!(!listeners.is_empty(), "a server has a listener");
    let stopping = settings.http.stopping.clone();
    let grace = settings.grace;
    let table = ConnectionTable::new();
    let acceptor = Arc::new(Acceptor {
        handler,
        table: Arc::clone(&table),
        health_slots: Arc::new(Semaphore::new(HEALTH_CONNECTIONS_MAX)),
        rejection_slots: Arc::new(Semaphore::new(REJECTED_CONNECTIONS_MAX)),
        http: settings.http,
        connections_max: settings.connections_max,
        connections_reserved: settings.connections_reserved,
        connections_per_address: settings.connections_per_address,
        timeouts: HeaderTimeouts { head: settings.header_timeout, idle: settings.idle_timeout },
        write_timeout: settings.write_timeout,
        read_rate_min: settings.read_rate_min,
        tls: settings.tls,
        rejection: http::too_many_connections(),
        stopping: stopping.clone(),
    });
    let stopped = async {
        supervisor.stop().cancelled().await;
        stopping.cancel();
        if tokio::time::timeout(grace, table.wait_until_empty()).await.is_err() {
            let left = table.open();
            tracing::warn!(
                left,
                "connections were cut off: their requests took longer than the grace period"
            );
        }
    };
    let listeners = Arc::new(listeners);
    let closing = CancellationToken::new();
    let accepting = {
        let closing = closing.clone();
        supervisor.run("connections", move || {
            let (acceptor, listeners, closing) = (acceptor.clone(), listeners.clone(), closing.clone());
            async move {
                tokio::select! {
                    () = acceptor.accept(&listeners) => (),
                    () = closing.cancelled() => (),
                }
            }
        })
    };
    let (mut stopped, mut accepting) = (pin!(stopped), pin!(accepting));
    tokio::select! {
        () = stopped.as_mut() => {
            // Awaited, so that the listeners are closed on return.
            closing.cancel();
            accepting.await;
        }
        // Only if the supervisor gives up, which also stops the server.
        () = accepting.as_mut() => stopped.await,
    }
}

struct Acceptor {
    handler: Arc<ArcSwap<RequestHandler>>,
    table: Arc<ConnectionTable>,
    health_slots: Arc<Semaphore>,
    rejection_slots: Arc<Semaphore>,
    http: HttpSettings,
    connections_max: usize,
    connections_reserved: usize,
    connections_per_address: usize,
    timeouts: HeaderTimeouts,
    write_timeout: Duration,
    read_rate_min: u32,
    tls: Option<Tls>,
    /// The response to connections beyond the limit and the health slots.
    rejection: Bytes,
    stopping: CancellationToken,
}

/// The place of a connection.
enum Slot {
    /// For all requests.
    Regular(ConnectionSlot),
    /// For health checks only.
    HealthOnly { _permit: OwnedSemaphorePermit },
    /// For commands on this machine.
    #[cfg(unix)]
    Local { _permit: OwnedSemaphorePermit },
}

impl Acceptor {
    /// Accepts connections forever. While the server is stopping, health checks are still answered.
    async fn accept(&self, listeners: &[TcpListener]) {
        loop {
            match accept_any(listeners).await {
                Ok((stream, peer)) => match self.admit(peer) {
                    Some(slot) => {
                        let has_replaced = matches!(&slot, Slot::Regular(slot) if slot.has_replaced());
                        self.serve(stream, peer, slot);
                        if has_replaced {
                            // Requests that have arrived are read before further connections can take their place.
                            tokio::task::yield_now().await;
                        }
                    }
                    None => self.reject(stream),
                },
                Err(error) if is_connection_error(&error) => {
                    tracing::debug!("a connection failed early: {error}")
                }
                Err(error) => {
                    tracing::error!("cannot accept connections: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A slot for a connection from `peer`, if one is free.
    fn admit(&self, peer: SocketAddr) -> Option<Slot> {
        let regular = || {
            // All clients of a proxy, and all programs of this machine, have one address.
            let address = peer.ip().to_canonical();
            let is_shared =
                address.is_loopback() || http::is_trusted_proxy(&self.http.trusted_proxies, address);
            let network = (!is_shared).then(|| Network::from(address));
            self.table.admit(network, self.limits()).map(Slot::Regular)
        };
        let health_only = || {
            let permit = Arc::clone(&self.health_slots).try_acquire_owned().ok();
            permit.map(|permit| Slot::HealthOnly { _permit: permit })
        };
        let is_stopping = self.stopping.is_cancelled();
        (!is_stopping).then(regular).flatten().or_else(health_only)
    }

    /// The limits on connections. Without API keys all callers are alike.
    fn limits(&self) -> ConnectionLimits {
        let total = self.connections_max;
        if !self.http.access.requires_key() {
            return ConnectionLimits { total, unauthenticated: total, per_network: total };
        }
        let reserved = self.connections_reserved.min(total / 2);
        ConnectionLimits {
            total,
            unauthenticated: total - reserved,
            per_network: self.connections_per_address,
        }
    }

    /// Closes a connection for which no slot is free, without waiting, so that accepting continues. Without TLS the
    /// client gets a response if it fits into the socket's buffer.
    fn reject(&self, stream: TcpStream) {
        if self.tls.is_some() {
            return;
        }
        if let Err(error) = stream.try_write(&self.rejection) {
            tracing::debug!("cannot write the rejection of a connection: {error}");
            return;
        }
        if let Ok(permit) = Arc::clone(&self.rejection_slots).try_acquire_owned() {
            tokio::spawn(async move {
                // The client may have gone.
                let _ = closing::close(stream, true).await;
                drop(permit);
            });
        }
    }

    /// Serves a connection in its own task.
    fn serve(&self, stream: TcpStream, peer: SocketAddr, slot: Slot) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, "cannot set TCP_NODELAY: {error}");
        }
        let head = match slot {
            Slot::HealthOnly { .. } => self.timeouts.head.min(HEALTH_HEADER_TIMEOUT),
            _ => self.timeouts.head,
        };
        let connection = Connection {
            handler: self.handler.clone(),
            peer,
            slot: Arc::new(slot),
            timeouts: HeaderTimeouts { head, ..self.timeouts },
            write_timeout: self.write_timeout,
            read_rate_min: self.read_rate_min,
            stopping: self.stopping.clone(),
        };
        let tls = self.tls.clone();
        tokio::spawn(async move {
            let _counted = ConnectionGauge::new();
            let evicted = connection.slot.evicted();
            tokio::select! {
                () = connection.run(stream, tls) => (),
                () = evicted.cancelled() => {
                    tracing::debug!(%peer, "a connection without an API key was closed for another one");
                }
            }
        });
    }
}

impl Slot {
    fn is_health_only(&self) -> bool {
        matches!(self, Slot::HealthOnly { .. })
    }

    /// Fires when the connection has to be closed for another one.
    fn evicted(&self) -> CancellationToken {
        match self {
            Slot::Regular(slot) => slot.evicted(),
            _ => CancellationToken::new(),
        }
    }
}

/// A connection and the settings it is served with.
pub(super) struct Connection {
    handler: Arc<ArcSwap<RequestHandler>>,
    peer: SocketAddr,
    slot: Arc<Slot>,
    timeouts: HeaderTimeouts,
    write_timeout: Duration,
    read_rate_min: u32,
    stopping: CancellationToken,
}

impl Connection {
    /// A connection of a command on this machine. Its peer is the loopback address.
    #[cfg(unix)]
    pub(super) fn local(
        handler: Arc<ArcSwap<RequestHandler>>,
        settings: &ConnectionSettings,
        permit: OwnedSemaphorePermit,
    ) -> Connection {
        Connection {
            handler,
            peer: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            slot: Arc::new(Slot::Local { _permit: permit }),
            timeouts: HeaderTimeouts { head: settings.header_timeout, idle: settings.idle_timeout },
            write_timeout: settings.write_timeout,
            read_rate_min: settings.read_rate_min,
            stopping: settings.http.stopping.clone(),
        }
    }

    /// Serves the connection to its end, after a handshake if there is `tls`.
    async fn run(self, stream: TcpStream, tls: Option<Tls>) {
        let Some(tls) = tls else { return self.serve(stream).await };
        let accepted = tokio::select! {
            accepted = tls.accept(stream, self.timeouts.head) => accepted,
            // No request has arrived yet.
            () = self.stopping.cancelled(), if !self.slot.is_health_only() => return,
        };
        match accepted {
            Ok(stream) => self.serve(stream).await,
            Err(error) => tracing::debug!(peer = %self.peer, "TLS handshake failed: {error}"),
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Connection { handler, peer, slot, timeouts, write_timeout, read_rate_min, stopping } = self;
        let is_health_only = slot.is_health_only();
        // Whether the client may still be sending a body that nobody reads.
        let has_unread_body = Arc::new(AtomicBool::new(false));
        let answer_request = {
            let (slot, has_unread_body) = (Arc::clone(&slot), Arc::clone(&has_unread_body));
            service_fn(move |request: Request<Incoming>| -> AnswerFuture {
                let handler = handler.load_full();
                Box::pin(answer(handler, request, peer, Arc::clone(&slot), Arc::clone(&has_unread_body)))
            })
        };
        let timer = HeaderTimer::new(timeouts);
        let stream = WriteTimeoutStream::new(stream, write_timeout, read_rate_min);
        let stream = InspectReader::new(stream, timer.read_observer());
        let mut connection = http1::Builder::new()
            .timer(timer)
            .header_read_timeout(timeouts.head)
            .keep_alive(!is_health_only)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer_request);
        let mut is_stopping = pin!(stopping.cancelled());
        let mut stops = !is_health_only;
        let ended = poll_fn(|cx| {
            if stops && is_stopping.as_mut().poll(cx).is_ready() {
                stops = false;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(cx)
        })
        .await;
        let is_malformed = ended.as_ref().is_err_and(hyper::Error::is_parse);
        let linger = is_malformed || has_unread_body.load(Ordering::Relaxed);
        let stream = connection.into_parts().io.into_inner();
        let closed = closing::close(stream, linger).await;
        drop(slot);
        if let Err(error) = ended {
            tracing::debug!(%peer, "a connection ended: {error}");
        } else if let Err(error) = closed {
            tracing::debug!(%peer, "a connection was not closed: {error}");
        }
    }
}

type AnswerFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Answers a request. If its body is not read to its end, the response announces that the connection is closed, and
/// `has_unread_body` is set.
async fn answer(
    handler: Arc<RequestHandler>,
    request: Request<Incoming>,
    peer: SocketAddr,
    slot: Arc<Slot>,
    has_unread_body: Arc<AtomicBool>,
) -> Result<Response<Body>, Infallible> {
    let expects_continue = request.version() >= Version::HTTP_11
        && request
            .headers()
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let (parts, incoming) = request.into_parts();
    let (body, progress) = unread_body::observe(incoming);
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(Peer(peer));
    let _active = match &*slot {
        Slot::Regular(slot) => {
            request.extensions_mut().insert(slot.authenticated());
            Some(slot.begin_request())
        }
        Slot::HealthOnly { .. } => {
            request.extensions_mut().insert(HealthOnly);
            None
        }
        #[cfg(unix)]
        Slot::Local { .. } => None,
    };
    let mut response = handler.handle(request).await?;
    if let Some(progress) = progress
        && !progress.discard_rest(expects_continue).await
    {
        has_unread_body.store(true, Ordering::Relaxed);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Counts a connection for as long as it lives.
pub(super) struct ConnectionGauge;

impl ConnectionGauge {
    pub(super) fn new() -> ConnectionGauge {
        gauge!(CONNECTIONS).increment(1.0);
        ConnectionGauge
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
    }
}

/// The next connection of any listener.
async fn accept_any(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether a failed accept concerns one connection, so that the next may succeed at once.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
