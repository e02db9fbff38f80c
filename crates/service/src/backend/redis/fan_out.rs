//! Searching all shards and merging their hits.

use std::{
    cmp::Ordering,
    collections::HashSet,
    time::{Duration, Instant},
};

use engine::Hit;
use futures_util::future::{join_all, try_join_all};
use redis::Pipeline;

use super::{
    Error, Filter, Query, Redis, Schema, SearchResult,
    search::{self, SearchCommand},
    servers::{Shard, into_result},
    state::CachedState,
};
use crate::{ErrorKind, sync::Arc};

/// Attempts at a search whose hits disappear while they are read.
const ATTEMPTS: usize = 4;

/// A query for all shards.
#[derive(Debug)]
pub(crate) struct ShardQuery<'q> {
    pub(crate) query: Query<'q>,
    /// Whether to return the hits of some shards if others fail.
    pub(crate) allow_partial: bool,
}

/// The merged hits of all shards.
#[derive(Debug)]
pub(crate) struct MergedHits {
    pub(crate) found: SearchResult,
    /// Errors of the shards whose hits are missing.
    pub(crate) unanswered: Vec<String>,
}

impl Redis {
    /// Runs these queries in one pipeline per shard; returns hits or an error per query.
    pub(crate) async fn search(
        &self,
        queries: &[ShardQuery<'_>],
        deadline: Instant,
    ) -> Result<Vec<Result<MergedHits, Error>>, Error> {
        let mut found: Vec<Option<Result<MergedHits, Error>>> = queries.iter().map(|_| None).collect();
        for attempt in 1.. {
            let open = found.iter().enumerate().filter(|(_, found)| found.is_none());
            let open: Vec<usize> = open.map(|(position, _)| position).collect();
            if open.is_empty() {
                break;
            }
            for (position, result) in self.search_once(queries, &open, deadline, attempt == ATTEMPTS).await? {
                found[position] = result;
            }
        }
        Ok(found.into_iter().map(|found| found.expect("every query has a result")).collect())
    }

    /// The number of documents of a collection that match the filter.
    pub(in crate::backend) async fn count(
        &self,
        collection: &str,
        filter: Option<&Filter>,
    ) -> Result<u64, Error> {
        let (state, map) = (self.state(), self.servers.map());
        let collection = state.get(collection)?;
        let shards = self.index_shards(&map)?;
        let count_on = async |shard: &Arc<Shard>| {
            let index = collection.queryable_index(shard)?;
            let timeout = self.servers.store().command_timeout;
            let Some(command) = search::build_count(index, filter, timeout) else { return Ok(0) };
            let reply = self.servers.read_node(shard).connections.send(&command).await.and_then(into_result);
            reply
                .and_then(search::parse_count)
                .map_err(|error| shard.with_shard(self.refresh_if_index_missing(error)))
        };
        Ok(try_join_all(shards.iter().map(count_on)).await?.into_iter().sum())
    }

    /// Runs the queries at these positions once. A query some of whose hits disappeared has no result
    /// and is run again, unless this is the `last` attempt.
    async fn search_once(
        &self,
        queries: &[ShardQuery<'_>],
        positions: &[usize],
        deadline: Instant,
        last: bool,
    ) -> Result<Vec<(usize, Option<Result<MergedHits, Error>>)>, Error> {
        let began = Instant::now();
        let (state, map) = (self.state(), self.servers.map());
        let shards = self.index_shards(&map)?;
        let time = deadline.saturating_duration_since(began).min(self.servers.store().command_timeout);
        let is_part = self.has_index_per_shard();
        let send_all = || {
            let sent =
                shards.iter().map(|shard| self.search_on(shard, &state, queries, positions, time, is_part));
            join_all(sent)
        };
        let mut results = send_all().await;
        if is_part && self.servers.is_migrating() {
            // A document that moved to a shard after that shard was searched is there now.
            for (first, second) in results.iter_mut().flatten().zip(send_all().await.into_iter().flatten()) {
                match (first, second) {
                    (Ok(first), Ok(second)) => {
                        first.vanished += second.vanished;
                        first.hits.extend(second.hits);
                    }
                    (first, Err(error)) => *first = Err(error),
                    (Err(_), Ok(_)) => {}
                }
            }
        }
        let mut results: Vec<_> = results.into_iter().map(Vec::into_iter).collect();
        let search_us = micros(began.elapsed());
        let merged_hits: Vec<_> = positions
            .iter()
            .map(|position| {
                let shard_results =
                    results.iter_mut().map(|results| results.next().expect("one result per query"));
                merge(&queries[*position], &shards, shard_results, is_part)
            })
            .collect();
        let finish = async |position: &usize, merged_hits: Result<(MergedHits, usize), Error>| {
            let (mut merged, mut vanished) = merged_hits?;
            if is_part {
                let began = Instant::now();
                let query = &queries[*position].query;
                let schema = state.get(query.collection)?.schema();
                vanished += self.fetch_fields(query, schema, &mut merged.found.hits).await?;
                merged.found.fetch_us = micros(began.elapsed());
            }
            merged.found.search_us = search_us;
            Ok((merged, vanished))
        };
        let finished = join_all(
            positions.iter().zip(merged_hits).map(|(position, merged_hits)| finish(position, merged_hits)),
        )
        .await;
        let result = |finished: Result<(MergedHits, usize), Error>| match finished {
            Ok((_, vanished)) if vanished > 0 && !last => None,
            finished => Some(finished.map(|(merged, _)| merged)),
        };
        Ok(positions.iter().copied().zip(finished.into_iter().map(result)).collect())
    }

    /// Reads the fields of hits found without them. Removes hits whose documents are gone, and returns
    /// their number.
    async fn fetch_fields(
        &self,
        query: &Query<'_>,
        schema: &Schema,
        hits: &mut Vec<Hit>,
    ) -> Result<usize, Error> {
        let fields_wanted = search::returned_fields(query, schema)?;
        let servers = &self.servers;
        let (groups, unserved) = servers.map().group_by_shard(hits.iter().map(|hit| &*hit.document.key));
        if let Some((_, error)) = unserved.into_iter().next() {
            return Err(error);
        }
        let fetch_from_shard = async |shard: &Arc<Shard>, positions: &[usize]| -> Result<Vec<_>, Error> {
            let mut pipeline = Pipeline::with_capacity(2 * positions.len());
            for position in positions {
                search::add_fetch(&mut pipeline, &hits[*position].document.key, &fields_wanted);
            }
            let sent = servers.send_pipeline(&servers.read_node(shard), &pipeline, 0, 0).await;
            let mut replies = sent.map_err(|error| shard.with_shard(error))?.into_iter();
            let mut next = || replies.next().expect("as many replies as commands");
            let mut fields = || search::parse_fields(next()?, next()?, &fields_wanted);
            positions.iter().map(|_| fields().map_err(|error| shard.with_shard(error))).collect()
        };
        let read =
            try_join_all(groups.iter().map(|(shard, positions)| fetch_from_shard(shard, positions))).await?;
        let mut is_gone = vec![false; hits.len()];
        for ((_, positions), read) in groups.iter().zip(read) {
            for (position, fields) in positions.iter().zip(read) {
                match fields {
                    Some(fields) => hits[*position].document.fields = fields,
                    None => is_gone[*position] = true,
                }
            }
        }
        let count = hits.len();
        let mut is_gone = is_gone.into_iter();
        hits.retain(|_| !is_gone.next().expect("one per hit"));
        Ok(count - hits.len())
    }

    /// Runs the queries at these positions on one shard; hits or an error per query, in order.
    async fn search_on(
        &self,
        shard: &Arc<Shard>,
        state: &CachedState,
        queries: &[ShardQuery<'_>],
        positions: &[usize],
        time: Duration,
        is_part: bool,
    ) -> Vec<Result<search::ShardHits, Error>> {
        let began = Instant::now();
        let mut pipeline = Pipeline::with_capacity(positions.len());
        let mut sent: Vec<Result<Option<SearchCommand>, Error>> = positions
            .iter()
            .map(|position| {
                let query = &queries[*position].query;
                let collection = state.get(query.collection)?;
                let index = collection.queryable_index(shard)?;
                search::build_search(query, index, collection.schema(), time, is_part)
            })
            .collect();
        for command in sent.iter_mut().flatten().flatten() {
            pipeline.add_command(command.command.take());
        }
        let replies = self.servers.read_node(shard).connections.send_pipeline(&pipeline, 0).await;
        let took = began.elapsed();
        let mut replies = replies.map(Vec::into_iter);
        let parse = |command: Result<Option<SearchCommand>, Error>| {
            let Some(command) = command? else { return Ok(search::ShardHits::default()) };
            let reply =
                replies.as_mut().map_err(|error| error.clone())?.next().expect("one reply per command");
            let hits = command.parse(reply)?;
            // RESP2 does not report that hits are missing.
            if took >= time {
                return Err(search::incomplete("it timed out"));
            }
            Ok(hits)
        };
        let fail = |error| shard.with_shard(self.refresh_if_index_missing(error));
        sent.into_iter().map(parse).map(|hits| hits.map_err(fail)).collect()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Merges the results of all shards for one query: the requested hits, and how many documents
/// disappeared.
fn merge(
    query: &ShardQuery<'_>,
    shards: &[Arc<Shard>],
    shard_results: impl Iterator<Item = Result<search::ShardHits, Error>>,
    are_parts: bool,
) -> Result<(MergedHits, usize), Error> {
    let (mut hits, mut vanished) = (Vec::new(), 0);
    let (mut unanswered, mut first_error) = (Vec::new(), None::<Error>);
    for (shard, result) in shards.iter().zip(shard_results) {
        match result {
            Ok(found) => {
                vanished += found.vanished;
                hits.extend(found.hits);
            }
            Err(error) => {
                // When one shard is down, others may report that the cluster is down. Report the error
                // of the shard that is down.
                if first_error.is_none() || shard.primary.connections.unavailable_reason().is_some() {
                    first_error = Some(error.clone());
                }
                unanswered.push(error);
            }
        }
    }
    if let Some(first_error) = first_error
        && (!query.allow_partial
            || unanswered.len() == shards.len()
            || unanswered.iter().any(|error| error.kind != ErrorKind::Unavailable))
    {
        return Err(first_error);
    }
    if are_parts {
        hits = nearest(hits, &query.query);
    }
    let found = SearchResult { hits, filter_us: 0, search_us: 0, fetch_us: 0 };
    let unanswered = unanswered.into_iter().map(|error| error.message).collect();
    Ok((MergedHits { found, unanswered }, vanished))
}

/// The page that `query` requests, from the hits of all shards. A document that moved between shards
/// meanwhile is included once.
fn nearest(mut hits: Vec<Hit>, query: &Query<'_>) -> Vec<Hit> {
    hits.sort_by(|one, two| {
        let by_distance = || one.distance.partial_cmp(&two.distance).unwrap_or(Ordering::Equal);
        let by_score = two.score.total_cmp(&one.score);
        by_score.then_with(by_distance).then_with(|| one.document.key.cmp(&two.document.key))
    });
    let mut seen = HashSet::with_capacity(hits.len());
    hits.retain(|hit| seen.insert(hit.document.key.clone()));
    hits.into_iter().skip(query.page.offset).take(query.page.k).collect()
}

#[cfg(test)]
mod tests {
    use engine::{Order, Page};

    use super::*;
    use crate::Document;

    fn hit(key: &str, distance: f32) -> Hit {
        let document =
            Document { key: key.as_bytes().into(), seq: 0, expires_at_ms: None, fields: Vec::new() };
        Hit { document, passage: Some(0), distance: Some(distance), score: 1.0 - distance }
    }

    #[test]
    fn takes_the_page_from_the_nearest_hits_of_all_shards_without_duplicates() {
        let query = Query {
            collection: "kb",
            legs: Vec::new(),
            order: Order::Score,
            page: Page { offset: 1, k: 3 },
            filter: None,
            min_score: None,
            fields: None,
        };
        let hits = vec![
            hit("d", 0.5),
            hit("a", 0.1),
            hit("moved", 0.3),
            hit("far", 0.9),
            hit("moved", 0.3),
            hit("b", 0.3),
        ];
        let page = nearest(hits, &query);
        let keys: Vec<&[u8]> = page.iter().map(|hit| &*hit.document.key).collect();
        assert_eq!(keys, [&b"b"[..], b"moved", b"d"]);
    }
}
