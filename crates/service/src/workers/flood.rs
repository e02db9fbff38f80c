//! Whether more comes than can be done, for longer than a burst lasts.

use std::time::{Duration, Instant};

/// Refusals that are no further apart belong together; what lasts for longer is no burst.
const BURST: Duration = Duration::from_millis(100);
/// The part of the patience with a burst that is had with a flood.
const PART: u32 = 3;

/// Refusals of late, as long as there are.
///
/// A burst is worth waiting for: it ends, and all of it is answered. In a flood a queue as long as that makes
/// everybody wait and answers nobody more; a short one keeps the workers as busy. (As in Maurer 2015, "Fail at
/// Scale", section "Controlled delay".)
#[derive(Debug, Default)]
pub(super) struct Flood(Option<Refusals>);

#[derive(Debug)]
struct Refusals {
    first: Instant,
    last: Instant,
}

impl Flood {
    /// Somebody is refused.
    pub(super) fn refused(&mut self, now: Instant) {
        let first = self.current(now).map_or(now, |refusals| refusals.first);
        self.0 = Some(Refusals { first, last: now });
    }

    /// How long one may be kept waiting, where it is `most` in a burst.
    pub(super) fn patience(&self, now: Instant, most: Duration) -> Duration {
        match self.current(now) {
            Some(refusals) if now.duration_since(refusals.first) > BURST => most / PART,
            _ => most,
        }
    }

    fn current(&self, now: Instant) -> Option<&Refusals> {
        self.0.as_ref().filter(|refusals| now.duration_since(refusals.last) <= BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(50);

    #[test]
    fn patience_shrinks_while_refusals_go_on_and_comes_back_when_they_end() {
        let (mut flood, begin) = (Flood::default(), Instant::now());
        let after = |ms| begin + Duration::from_millis(ms);
        assert_eq!(flood.patience(after(0), MOST), MOST);
        for ms in (0..=100).step_by(20) {
            flood.refused(after(ms));
            assert_eq!(flood.patience(after(ms), MOST), MOST, "a burst of {ms} ms");
        }
        assert_eq!(flood.patience(after(101), MOST), MOST / 3);
        flood.refused(after(200));
        assert_eq!(flood.patience(after(300), MOST), MOST / 3);
        assert_eq!(flood.patience(after(301), MOST), MOST, "nobody was refused for as long as a burst lasts");
        flood.refused(after(301));
        assert_eq!(flood.patience(after(310), MOST), MOST, "another burst");
    }
}
