//! Timeouts of slow clients: for one that pauses, and for one that stays below a minimum rate.

use std::time::Duration;

/// A time budget. Waiting for the client uses it up, and each transferred byte restores the time it takes at the minimum
/// rate, up to the initial budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinimumRate {
    stall_timeout: Duration,
    bytes_per_second: u32,
    remaining: Duration,
}

impl MinimumRate {
    /// A budget for a client that may pause for `stall_timeout`, and may sustain `bytes_per_second` indefinitely.
    pub(crate) fn new(stall_timeout: Duration, bytes_per_second: u32) -> MinimumRate {
        MinimumRate { stall_timeout, bytes_per_second, remaining: stall_timeout }
    }

    /// Subtracts the time waited and adds the time for the bytes transferred.
    pub(crate) fn record(&mut self, waited: Duration, bytes: usize) {
        let credit = Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_second));
        self.remaining = self.stall_timeout.min(self.remaining.saturating_sub(waited) + credit);
    }

    /// Restores the initial budget.
    pub(super) fn reset(&mut self) {
        self.remaining = self.stall_timeout;
    }

    /// How much longer to wait.
    pub(crate) fn remaining(&self) -> Duration {
        self.remaining
    }

    /// How long the client may pause.
    pub(super) fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_clients_run_out_of_time_and_fast_ones_do_not() {
        const BYTES_PER_SECOND: u32 = 4096;
        let (stall_timeout, second) = (Duration::from_secs(30), Duration::from_secs(1));
        let seconds = |bytes: usize| {
            let mut rate = MinimumRate::new(stall_timeout, BYTES_PER_SECOND);
            let in_budget = |_: &u32| {
                let has_time = rate.remaining() >= second;
                rate.record(second, bytes);
                has_time
            };
            (0..100_000).take_while(in_budget).count()
        };
        assert_eq!(seconds(1), 30);
        assert_eq!(seconds(BYTES_PER_SECOND as usize / 2), 59);
        assert_eq!(seconds(BYTES_PER_SECOND as usize), 100_000);
        // A burst does not increase the budget.
        let mut rate = MinimumRate::new(stall_timeout, BYTES_PER_SECOND);
        rate.record(second, 1 << 30);
        rate.record(stall_timeout, 1);
        assert!(rate.remaining() < second);
    }
}
