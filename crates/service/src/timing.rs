//! Where the time of a search goes.

use std::time::Duration;

/// The stages of a search, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a worker.
    pub queue_us: u64,
    /// Text to vector, tokenizing included.
    pub embed_us: u64,
    /// Parsing and evaluating the filter.
    pub filter_us: u64,
    /// Searching the index.
    pub search_us: u64,
    /// Reading the documents.
    pub fetch_us: u64,
    /// From the call to the response.
    pub total_us: u64,
}

impl Timing {
    /// The stages' names in order, the total last.
    pub const STAGES: [&'static str; 6] = ["queue", "embed", "filter", "search", "fetch", "total"];

    /// Microseconds of each of [`Timing::STAGES`].
    pub fn us(&self) -> [u64; Timing::STAGES.len()] {
        let Timing { queue_us, embed_us, filter_us, search_us, fetch_us, total_us } = *self;
        [queue_us, embed_us, filter_us, search_us, fetch_us, total_us]
    }

    /// Name and microseconds of each stage, in order.
    pub fn stages(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Timing::STAGES.into_iter().zip(self.us())
    }
}

/// Microseconds, as a [`Timing`] counts them.
pub(crate) fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
