//! A bounded pool of connections to one server, each multiplexing many commands.

use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, Semaphore},
    time::{sleep_until, timeout},
};

use super::{
    Error,
    address::Address,
    breaker::{CircuitBreaker, LastReply},
    error,
};
use crate::{
    RedisStore,
    sync::{Arc, AtomicUsize, Mutex, Ordering},
};

const COMMANDS: &str = "nearfield_redis_commands_total";
const FAILURES: &str = "nearfield_redis_failures_total";
const SECONDS: &str = "nearfield_redis_seconds";
const UP: &str = "nearfield_redis_up";

/// Bytes of commands per unit of load.
const BYTES_PER_UNIT: usize = 16 << 10;

/// Load up to which one connection is filled before the next is used: commands on the same connection
/// share its system calls.
const FILL_MAX: usize = 32;

/// Maximum load of a connection. Further commands wait.
const LOAD_MAX: usize = 512;

/// The connection pool of one server.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) address: Address,
    pool: Vec<PooledConnection>,
    capacity: Semaphore,
    wait_timeout: Duration,
    pub(super) command_timeout: Duration,
    pub(super) breaker: CircuitBreaker,
    /// Why the server is unavailable, as last seen.
    last_error: Mutex<Error>,
    /// Cancels the wait for replies when the breaker opens.
    breaker_opened: Notify,
    /// Wakes the supervisor.
    wake_supervisor: Arc<Notify>,
    /// Whether connections send `READONLY`, so that a replica accepts reads.
    reads_from_replica: bool,
    metrics: NodeMetrics,
}

/// The metrics of one server.
struct NodeMetrics {
    commands: Counter,
    failures: Counter,
    seconds: Histogram,
    up: Gauge,
}

impl NodeMetrics {
    fn new(address: &Address) -> NodeMetrics {
        let node = address.to_string();
        NodeMetrics {
            commands: counter!(COMMANDS, "node" => node.clone()),
            failures: counter!(FAILURES, "node" => node.clone()),
            seconds: histogram!(SECONDS, "node" => node.clone()),
            up: gauge!(UP, "node" => node),
        }
    }
}

impl std::fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeMetrics")
    }
}

/// Registers the descriptions of the metrics.
pub(super) fn describe_metrics() {
    describe_counter!(COMMANDS, "Commands and pipelines sent to a Redis server, by node");
    describe_counter!(FAILURES, "Commands and pipelines without a reply, by node");
    describe_histogram!(SECONDS, Unit::Seconds, "Time from a command or pipeline to its reply, by node");
    describe_gauge!(
        UP,
        "Whether commands are sent to a Redis server (1) or its circuit breaker is open (0), by node"
    );
}

#[derive(Debug)]
struct PooledConnection {
    connection: ArcSwapOption<OpenConnection>,
    /// Load of the commands in flight.
    load: AtomicUsize,
    last_reply: LastReply,
}

#[derive(Debug)]
struct OpenConnection(MultiplexedConnection);

/// What is sent in one exchange.
enum Request<'c> {
    One(&'c Cmd),
    Several(&'c Pipeline),
}

impl Request<'_> {
    /// Sends the request; returns the reply, or an array of all replies.
    async fn send_on(self, mut connection: MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Request::One(command) => connection.send_packed_command(command).await,
            Request::Several(commands) => {
                connection.send_packed_commands(commands, 0, commands.len()).await.map(Value::Array)
            }
        }
    }
}

/// Subtracts a command's load when the command ends or is cancelled.
struct LoadGuard<'s> {
    pooled: &'s PooledConnection,
    weight: usize,
}

impl Drop for LoadGuard<'_> {
    fn drop(&mut self) {
        self.pooled.load.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

impl Connections {
    /// Starts without open connections and with an open breaker.
    pub(super) fn new(address: Address, store: &RedisStore, wake_supervisor: Arc<Notify>) -> Connections {
        let now = Instant::now();
        let breaker = CircuitBreaker::new(now);
        breaker.trip();
        let pooled = || PooledConnection {
            connection: ArcSwapOption::empty(),
            load: AtomicUsize::new(0),
            last_reply: LastReply::new(now),
        };
        Connections {
            last_error: Mutex::new(error::connecting(&address)),
            metrics: NodeMetrics::new(&address),
            address,
            pool: (0..store.connections).map(|_| pooled()).collect(),
            capacity: Semaphore::new(store.connections * LOAD_MAX),
            wait_timeout: store.wait_timeout,
            command_timeout: store.command_timeout,
            breaker,
            breaker_opened: Notify::new(),
            wake_supervisor,
            reads_from_replica: store.read_from_replicas,
        }
    }

    /// Why no commands can be sent, if that is the case.
    pub(super) fn unavailable_reason(&self) -> Option<Error> {
        self.breaker.is_open().then(|| self.last_error.lock().clone())
    }

    /// Sends one command and waits for its reply, which may be an error reply.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Error> {
        let bytes: usize = command.args_iter().map(|argument| argument_bytes(&argument)).sum();
        let weight = (1 + bytes / BYTES_PER_UNIT).min(LOAD_MAX);
        self.exchange(weight, Request::One(command)).await
    }

    /// Sends several commands in one pipeline and waits for a reply to each; some may be error replies.
    /// Not a transaction: commands of other callers may run in between.
    pub(super) async fn send_pipeline(&self, commands: &Pipeline, bytes: usize) -> Result<Vec<Value>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let count = commands.len();
        let weight = (1 + bytes / BYTES_PER_UNIT + count / 16).min(LOAD_MAX);
        match self.exchange(weight, Request::Several(commands)).await? {
            Value::Array(replies) if replies.len() == count => Ok(replies),
            _ => Err(error::reply("the number of replies differs from the number of commands")),
        }
    }

    async fn exchange(&self, weight: usize, request: Request<'_>) -> Result<Value, Error> {
        let began = Instant::now();
        let permits = u32::try_from(weight).expect("a weight is at most LOAD_MAX");
        let _permit = match self.capacity.try_acquire_many(permits) {
            Ok(capacity) => capacity,
            Err(_) => {
                timeout(self.wait_timeout.min(self.command_timeout), self.capacity.acquire_many(permits))
                    .await
                    .map_err(|_| self.unavailable_reason().unwrap_or_else(|| error::busy(&self.address)))?
                    .map_err(|_| Error::closing())?
            }
        };
        if let Some(reason) = self.unavailable_reason() {
            return Err(reason);
        }
        let (pooled, open) = self.select(weight).ok_or_else(|| error::connecting(&self.address))?;
        pooled.load.fetch_add(weight, Ordering::Relaxed);
        let _load = LoadGuard { pooled, weight };
        let sent = Instant::now();
        self.metrics.commands.increment(1);
        let replied = tokio::select! {
            biased;
            replied = request.send_on(open.0.clone()) => replied,
            () = self.breaker_opened.notified() => {
                self.metrics.failures.increment(1);
                return Err(error::timeout(&self.address, sent.elapsed()));
            }
            () = sleep_until((began + self.command_timeout).into()) => {
                self.metrics.failures.increment(1);
                if self.breaker.record_timeout(sent) {
                    self.on_breaker_opened(error::unresponsive(&self.address, sent.elapsed()));
                } else if !pooled.last_reply.replied_since(sent) {
                    // Other connections get replies: a middlebox may have dropped this one.
                    self.discard(pooled, &open);
                }
                return Err(error::timeout(&self.address, sent.elapsed()));
            }
        };
        match replied {
            Ok(reply) => {
                let now = Instant::now();
                pooled.last_reply.record_reply(now);
                self.breaker.record_reply(now);
                self.metrics.seconds.record(now - sent);
                Ok(reply)
            }
            Err(failed) => {
                self.metrics.failures.increment(1);
                self.discard(pooled, &open);
                Err(error::connection(&self.address, &failed))
            }
        }
    }

    /// The first open connection with spare capacity, or else the one with the least load.
    fn select(&self, weight: usize) -> Option<(&PooledConnection, Arc<OpenConnection>)> {
        let mut least: Option<(usize, &PooledConnection)> = None;
        for pooled in &self.pool {
            let load = pooled.load.load(Ordering::Relaxed);
            let is_open = || pooled.connection.load().is_some();
            if load + weight <= FILL_MAX && is_open() {
                least = Some((load, pooled));
                break;
            }
            if least.is_none_or(|(least, _)| load < least) && is_open() {
                least = Some((load, pooled));
            }
        }
        let (_, pooled) = least?;
        Some((pooled, pooled.connection.load_full()?))
    }

    /// Discards a broken connection unless it has already been replaced.
    fn discard(&self, pooled: &PooledConnection, open: &Arc<OpenConnection>) {
        pooled.connection.compare_and_swap(&Some(open.clone()), None);
        self.wake_supervisor.notify_one();
    }

    /// Opens the breaker, until [`Connections::mark_healthy`] closes it.
    pub(super) fn trip(&self, reason: Error) {
        if self.breaker.trip() {
            self.on_breaker_opened(reason);
        } else {
            *self.last_error.lock() = reason;
        }
    }

    fn on_breaker_opened(&self, reason: Error) {
        self.metrics.up.set(0.0);
        tracing::warn!(address = %self.address, error = %reason, "Redis does not reply; no commands are sent until it does");
        *self.last_error.lock() = reason;
        self.breaker_opened.notify_waiters();
        self.wake_supervisor.notify_one();
    }

    /// Opens missing connections and probes open ones; `true` if one was opened, perhaps to a different
    /// server process.
    pub(super) async fn reconnect(&self, probe_timeout: Duration) -> Result<bool, Error> {
        // If the first connection fails, the others are not tried.
        let (first, others) = self.pool.split_first().expect("a store has at least one connection");
        let mut opened = self.reconnect_slot(first, probe_timeout).await?;
        for pooled in others {
            if pooled.connection.load().is_none() || self.breaker.is_open() {
                opened |= self.reconnect_slot(pooled, probe_timeout).await?;
            }
        }
        Ok(opened)
    }

    async fn reconnect_slot(
        &self,
        pooled: &PooledConnection,
        probe_timeout: Duration,
    ) -> Result<bool, Error> {
        let began = Instant::now();
        if let Some(open) = pooled.connection.load_full() {
            match timeout(probe_timeout, probe(open.0.clone())).await {
                Ok(Ok(())) => {
                    self.breaker.record_reply(Instant::now());
                    return Ok(false);
                }
                // The server replies but is not ready, or rejects this client.
                Ok(Err(failed)) if failed.code().is_some() => {
                    return Err(error::connection(&self.address, &failed));
                }
                Ok(Err(_)) => self.discard(pooled, &open),
                // While others get replies, a slow command ahead of the probe does not mean that the
                // connection is broken.
                Err(_) if !self.breaker.is_open() => {
                    if self.breaker.replied_since(began) {
                        return Ok(false);
                    }
                    pooled.connection.store(None);
                    return Err(error::unresponsive(&self.address, probe_timeout));
                }
                Err(_) => pooled.connection.store(None),
            }
        }
        let connect = async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(LOAD_MAX);
            let mut connection =
                self.address.client.get_multiplexed_async_connection_with_config(&config).await?;
            probe(connection.clone()).await?;
            if self.reads_from_replica {
                // A primary ignores it.
                redis::cmd("READONLY").query_async::<()>(&mut connection).await?;
            }
            Ok(connection)
        };
        let connection = timeout(probe_timeout, connect)
            .await
            .map_err(|_| error::unresponsive(&self.address, probe_timeout))?
            .map_err(|failed: RedisError| error::connection(&self.address, &failed))?;
        self.breaker.record_reply(Instant::now());
        pooled.connection.store(Some(Arc::new(OpenConnection(connection))));
        Ok(true)
    }

    /// Whether the breaker is closed and a reply arrived after `at`.
    pub(super) fn is_healthy_since(&self, at: Instant) -> bool {
        !self.breaker.is_open() && self.breaker.replied_since(at)
    }

    /// Closes the breaker.
    pub(super) fn mark_healthy(&self) {
        if self.breaker.is_open() {
            tracing::info!(address = %self.address, "Redis replies again");
            self.metrics.up.set(1.0);
            self.breaker.close(Instant::now());
        }
    }

    /// Sends one command on an open connection regardless of the breaker, to find out whether the
    /// server is healthy.
    pub(super) async fn send_bypassing_breaker(
        &self,
        command: &Cmd,
        probe_timeout: Duration,
    ) -> Result<Value, Error> {
        let open = self.pool[0].connection.load_full();
        let open = open.ok_or_else(|| error::connecting(&self.address))?;
        let mut connection = open.0.clone();
        let reply = timeout(probe_timeout, connection.send_packed_command(command))
            .await
            .map_err(|_| error::unresponsive(&self.address, probe_timeout))?
            .map_err(|failed| error::connection(&self.address, &failed))?;
        match reply {
            Value::ServerError(reply) => Err(error::server(&reply)),
            value => Ok(value),
        }
    }

    /// Closes all connections and rejects callers that wait for capacity.
    pub(super) fn close(&self) {
        *self.last_error.lock() = Error::closing();
        self.breaker.trip();
        self.breaker_opened.notify_waiters();
        self.capacity.close();
        for pooled in &self.pool {
            pooled.connection.store(None);
        }
    }
}

/// Sends a PING. A server that is still loading its data replies with an error.
async fn probe(mut connection: MultiplexedConnection) -> Result<(), RedisError> {
    redis::cmd("PING").query_async::<Value>(&mut connection).await.map(drop)
}

fn argument_bytes(argument: &redis::Arg<&[u8]>) -> usize {
    match argument {
        redis::Arg::Simple(bytes) => bytes.len(),
        redis::Arg::Cursor => 20,
        _ => 0,
    }
}
