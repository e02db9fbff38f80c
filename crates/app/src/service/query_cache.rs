//! Vectors of queries that were asked before.

use quick_cache::{Weighter, sync::Cache};

use super::{models::Embedded, sync::Arc};

/// Bytes of an entry beside its tokens and values: the entry itself, its place in the cache's
/// tables, and what the allocator adds.
const ENTRY_BYTES: usize = 192;

/// Bytes of a usual entry: a dozen tokens and 384 values.
const USUAL_BYTES: usize = ENTRY_BYTES + 12 * 4 + 384 * 4;

/// A query as its model reads it, so that spelling that makes no difference to the model (capital
/// letters, spaces) makes none here, and that what is found is exactly what would be computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// Fingerprint of the model.
    pub(super) model: [u8; 16],
    /// Ids of the tokens.
    pub(super) tokens: Vec<u32>,
    /// Whether there were more.
    pub(super) truncated: bool,
}

/// The vectors asked for most lately and most often, in bounded memory.
#[derive(Debug)]
pub(super) struct QueryCache(Option<Cache<Asked, Arc<Embedded>, Bytes>>);

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Asked, Arc<Embedded>> for Bytes {
    fn weight(&self, asked: &Asked, embedded: &Arc<Embedded>) -> u64 {
        (ENTRY_BYTES + 4 * (asked.tokens.len() + embedded.values.len())) as u64
    }
}

impl QueryCache {
    /// A cache of at most this many bytes; none at all, if 0.
    pub(super) fn new(bytes: usize) -> QueryCache {
        let cache = || Cache::with_weighter(bytes.div_ceil(USUAL_BYTES), bytes as u64, Bytes);
        QueryCache((bytes > 0).then(cache))
    }

    /// The vector of a query, and whether it was there. If it was not, `compute` makes it; of
    /// several threads that ask for one at a time, one computes and the others wait for it.
    pub(super) fn get_or_compute(
        &self,
        asked: Asked,
        compute: impl FnOnce(&Asked) -> Embedded,
    ) -> (Arc<Embedded>, bool) {
        let Some(cache) = &self.0 else { return (Arc::new(compute(&asked)), false) };
        if let Some(found) = cache.get(&asked) {
            return (found, true);
        }
        let mut computed = false;
        let result = cache.get_or_insert_with(&asked, || {
            computed = true;
            Ok::<_, std::convert::Infallible>(Arc::new(compute(&asked)))
        });
        let Ok(embedded) = result;
        (embedded, !computed)
    }

    /// Bytes in use, about.
    pub(super) fn bytes(&self) -> u64 {
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

    fn asked(query: u32) -> Asked {
        Asked { model: [7; 16], tokens: vec![101, query, 102], truncated: false }
    }

    fn embedded(asked: &Asked) -> Embedded {
        Embedded { values: vec![asked.tokens[1] as f32; 384], model: asked.model, truncated: asked.truncated }
    }

    #[test]
    fn finds_what_was_asked_before_for_this_model_alone() {
        let cache = QueryCache::new(1 << 20);
        assert_eq!(cache.get_or_compute(asked(1), embedded), (Arc::new(embedded(&asked(1))), false));
        let found = cache.get_or_compute(asked(1), |_| unreachable!("it is there"));
        assert_eq!(found, (Arc::new(embedded(&asked(1))), true));
        let other = Asked { model: [8; 16], ..asked(1) };
        assert!(!cache.get_or_compute(other, embedded).1);
        let longer = Asked { truncated: true, ..asked(1) };
        assert!(!cache.get_or_compute(longer, embedded).1);
    }

    #[test]
    fn stays_within_its_bytes() {
        let max = 100_000;
        let cache = QueryCache::new(max);
        for query in 0..1000 {
            cache.get_or_compute(asked(query), embedded);
            assert!(cache.bytes() <= max as u64);
        }
        assert!(cache.bytes() > max as u64 / 2, "{} bytes are used of {max}", cache.bytes());
        let none = QueryCache::new(0);
        none.get_or_compute(asked(1), embedded);
        assert!(!none.get_or_compute(asked(1), embedded).1);
        assert_eq!(none.bytes(), 0);
    }

    #[test]
    fn computes_once_what_many_ask_for_at_a_time() {
        let (cache, computed, ready) = (QueryCache::new(1 << 20), AtomicUsize::new(0), Barrier::new(8));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for query in 0..100 {
                        ready.wait();
                        let (found, _) = cache.get_or_compute(asked(query), |asked| {
                            computed.fetch_add(1, Ordering::Relaxed);
                            embedded(asked)
                        });
                        assert_eq!(*found, embedded(&asked(query)));
                    }
                });
            }
        });
        assert_eq!(computed.into_inner(), 100);
    }
}
