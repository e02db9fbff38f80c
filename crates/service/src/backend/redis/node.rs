//! One server: its connections, what it is, and how fast it takes writes.

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

/// Pipelines of writes on their way at once: while Redis works through one, the next is made.
const WRITES_MAX: usize = 2;

/// Commands a pipeline.
pub(super) const PIPELINE_MAX: usize = 512;

/// Fewest documents a pipeline of writes is cut down to.
const BATCH_MIN: usize = 8;

/// How long a pipeline of writes should take: long enough to be worth its round trip, and far
/// from the command timeout however slow the index is.
const BATCH_TARGET_TIME: Duration = Duration::from_millis(200);

/// Documents in the first pipeline of writes, until it is known how fast they go.
const BATCH_INITIAL: usize = 16;

/// Longest wait for one answer of a server that did not answer before: it is tried again soon. One that
/// was well has two thirds of what a command has, so that it is known to be silent before commands
/// find out one by one.
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// A server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) connections: Connections,
    /// Held by pipelines of writes.
    pub(super) write_permits: Semaphore,
    /// Documents in a pipeline of writes, as fast as they went last.
    pub(super) batch_size: AtomicUsize,
    /// Whether its replicas had not taken in what was last written within the time they have.
    pub(super) replicas_lag: AtomicBool,
    /// What it was when it was last asked.
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

    /// What it was when it was last asked, if it ever was.
    pub(super) fn server(&self) -> Option<ServerInfo> {
        self.server.read().clone()
    }

    /// Whether it asks the other servers of its cluster by itself what concerns an index.
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

    /// Finds the server well and lets everybody ask, or lets nobody ask and says why; `true` if it
    /// may be another server than before, or has been away. What it is, is asked then, and if that is
    /// wanted.
    pub(super) async fn health_check(
        &self,
        reload_info: bool,
        script: &Script,
        is_cluster: bool,
    ) -> Result<bool, Error> {
        let began = Instant::now();
        match self.probe_and_recover(reload_info, script, is_cluster).await {
            // One command was slow, or one connection broke, while others were answered.
            Err(error) if error.code == UNAVAILABLE && self.connections.is_healthy_since(began) => {
                tracing::debug!(%error, "Redis is busy");
                Ok(false)
            }
            // A server that answers but cannot be used is no more asked than one that is silent.
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
        let info = connections.send_unguarded(&redis::cmd("INFO"), probe_timeout).await?;
        let mut modules = redis::cmd("MODULE");
        modules.arg("LIST");
        let mut server =
            ServerInfo::read(info, connections.send_unguarded(&modules, probe_timeout).await?, is_cluster)?;
        if is_cluster {
            let mut search = redis::cmd("COMMAND");
            search.arg("INFO").arg("FT.SEARCH");
            server.has_coordinator =
                server::has_coordinator(connections.send_unguarded(&search, probe_timeout).await?)?;
        }
        let restarted = self.server.read().as_ref().is_none_or(|known| known.run_id != server.run_id);
        if was_open || restarted {
            connections.send_unguarded(&script.load(), probe_timeout).await?;
        }
        if restarted {
            let address = self.address();
            tracing::info!(%address, version = server.version, search = server.search_version, "a Redis is there");
        }
        *self.server.write() = Some(server);
        connections.mark_healthy();
        Ok(opened || was_open)
    }

    /// Whether slots are on their way from it or to it.
    pub(super) async fn is_migrating_slots(&self) -> Result<bool, Error> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("NODES");
        slots::is_migrating(self.connections.send_unguarded(&command, self.probe_timeout()).await?)
    }

    /// Makes the next pipelines of writes as long as they may be for their time.
    pub(super) fn adapt_batch_size(&self, count: usize, took: Duration) {
        let batch_size = self.batch_size.load(Ordering::Relaxed);
        self.batch_size.store(next_batch_size(batch_size, count, took), Ordering::Relaxed);
    }
}

/// How many documents go into a pipeline after one of `count` `took` so long, where `group` went so
/// far: at most twice as many, and fewer at once.
fn next_batch_size(batch_size: usize, count: usize, took: Duration) -> usize {
    let ideal = count as f64 * BATCH_TARGET_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let ideal = (ideal as usize).clamp(BATCH_MIN, PIPELINE_MAX);
    if ideal < batch_size {
        // A short one tells little of how long a full one would take.
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
    fn pipelines_grow_step_by_step_and_shrink_at_once() {
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
