//! How long a client is waited for: one that stands still, and one that keeps no pace.

use std::time::Duration;

/// Bytes a second that are put up with for ever.
pub(super) const BYTES_PER_SECOND_MIN: f64 = 4096.0;

/// How much longer a client is waited for: as long as it may stand still, less what it was waited for, more what its
/// bytes are worth at [`BYTES_PER_SECOND_MIN`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinimumRate {
    stall_timeout: Duration,
    remaining: Duration,
}

impl MinimumRate {
    /// With a client that may stand still for `stall`.
    pub(crate) fn new(stall_timeout: Duration) -> MinimumRate {
        MinimumRate { stall_timeout, remaining: stall_timeout }
    }

    /// Takes off what was waited, and puts on what came for it.
    pub(crate) fn record(&mut self, waited: Duration, bytes: usize) {
        let credit = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND_MIN);
        self.remaining = self.stall_timeout.min(self.remaining.saturating_sub(waited) + credit);
    }

    /// As if nothing had been waited for yet.
    pub(super) fn reset(&mut self) {
        self.remaining = self.stall_timeout;
    }

    /// What is left of it.
    pub(crate) fn remaining(&self) -> Duration {
        self.remaining
    }

    /// How long a client may stand still.
    pub(super) fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_for_who_trickles_and_lasts_for_who_keeps_the_pace() {
        let (stall_timeout, second) = (Duration::from_secs(30), Duration::from_secs(1));
        let seconds = |bytes: usize| {
            let mut rate = MinimumRate::new(stall_timeout);
            let in_time = |_: &u32| {
                let is_waited_for = rate.remaining() >= second;
                rate.record(second, bytes);
                is_waited_for
            };
            (0..100_000).take_while(in_time).count()
        };
        assert_eq!(seconds(1), 30);
        assert_eq!(seconds(BYTES_PER_SECOND_MIN as usize / 2), 59);
        assert_eq!(seconds(BYTES_PER_SECOND_MIN as usize), 100_000);
        // What came fast at first saves nobody later.
        let mut rate = MinimumRate::new(stall_timeout);
        rate.record(second, 1 << 30);
        rate.record(stall_timeout, 1);
        assert!(rate.remaining() < second);
    }
}
