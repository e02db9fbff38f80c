//! Where a query's time goes, in sentences, and what to turn.

use crate::{Activity, Algorithm, CollectionInfo, Context, Error, FieldKind, Service, Timing};

/// Searches that say something.
const SEARCHES_MIN: usize = 20;

/// A stage of the last searches.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// One of [`Timing::STAGES`].
    pub name: &'static str,
    /// Of the whole time, 0 to 1.
    pub share: f64,
    /// Median, in microseconds.
    pub p50_us: u64,
    /// 99th percentile, in microseconds.
    pub p99_us: u64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Searches it rests on.
    pub searches: usize,
    /// Where their time went, the whole last.
    pub stages: Vec<Stage>,
    /// What to know and what to turn, most urgent first; empty if all is well.
    pub advice: Vec<String>,
    /// What each Redis says of itself, if documents are kept in one.
    pub stores: Vec<String>,
}

/// What the rules look at.
#[derive(Debug)]
struct Facts<'f> {
    searches: usize,
    stages: &'f [Stage],
    activity: Activity,
    collections: &'f [CollectionInfo],
    /// What keeps the server from being ready, and what is odd.
    notes: Vec<String>,
    workers: usize,
    cores: usize,
    query_cache: bool,
    store_is_redis: bool,
}

impl Service {
    /// Looks at the last searches and at the state of things. Waits only for a Redis, if documents are kept in one.
    pub async fn diagnose(&self, cx: &Context) -> Result<Diagnosis, Error> {
        let shared = self.shared();
        let call = shared.begin(cx)?;
        let (searches, stages) = stages(&shared.meter.recent.get());
        let stores = shared.backend.diagnose(&call).await?;
        let collections = shared.backend.seen();
        let notes = self.readiness().notes;
        let advice = advise(&Facts {
            searches,
            stages: &stages,
            activity: shared.meter.activity(),
            collections: &collections,
            notes,
            workers: shared.worker_count,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            query_cache: shared.models.remembers_queries(),
            store_is_redis: !stores.is_empty(),
        });
        Ok(Diagnosis { searches, stages, advice, stores })
    }
}

/// The number of searches, and their stages.
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

fn advise(facts: &Facts<'_>) -> Vec<String> {
    let mut advice: Vec<String> = facts.notes.clone();
    let Activity { rejected, dropped, panicked, .. } = facts.activity;
    if panicked > 0 {
        advice.push(format!(
            "{panicked} jobs ended in a fault of the program: the log says where; please report it"
        ));
    }
    if rejected > 0 {
        advice.push(format!(
            "{rejected} calls were refused because too many waited: more comes in than this machine computes; give it \
             more cores, cache more queries (query_cache_mib), or ask several servers"
        ));
    }
    if dropped > 0 {
        advice.push(format!(
            "{dropped} calls were given up before their turn came (deadline, or the client had gone): they waited \
             longer than their callers wanted to"
        ));
    }
    for info in facts.collections {
        let (name, tail) = (&info.name, info.tail);
        if tail > 2000 && tail * 20 > info.vectors {
            advice.push(format!(
                "collection {name:?}: {tail} of {} vectors are not in the graph yet and are compared one by one with every \
                 query; it passes by itself, sooner with more index_threads",
                info.vectors
            ));
        }
        for field in &info.schema.fields {
            if let FieldKind::Vector(vector) = &field.kind
                && vector.algorithm == Algorithm::Flat
                && info.vectors > 20_000
            {
                advice.push(format!(
                    "collection {name:?}: field {:?} is flat, so each query is compared with all {} vectors: an hnsw field \
                     finds nearly the same in a small part of the time",
                    field.name, info.vectors
                ));
            }
        }
    }
    advice.extend(of_stages(facts));
    advice
}

/// What the time of the last searches says.
fn of_stages(facts: &Facts<'_>) -> Vec<String> {
    let mut advice = Vec::new();
    if facts.searches < SEARCHES_MIN {
        return advice;
    }
    let stage =
        |name: &str| facts.stages.iter().find(|stage| stage.name == name).expect("all stages are there");
    let percent = |share: f64| (share * 100.0).round();
    let ms = |us: u64| us as f64 / 1e3;
    let queue = stage("queue");
    if queue.share > 0.3 && queue.p99_us > 2_000 {
        let turn = if facts.workers < facts.cores {
            format!(
                "there are {} workers on {} cores: set workers to {}",
                facts.workers, facts.cores, facts.cores
            )
        } else {
            "the cores are busy: more of them, or fewer calls at once, shorten it".to_owned()
        };
        advice.push(format!(
            "{} % of a query's time passes before a worker takes it (99th percentile {:.1} ms): {turn}",
            percent(queue.share),
            ms(queue.p99_us)
        ));
    }
    let of_embedding = if facts.query_cache {
        "shorter queries and the int8 arithmetic (query_compute) make it shorter; repeated queries are remembered"
    } else {
        "the cache of queries is off: query_cache_mib remembers those that are asked again"
    };
    let of_search = if facts.store_is_redis {
        "it is the Redis's, and the way there: see what it says of itself below"
    } else {
        "a smaller ef_search or a quantization (int8) makes it shorter, at some recall; `nearfield eval` tells how much"
    };
    let of_filter = "fewer alternatives, and tags rather than wide ranges of numbers, make it shorter";
    let of_fetch = "ask for fewer (k) and for the fields that are needed (fields), or keep more of the store in memory \
                    (cache_mib)";
    // The share from which a stage is worth a word.
    for (name, least, what, turn) in [
        ("embed", 0.7, "its embedding", of_embedding),
        ("search", 0.5, "the search in the index", of_search),
        ("filter", 0.3, "its filter", of_filter),
        ("fetch", 0.4, "reading its documents", of_fetch),
    ] {
        let Stage { share, p50_us, .. } = *stage(name);
        if share > least {
            let (percent, ms) = (percent(share), ms(p50_us));
            advice.push(format!("{percent} % of a query's time is {what} (median {ms:.2} ms): {turn}"));
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

    /// Advice where all searches took that long.
    fn advice(timing: Timing, change: impl FnOnce(&mut Facts<'_>)) -> Vec<String> {
        let (searches, stages) = stages(&[timing; 50]);
        let mut facts = Facts {
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
        change(&mut facts);
        advise(&facts)
    }

    #[track_caller]
    fn says(advice: &[String], words: &[&str]) {
        assert_eq!(advice.len(), 1, "{advice:?}");
        assert!(words.iter().all(|word| advice[0].contains(word)), "{advice:?}");
    }

    #[test]
    fn where_all_is_well_nothing_is_said() {
        assert_eq!(advice(timing(10, 600, 10, 300, 90), |_| ()), [] as [&str; 0]);
    }

    #[test]
    fn each_stage_that_takes_most_is_told_with_what_to_turn() {
        let nothing = |_: &mut Facts<'_>| ();
        says(&advice(timing(5000, 800, 0, 200, 100), nothing), &["82 %", "5.0 ms", "cores are busy"]);
        says(&advice(timing(5000, 800, 0, 200, 100), |facts| facts.cores = 8), &["set workers to 8"]);
        says(&advice(timing(0, 900, 0, 50, 50), nothing), &["90 %", "embedding", "query_compute"]);
        says(&advice(timing(0, 900, 0, 50, 50), |facts| facts.query_cache = false), &["query_cache_mib"]);
        says(&advice(timing(0, 300, 0, 700, 0), nothing), &["70 %", "ef_search"]);
        says(&advice(timing(0, 300, 0, 700, 0), |facts| facts.store_is_redis = true), &["Redis"]);
        says(&advice(timing(0, 400, 500, 100, 0), nothing), &["50 %", "filter"]);
        says(&advice(timing(0, 400, 0, 100, 500), nothing), &["50 %", "fields", "cache_mib"]);
    }

    #[test]
    fn a_few_searches_say_nothing() {
        assert_eq!(advice(timing(0, 900, 0, 50, 50), |facts| facts.searches = 3), [] as [&str; 0]);
    }

    #[test]
    fn what_was_refused_or_broke_is_told() {
        let even = timing(10, 600, 10, 300, 90);
        let with = |activity| advice(even, |facts| facts.activity = activity);
        says(&with(Activity { rejected: 7, ..Activity::default() }), &["7 calls", "refused"]);
        says(&with(Activity { dropped: 7, ..Activity::default() }), &["7 calls", "deadline"]);
        says(&with(Activity { panicked: 1, ..Activity::default() }), &["fault of the program"]);
        let notes = vec!["collection \"a\": 5 documents wait to be embedded".to_owned()];
        says(&advice(even, |facts| facts.notes = notes), &["wait to be embedded"]);
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
