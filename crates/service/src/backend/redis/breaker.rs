//! Stops asking a server that does not answer, so that callers need not find out one by one.

use std::time::Instant;

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// When something was last answered.
#[derive(Debug)]
pub(super) struct LastReply {
    epoch: Instant,
    /// Microseconds from the epoch on.
    us: AtomicU64,
}

impl LastReply {
    /// As if the last reply had come `now`.
    pub(super) fn new(now: Instant) -> LastReply {
        LastReply { epoch: now, us: AtomicU64::new(0) }
    }

    /// A reply came, whatever it said.
    pub(super) fn record_reply(&self, now: Instant) {
        self.us.fetch_max(self.us(now), Ordering::AcqRel);
    }

    /// Whether anything has been answered after `at`.
    pub(super) fn replied_since(&self, at: Instant) -> bool {
        self.us.load(Ordering::Acquire) > self.us(at)
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Open (nobody asks), or closed. It opens when a command ran out of time and nothing at all has
/// been answered since it was sent: a server that is only slow with one command goes on answering
/// others. Who probes the server closes it again.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    last_reply: LastReply,
    open: AtomicBool,
}

impl CircuitBreaker {
    /// Closed, as if the last reply had come `now`.
    pub(super) fn new(now: Instant) -> CircuitBreaker {
        CircuitBreaker { last_reply: LastReply::new(now), open: AtomicBool::new(false) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// A reply came, whatever it said.
    pub(super) fn record_reply(&self, now: Instant) {
        self.last_reply.record_reply(now);
    }

    /// Whether anything has been answered after `at`.
    pub(super) fn replied_since(&self, at: Instant) -> bool {
        self.last_reply.replied_since(at)
    }

    /// A command sent at `sent` ran out of time; `true` if that opens the breaker.
    pub(super) fn record_timeout(&self, sent: Instant) -> bool {
        !self.replied_since(sent) && self.trip()
    }

    /// Opens it; `true` if it was closed.
    pub(super) fn trip(&self) -> bool {
        !self.open.swap(true, Ordering::AcqRel)
    }

    /// Closes it: a probe sent after it opened was answered.
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
    fn a_silent_server_opens_it_with_the_first_timeout() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_reply(start + SECOND);
        assert!(!breaker.is_open());
        assert!(breaker.record_timeout(start + 2 * SECOND), "nothing was answered since it was sent");
        assert!(breaker.is_open());
        assert!(!breaker.record_timeout(start + 2 * SECOND), "it opens once");
    }

    #[test]
    fn one_slow_command_among_answers_does_not_open_it() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_reply(start + 3 * SECOND);
        assert!(!breaker.record_timeout(start + 2 * SECOND));
        assert!(!breaker.is_open());
    }

    #[test]
    fn replies_out_of_order_count_by_their_time() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        breaker.record_reply(start + 5 * SECOND);
        breaker.record_reply(start + SECOND);
        assert!(!breaker.record_timeout(start + 4 * SECOND));
    }

    #[test]
    fn a_probe_closes_it_and_counts_as_an_answer() {
        let start = Instant::now();
        let breaker = CircuitBreaker::new(start);
        assert!(breaker.trip());
        breaker.close(start + 10 * SECOND);
        assert!(!breaker.is_open());
        assert!(!breaker.record_timeout(start + 9 * SECOND), "sent before the probe was answered");
        assert!(breaker.record_timeout(start + 11 * SECOND));
    }
}
