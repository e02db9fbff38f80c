//! A circuit breaker: no commands are sent to a server that does not reply, so that callers do not each
//! wait for a timeout.

use std::time::Instant;

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// The time of the last reply.
#[derive(Debug)]
pub(super) struct LastReply {
    epoch: Instant,
    /// Microseconds since the epoch.
    us: AtomicU64,
}

impl LastReply {
    /// Starts as if a reply had arrived `now`.
    pub(super) fn new(now: Instant) -> LastReply {
        LastReply { epoch: now, us: AtomicU64::new(0) }
    }

    /// Records a reply of any content.
    pub(super) fn record_reply(&self, now: Instant) {
        self.us.fetch_max(self.us(now), Ordering::AcqRel);
    }

    /// Whether a reply arrived after `at`.
    pub(super) fn replied_since(&self, at: Instant) -> bool {
        self.us.load(Ordering::Acquire) > self.us(at)
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

/// The state of one server: open (no commands are sent) or closed. It opens when a command times out
/// and no reply at all has arrived since it was sent; a server that is slow with one command still
/// replies to others. The supervisor closes it after a successful probe.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    last_reply: LastReply,
    open: AtomicBool,
}

impl CircuitBreaker {
    /// Starts closed, as if a reply had arrived `now`.
    pub(super) fn new(now: Instant) -> CircuitBreaker {
        CircuitBreaker { last_reply: LastReply::new(now), open: AtomicBool::new(false) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Records a reply of any content.
    pub(super) fn record_reply(&self, now: Instant) {
        self.last_reply.record_reply(now);
    }

    /// Whether a reply arrived after `at`.
    pub(super) fn replied_since(&self, at: Instant) -> bool {
        self.last_reply.replied_since(at)
    }

    /// Records that a command sent at `sent` timed out; `true` if that opens the breaker.
    pub(super) fn record_timeout(&self, sent: Instant) -> bool {
        !self.replied_since(sent) && self.trip()
    }

    /// Opens the breaker; `true` if it was closed.
    pub(super) fn trip(&self) -> bool {
        !self.open.swap(true, Ordering::AcqRel)
    }

    /// Closes the breaker after a successful probe.
    pub(super) fn close(&self, now: Instant) {
        self.record_reply(now);
        self.open.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn opens_at_the_first_timeout_of_a_silent_server() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_reply(start + SECOND);
        assert!(!breaker.is_open());
        assert!(breaker.record_timeout(start + 2 * SECOND), "no reply has arrived since it was sent");
        assert!(breaker.is_open());
        assert!(!breaker.record_timeout(start + 2 * SECOND), "it opens once");
    }

    #[test]
    fn stays_closed_when_one_command_is_slow_and_others_are_answered() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_reply(start + 3 * SECOND);
        assert!(!breaker.record_timeout(start + 2 * SECOND));
        assert!(!breaker.is_open());
    }

    #[test]
    fn orders_replies_by_time_rather_than_arrival() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_reply(start + 5 * SECOND);
        breaker.record_reply(start + SECOND);
        assert!(!breaker.record_timeout(start + 4 * SECOND));
    }

    #[test]
    fn a_successful_probe_closes_it_and_counts_as_a_reply() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        assert!(breaker.trip());
        breaker.close(start + 10 * SECOND);
        assert!(!breaker.is_open());
        assert!(!breaker.record_timeout(start + 9 * SECOND), "sent before the probe was answered");
        assert!(breaker.record_timeout(start + 11 * SECOND));
    }
}
