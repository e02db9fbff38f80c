//! Cache of query vectors.

use std::time::Duration;

use quick_cache::{
    Weighter,
    sync::{Cache, GuardResult},
};

use crate::{models::TextVector, sync::Arc};

/// Overhead of an entry in bytes, besides its tokens and values: the entry, its slot in the cache's
/// tables, and the allocator's overhead.
const ENTRY_BYTES: usize = 192;

/// Size of a typical entry in bytes: a dozen tokens and 384 values.
const TYPICAL_BYTES: usize = ENTRY_BYTES + 12 * 4 + 384 * 4;

/// The tokens of a query. Queries that differ only in ways the model ignores (case, spaces) share an
/// entry, and a cached vector is exactly the one that would be computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueryKey {
    /// Fingerprint of the model.
    pub(crate) model: [u8; 16],
    /// Token ids.
    pub(crate) tokens: Vec<u32>,
    /// Whether the query had more tokens.
    pub(crate) truncated: bool,
}

/// The most recently and frequently used query vectors, in bounded memory.
#[derive(Debug)]
pub(crate) struct QueryCache(Option<Cache<QueryKey, Arc<TextVector>, EntrySize>>);

#[derive(Clone, Debug)]
struct EntrySize;

impl Weighter<QueryKey, Arc<TextVector>> for EntrySize {
    fn weight(&self, key: &QueryKey, embedded: &Arc<TextVector>) -> u64 {
        (ENTRY_BYTES + 4 * (key.tokens.len() + embedded.values.len())) as u64
    }
}

impl QueryCache {
    /// A cache of at most `bytes`; 0 disables it.
    pub(crate) fn new(bytes: usize) -> QueryCache {
        let cache = || Cache::with_weighter(bytes.div_ceil(TYPICAL_BYTES), bytes as u64, EntrySize);
        QueryCache((bytes > 0).then(cache))
    }

    /// The vector of each query, and whether it was cached. `compute` computes the missing vectors in
    /// one call, each distinct query once. Vectors that another thread is computing are awaited
    /// instead.
    pub(crate) fn get_or_compute(
        &self,
        queries: &[QueryKey],
        compute: impl Fn(&[&QueryKey]) -> Vec<TextVector>,
    ) -> Vec<(Arc<TextVector>, bool)> {
        let first = |position: usize| {
            let equal = queries[..position].iter().position(|earlier| *earlier == queries[position]);
            equal.unwrap_or(position)
        };
        let mut found: Vec<Option<(Arc<TextVector>, bool)>> = vec![None; queries.len()];
        let (mut own, mut elsewhere) = (Vec::new(), Vec::new());
        for position in (0..queries.len()).filter(|&position| first(position) == position) {
            let Some(cache) = &self.0 else {
                own.push((position, None));
                continue;
            };
            // Waiting here while holding guards could deadlock two threads.
            match cache.get_value_or_guard(&queries[position], Some(Duration::ZERO)) {
                GuardResult::Value(embedded) => found[position] = Some((embedded, true)),
                GuardResult::Guard(guard) => own.push((position, Some(guard))),
                GuardResult::Timeout => elsewhere.push((position, cache)),
            }
        }
        if !own.is_empty() {
            let computed = compute(&own.iter().map(|(position, _)| &queries[*position]).collect::<Vec<_>>());
            for ((position, guard), embedded) in own.into_iter().zip(computed) {
                let embedded = Arc::new(embedded);
                if let Some(guard) = guard {
                    // Fails only if the placeholder was evicted; the vector is then not cached.
                    let _ = guard.insert(embedded.clone());
                }
                found[position] = Some((embedded, false));
            }
        }
        for (position, cache) in elsewhere {
            let mut computed = false;
            let result = cache.get_or_insert_with(&queries[position], || {
                computed = true;
                let embedded = compute(&[&queries[position]]).pop().expect("one query, one vector");
                Ok::<_, std::convert::Infallible>(Arc::new(embedded))
            });
            let Ok(embedded) = result;
            found[position] = Some((embedded, !computed));
        }
        let vector = |position: usize| match &found[position] {
            Some(found) => found.clone(),
            None => {
                let (embedded, _) =
                    found[first(position)].as_ref().expect("the first of equal queries has a vector");
                (embedded.clone(), true)
            }
        };
        (0..queries.len()).map(vector).collect()
    }

    /// Approximate size in bytes.
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

    fn key(query: u32) -> QueryKey {
        QueryKey { model: [7; 16], tokens: vec![101, query, 102], truncated: false }
    }

    fn embedded(key: &QueryKey) -> TextVector {
        TextVector { values: vec![key.tokens[1] as f32; 384], model: key.model, truncated: key.truncated }
    }

    /// Looks up one query, checks its vector, and returns whether it was cached.
    fn look_up(cache: &QueryCache, query: QueryKey) -> bool {
        let expected = embedded(&query);
        let mut answers =
            cache.get_or_compute(&[query], |missing| missing.iter().map(|key| embedded(key)).collect());
        let (found, is_hit) = answers.pop().unwrap();
        assert_eq!(*found, expected);
        is_hit
    }

    #[test]
    fn finds_cached_queries_of_the_same_model_only() {
        let cache = QueryCache::new(1 << 20);
        assert!(!look_up(&cache, key(1)));
        let found = cache.get_or_compute(&[key(1)], |_| unreachable!("it is cached"));
        assert_eq!(found, [(Arc::new(embedded(&key(1))), true)]);
        assert!(!look_up(&cache, QueryKey { model: [8; 16], ..key(1) }));
        assert!(!look_up(&cache, QueryKey { truncated: true, ..key(1) }));
    }

    #[test]
    fn computes_each_missing_query_of_a_batch_once() {
        for cache in [QueryCache::new(1 << 20), QueryCache::new(0)] {
            let caches = !look_up(&cache, key(3)) && look_up(&cache, key(3));
            let queries = [1, 3, 2, 1, 3, 1].map(key);
            let found = cache.get_or_compute(&queries, |missing| {
                let missing: Vec<u32> = missing.iter().map(|key| key.tokens[1]).collect();
                assert_eq!(missing, if caches { vec![1, 2] } else { vec![1, 3, 2] });
                missing.iter().map(|&query| embedded(&key(query))).collect()
            });
            let vectors: Vec<&TextVector> = found.iter().map(|(found, _)| &**found).collect();
            assert_eq!(vectors, queries.iter().map(embedded).collect::<Vec<_>>().iter().collect::<Vec<_>>());
            let hits: Vec<bool> = found.iter().map(|(_, is_hit)| *is_hit).collect();
            assert_eq!(hits, [false, caches, false, true, true, true]);
        }
    }

    #[test]
    fn stays_within_its_byte_limit() {
        let max = 100_000;
        let cache = QueryCache::new(max);
        for query in 0..1000 {
            look_up(&cache, key(query));
            assert!(cache.bytes() <= max as u64);
        }
        assert!(cache.bytes() > max as u64 / 2, "only {} of {max} bytes are used", cache.bytes());
        let none = QueryCache::new(0);
        look_up(&none, key(1));
        assert!(!look_up(&none, key(1)));
        assert_eq!(none.bytes(), 0);
    }

    #[test]
    fn concurrent_lookups_compute_each_query_once() {
        let (cache, computed, ready) = (QueryCache::new(1 << 20), AtomicUsize::new(0), Barrier::new(8));
        thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, computed, ready) = (&cache, &computed, &ready);
                scope.spawn(move || {
                    for query in 0..100 {
                        ready.wait();
                        // Half of the threads use the reverse order.
                        let mut queries = [2 * query, 2 * query + 1].map(key);
                        queries.rotate_left(thread % 2);
                        let found = cache.get_or_compute(&queries, |missing| {
                            computed.fetch_add(missing.len(), Ordering::Relaxed);
                            missing.iter().map(|key| embedded(key)).collect()
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
