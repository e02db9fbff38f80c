//! One server: its connections, its properties, and the adaptive size of write batches.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use super::{
    Error,
    address::Address,
    connections::Connections,
    error::UNAVAILABLE,
    script::Script,
    server::{self, ServerInfo},
    slots,
};
use crate::{
    RedisStore,
    sync::{Arc, AtomicBool, AtomicUsize, Ordering, RwLock},
};

/// Write pipelines in flight: while Redis executes one, the next is prepared.
const WRITES_MAX: usize = 2;

/// Commands per pipeline.
pub(super) const PIPELINE_MAX: usize = 512;

/// Minimum number of documents per write pipeline.
const BATCH_MIN: usize = 8;

/// Target duration of a write pipeline: long enough to amortize the round trip, and far below the
/// command timeout even if indexing is slow.
const BATCH_TARGET_TIME: Duration = Duration::from_millis(200);

/// Documents in the first write pipeline, before the write rate is known.
const BATCH_INITIAL: usize = 16;

/// Maximum wait for one probe of a server that did not reply before; it is retried soon. A healthy
/// server gets two thirds of the command timeout, so that the breaker opens before commands time out
/// one by one.
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// One server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) connections: Connections,
    /// Held by write pipelines in flight.
    pub(super) write_permits: Semaphore,
    /// Documents per write pipeline, adapted to the last one's duration.
    pub(super) batch_size: AtomicUsize,
    /// Whether the replicas missed the last `WAIT` timeout.
    pub(super) replicas_lag: AtomicBool,
    /// Its properties as of the last health check.
    server: RwLock<Option<ServerInfo>>,
}

impl Node {
    pub(super) fn new(address: Address, store: &RedisStore, wake_supervisor: Arc<Notify>) -> Node {
        Node {
            connections: Connections::new(address, store, wake_supervisor),
            write_permits: Semaphore::new(WRITES_MAX),
            batch_size: AtomicUsize::new(BATCH_INITIAL),
            replicas_lag: AtomicBool::new(false),
            server: RwLock::new(None),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.connections.address
    }

    /// Its properties as of the last health check, if there was one.
    pub(super) fn server(&self) -> Option<ServerInfo> {
        self.server.read().clone()
    }

    /// Whether the server is a search coordinator: it forwards index commands to the other servers of
    /// its cluster.
    pub(super) fn has_coordinator(&self) -> bool {
        self.server.read().as_ref().is_some_and(|server| server.has_coordinator)
    }

    pub(super) fn probe_timeout(&self) -> Duration {
        let command_timeout = self.connections.command_timeout;
        if self.connections.unavailable_reason().is_some() {
            PROBE_TIMEOUT_MAX.min(command_timeout)
        } else {
            command_timeout * 2 / 3
        }
    }

    /// Checks the server. Closes its breaker if it is healthy, otherwise opens it and returns the
    /// reason. `true` if the server was unavailable or may be a different process. With `reload_info`,
    /// or after an outage, its properties are read again.
    pub(super) async fn health_check(
        &self,
        reload_info: bool,
        script: &Script,
        is_cluster: bool,
    ) -> Result<bool, Error> {
        let began = Instant::now();
        match self.probe_and_recover(reload_info, script, is_cluster).await {
            // One command was slow or one connection broke, while others got replies.
            Err(error) if error.code == UNAVAILABLE && self.connections.is_healthy_since(began) => {
                tracing::debug!(%error, "Redis is busy");
                Ok(false)
            }
            // A server that replies but cannot be used is treated like a silent one.
            Err(error) => {
                self.connections.trip(error.clone());
                Err(error)
            }
            found => found,
        }
    }

    async fn probe_and_recover(
        &self,
        reload_info: bool,
        script: &Script,
        is_cluster: bool,
    ) -> Result<bool, Error> {
        let (connections, probe_timeout) = (&self.connections, self.probe_timeout());
        let was_open = connections.breaker.is_open();
        let opened = connections.reconnect(probe_timeout).await?;
        if !(reload_info || opened || was_open) {
            return Ok(false);
        }
        let info = connections.send_bypassing_breaker(&redis::cmd("INFO"), probe_timeout).await?;
        let mut modules = redis::cmd("MODULE");
        modules.arg("LIST");
        let mut server = ServerInfo::read(
            info,
            connections.send_bypassing_breaker(&modules, probe_timeout).await?,
            is_cluster,
        )?;
        if is_cluster {
            let mut search = redis::cmd("COMMAND");
            search.arg("INFO").arg("FT.SEARCH");
            server.has_coordinator =
                server::has_coordinator(connections.send_bypassing_breaker(&search, probe_timeout).await?)?;
        }
        let restarted = self.server.read().as_ref().is_none_or(|before| before.run_id != server.run_id);
        if was_open || restarted {
            connections.send_bypassing_breaker(&script.load(), probe_timeout).await?;
        }
        if restarted {
            let address = self.address();
            tracing::info!(%address, version = server.version, search = server.search_version, "connected to Redis");
        }
        *self.server.write() = Some(server);
        connections.mark_healthy();
        Ok(opened || was_open)
    }

    /// Whether the server is importing or migrating slots.
    pub(super) async fn is_migrating_slots(&self) -> Result<bool, Error> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("NODES");
        slots::is_migrating(self.connections.send_bypassing_breaker(&command, self.probe_timeout()).await?)
    }

    /// Adapts the size of the next write pipelines to the duration of one of `count` documents.
    pub(super) fn adapt_batch_size(&self, count: usize, took: Duration) {
        let batch_size = self.batch_size.load(Ordering::Relaxed);
        self.batch_size.store(next_batch_size(batch_size, count, took), Ordering::Relaxed);
    }
}

/// The batch size after a pipeline of `count` documents took `took`, given the current size: at most
/// doubles, and shrinks immediately.
fn next_batch_size(batch_size: usize, count: usize, took: Duration) -> usize {
    let ideal = count as f64 * BATCH_TARGET_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let ideal = (ideal as usize).clamp(BATCH_MIN, PIPELINE_MAX);
    if ideal < batch_size {
        // A short pipeline says little about the duration of a full one.
        if took > BATCH_TARGET_TIME { ideal } else { batch_size }
    } else if count >= batch_size {
        ideal.min(2 * batch_size)
    } else {
        batch_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_gradually_and_shrink_at_once() {
        let ms = Duration::from_millis;
        let cases = [
            ((16, 16, ms(1)), 32),
            ((16, 16, ms(150)), 21),
            ((400, 400, ms(1)), PIPELINE_MAX),
            ((512, 512, ms(2000)), 51),
            ((64, 64, ms(2000)), BATCH_MIN),
            ((64, 3, ms(1)), 64),
            ((64, 3, ms(300)), BATCH_MIN),
            ((64, 64, ms(200)), 64),
            ((64, 64, Duration::ZERO), 128),
        ];
        for ((batch_size, count, took), expected) in cases {
            assert_eq!(next_batch_size(batch_size, count, took), expected, "{batch_size} {count} {took:?}");
        }
    }
}
