//! A search asked of every shard at once, and brought together.

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
    state::State,
};
use crate::{ErrorKind, sync::Arc};

/// Times a search is made again because hits had gone.
const ATTEMPTS: usize = 4;

/// A query, and what its asker can do with.
#[derive(Debug)]
pub(crate) struct ShardQuery<'q> {
    pub(crate) query: Query<'q>,
    /// Whether the hits of some shards are better than none.
    pub(crate) allow_partial: bool,
}

/// What was found for it.
#[derive(Debug)]
pub(crate) struct MergedHits {
    pub(crate) found: SearchResult,
    /// Why shards have not answered whose hits are missing.
    pub(crate) unanswered: Vec<String>,
}

impl Redis {
    /// Answers these queries, asked together; one list of hits or one error each.
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
        Ok(found.into_iter().map(|found| found.expect("every query came to an end")).collect())
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

    /// Asks the queries at these positions once. Those whose hits had partly gone have no result,
    /// and are asked again unless this is the `last` time.
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
            let asked =
                shards.iter().map(|shard| self.search_on(shard, &state, queries, positions, time, is_part));
            join_all(asked)
        };
        let mut answers = send_all().await;
        if is_part && self.servers.is_migrating() {
            // What went to a shard after that was asked is there by now.
            for (first, second) in answers.iter_mut().flatten().zip(send_all().await.into_iter().flatten()) {
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
        let mut answers: Vec<_> = answers.into_iter().map(Vec::into_iter).collect();
        let search_us = micros(began.elapsed());
        let merged_all: Vec<_> = positions
            .iter()
            .map(|position| {
                let of_shards = answers.iter_mut().map(|answers| answers.next().expect("one answer a query"));
                merge(&queries[*position], &shards, of_shards, is_part)
            })
            .collect();
        let finish = async |position: &usize, merged_all: Result<(MergedHits, usize), Error>| {
            let (mut merged, mut vanished) = merged_all?;
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
            positions.iter().zip(merged_all).map(|(position, merged_all)| finish(position, merged_all)),
        )
        .await;
        let result = |finished: Result<(MergedHits, usize), Error>| match finished {
            Ok((_, vanished)) if vanished > 0 && !last => None,
            finished => Some(finished.map(|(merged, _)| merged)),
        };
        Ok(positions.iter().copied().zip(finished.into_iter().map(result)).collect())
    }

    /// Reads the fields of hits that came without; hits that stand no more are taken out, and counted.
    async fn fetch_fields(
        &self,
        query: &Query<'_>,
        schema: &Schema,
        hits: &mut Vec<Hit>,
    ) -> Result<usize, Error> {
        let wanted = search::returned_fields(query, schema)?;
        let servers = &self.servers;
        let (groups, unserved) = servers.map().group_by_shard(hits.iter().map(|hit| &*hit.document.key));
        if let Some((_, error)) = unserved.into_iter().next() {
            return Err(error);
        }
        let of_shard = async |shard: &Arc<Shard>, positions: &[usize]| -> Result<Vec<_>, Error> {
            let mut pipeline = Pipeline::with_capacity(2 * positions.len());
            for position in positions {
                search::add_fetch(&mut pipeline, &hits[*position].document.key, &wanted);
            }
            let asked = servers.send_pipeline(&servers.read_node(shard), &pipeline, 0, 0).await;
            let mut replies = asked.map_err(|error| shard.with_shard(error))?.into_iter();
            let mut next = || replies.next().expect("as many replies as commands");
            let mut fields = || search::parse_fields(next()?, next()?, &wanted);
            positions.iter().map(|_| fields().map_err(|error| shard.with_shard(error))).collect()
        };
        let read = try_join_all(groups.iter().map(|(shard, positions)| of_shard(shard, positions))).await?;
        let mut gone = vec![false; hits.len()];
        for ((_, positions), read) in groups.iter().zip(read) {
            for (position, fields) in positions.iter().zip(read) {
                match fields {
                    Some(fields) => hits[*position].document.fields = fields,
                    None => gone[*position] = true,
                }
            }
        }
        let count = hits.len();
        let mut gone = gone.into_iter();
        hits.retain(|_| !gone.next().expect("one a hit"));
        Ok(count - hits.len())
    }

    /// Asks one shard the queries at these positions; one answer or one error each, in their order.
    async fn search_on(
        &self,
        shard: &Arc<Shard>,
        state: &State,
        queries: &[ShardQuery<'_>],
        positions: &[usize],
        time: Duration,
        is_part: bool,
    ) -> Vec<Result<search::ShardHits, Error>> {
        let began = Instant::now();
        let mut pipeline = Pipeline::with_capacity(positions.len());
        let mut asked: Vec<Result<Option<SearchCommand>, Error>> = positions
            .iter()
            .map(|position| {
                let query = &queries[*position].query;
                let collection = state.get(query.collection)?;
                let index = collection.queryable_index(shard)?;
                search::build_search(query, index, collection.schema(), time, is_part)
            })
            .collect();
        for command in asked.iter_mut().flatten().flatten() {
            pipeline.add_command(command.command.take());
        }
        let replies = self.servers.read_node(shard).connections.send_pipeline(&pipeline, 0).await;
        let took = began.elapsed();
        let mut replies = replies.map(Vec::into_iter);
        let answer = |command: Result<Option<SearchCommand>, Error>| {
            let Some(command) = command? else { return Ok(search::ShardHits::default()) };
            let reply = replies.as_mut().map_err(|error| error.clone())?.next().expect("a reply to each");
            let answered = command.parse(reply)?;
            // The older protocol does not say that hits are not all there are.
            if took >= time {
                return Err(search::incomplete("its time was over"));
            }
            Ok(answered)
        };
        let blame = |error| shard.with_shard(self.refresh_if_index_missing(error));
        asked.into_iter().map(answer).map(|answered| answered.map_err(blame)).collect()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What shards answered to one query, brought together: the hits it asks for, and how many had gone.
fn merge(
    asked: &ShardQuery<'_>,
    shards: &[Arc<Shard>],
    of_shards: impl Iterator<Item = Result<search::ShardHits, Error>>,
    are_parts: bool,
) -> Result<(MergedHits, usize), Error> {
    let (mut hits, mut vanished) = (Vec::new(), 0);
    let (mut unanswered, mut trouble) = (Vec::new(), None::<Error>);
    for (shard, answered) in shards.iter().zip(of_shards) {
        match answered {
            Ok(answered) => {
                vanished += answered.vanished;
                hits.extend(answered.hits);
            }
            Err(error) => {
                // Where one shard is gone, others may answer that the cluster is down: it is the one
                // to name.
                if trouble.is_none() || shard.primary.connections.unavailable_reason().is_some() {
                    trouble = Some(error.clone());
                }
                unanswered.push(error);
            }
        }
    }
    if let Some(trouble) = trouble
        && (!asked.allow_partial
            || unanswered.len() == shards.len()
            || unanswered.iter().any(|error| error.kind != ErrorKind::Unavailable))
    {
        return Err(trouble);
    }
    if are_parts {
        hits = nearest(hits, &asked.query);
    }
    let found = SearchResult { hits, filter_us: 0, search_us: 0, fetch_us: 0 };
    let unanswered = unanswered.into_iter().map(|error| error.message).collect();
    Ok((MergedHits { found, unanswered }, vanished))
}

/// The hits `query` asks for, of all that shards gave. One that moved from one to another while they
/// were asked comes once.
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
    fn the_page_is_cut_from_the_nearest_of_all_each_once() {
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
