//! When what was acknowledged becomes durable.

use std::time::Duration;

/// When a write is made durable, seen from its answer. Named as in Redis's `appendfsync`; unlike there, what is not
/// durable is lost with the process too, not only with the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before it is answered.
    #[default]
    Always,
    /// Within about a second.
    EverySec,
    /// Within about half a minute, or when there is much of it.
    None,
}

/// How much may be answered and not durable. Meanwhile the store's file keeps the pages it replaces.
const BYTES_MAX: usize = 64 << 20;

impl Durability {
    /// From the safest on.
    pub const ALL: [Durability; 3] = [Durability::Always, Durability::EverySec, Durability::None];

    /// As it is written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Always => "always",
            Durability::EverySec => "everysec",
            Durability::None => "none",
        }
    }

    /// How long a write may be answered and not durable; about, since its turn has to come.
    pub fn delay_max(self) -> Duration {
        match self {
            Durability::Always => Duration::ZERO,
            Durability::EverySec => Duration::from_secs(1),
            Durability::None => Duration::from_secs(30),
        }
    }
}

/// What the committer has answered before it was durable.
#[derive(Debug)]
pub(crate) struct UnsyncedWrites {
    durability: Durability,
    /// When the first of it was answered.
    since: Option<Duration>,
    bytes: usize,
}

impl UnsyncedWrites {
    /// Nothing yet.
    pub(crate) fn new(durability: Durability) -> UnsyncedWrites {
        UnsyncedWrites { durability, since: None, bytes: 0 }
    }

    /// Whether a commit made now has to be durable. `now` is [`crate::Clock::elapsed`].
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let since = self.since.unwrap_or(now);
        now.saturating_sub(since) >= self.durability.delay_max() || self.bytes >= BYTES_MAX
    }

    /// How long until all has to be made durable, though nothing more is committed; `None` where all is.
    pub(crate) fn time_left(&self, now: Duration) -> Option<Duration> {
        let since = self.since?;
        let delay = if self.is_due(now) { Duration::ZERO } else { self.durability.delay_max() };
        Some((since + delay).saturating_sub(now))
    }

    /// Bytes of it, which may have no place on the disk yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many bytes were committed, and are not durable.
    pub(crate) fn add(&mut self, bytes: usize, now: Duration) {
        self.since.get_or_insert(now);
        self.bytes += bytes;
    }

    /// Everything is durable, or never will be.
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
    fn always_is_due_at_once_and_leaves_nothing() {
        let unsynced = UnsyncedWrites::new(Durability::Always);
        assert!(unsynced.is_due(ms(0)) && unsynced.is_due(ms(5)));
        assert_eq!(unsynced.time_left(ms(5)), None);
    }

    #[test]
    fn a_second_counts_from_the_first_write_that_is_not_durable() {
        let mut unsynced = UnsyncedWrites::new(Durability::EverySec);
        assert!(!unsynced.is_due(ms(90_000)), "nothing has waited");
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
    fn much_is_due_at_once() {
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
