//! One server: its connections, what it is, and how fast it takes writes.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use super::{
    Error,
    address::Address,
    connections::Connections,
    error::UNAVAILABLE,
    script::Script,
    server::{self, Server},
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
const GROUP_MIN: usize = 8;

/// How long a pipeline of writes should take: long enough to be worth its round trip, and far
/// from the command timeout however slow the index is.
const GROUP_TIME: Duration = Duration::from_millis(200);

/// Documents in the first pipeline of writes, until it is known how fast they go.
const GROUP_FIRST: usize = 16;

/// Longest wait for one answer of a server that did not answer before: it is tried again soon. One that
/// was well has two thirds of what a command has, so that it is known to be silent before commands
/// find out one by one.
const PATIENCE: Duration = Duration::from_secs(1);

/// A server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) connections: Connections,
    /// Held by pipelines of writes.
    pub(super) writing: Semaphore,
    /// Documents in a pipeline of writes, as fast as they went last.
    pub(super) group: AtomicUsize,
    /// Whether its replicas had not taken in what was last written within the time they have.
    pub(super) is_ahead: AtomicBool,
    /// What it was when it was last asked.
    server: RwLock<Option<Server>>,
}

impl Node {
    pub(super) fn new(address: Address, store: &RedisStore, look: Arc<Notify>) -> Node {
        Node {
            connections: Connections::new(address, store, look),
            writing: Semaphore::new(WRITES_MAX),
            group: AtomicUsize::new(GROUP_FIRST),
            is_ahead: AtomicBool::new(false),
            server: RwLock::new(None),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.connections.address
    }

    /// What it was when it was last asked, if it ever was.
    pub(super) fn server(&self) -> Option<Server> {
        self.server.read().clone()
    }

    /// Whether it asks the other servers of its cluster by itself what concerns an index.
    pub(super) fn spreads(&self) -> bool {
        self.server.read().as_ref().is_some_and(|server| server.spreads)
    }

    pub(super) fn patience(&self) -> Duration {
        let command_timeout = self.connections.command_timeout;
        if self.connections.obstacle().is_some() {
            PATIENCE.min(command_timeout)
        } else {
            command_timeout * 2 / 3
        }
    }

    /// Finds the server well and lets everybody ask, or lets nobody ask and says why; `true` if it
    /// may be another server than before, or has been away. What it is, is asked then, and if that is
    /// wanted.
    pub(super) async fn attend(&self, look: bool, script: &Script, is_cluster: bool) -> Result<bool, Error> {
        let began = Instant::now();
        match self.find_well(look, script, is_cluster).await {
            // One command was slow, or one connection broke, while others were answered.
            Err(error) if error.code == UNAVAILABLE && self.connections.is_well_since(began) => {
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

    async fn find_well(&self, look: bool, script: &Script, is_cluster: bool) -> Result<bool, Error> {
        let (connections, patience) = (&self.connections, self.patience());
        let was_open = connections.breaker.is_open();
        let opened = connections.mend(patience).await?;
        if !(look || opened || was_open) {
            return Ok(false);
        }
        let info = connections.ask_first(&redis::cmd("INFO"), patience).await?;
        let mut modules = redis::cmd("MODULE");
        modules.arg("LIST");
        let mut server = Server::read(info, connections.ask_first(&modules, patience).await?, is_cluster)?;
        if is_cluster {
            let mut search = redis::cmd("COMMAND");
            search.arg("INFO").arg("FT.SEARCH");
            server.spreads = server::spreads(connections.ask_first(&search, patience).await?)?;
        }
        let restarted = self.server.read().as_ref().is_none_or(|known| known.run_id != server.run_id);
        if was_open || restarted {
            connections.ask_first(&script.load(), patience).await?;
        }
        if restarted {
            let address = self.address();
            tracing::info!(%address, version = server.version, search = server.search, "a Redis is there");
        }
        *self.server.write() = Some(server);
        connections.well();
        Ok(opened || was_open)
    }

    /// Whether slots are on their way from it or to it.
    pub(super) async fn is_moving_slots(&self) -> Result<bool, Error> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("NODES");
        slots::are_moving(self.connections.ask_first(&command, self.patience()).await?)
    }

    /// Makes the next pipelines of writes as long as they may be for their time.
    pub(super) fn note_pace(&self, count: usize, took: Duration) {
        let group = self.group.load(Ordering::Relaxed);
        self.group.store(next_group(group, count, took), Ordering::Relaxed);
    }
}

/// How many documents go into a pipeline after one of `count` `took` so long, where `group` went so
/// far: at most twice as many, and fewer at once.
fn next_group(group: usize, count: usize, took: Duration) -> usize {
    let ideal = count as f64 * GROUP_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let ideal = (ideal as usize).clamp(GROUP_MIN, PIPELINE_MAX);
    if ideal < group {
        // A short one tells little of how long a full one would take.
        if took > GROUP_TIME { ideal } else { group }
    } else if count >= group {
        ideal.min(2 * group)
    } else {
        group
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
            ((64, 64, ms(2000)), GROUP_MIN),
            ((64, 3, ms(1)), 64),
            ((64, 3, ms(300)), GROUP_MIN),
            ((64, 64, ms(200)), 64),
            ((64, 64, Duration::ZERO), 128),
        ];
        for ((group, count, took), expected) in cases {
            assert_eq!(next_group(group, count, took), expected, "{group} {count} {took:?}");
        }
    }
}
