//! Counters of the service, for its own use and for the metrics recorder if one is installed.

use std::{collections::VecDeque, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::{
    Outcome, Timing,
    pool::Pool,
    sync::{AtomicU64, Mutex, Ordering},
};

const SEARCH_SECONDS: &str = "nearfield_search_seconds";
const WRITE_SECONDS: &str = "nearfield_write_seconds";
const WRITTEN: &str = "nearfield_documents_written_total";
const QUEUE_DEPTH: &str = "nearfield_queue_depth";
const REJECTED: &str = "nearfield_jobs_rejected_total";
const DROPPED: &str = "nearfield_jobs_dropped_total";
const PANICKED: &str = "nearfield_jobs_panicked_total";
const EMBEDDED_TEXTS: &str = "nearfield_embedded_texts_total";
const EMBEDDED_TOKENS: &str = "nearfield_embedded_tokens_total";
const QUERY_CACHE: &str = "nearfield_query_cache_lookups_total";
const QUERY_CACHE_BYTES: &str = "nearfield_query_cache_bytes";
const UNEMBEDDED_DOCUMENTS: &str = "nearfield_unembedded_documents";

/// Counts since the service was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Jobs rejected because of overload: the queue was full, or they would have waited too long.
    pub rejected: u64,
    /// Jobs dropped before they started, because of the deadline or a cancelled call.
    pub dropped: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Embedded texts of queries and documents.
    pub embedded_texts: u64,
    /// Their tokens.
    pub embedded_tokens: u64,
    /// Queries whose vector was in the query cache.
    pub query_cache_hits: u64,
}

/// The origin of an embedded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextKind {
    Query,
    Document,
}

#[derive(Debug)]
pub(crate) struct Meter {
    rejected: AtomicU64,
    dropped: AtomicU64,
    panicked: AtomicU64,
    embedded_texts: AtomicU64,
    embedded_tokens: AtomicU64,
    query_cache_hits: AtomicU64,
    search_metrics: SearchMetrics,
    /// Durations of the last searches.
    pub(crate) recent: RecentSearches,
}

/// Handles of the metrics that every search updates. Registered once when the service opens, instead
/// of looked up by name a dozen times per search.
#[derive(Debug)]
struct SearchMetrics {
    stages: [Histogram; Timing::STAGES.len()],
    texts: Counter,
    tokens: Counter,
    cache_hits: Counter,
    cache_misses: Counter,
    cache_bytes: Gauge,
    queue_depth: Gauge,
}

impl SearchMetrics {
    fn new() -> SearchMetrics {
        SearchMetrics {
            stages: Timing::STAGES.map(|stage| histogram!(SEARCH_SECONDS, "stage" => stage)),
            texts: counter!(EMBEDDED_TEXTS, "of" => "query"),
            tokens: counter!(EMBEDDED_TOKENS, "of" => "query"),
            cache_hits: counter!(QUERY_CACHE, "found" => "yes"),
            cache_misses: counter!(QUERY_CACHE, "found" => "no"),
            cache_bytes: gauge!(QUERY_CACHE_BYTES),
            queue_depth: gauge!(QUEUE_DEPTH, "pool" => Pool::Search.name()),
        }
    }
}

impl Meter {
    pub(crate) fn new() -> Meter {
        describe_histogram!(SEARCH_SECONDS, Unit::Seconds, "Duration of searches, by stage");
        describe_histogram!(WRITE_SECONDS, Unit::Seconds, "Duration of writes until they are durable");
        describe_counter!(WRITTEN, "Documents written, by outcome");
        describe_gauge!(QUEUE_DEPTH, "Jobs waiting for a worker, by pool");
        describe_counter!(REJECTED, "Jobs rejected because of overload, by pool");
        describe_counter!(
            DROPPED,
            "Jobs dropped before they started, because of the deadline or a cancelled call"
        );
        describe_counter!(PANICKED, "Jobs that panicked");
        describe_counter!(EMBEDDED_TEXTS, "Embedded texts, by origin");
        describe_counter!(EMBEDDED_TOKENS, "Embedded tokens, by origin");
        describe_counter!(QUERY_CACHE, "Lookups in the query cache, by whether the vector was found");
        describe_gauge!(QUERY_CACHE_BYTES, Unit::Bytes, "Size of the query cache");
        describe_gauge!(
            UNEMBEDDED_DOCUMENTS,
            "Documents without vectors that the background thread will embed, by collection"
        );
        Meter {
            rejected: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            embedded_texts: AtomicU64::new(0),
            embedded_tokens: AtomicU64::new(0),
            query_cache_hits: AtomicU64::new(0),
            search_metrics: SearchMetrics::new(),
            recent: RecentSearches::default(),
        }
    }

    pub(crate) fn activity(&self) -> Activity {
        Activity {
            rejected: self.rejected.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            panicked: self.panicked.load(Ordering::Relaxed),
            embedded_texts: self.embedded_texts.load(Ordering::Relaxed),
            embedded_tokens: self.embedded_tokens.load(Ordering::Relaxed),
            query_cache_hits: self.query_cache_hits.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn rejected(&self, pool: Pool) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        counter!(REJECTED, "pool" => pool.name()).increment(1);
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        counter!(DROPPED).increment(1);
    }

    pub(crate) fn panicked(&self) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
        counter!(PANICKED).increment(1);
    }

    pub(crate) fn queue_depth(&self, pool: Pool, jobs: usize) {
        match pool {
            Pool::Search => self.search_metrics.queue_depth.set(jobs as f64),
            Pool::Ingest | Pool::Admin => gauge!(QUEUE_DEPTH, "pool" => pool.name()).set(jobs as f64),
        }
    }

    pub(crate) fn embedded(&self, kind: TextKind, texts: usize, tokens: usize) {
        let (texts, tokens) = (texts as u64, tokens as u64);
        self.embedded_texts.fetch_add(texts, Ordering::Relaxed);
        self.embedded_tokens.fetch_add(tokens, Ordering::Relaxed);
        match kind {
            TextKind::Query => {
                self.search_metrics.texts.increment(texts);
                self.search_metrics.tokens.increment(tokens);
            }
            TextKind::Document => {
                counter!(EMBEDDED_TEXTS, "of" => "document").increment(texts);
                counter!(EMBEDDED_TOKENS, "of" => "document").increment(tokens);
            }
        }
    }

    pub(crate) fn query_cache_lookup(&self, is_hit: bool, bytes: u64) {
        self.query_cache_hits.fetch_add(u64::from(is_hit), Ordering::Relaxed);
        let SearchMetrics { cache_hits, cache_misses, cache_bytes, .. } = &self.search_metrics;
        if is_hit { cache_hits } else { cache_misses }.increment(1);
        cache_bytes.set(bytes as f64);
    }

    pub(crate) fn searched(&self, timing: &Timing) {
        for (stage, us) in self.search_metrics.stages.iter().zip(timing.us()) {
            stage.record(us as f64 / 1e6);
        }
        self.recent.add(*timing);
    }

    pub(crate) fn wrote(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Created => "created",
            Outcome::Updated => "updated",
            Outcome::Unchanged => "unchanged",
        };
        counter!(WRITTEN, "outcome" => outcome).increment(1);
    }

    pub(crate) fn write_duration(&self, duration: Duration) {
        histogram!(WRITE_SECONDS).record(duration.as_secs_f64());
    }

    pub(crate) fn unembedded(&self, collection: &str, documents: u64) {
        gauge!(UNEMBEDDED_DOCUMENTS, "collection" => collection.to_owned()).set(documents as f64);
    }
}

/// Maximum number of searches whose timing is kept.
const RECENT_SEARCHES: usize = 1000;

/// Timings of the last searches.
#[derive(Debug, Default)]
pub(crate) struct RecentSearches(Mutex<VecDeque<Timing>>);

impl RecentSearches {
    pub(crate) fn add(&self, timing: Timing) {
        let mut recent = self.0.lock();
        if recent.len() == RECENT_SEARCHES {
            recent.pop_front();
        }
        recent.push_back(timing);
    }

    /// The timings, oldest first.
    pub(crate) fn get(&self) -> Vec<Timing> {
        self.0.lock().iter().copied().collect()
    }
}
