//! What the service counts: for its own use, and for whoever installed a metrics recorder.

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
const WAITING_DOCUMENTS: &str = "nearfield_unembedded_documents";

/// Counts since the service was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Jobs refused because the queue was full.
    pub rejected: u64,
    /// Jobs thrown away before they cost anything: out of time, or their caller had gone.
    pub dropped: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Texts embedded, queries and documents alike.
    pub embedded_texts: u64,
    /// Their tokens.
    pub embedded_tokens: u64,
    /// Queries whose vector was known already.
    pub queries_known: u64,
}

/// Whose text was embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextOf {
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
    queries_known: AtomicU64,
    every_search: EverySearch,
    /// Of the last searches.
    pub(crate) recent: RecentSearches,
}

/// What every search counts in the recorder that was installed when the service was opened: found
/// by name once, not a dozen times a search.
#[derive(Debug)]
struct EverySearch {
    stages: [Histogram; Timing::STAGES.len()],
    texts: Counter,
    tokens: Counter,
    known: Counter,
    unknown: Counter,
    cache_bytes: Gauge,
    direct_depth: Gauge,
}

impl EverySearch {
    fn new() -> EverySearch {
        EverySearch {
            stages: Timing::STAGES.map(|stage| histogram!(SEARCH_SECONDS, "stage" => stage)),
            texts: counter!(EMBEDDED_TEXTS, "of" => "query"),
            tokens: counter!(EMBEDDED_TOKENS, "of" => "query"),
            known: counter!(QUERY_CACHE, "found" => "yes"),
            unknown: counter!(QUERY_CACHE, "found" => "no"),
            cache_bytes: gauge!(QUERY_CACHE_BYTES),
            direct_depth: gauge!(QUEUE_DEPTH, "pool" => Pool::Search.name()),
        }
    }
}

impl Meter {
    pub(crate) fn new() -> Meter {
        describe_histogram!(SEARCH_SECONDS, Unit::Seconds, "Time a search took, by stage");
        describe_histogram!(WRITE_SECONDS, Unit::Seconds, "Time from a write's call to its durable answer");
        describe_counter!(WRITTEN, "Documents written, by outcome");
        describe_gauge!(QUEUE_DEPTH, "Jobs waiting for a worker, by pool");
        describe_counter!(REJECTED, "Jobs refused because the queue was full, by pool");
        describe_counter!(DROPPED, "Jobs dropped unstarted: out of time, or their caller had gone");
        describe_counter!(PANICKED, "Jobs that panicked");
        describe_counter!(EMBEDDED_TEXTS, "Texts embedded, by what they were");
        describe_counter!(EMBEDDED_TOKENS, "Tokens embedded, by whose they were");
        describe_counter!(
            QUERY_CACHE,
            "Queries looked up in the cache of their vectors, by whether they were there"
        );
        describe_gauge!(QUERY_CACHE_BYTES, Unit::Bytes, "Size of that cache");
        describe_gauge!(WAITING_DOCUMENTS, "Documents that wait for the background embedder, by collection");
        Meter {
            rejected: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            embedded_texts: AtomicU64::new(0),
            embedded_tokens: AtomicU64::new(0),
            queries_known: AtomicU64::new(0),
            every_search: EverySearch::new(),
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
            queries_known: self.queries_known.load(Ordering::Relaxed),
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
            Pool::Search => self.every_search.direct_depth.set(jobs as f64),
            Pool::Ingest | Pool::Admin => gauge!(QUEUE_DEPTH, "pool" => pool.name()).set(jobs as f64),
        }
    }

    pub(crate) fn embedded(&self, what: TextOf, texts: usize, tokens: usize) {
        let (texts, tokens) = (texts as u64, tokens as u64);
        self.embedded_texts.fetch_add(texts, Ordering::Relaxed);
        self.embedded_tokens.fetch_add(tokens, Ordering::Relaxed);
        match what {
            TextOf::Query => {
                self.every_search.texts.increment(texts);
                self.every_search.tokens.increment(tokens);
            }
            TextOf::Document => {
                counter!(EMBEDDED_TEXTS, "of" => "document").increment(texts);
                counter!(EMBEDDED_TOKENS, "of" => "document").increment(tokens);
            }
        }
    }

    pub(crate) fn looked_up(&self, found: bool, bytes: u64) {
        self.queries_known.fetch_add(u64::from(found), Ordering::Relaxed);
        let EverySearch { known, unknown, cache_bytes, .. } = &self.every_search;
        if found { known } else { unknown }.increment(1);
        cache_bytes.set(bytes as f64);
    }

    pub(crate) fn searched(&self, timing: &Timing) {
        for (stage, us) in self.every_search.stages.iter().zip(timing.us()) {
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

    pub(crate) fn write_took(&self, took: Duration) {
        histogram!(WRITE_SECONDS).record(took.as_secs_f64());
    }

    pub(crate) fn unembedded(&self, collection: &str, documents: u64) {
        gauge!(WAITING_DOCUMENTS, "collection" => collection.to_owned()).set(documents as f64);
    }
}

/// Searches whose timing is kept.
const RECENT_SEARCHES: usize = 1000;

/// How long the last searches took.
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
