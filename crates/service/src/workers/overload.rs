//! Tells an overload from a burst.

use std::time::{Duration, Instant};

/// Rejections closer together than this belong together; rejections for longer than this are an overload.
const BURST: Duration = Duration::from_millis(100);
/// During an overload the queue delay may be this part of what it may be in a burst.
const OVERLOAD_DIVISOR: u32 = 3;

/// The current series of rejections, if there is one.
///
/// A burst is worth waiting for: it ends, and every job in it is done. In an overload a long queue makes every caller
/// wait and completes no more jobs; a short one keeps the workers as busy. (As in Maurer 2015, "Fail at Scale", section
/// "Controlled delay".)
#[derive(Debug, Default)]
pub(super) struct OverloadDetector(Option<Rejections>);

#[derive(Debug)]
struct Rejections {
    first: Instant,
    last: Instant,
}

impl OverloadDetector {
    /// Records a rejection.
    pub(super) fn rejected(&mut self, now: Instant) {
        let first = self.current(now).map_or(now, |rejections| rejections.first);
        self.0 = Some(Rejections { first, last: now });
    }

    /// How long a job may wait now, where it may wait for `max` in a burst.
    pub(super) fn queue_delay_max(&self, now: Instant, max: Duration) -> Duration {
        match self.current(now) {
            Some(rejections) if now.duration_since(rejections.first) > BURST => max / OVERLOAD_DIVISOR,
            _ => max,
        }
    }

    fn current(&self, now: Instant) -> Option<&Rejections> {
        self.0.as_ref().filter(|rejections| now.duration_since(rejections.last) <= BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(50);

    #[test]
    fn the_queue_delay_is_cut_while_rejections_continue_and_restored_when_they_end() {
        let (mut overload, start) = (OverloadDetector::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(overload.queue_delay_max(after(0), MAX), MAX);
        for ms in (0..=100).step_by(20) {
            overload.rejected(after(ms));
            assert_eq!(overload.queue_delay_max(after(ms), MAX), MAX, "a burst of {ms} ms");
        }
        assert_eq!(overload.queue_delay_max(after(101), MAX), MAX / 3);
        overload.rejected(after(200));
        assert_eq!(overload.queue_delay_max(after(300), MAX), MAX / 3);
        assert_eq!(overload.queue_delay_max(after(301), MAX), MAX, "no rejection for the length of a burst");
        overload.rejected(after(301));
        assert_eq!(overload.queue_delay_max(after(310), MAX), MAX, "another burst");
    }
}
