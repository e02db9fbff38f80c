//! When acknowledged writes become durable.

use std::time::Duration;

/// When a write becomes durable, relative to its answer. The names are those of Redis's `appendfsync`. Unlike there,
/// writes that are not durable are lost even if only the process dies, not the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before the answer.
    #[default]
    Always,
    /// Within about one second.
    EverySec,
    /// Within about 30 seconds, or sooner if there are many unsynced bytes.
    None,
}

/// Maximum number of bytes that are answered but not durable. Until they are durable, the store's file keeps the pages
/// that they replace.
const BYTES_MAX: usize = 64 << 20;

impl Durability {
    /// All modes, safest first.
    pub const ALL: [Durability; 3] = [Durability::Always, Durability::EverySec, Durability::None];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Always => "always",
            Durability::EverySec => "everysec",
            Durability::None => "none",
        }
    }

    /// How long an answered write may stay unsynced. Approximate, as a sync waits for the committer.
    pub fn delay_max(self) -> Duration {
        match self {
            Durability::Always => Duration::ZERO,
            Durability::EverySec => Duration::from_secs(1),
            Durability::None => Duration::from_secs(30),
        }
    }
}

/// Writes that were answered before they are durable.
#[derive(Debug)]
pub(crate) struct UnsyncedWrites {
    durability: Durability,
    /// When the first of them was answered.
    since: Option<Duration>,
    bytes: usize,
}

impl UnsyncedWrites {
    /// No writes.
    pub(crate) fn new(durability: Durability) -> UnsyncedWrites {
        UnsyncedWrites { durability, since: None, bytes: 0 }
    }

    /// Whether the next commit must be durable. `now` is [`crate::Clock::elapsed`].
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let since = self.since.unwrap_or(now);
        now.saturating_sub(since) >= self.durability.delay_max() || self.bytes >= BYTES_MAX
    }

    /// Time left until everything must be synced even if nothing more is committed; `None` if everything is durable.
    pub(crate) fn time_left(&self, now: Duration) -> Option<Duration> {
        let since = self.since?;
        let delay = if self.is_due(now) { Duration::ZERO } else { self.durability.delay_max() };
        Some((since + delay).saturating_sub(now))
    }

    /// Bytes of these writes, for which no space may have been allocated on the disk yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records a commit of `bytes` bytes that is not durable.
    pub(crate) fn add(&mut self, bytes: usize, now: Duration) {
        self.since.get_or_insert(now);
        self.bytes += bytes;
    }

    /// Forgets these writes: they are durable, or can no longer become durable.
    pub(crate) fn clear(&mut self) {
        (self.since, self.bytes) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn always_syncs_every_commit() {
        let unsynced = UnsyncedWrites::new(Durability::Always);
        assert!(unsynced.is_due(ms(0)) && unsynced.is_due(ms(5)));
        assert_eq!(unsynced.time_left(ms(5)), None);
    }

    #[test]
    fn the_second_counts_from_the_first_unsynced_write() {
        let mut unsynced = UnsyncedWrites::new(Durability::EverySec);
        assert!(!unsynced.is_due(ms(90_000)), "no write is unsynced");
        assert_eq!(unsynced.time_left(ms(90_000)), None);
        unsynced.add(10, ms(90_000));
        unsynced.add(10, ms(90_900));
        assert!(!unsynced.is_due(ms(90_999)));
        assert_eq!(unsynced.time_left(ms(90_999)), Some(ms(1)));
        assert!(unsynced.is_due(ms(91_000)));
        assert_eq!(unsynced.time_left(ms(95_000)), Some(ms(0)));
        unsynced.clear();
        assert!(!unsynced.is_due(ms(91_000)));
        assert_eq!(unsynced.time_left(ms(91_000)), None);
        unsynced.add(10, ms(91_500));
        assert!(!unsynced.is_due(ms(92_400)));
    }

    #[test]
    fn many_unsynced_bytes_are_due_immediately() {
        let mut unsynced = UnsyncedWrites::new(Durability::None);
        unsynced.add(BYTES_MAX - 1, ms(0));
        assert!(!unsynced.is_due(ms(29_999)) && unsynced.is_due(ms(30_000)));
        unsynced.add(1, ms(1));
        assert!(unsynced.is_due(ms(2)));
        assert_eq!(unsynced.time_left(ms(2)), Some(ms(0)));
    }

    #[test]
    fn names_are_those_of_redis_where_it_has_them() {
        assert_eq!(Durability::ALL.map(Durability::name), ["always", "everysec", "none"]);
    }
}
