//! Diagnosis of search latency, and advice on which settings to change.

use crate::{Activity, Algorithm, CollectionInfo, Context, Error, FieldKind, Service, Timing};

/// Minimum number of searches for advice about latency.
const SEARCHES_MIN: usize = 20;

/// The durations of one stage over the last searches.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// One of [`Timing::STAGES`].
    pub name: &'static str,
    /// Share of the total time, 0 to 1.
    pub share: f64,
    /// Median, in microseconds.
    pub p50_us: u64,
    /// 99th percentile, in microseconds.
    pub p99_us: u64,
}

/// The result of a diagnosis.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Number of searches in the sample.
    pub searches: usize,
    /// Their time by stage; the total comes last.
    pub stages: Vec<Stage>,
    /// Findings and recommended changes, most urgent first; empty if there are none.
    pub advice: Vec<String>,
    /// The state that each Redis server reports; empty for the embedded store.
    pub stores: Vec<String>,
}

/// The input of the advice rules.
#[derive(Debug)]
struct DiagnosticData<'f> {
    searches: usize,
    stages: &'f [Stage],
    activity: Activity,
    collections: &'f [CollectionInfo],
    /// The notes of the readiness check.
    notes: Vec<String>,
    workers: usize,
    cores: usize,
    query_cache: bool,
    store_is_redis: bool,
}

impl Service {
    /// Examines the last searches and the state of the service. Blocks only on a Redis store.
    pub async fn diagnose(&self, cx: &Context) -> Result<Diagnosis, Error> {
        let shared = self.shared();
        let call = shared.begin(cx)?;
        let (searches, stages) = stages(&shared.meter.recent.get());
        let stores = shared.backend.diagnose(&call).await?;
        let collections = shared.backend.cached_collections();
        let notes = self.readiness().notes;
        let advice = advise(&DiagnosticData {
            searches,
            stages: &stages,
            activity: shared.meter.activity(),
            collections: &collections,
            notes,
            workers: shared.worker_count,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            query_cache: shared.models.caches_queries(),
            store_is_redis: !stores.is_empty(),
        });
        Ok(Diagnosis { searches, stages, advice, stores })
    }
}

/// The number of searches and their durations by stage.
fn stages(recent: &[Timing]) -> (usize, Vec<Stage>) {
    let sum = |stage: usize| recent.iter().map(|timing| timing.us()[stage]).sum::<u64>();
    let total = sum(Timing::STAGES.len() - 1).max(1);
    let stages = Timing::STAGES.iter().enumerate().map(|(stage, name)| {
        let mut us: Vec<u64> = recent.iter().map(|timing| timing.us()[stage]).collect();
        us.sort_unstable();
        // Nearest rank.
        let at = |percent: usize| us.get((us.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Stage {
            name,
            share: sum(stage) as f64 / total as f64,
            p50_us: at(50).unwrap_or_default(),
            p99_us: at(99).unwrap_or_default(),
        }
    });
    (recent.len(), stages.collect())
}

fn advise(data: &DiagnosticData<'_>) -> Vec<String> {
    let mut advice: Vec<String> = data.notes.clone();
    let Activity { rejected, dropped, panicked, .. } = data.activity;
    if panicked > 0 {
        advice.push(format!(
            "{panicked} jobs panicked: this is a bug in the program; see the log for the location, and please report it"
        ));
    }
    if rejected > 0 {
        advice.push(format!(
            "{rejected} calls were rejected because of overload: the load exceeds what this machine can process; \
             add cores, increase the query cache (query_cache_mib), or distribute the load over several servers"
        ));
    }
    if dropped > 0 {
        advice.push(format!(
            "{dropped} calls were dropped before a worker started them, because the deadline passed or the client \
             disconnected: they waited too long in the queue"
        ));
    }
    for info in data.collections {
        let (name, tail) = (&info.name, info.tail);
        if tail > 2000 && tail * 20 > info.vectors {
            advice.push(format!(
                "collection {name:?}: {tail} of {} vectors are not in the graph yet, so every query scans them one by one; \
                 indexing catches up without intervention, faster with more index_threads",
                info.vectors
            ));
        }
        for field in &info.schema.fields {
            if let FieldKind::Vector(vector) = &field.kind
                && vector.algorithm == Algorithm::Flat
                && info.vectors > 20_000
            {
                advice.push(format!(
                    "collection {name:?}: field {:?} is flat, so every query scans all {} vectors: an hnsw field \
                     returns nearly the same results in a fraction of the time",
                    field.name, info.vectors
                ));
            }
        }
    }
    advice.extend(stage_advice(data));
    advice
}

/// Advice based on the stages of the last searches.
fn stage_advice(data: &DiagnosticData<'_>) -> Vec<String> {
    let mut advice = Vec::new();
    if data.searches < SEARCHES_MIN {
        return advice;
    }
    let stage =
        |name: &str| data.stages.iter().find(|stage| stage.name == name).expect("every stage is present");
    let percent = |share: f64| (share * 100.0).round();
    let ms = |us: u64| us as f64 / 1e3;
    let queue = stage("queue");
    if queue.share > 0.3 && queue.p99_us > 2_000 {
        let remedy = if data.workers < data.cores {
            format!(
                "there are {} workers on {} cores: set workers to {}",
                data.workers, data.cores, data.cores
            )
        } else {
            "the cores are busy; add cores or reduce the number of concurrent calls".to_owned()
        };
        advice.push(format!(
            "{} % of a query's time is spent waiting for a worker (99th percentile {:.1} ms): {remedy}",
            percent(queue.share),
            ms(queue.p99_us)
        ));
    }
    let embedding_remedy = if data.query_cache {
        "use shorter queries or int8 arithmetic (query_compute); repeated queries are served from the cache"
    } else {
        "the query cache is disabled; set query_cache_mib to cache the vectors of repeated queries"
    };
    let search_remedy = if data.store_is_redis {
        "this is the time of Redis and the network; see the state of Redis below"
    } else {
        "reduce ef_search or use quantization (int8), at some cost in recall; measure it with `nearfield eval`"
    };
    let filter_remedy = "use fewer alternatives, and tags instead of wide numeric ranges";
    let fetch_remedy = "request fewer hits (k) and only the fields you need (fields), or keep more of the store in memory \
                    (cache_mib)";
    // A stage is reported if its share exceeds the threshold.
    for (name, threshold, activity, remedy) in [
        ("embed", 0.7, "embedding the query", embedding_remedy),
        ("search", 0.5, "searching the index", search_remedy),
        ("filter", 0.3, "evaluating the filter", filter_remedy),
        ("fetch", 0.4, "reading documents", fetch_remedy),
    ] {
        let Stage { share, p50_us, .. } = *stage(name);
        if share > threshold {
            let (percent, ms) = (percent(share), ms(p50_us));
            advice.push(format!(
                "{percent} % of a query's time is spent {activity} (median {ms:.2} ms): {remedy}"
            ));
        }
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::RecentSearches;

    fn timing(queue_us: u64, embed_us: u64, filter_us: u64, search_us: u64, fetch_us: u64) -> Timing {
        let total_us = queue_us + embed_us + filter_us + search_us + fetch_us;
        Timing { queue_us, embed_us, filter_us, search_us, fetch_us, total_us }
    }

    /// The advice if every search had this timing.
    fn advice(timing: Timing, change: impl FnOnce(&mut DiagnosticData<'_>)) -> Vec<String> {
        let (searches, stages) = stages(&[timing; 50]);
        let mut data = DiagnosticData {
            searches,
            stages: &stages,
            activity: Activity::default(),
            collections: &[],
            notes: Vec::new(),
            workers: 2,
            cores: 2,
            query_cache: true,
            store_is_redis: false,
        };
        change(&mut data);
        advise(&data)
    }

    #[track_caller]
    fn assert_advice(advice: &[String], parts: &[&str]) {
        assert_eq!(advice.len(), 1, "{advice:?}");
        assert!(parts.iter().all(|part| advice[0].contains(part)), "{advice:?}");
    }

    #[test]
    fn gives_no_advice_without_a_problem() {
        assert_eq!(advice(timing(10, 600, 10, 300, 90), |_| ()), [] as [&str; 0]);
    }

    #[test]
    fn reports_the_slowest_stage_with_a_remedy() {
        let unchanged = |_: &mut DiagnosticData<'_>| ();
        assert_advice(
            &advice(timing(5000, 800, 0, 200, 100), unchanged),
            &["82 %", "5.0 ms", "cores are busy"],
        );
        assert_advice(&advice(timing(5000, 800, 0, 200, 100), |data| data.cores = 8), &["set workers to 8"]);
        assert_advice(&advice(timing(0, 900, 0, 50, 50), unchanged), &["90 %", "embedding", "query_compute"]);
        assert_advice(
            &advice(timing(0, 900, 0, 50, 50), |data| data.query_cache = false),
            &["query_cache_mib"],
        );
        assert_advice(&advice(timing(0, 300, 0, 700, 0), unchanged), &["70 %", "ef_search"]);
        assert_advice(&advice(timing(0, 300, 0, 700, 0), |data| data.store_is_redis = true), &["Redis"]);
        assert_advice(&advice(timing(0, 400, 500, 100, 0), unchanged), &["50 %", "filter"]);
        assert_advice(&advice(timing(0, 400, 0, 100, 500), unchanged), &["50 %", "fields", "cache_mib"]);
    }

    #[test]
    fn gives_no_advice_after_a_few_searches() {
        assert_eq!(advice(timing(0, 900, 0, 50, 50), |data| data.searches = 3), [] as [&str; 0]);
    }

    #[test]
    fn reports_rejected_dropped_and_panicked_jobs() {
        let even = timing(10, 600, 10, 300, 90);
        let with = |activity| advice(even, |data| data.activity = activity);
        assert_advice(&with(Activity { rejected: 7, ..Activity::default() }), &["7 calls", "rejected"]);
        assert_advice(&with(Activity { dropped: 7, ..Activity::default() }), &["7 calls", "deadline"]);
        assert_advice(&with(Activity { panicked: 1, ..Activity::default() }), &["1 jobs panicked"]);
        let notes = vec!["collection \"a\": 5 documents are waiting to be embedded".to_owned()];
        assert_advice(&advice(even, |data| data.notes = notes), &["waiting to be embedded"]);
    }

    #[test]
    fn computes_shares_and_percentiles_over_the_last_searches() {
        let recent = RecentSearches::default();
        (0..2000).for_each(|us| recent.add(timing(us, 0, 0, us, 0)));
        let (searches, stages) = stages(&recent.get());
        assert_eq!(searches, 1000);
        assert_eq!((stages[0].name, stages[0].p50_us, stages[0].p99_us), ("queue", 1499, 1989));
        assert!((stages[0].share - 0.5).abs() < 1e-9 && (stages[5].share - 1.0).abs() < 1e-9);
    }
}
