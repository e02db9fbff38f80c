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
    heads::{HeadTimer, Limits},
    tls::Tls,
    unstalled::Unstalled,
};
use crate::http::{self, App, CONNECTIONS, HealthOnly, HttpSettings, Peer};
use service::Service;

/// Connections beyond the limit, for questions about health alone.
pub(super) const HEADROOM: usize = 32;

/// How long such a connection may take over its one request's head.
const HEADROOM_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Headers of a request.
const HEADERS_MAX: usize = 100;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Pause after the system refused to accept, for one because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ServeSettings {
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

impl Default for ServeSettings {
    fn default() -> ServeSettings {
        ServeSettings {
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
    settings: ServeSettings,
    stop: CancellationToken,
) {
    let router = http::router(service.clone(), settings.http.clone());
    let app = Arc::new(ArcSwap::from_pointee(App::gated(router, service)));
    answer(listeners, app, settings, stop).await;
}

/// [`run`], with whatever answers at the moment a request comes.
pub(super) async fn answer(
    listeners: Vec<TcpListener>,
    app: Arc<ArcSwap<App>>,
    settings: ServeSettings,
    stop: CancellationToken,
) {
    assert!(!listeners.is_empty(), "a server listens somewhere");
    let stopping = settings.http.stopping.clone();
    let (grace, connections_max) = (settings.grace, settings.connections_max);
    let room = Arc::new(Semaphore::new(connections_max));
    let connections = Connections {
        app,
        room: Arc::clone(&room),
        headroom: Arc::new(Semaphore::new(HEADROOM)),
        limits: Limits { head: settings.header_timeout, idle: settings.idle_timeout },
        write_timeout: settings.write_timeout,
        tls: settings.tls,
        no_room: http::no_room(),
        stopping: stopping.clone(),
    };
    let stopped = async {
        stop.cancelled().await;
        stopping.cancel();
        let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(grace, room.acquire_many(all)).await.is_err() {
            let left = connections_max - room.available_permits();
            tracing::warn!(left, "connections were cut off: their requests took longer than the grace");
        }
    };
    tokio::select! {
        () = stopped => (),
        () = connections.accept(&listeners) => (),
    }
}

struct Connections {
    app: Arc<ArcSwap<App>>,
    room: Arc<Semaphore>,
    headroom: Arc<Semaphore>,
    limits: Limits,
    write_timeout: Duration,
    tls: Option<Tls>,
    /// What is said where there is not even headroom.
    no_room: Bytes,
    stopping: CancellationToken,
}

impl Connections {
    /// Accepts for ever. While the server is stopping, questions about health are still answered.
    async fn accept(&self, listeners: &[TcpListener]) {
        loop {
            match accept_any(listeners).await {
                Ok((stream, peer)) => match self.admit() {
                    Some((permit, health_only)) => self.serve(stream, peer, permit, health_only),
                    None => self.turn_away(&stream),
                },
                Err(error) if is_of_one_connection(&error) => {
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
        let room =
            || Arc::clone(&self.room).try_acquire_owned().ok().filter(|_| !self.stopping.is_cancelled());
        let headroom = || Arc::clone(&self.headroom).try_acquire_owned().ok();
        room().map(|permit| (permit, false)).or_else(|| headroom().map(|permit| (permit, true)))
    }

    /// Ends a connection for which there is not even headroom: accepting goes on, so that nobody waits for an answer
    /// longer than those who were sent away. Said in words where they can be read without waiting for anything.
    fn turn_away(&self, stream: &TcpStream) {
        if self.tls.is_none()
            && let Err(error) = stream.try_write(&self.no_room)
        {
            tracing::debug!("a client that was turned away was not told: {error}");
        }
    }

    /// Serves a connection in a task of its own.
    fn serve(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit, health_only: bool) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, "cannot set TCP_NODELAY: {error}");
        }
        let serving = Serving {
            app: self.app.clone(),
            peer,
            health_only,
            limits: if health_only {
                Limits { head: self.limits.head.min(HEADROOM_HEADER_TIMEOUT), ..self.limits }
            } else {
                self.limits
            },
            write_timeout: self.write_timeout,
            stopping: self.stopping.clone(),
        };
        let tls = self.tls.clone();
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let _counted = Counted::new();
            let Some(tls) = tls else { return serving.serve(stream).await };
            let accepted = tokio::select! {
                accepted = tls.accept(stream, serving.limits.head) => accepted,
                // It has not asked for anything yet.
                () = stopping.cancelled(), if !health_only => return,
            };
            match accepted {
                Ok(stream) => serving.serve(stream).await,
                Err(error) => tracing::debug!(%peer, "a client did not speak TLS: {error}"),
            }
        });
    }
}

/// What a connection is served with.
struct Serving {
    app: Arc<ArcSwap<App>>,
    peer: SocketAddr,
    health_only: bool,
    limits: Limits,
    write_timeout: Duration,
    stopping: CancellationToken,
}

impl Serving {
    /// Serves a connection to its end.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Serving { app, peer, health_only, limits, write_timeout, stopping } = self;
        let answer = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            if health_only {
                request.extensions_mut().insert(HealthOnly);
            }
            let app = app.load_full();
            async move { app.answer(request).await }
        });
        let timer = HeadTimer::new(limits);
        let stream = InspectReader::new(Unstalled::new(stream, write_timeout), timer.listener());
        let connection = http1::Builder::new()
            .timer(timer)
            .header_read_timeout(limits.head)
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
struct Counted;

impl Counted {
    fn new() -> Counted {
        gauge!(CONNECTIONS).increment(1.0);
        Counted
    }
}

impl Drop for Counted {
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
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
