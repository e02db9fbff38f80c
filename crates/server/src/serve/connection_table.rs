//! The open connections, and which of them is closed for a new one.
//!
//! Whether a client has an API key is known only once its first request is read. So a new connection is always accepted,
//! and where none is free, it takes the place of one without a key: of the one that has been idle for longest after a
//! request, else of the one that has waited for its first request for longest, else of the one whose request takes longest.
//! Connections with a valid key are never closed for others.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Network,
    http::{Authenticated, EVICTED_CONNECTIONS},
};

/// Connections that may be open beyond the limit while those closed in their favour end.
pub(super) const CLOSING_MAX: usize = 64;

/// How many connections may be open.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// All.
    pub(super) total: usize,
    /// Those without a valid key.
    pub(super) unauthenticated: usize,
    /// Those without a valid key from one network.
    pub(super) per_network: usize,
}

/// All open connections except those for health checks.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    started: Instant,
    entries: Mutex<Entries>,
    closed: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    /// Those that are not being closed.
    by_id: HashMap<u64, Arc<Entry>>,
    by_network: HashMap<Network, usize>,
    /// All, including those that are being closed.
    open: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` if connections of its network are not limited.
    network: Option<Network>,
    authenticated: Authenticated,
    /// Whether a request was answered.
    is_served: AtomicBool,
    /// Whether a request is being answered.
    is_busy: AtomicBool,
    /// Milliseconds from the start of the table to the last begin or end of a request, or to the connection's.
    since_ms: AtomicU64,
    evicted: CancellationToken,
}

impl ConnectionTable {
    pub(super) fn new() -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable {
            started: Instant::now(),
            entries: Mutex::default(),
            closed: Notify::new(),
        })
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.entries.lock().open
    }

    /// Waits until none is open.
    pub(super) async fn wait_until_empty(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// A slot for a connection from `network`, if necessary that of another connection, which is closed. `None` if there
    /// are `limits.total` connections with a valid key.
    pub(super) fn admit(
        self: &Arc<ConnectionTable>,
        network: Option<Network>,
        limits: ConnectionLimits,
    ) -> Option<ConnectionSlot> {
        let mut entries = self.entries.lock();
        let victim = entries.victim(network, limits);
        match victim {
            Some(Some(victim)) if entries.open < limits.total + CLOSING_MAX => entries.evict(victim),
            Some(_) => return None,
            None => {}
        }
        let id = entries.next_id;
        let entry = Arc::new(Entry {
            network,
            authenticated: Authenticated::default(),
            is_served: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            since_ms: AtomicU64::new(self.now_ms()),
            evicted: CancellationToken::new(),
        });
        entries.next_id += 1;
        entries.open += 1;
        entries.by_id.insert(id, Arc::clone(&entry));
        if let Some(network) = network {
            *entries.by_network.entry(network).or_default() += 1;
        }
        Some(ConnectionSlot { table: Arc::clone(self), id, entry, has_replaced: victim.is_some() })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Entries {
    /// Whether a new connection from `network` exceeds a limit, and which connection then has to go, if one may.
    fn victim(&self, network: Option<Network>, limits: ConnectionLimits) -> Option<Option<u64>> {
        let of_network = network.and_then(|network| self.by_network.get(&network)).copied().unwrap_or(0);
        let all = self.by_id.len();
        if all < limits.total.min(limits.unauthenticated) && of_network < limits.per_network {
            return None;
        }
        let candidates = || self.by_id.iter().filter(|(_, entry)| !entry.authenticated.get());
        let own = || candidates().filter(|(_, entry)| network.is_some() && entry.network == network);
        let longest = |(_, entry): &(&u64, &Arc<Entry>)| {
            let is_busy = entry.is_busy.load(Ordering::Relaxed);
            (is_busy, !entry.is_served.load(Ordering::Relaxed), entry.since_ms.load(Ordering::Relaxed))
        };
        if of_network >= limits.per_network && own().count() >= limits.per_network {
            return Some(own().min_by_key(longest).map(|(id, _)| *id));
        }
        if all >= limits.total || candidates().count() >= limits.unauthenticated {
            return Some(candidates().min_by_key(longest).map(|(id, _)| *id));
        }
        None
    }

    /// Closes a connection.
    fn evict(&mut self, id: u64) {
        if let Some(entry) = self.remove(id) {
            entry.evicted.cancel();
            counter!(EVICTED_CONNECTIONS).increment(1);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Entry>> {
        let entry = self.by_id.remove(&id)?;
        if let Some(network) = entry.network {
            let count = self.by_network.get_mut(&network).expect("connections of a network are counted");
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
        Some(entry)
    }
}

/// The place of a connection in the table, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    id: u64,
    entry: Arc<Entry>,
    has_replaced: bool,
}

impl ConnectionSlot {
    /// Whether another connection was closed for this one.
    pub(super) fn has_replaced(&self) -> bool {
        self.has_replaced
    }

    /// Fires when the connection has to be closed for another one.
    pub(super) fn evicted(&self) -> CancellationToken {
        self.entry.evicted.clone()
    }

    /// Records whether the connection has a valid key.
    pub(super) fn authenticated(&self) -> Authenticated {
        self.entry.authenticated.clone()
    }

    /// Marks the connection as busy until the result is dropped.
    pub(super) fn begin_request(&self) -> ActiveRequest {
        let request = ActiveRequest { table: Arc::clone(&self.table), entry: Arc::clone(&self.entry) };
        request.set_busy(true);
        request
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut entries = self.table.entries.lock();
        entries.remove(self.id);
        entries.open -= 1;
        if entries.open == 0 {
            self.table.closed.notify_waiters();
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    table: Arc<ConnectionTable>,
    entry: Arc<Entry>,
}

impl ActiveRequest {
    fn set_busy(&self, is_busy: bool) {
        self.entry.since_ms.store(self.table.now_ms(), Ordering::Relaxed);
        self.entry.is_busy.store(is_busy, Ordering::Relaxed);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.entry.is_served.store(true, Ordering::Relaxed);
        self.set_busy(false);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { total: 8, unauthenticated: 6, per_network: 4 };

    fn network(number: u8) -> Option<Network> {
        Some(IpAddr::from([192, 0, 2, number]).into())
    }

    /// Sets how long a connection has been as it is.
    fn since(slot: &ConnectionSlot, ms: u64) {
        slot.entry.since_ms.store(ms, Ordering::Relaxed);
    }

    fn is_evicted(slot: &ConnectionSlot) -> bool {
        slot.evicted().is_cancelled()
    }

    #[test]
    fn a_network_at_its_limit_loses_its_own_oldest_idle_connection() {
        let table = ConnectionTable::new();
        let other = table.admit(network(2), LIMITS).unwrap();
        since(&other, 0);
        let own: Vec<_> = (0..4).map(|_| table.admit(network(1), LIMITS).unwrap()).collect();
        own.iter().zip([40, 30, 10, 20]).for_each(|(slot, ms)| since(slot, ms));
        let _busy = own[2].begin_request();
        since(&own[2], 10);
        let _new = table.admit(network(1), LIMITS).unwrap();
        let evicted: Vec<bool> = own.iter().map(is_evicted).collect();
        assert_eq!(evicted, [false, false, false, true]);
        assert!(!is_evicted(&other));
    }

    #[test]
    fn connections_with_a_key_have_a_reserve_and_are_never_closed_for_others() {
        let table = ConnectionTable::new();
        let mut slots: Vec<_> = (0..6).map(|number| table.admit(network(number), LIMITS).unwrap()).collect();
        slots.iter().zip(1..).for_each(|(slot, ms)| since(slot, ms));
        slots[0].authenticated().set();
        slots.push(table.admit(network(6), LIMITS).unwrap());
        since(&slots[6], 7);
        assert!(!slots.iter().any(is_evicted), "six without a key");
        slots.push(table.admit(network(7), LIMITS).unwrap());
        assert!(is_evicted(&slots[1]) && !is_evicted(&slots[0]));
        for slot in &slots {
            slot.authenticated().set();
        }
        // One place is left by the closed connection.
        slots.push(table.admit(network(8), LIMITS).unwrap());
        slots.last().unwrap().authenticated().set();
        assert!(table.admit(network(9), LIMITS).is_none(), "all have a key");
        drop(slots.pop());
        assert!(table.admit(network(9), LIMITS).is_some());
    }

    #[test]
    fn busy_connections_are_closed_only_if_no_idle_one_is_left() {
        let table = ConnectionTable::new();
        let slots: Vec<_> = (0..6).map(|number| table.admit(network(number), LIMITS).unwrap()).collect();
        let requests: Vec<_> = slots.iter().map(ConnectionSlot::begin_request).collect();
        slots.iter().zip([3, 1, 2, 4, 5, 6]).for_each(|(slot, ms)| since(slot, ms));
        let first = table.admit(network(6), LIMITS).unwrap();
        assert!(is_evicted(&slots[1]));
        let _second = table.admit(network(7), LIMITS).unwrap();
        assert!(is_evicted(&first), "the only idle one");
        drop(requests);
    }

    #[test]
    fn connections_that_were_served_are_closed_before_new_ones() {
        let table = ConnectionTable::new();
        let slots: Vec<_> = (0..6).map(|number| table.admit(network(number), LIMITS).unwrap()).collect();
        drop(slots[3].begin_request());
        slots.iter().for_each(|slot| since(slot, 1));
        since(&slots[3], 5);
        let new = table.admit(network(6), LIMITS).unwrap();
        assert!(is_evicted(&slots[3]) && new.has_replaced() && !slots[0].has_replaced());
    }

    #[test]
    fn few_connections_are_open_beyond_the_limit() {
        let table = ConnectionTable::new();
        let limits = ConnectionLimits { total: 1, unauthenticated: 1, per_network: 1 };
        let open: Vec<_> = std::iter::from_fn(|| table.admit(network(1), limits)).collect();
        assert_eq!((open.len(), table.open()), (1 + CLOSING_MAX, 1 + CLOSING_MAX));
        drop(open);
        assert_eq!(table.open(), 0);
        assert!(table.entries.lock().by_network.is_empty());
    }

    #[tokio::test]
    async fn waits_until_all_are_closed() {
        let table = ConnectionTable::new();
        table.wait_until_empty().await;
        let slot = table.admit(None, LIMITS).unwrap();
        let waiting = tokio::spawn({
            let table = Arc::clone(&table);
            async move { table.wait_until_empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(slot);
        waiting.await.unwrap();
    }
}
