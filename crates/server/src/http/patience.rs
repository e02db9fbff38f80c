//! How long a client is waited for: one that stands still, and one that keeps no pace.

use std::time::Duration;

/// Bytes a second that are put up with for ever.
pub(super) const PACE: f64 = 4096.0;

/// How much longer a client is waited for: as long as it may stand still, less what it was waited for, more what its
/// bytes are worth at [`PACE`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    stall: Duration,
    left: Duration,
}

impl Patience {
    /// With a client that may stand still for `stall`.
    pub(crate) fn new(stall: Duration) -> Patience {
        Patience { stall, left: stall }
    }

    /// Takes off what was waited, and puts on what came for it.
    pub(crate) fn spend(&mut self, waited: Duration, bytes: usize) {
        let worth = Duration::from_secs_f64(bytes as f64 / PACE);
        self.left = self.stall.min(self.left.saturating_sub(waited) + worth);
    }

    /// As if nothing had been waited for yet.
    pub(super) fn renew(&mut self) {
        self.left = self.stall;
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// How long a client may stand still.
    pub(super) fn stall(&self) -> Duration {
        self.stall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_for_who_trickles_and_lasts_for_who_keeps_the_pace() {
        let (stall, second) = (Duration::from_secs(30), Duration::from_secs(1));
        let seconds = |bytes: usize| {
            let mut patience = Patience::new(stall);
            let in_time = |_: &u32| {
                let is_waited_for = patience.left() >= second;
                patience.spend(second, bytes);
                is_waited_for
            };
            (0..100_000).take_while(in_time).count()
        };
        assert_eq!(seconds(1), 30);
        assert_eq!(seconds(PACE as usize / 2), 59);
        assert_eq!(seconds(PACE as usize), 100_000);
        // What came fast at first saves nobody later.
        let mut patience = Patience::new(stall);
        patience.spend(second, 1 << 30);
        patience.spend(stall, 1);
        assert!(patience.left() < second);
    }
}
