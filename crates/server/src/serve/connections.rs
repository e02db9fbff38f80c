//! Connections: accepted up to a limit, each served until it ends or the server stops.

use std::{future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    body::{Body, Bytes},
    extract::Request,
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
    header_timeout::{HeaderTimeouts, HeaderTimer},
    supervisor::Supervisor,
    tls::Tls,
    write_timeout::WriteTimeoutStream,
};
use crate::http::{self, CONNECTIONS, HealthOnly, HttpSettings, Peer, RequestHandler};
use service::Service;

/// Connections beyond the limit that are accepted for health checks.
pub(super) const HEALTH_CONNECTIONS_MAX: usize = 32;

/// How long the request head may take on such a connection.
const HEALTH_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Headers per request.
const HEADERS_MAX: usize = 100;

/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Pause after the system failed to accept a connection, for example because of too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    /// Concurrent connections.
    pub connections_max: usize,
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
            connections_max: 1024,
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
    let (grace, connections_max) = (settings.grace, settings.connections_max);
    let connection_slots = Arc::new(Semaphore::new(connections_max));
    let acceptor = Arc::new(Acceptor {
        handler,
        connection_slots: Arc::clone(&connection_slots),
        health_slots: Arc::new(Semaphore::new(HEALTH_CONNECTIONS_MAX)),
        timeouts: HeaderTimeouts { head: settings.header_timeout, idle: settings.idle_timeout },
        write_timeout: settings.write_timeout,
        tls: settings.tls,
        rejection: http::too_many_connections(),
        stopping: stopping.clone(),
    });
    let stopped = async {
        supervisor.stop().cancelled().await;
        stopping.cancel();
        let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(grace, connection_slots.acquire_many(all)).await.is_err() {
            let left = connections_max - connection_slots.available_permits();
            tracing::warn!(
                left,
                "connections were cut off: their requests took longer than the grace period"
            );
        }
    };
    let listeners = Arc::new(listeners);
    let accepting = supervisor.run("connections", move || {
        let (acceptor, listeners) = (acceptor.clone(), listeners.clone());
        async move { acceptor.accept(&listeners).await }
    });
    let mut stopped = pin!(stopped);
    tokio::select! {
        () = stopped.as_mut() => (),
        // Only if the supervisor gives up, which also stops the server.
        () = accepting => stopped.await,
    }
}

struct Acceptor {
    handler: Arc<ArcSwap<RequestHandler>>,
    connection_slots: Arc<Semaphore>,
    health_slots: Arc<Semaphore>,
    timeouts: HeaderTimeouts,
    write_timeout: Duration,
    tls: Option<Tls>,
    /// The response to connections beyond the limit and the health slots.
    rejection: Bytes,
    stopping: CancellationToken,
}

impl Acceptor {
    /// Accepts connections forever. While the server is stopping, health checks are still answered.
    async fn accept(&self, listeners: &[TcpListener]) {
        loop {
            match accept_any(listeners).await {
                Ok((stream, peer)) => match self.admit() {
                    Some((permit, health_only)) => self.serve(stream, peer, permit, health_only),
                    None => self.reject(&stream),
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

    /// A slot for a connection, if one is free, and whether it is for health checks only.
    fn admit(&self) -> Option<(OwnedSemaphorePermit, bool)> {
        let connection_slots = || {
            Arc::clone(&self.connection_slots)
                .try_acquire_owned()
                .ok()
                .filter(|_| !self.stopping.is_cancelled())
        };
        let health_slots = || Arc::clone(&self.health_slots).try_acquire_owned().ok();
        connection_slots()
            .map(|permit| (permit, false))
            .or_else(|| health_slots().map(|permit| (permit, true)))
    }

    /// Closes a connection for which no slot is free, without waiting, so that accepting continues. Without TLS the
    /// client gets a response if it fits into the socket's buffer.
    fn reject(&self, stream: &TcpStream) {
        if self.tls.is_none()
            && let Err(error) = stream.try_write(&self.rejection)
        {
            tracing::debug!("cannot write the rejection of a connection: {error}");
        }
    }

    /// Serves a connection in its own task.
    fn serve(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit, health_only: bool) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, "cannot set TCP_NODELAY: {error}");
        }
        let connection = Connection {
            handler: self.handler.clone(),
            peer,
            health_only,
            timeouts: if health_only {
                HeaderTimeouts { head: self.timeouts.head.min(HEALTH_HEADER_TIMEOUT), ..self.timeouts }
            } else {
                self.timeouts
            },
            write_timeout: self.write_timeout,
            stopping: self.stopping.clone(),
        };
        let tls = self.tls.clone();
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let _counted = ConnectionGauge::new();
            let Some(tls) = tls else { return connection.serve(stream).await };
            let accepted = tokio::select! {
                accepted = tls.accept(stream, connection.timeouts.head) => accepted,
                // No request has arrived yet.
                () = stopping.cancelled(), if !health_only => return,
            };
            match accepted {
                Ok(stream) => connection.serve(stream).await,
                Err(error) => tracing::debug!(%peer, "TLS handshake failed: {error}"),
            }
        });
    }
}

/// A connection and the settings it is served with.
struct Connection {
    handler: Arc<ArcSwap<RequestHandler>>,
    peer: SocketAddr,
    health_only: bool,
    timeouts: HeaderTimeouts,
    write_timeout: Duration,
    stopping: CancellationToken,
}

impl Connection {
    /// Serves the connection to its end.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Connection { handler, peer, health_only, timeouts, write_timeout, stopping } = self;
        let answer_request = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            if health_only {
                request.extensions_mut().insert(HealthOnly);
            }
            let handler = handler.load_full();
            async move { handler.handle(request).await }
        });
        let timer = HeaderTimer::new(timeouts);
        let stream =
            InspectReader::new(WriteTimeoutStream::new(stream, write_timeout), timer.read_observer());
        let connection = http1::Builder::new()
            .timer(timer)
            .header_read_timeout(timeouts.head)
            .keep_alive(!health_only)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer_request);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled(), if !health_only => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, "a connection ended: {error}");
        }
    }
}

/// Counts a connection for as long as it lives.
struct ConnectionGauge;

impl ConnectionGauge {
    fn new() -> ConnectionGauge {
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
