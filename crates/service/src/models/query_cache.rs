//! Vectors of queries that were asked before.

use std::time::Duration;

use quick_cache::{
    Weighter,
    sync::{Cache, GuardResult},
};

use crate::{models::TextVector, sync::Arc};

/// Bytes of an entry beside its tokens and values: the entry itself, its place in the cache's
/// tables, and what the allocator adds.
const ENTRY_BYTES: usize = 192;

/// Bytes of a usual entry: a dozen tokens and 384 values.
const USUAL_BYTES: usize = ENTRY_BYTES + 12 * 4 + 384 * 4;

/// A query as its model reads it, so that spelling that makes no difference to the model (capital
/// letters, spaces) makes none here, and that what is found is exactly what would be computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueryKey {
    /// Fingerprint of the model.
    pub(crate) model: [u8; 16],
    /// Ids of the tokens.
    pub(crate) tokens: Vec<u32>,
    /// Whether there were more.
    pub(crate) truncated: bool,
}

/// The vectors asked for most lately and most often, in bounded memory.
#[derive(Debug)]
pub(crate) struct QueryCache(Option<Cache<QueryKey, Arc<TextVector>, Bytes>>);

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<QueryKey, Arc<TextVector>> for Bytes {
    fn weight(&self, asked: &QueryKey, embedded: &Arc<TextVector>) -> u64 {
        (ENTRY_BYTES + 4 * (asked.tokens.len() + embedded.values.len())) as u64
    }
}

impl QueryCache {
    /// A cache of at most this many bytes; none at all, if 0.
    pub(crate) fn new(bytes: usize) -> QueryCache {
        let cache = || Cache::with_weighter(bytes.div_ceil(USUAL_BYTES), bytes as u64, Bytes);
        QueryCache((bytes > 0).then(cache))
    }

    /// The vectors of queries, and of each whether it was there. `compute` makes those that were
    /// not, all at once and each distinct one once; what another thread computes at the same time is
    /// waited for.
    pub(crate) fn get_or_compute(
        &self,
        asked: &[QueryKey],
        compute: impl Fn(&[&QueryKey]) -> Vec<TextVector>,
    ) -> Vec<(Arc<TextVector>, bool)> {
        let first = |place: usize| {
            let equal = asked[..place].iter().position(|earlier| *earlier == asked[place]);
            equal.unwrap_or(place)
        };
        let mut found: Vec<Option<(Arc<TextVector>, bool)>> = vec![None; asked.len()];
        let (mut own, mut elsewhere) = (Vec::new(), Vec::new());
        for place in (0..asked.len()).filter(|&place| first(place) == place) {
            let Some(cache) = &self.0 else {
                own.push((place, None));
                continue;
            };
            // Waiting here, with guards of others in hand, two threads could wait for each other.
            match cache.get_value_or_guard(&asked[place], Some(Duration::ZERO)) {
                GuardResult::Value(embedded) => found[place] = Some((embedded, true)),
                GuardResult::Guard(guard) => own.push((place, Some(guard))),
                GuardResult::Timeout => elsewhere.push((place, cache)),
            }
        }
        if !own.is_empty() {
            let computed = compute(&own.iter().map(|(place, _)| &asked[*place]).collect::<Vec<_>>());
            for ((place, guard), embedded) in own.into_iter().zip(computed) {
                let embedded = Arc::new(embedded);
                if let Some(guard) = guard {
                    // Refused only if the entry is gone: then it is not kept.
                    let _ = guard.insert(embedded.clone());
                }
                found[place] = Some((embedded, false));
            }
        }
        for (place, cache) in elsewhere {
            let mut computed = false;
            let result = cache.get_or_insert_with(&asked[place], || {
                computed = true;
                let embedded = compute(&[&asked[place]]).pop().expect("one query, one vector");
                Ok::<_, std::convert::Infallible>(Arc::new(embedded))
            });
            let Ok(embedded) = result;
            found[place] = Some((embedded, !computed));
        }
        let answer = |place: usize| match &found[place] {
            Some(found) => found.clone(),
            None => {
                let (embedded, _) = found[first(place)].as_ref().expect("the first of equals has been found");
                (embedded.clone(), true)
            }
        };
        (0..asked.len()).map(answer).collect()
    }

    /// Bytes in use, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, Cache::weight)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    fn asked(query: u32) -> QueryKey {
        QueryKey { model: [7; 16], tokens: vec![101, query, 102], truncated: false }
    }

    fn embedded(asked: &QueryKey) -> TextVector {
        TextVector {
            values: vec![asked.tokens[1] as f32; 384],
            model: asked.model,
            truncated: asked.truncated,
        }
    }

    /// What the cache says of one query, and whether it was there.
    fn ask(cache: &QueryCache, query: QueryKey) -> bool {
        let expected = embedded(&query);
        let mut answers = cache.get_or_compute(&[query], |asked| asked.iter().map(|a| embedded(a)).collect());
        let (found, known) = answers.pop().unwrap();
        assert_eq!(*found, expected);
        known
    }

    #[test]
    fn finds_what_was_asked_before_for_this_model_alone() {
        let cache = QueryCache::new(1 << 20);
        assert!(!ask(&cache, asked(1)));
        let found = cache.get_or_compute(&[asked(1)], |_| unreachable!("it is there"));
        assert_eq!(found, [(Arc::new(embedded(&asked(1))), true)]);
        assert!(!ask(&cache, QueryKey { model: [8; 16], ..asked(1) }));
        assert!(!ask(&cache, QueryKey { truncated: true, ..asked(1) }));
    }

    #[test]
    fn of_many_at_once_each_unknown_one_is_computed_once() {
        for cache in [QueryCache::new(1 << 20), QueryCache::new(0)] {
            let remembers = !ask(&cache, asked(3)) && ask(&cache, asked(3));
            let queries = [1, 3, 2, 1, 3, 1].map(asked);
            let found = cache.get_or_compute(&queries, |unknown| {
                let unknown: Vec<u32> = unknown.iter().map(|asked| asked.tokens[1]).collect();
                assert_eq!(unknown, if remembers { vec![1, 2] } else { vec![1, 3, 2] });
                unknown.iter().map(|&query| embedded(&asked(query))).collect()
            });
            let vectors: Vec<&TextVector> = found.iter().map(|(found, _)| &**found).collect();
            assert_eq!(vectors, queries.iter().map(embedded).collect::<Vec<_>>().iter().collect::<Vec<_>>());
            let known: Vec<bool> = found.iter().map(|(_, known)| *known).collect();
            assert_eq!(known, [false, remembers, false, true, true, true]);
        }
    }

    #[test]
    fn stays_within_its_bytes() {
        let max = 100_000;
        let cache = QueryCache::new(max);
        for query in 0..1000 {
            ask(&cache, asked(query));
            assert!(cache.bytes() <= max as u64);
        }
        assert!(cache.bytes() > max as u64 / 2, "{} bytes are used of {max}", cache.bytes());
        let none = QueryCache::new(0);
        ask(&none, asked(1));
        assert!(!ask(&none, asked(1)));
        assert_eq!(none.bytes(), 0);
    }

    #[test]
    fn computes_once_what_many_ask_for_at_a_time() {
        let (cache, computed, ready) = (QueryCache::new(1 << 20), AtomicUsize::new(0), Barrier::new(8));
        thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, computed, ready) = (&cache, &computed, &ready);
                scope.spawn(move || {
                    for query in 0..100 {
                        ready.wait();
                        // Half of them ask the other way round.
                        let mut queries = [2 * query, 2 * query + 1].map(asked);
                        queries.rotate_left(thread % 2);
                        let found = cache.get_or_compute(&queries, |unknown| {
                            computed.fetch_add(unknown.len(), Ordering::Relaxed);
                            unknown.iter().map(|asked| embedded(asked)).collect()
                        });
                        for (query, (found, _)) in queries.iter().zip(found) {
                            assert_eq!(*found, embedded(query));
                        }
                    }
                });
            }
        });
        assert_eq!(computed.into_inner(), 200);
    }
}
