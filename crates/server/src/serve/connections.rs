//! Connections: accepted while there is room, each served until it ends or the server stops.

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

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
    tls::Tls,
    write_timeout::WriteTimeoutStream,
};
use crate::http::{self, CONNECTIONS, HealthOnly, HttpSettings, Peer, RequestHandler};
use service::Service;

/// Connections beyond the limit, for questions about health alone.
pub(super) const HEALTH_CONNECTIONS_MAX: usize = 32;

/// How long such a connection may take over its one request's head.
const HEALTH_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Headers of a request.
const HEADERS_MAX: usize = 100;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Pause after the system refused to accept, for one because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// How the door behaves.
    pub http: HttpSettings,
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request to begin.
    pub idle_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
    /// Connections served at once.
    pub connections_max: usize,
    /// How long requests in flight may take once `stop` has fired.
    pub grace: Duration,
    /// Speaks HTTPS, if given.
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

/// Serves what comes in on `listeners` until `stop` fires. From then on `/readyz` says so, nothing
/// new is begun, requests in flight may finish, and the rest is cut off after the grace.
pub async fn run(
    listeners: Vec<TcpListener>,
    service: Service,
    settings: ConnectionSettings,
    stop: CancellationToken,
) {
    let router = http::router(service.clone(), settings.http.clone());
    let handler = Arc::new(ArcSwap::from_pointee(RequestHandler::with_shedding(router, service)));
    serve_with(listeners, handler, settings, stop).await;
}

/// [`run`], with whatever answers at the moment a request comes.
pub(super) async fn serve_with(
    listeners: Vec<TcpListener>,
    handler: Arc<ArcSwap<RequestHandler>>,
    settings: ConnectionSettings,
    stop: CancellationToken,
) {
    assert!(!listeners.is_empty(), "a server listens somewhere");
    let stopping = settings.http.stopping.clone();
    let (grace, connections_max) = (settings.grace, settings.connections_max);
    let connection_slots = Arc::new(Semaphore::new(connections_max));
    let connections = Acceptor {
        handler,
        connection_slots: Arc::clone(&connection_slots),
        health_slots: Arc::new(Semaphore::new(HEALTH_CONNECTIONS_MAX)),
        timeouts: HeaderTimeouts { head: settings.header_timeout, idle: settings.idle_timeout },
        write_timeout: settings.write_timeout,
        tls: settings.tls,
        rejection: http::too_many_connections(),
        stopping: stopping.clone(),
    };
    let stopped = async {
        stop.cancelled().await;
        stopping.cancel();
        let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(grace, connection_slots.acquire_many(all)).await.is_err() {
            let left = connections_max - connection_slots.available_permits();
            tracing::warn!(left, "connections were cut off: their requests took longer than the grace");
        }
    };
    tokio::select! {
        () = stopped => (),
        () = connections.accept(&listeners) => (),
    }
}

struct Acceptor {
    handler: Arc<ArcSwap<RequestHandler>>,
    connection_slots: Arc<Semaphore>,
    health_slots: Arc<Semaphore>,
    timeouts: HeaderTimeouts,
    write_timeout: Duration,
    tls: Option<Tls>,
    /// What is said where there is not even headroom.
    rejection: Bytes,
    stopping: CancellationToken,
}

impl Acceptor {
    /// Accepts for ever. While the server is stopping, questions about health are still answered.
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

    /// Room for a connection, if there is any, and whether it is only the headroom.
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

    /// Ends a connection for which there is not even headroom: accepting goes on, so that nobody waits for an answer
    /// longer than those who were sent away. Said in words where they can be read without waiting for anything.
    fn reject(&self, stream: &TcpStream) {
        if self.tls.is_none()
            && let Err(error) = stream.try_write(&self.rejection)
        {
            tracing::debug!("a client that was turned away was not told: {error}");
        }
    }

    /// Serves a connection in a task of its own.
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
                // It has not asked for anything yet.
                () = stopping.cancelled(), if !health_only => return,
            };
            match accepted {
                Ok(stream) => connection.serve(stream).await,
                Err(error) => tracing::debug!(%peer, "a client did not speak TLS: {error}"),
            }
        });
    }
}

/// What a connection is served with.
struct Connection {
    handler: Arc<ArcSwap<RequestHandler>>,
    peer: SocketAddr,
    health_only: bool,
    timeouts: HeaderTimeouts,
    write_timeout: Duration,
    stopping: CancellationToken,
}

impl Connection {
    /// Serves a connection to its end.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Connection { handler, peer, health_only, timeouts, write_timeout, stopping } = self;
        let answer = service_fn(move |request: Request<Incoming>| {
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
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
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

/// Whether a failure to accept says nothing of the next.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
