//! A Redis with the search module, or a cluster of them: documents are hashes, as whoever else uses the
//! Redis would write them, and collections are indexes over their keys. In a cluster whose servers do
//! not ask each other, every primary has an index of its own, and all of them are asked.
//!
//! Everything here waits for the network and nothing computes for long. Replies are whatever the
//! server sends: none is trusted to have the right shape.

mod address;
mod breaker;
mod collections;
mod connections;
mod core;
mod document;
mod documents;
mod error;
mod filter;
mod index;
mod keeper;
mod node;
mod notes;
mod reply;
mod script;
mod scroll;
mod search;
mod seen;
mod server;
mod servers;
mod slots;
mod state;

use std::{
    collections::HashSet,
    sync::mpsc,
    time::{Duration, Instant},
};

use engine::Hit;
use futures_util::future::{join_all, try_join_all};
use redis::Pipeline;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use self::{
    core::Core,
    search::Asking,
    servers::{Servers, Shard, refused},
    state::State,
};
use super::{
    Clock, CollectionInfo, ComputedVector, Cursor, Document, Documents, Error, Field, Filter, Fingerprints,
    Found, Lacking, NotWritten, OnChange, Op, Query, Results, Schema, Scrolled, Stats, Stood, TextToEmbed,
    WriteError, Written, no_cursor,
};
use crate::service::{
    ErrorKind, Expected, RedisStore, refusal,
    search::us,
    sync::{Arc, Mutex},
};

/// Times a search is made again because hits had gone.
const ATTEMPTS: usize = 4;

/// The store, and the threads that talk with it.
#[derive(Debug)]
pub(in crate::service) struct Redis {
    core: Arc<Core>,
    closing: CancellationToken,
    handle: tokio::runtime::Handle,
    /// Taken away by the first to close.
    runtime: Mutex<Option<Runtime>>,
}

/// A query, and what its asker can do with.
#[derive(Debug)]
pub(in crate::service) struct Sought<'q> {
    pub(in crate::service) query: Query<'q>,
    /// Whether the hits of some shards are better than none.
    pub(in crate::service) allow_partial: bool,
}

/// What was found for it.
#[derive(Debug)]
pub(in crate::service) struct Gathered {
    pub(in crate::service) found: Found,
    /// Why shards have not answered whose hits are missing.
    pub(in crate::service) unanswered: Vec<String>,
}

impl Redis {
    /// Opens the connections. Waits until they are open or the first attempt has failed: then they
    /// are opened as soon as the server answers.
    pub(super) fn open(
        store: &RedisStore,
        clock: Arc<dyn Clock>,
        on_change: Arc<OnChange>,
    ) -> Result<Redis, Error> {
        let core = Arc::new(Core::new(Servers::new(store)?, clock, on_change));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nearfield-redis")
            .enable_all()
            .build()
            .map_err(|error| refusal::thread(&error))?;
        let closing = CancellationToken::new();
        let (tried, first) = mpsc::sync_channel(1);
        runtime.spawn(keeper::keep(core.clone(), closing.clone(), tried));
        // The keeper is patient with each step for at most a second at first.
        let _ = first.recv();
        let handle = runtime.handle().clone();
        Ok(Redis { core, closing, handle, runtime: Mutex::new(Some(runtime)) })
    }

    /// Gives up the connections. Does not wait for what is on its way.
    pub(super) fn close(&self) {
        self.closing.cancel();
        self.core.servers.close();
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// Waits for one of the verbs below. For threads that may block.
    pub(super) fn wait<T>(&self, verb: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.closing.is_cancelled() {
            return Err(Error::closing());
        }
        self.handle.block_on(verb)
    }

    /// Runs what must not stop half-way because its caller has gone.
    async fn to_the_end<T: Send + 'static>(
        &self,
        verb: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.handle.spawn(verb).await.map_err(|_| Error::closing())?
    }

    /// What the server calls itself as long as it runs; of a cluster, what all of them do.
    pub(super) fn server_id(&self) -> Option<String> {
        let state = self.core.state();
        let mut ids: Vec<&str> = state.servers.values().map(|server| server.run_id.as_str()).collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids.join(" "))
    }

    pub(super) fn seen(&self) -> Vec<CollectionInfo> {
        self.core.state().collections.values().map(|collection| collection.show()).collect()
    }

    pub(super) fn seen_one(&self, name: &str) -> Result<CollectionInfo, Error> {
        Ok(self.core.state().get(name)?.show())
    }

    pub(super) async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        self.core.collections().await
    }

    pub(super) async fn collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        self.core.collection(name).await
    }

    pub(super) async fn put_collection(
        &self,
        name: &str,
        schema: Schema,
        rebuild: bool,
        models: Fingerprints,
    ) -> Result<(CollectionInfo, bool), Error> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.to_the_end(async move { core.put_collection(&name, schema, rebuild, models).await }).await
    }

    pub(super) async fn drop_collection(&self, name: &str, documents: Documents) -> Result<(), Error> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.to_the_end(async move { core.drop_collection(&name, documents).await }).await
    }

    pub(super) async fn set_alias(&self, alias: &str, collection: &str) -> Result<(), Error> {
        let (core, alias, collection) = (self.core.clone(), alias.to_owned(), collection.to_owned());
        self.to_the_end(async move { core.set_alias(&alias, &collection).await }).await
    }

    pub(super) async fn remove_alias(&self, alias: &str) -> Result<(), Error> {
        let (core, alias) = (self.core.clone(), alias.to_owned());
        self.to_the_end(async move { core.remove_alias(&alias).await }).await
    }

    pub(super) async fn find(&self, keys: Vec<Vec<u8>>) -> Result<Option<Document>, Error> {
        let document = self.core.raw(&keys).await?.into_iter().flatten().next();
        Ok(document.map(|document| self.core.state().split(document).0))
    }

    pub(super) async fn read(&self, keys: Vec<Vec<u8>>) -> Result<Stood, Error> {
        self.core.read(keys).await
    }

    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<Results, Error> {
        self.core.write(ops).await
    }

    pub(super) fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        self.core.state().texts_to_embed(key, fields)
    }

    pub(super) fn validate(&self, op: &Op) -> Result<(), WriteError> {
        self.core.state().validate(op)
    }

    pub(super) fn models(&self, collection: &str) -> Fingerprints {
        self.core.state().get(collection).map_or_else(|_| Vec::new(), |known| known.models.clone())
    }

    pub(super) async fn note_models(&self, collection: &str, models: Fingerprints) -> Result<(), Error> {
        self.core.note_models(collection, models).await
    }

    pub(super) async fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        self.core.scroll(collection, filter, after, limit).await
    }

    pub(super) async fn unembedded(
        &self,
        collection: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Lacking, Error> {
        self.core.unembedded(collection, after, limit).await
    }

    pub(super) async fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, Error> {
        let servers = &self.core.servers;
        let (state, map) = (self.core.state(), servers.map());
        let collection = state.get(collection)?;
        let shards = self.core.shards(&map)?;
        let of_shard = async |shard: &Arc<Shard>| {
            let index = collection.index_on(shard)?;
            let Some(command) = search::count(index, filter, servers.store().command_timeout) else {
                return Ok(0);
            };
            let asked = servers.reader(shard).connections.ask(&command).await.and_then(refused);
            asked.and_then(search::counted).map_err(|error| shard.blame(self.core.noticed(error)))
        };
        Ok(try_join_all(shards.iter().map(of_shard)).await?.into_iter().sum())
    }

    pub(super) async fn stats(&self) -> Result<Stats, Error> {
        self.core.stats().await
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.core.state().warnings();
        if self.core.servers.are_moving() {
            warnings.push("slots of the Redis Cluster are on their way from server to server".to_owned());
        }
        warnings
    }

    /// What keeps collections from being known.
    pub(super) fn out_of_reach(&self) -> Option<Error> {
        self.obstacle().filter(|_| !self.core.is_known())
    }

    pub(super) fn obstacle(&self) -> Option<Error> {
        self.core.servers.obstacle()
    }

    /// Answers these queries, asked together; one list of hits or one error each.
    pub(in crate::service) async fn search(
        &self,
        queries: &[Sought<'_>],
        deadline: Instant,
    ) -> Result<Vec<Result<Gathered, Error>>, Error> {
        let mut found: Vec<Option<Result<Gathered, Error>>> = queries.iter().map(|_| None).collect();
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

    /// Asks the queries at these positions once. Those whose hits had partly gone have no result,
    /// and are asked again unless this is the `last` time.
    async fn search_once(
        &self,
        queries: &[Sought<'_>],
        positions: &[usize],
        deadline: Instant,
        last: bool,
    ) -> Result<Vec<(usize, Option<Result<Gathered, Error>>)>, Error> {
        let began = Instant::now();
        let (state, map) = (self.core.state(), self.core.servers.map());
        let shards = self.core.shards(&map)?;
        let time = deadline.saturating_duration_since(began).min(self.core.servers.store().command_timeout);
        let is_part = self.core.is_divided();
        let ask = || {
            let asked =
                shards.iter().map(|shard| self.search_on(shard, &state, queries, positions, time, is_part));
            join_all(asked)
        };
        let mut answers = ask().await;
        if is_part && self.core.servers.are_moving() {
            // What went to a shard after that was asked is there by now.
            for (first, second) in answers.iter_mut().flatten().zip(ask().await.into_iter().flatten()) {
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
        let search_us = us(began.elapsed());
        let mut results = Vec::with_capacity(positions.len());
        for position in positions {
            let asked = &queries[*position];
            let of_shards = answers.iter_mut().map(|answers| answers.next().expect("one answer a query"));
            let mut joined = join(asked, &shards, of_shards, is_part);
            if is_part && let Ok((gathered, vanished)) = &mut joined {
                let began = Instant::now();
                let collection = state.get(asked.query.collection)?;
                match self.read_hits(&asked.query, collection.schema(), &mut gathered.found.hits).await {
                    Ok(gone) => *vanished += gone,
                    Err(error) => joined = Err(error),
                }
                if let Ok((gathered, _)) = &mut joined {
                    gathered.found.fetch_us = us(began.elapsed());
                }
            }
            let result = match joined {
                Ok((_, vanished)) if vanished > 0 && !last => None,
                joined => Some(joined.map(|(mut gathered, _)| {
                    gathered.found.search_us = search_us;
                    gathered
                })),
            };
            results.push((*position, result));
        }
        Ok(results)
    }

    /// Reads the fields of hits that came without; hits that stand no more are taken out, and counted.
    async fn read_hits(
        &self,
        query: &Query<'_>,
        schema: &Schema,
        hits: &mut Vec<Hit>,
    ) -> Result<usize, Error> {
        let wanted = search::wanted(query, schema)?;
        let servers = &self.core.servers;
        let (parts, unserved) = servers.map().divide(hits.iter().map(|hit| &*hit.document.key));
        if let Some((_, error)) = unserved.into_iter().next() {
            return Err(error);
        }
        let of_shard = async |shard: &Arc<Shard>, places: &[usize]| -> Result<Vec<_>, Error> {
            let mut pipeline = Pipeline::with_capacity(2 * places.len());
            for place in places {
                search::read(&mut pipeline, &hits[*place].document.key, &wanted);
            }
            let asked = servers.ask_all(&servers.reader(shard), &pipeline, 0, 0).await;
            let mut replies = asked.map_err(|error| shard.blame(error))?.into_iter();
            let mut next = || replies.next().expect("as many replies as commands");
            let mut fields = || search::fields(next()?, next()?, &wanted);
            places.iter().map(|_| fields().map_err(|error| shard.blame(error))).collect()
        };
        let read = try_join_all(parts.iter().map(|(shard, places)| of_shard(shard, places))).await?;
        let mut gone = vec![false; hits.len()];
        for ((_, places), read) in parts.iter().zip(read) {
            for (place, fields) in places.iter().zip(read) {
                match fields {
                    Some(fields) => hits[*place].document.fields = fields,
                    None => gone[*place] = true,
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
        queries: &[Sought<'_>],
        positions: &[usize],
        time: Duration,
        is_part: bool,
    ) -> Vec<Result<search::Answered, Error>> {
        let began = Instant::now();
        let mut pipeline = Pipeline::with_capacity(positions.len());
        let asked: Vec<Result<Option<Asking>, Error>> = positions
            .iter()
            .map(|position| {
                let query = &queries[*position].query;
                let collection = state.get(query.collection)?;
                let index = collection.index_on(shard)?;
                search::ask(query, index, collection.schema(), time, is_part)
            })
            .collect();
        for asking in asked.iter().flatten().flatten() {
            pipeline.add_command(asking.command.clone());
        }
        let replies = self.core.servers.reader(shard).connections.ask_all(&pipeline, 0).await;
        let took = began.elapsed();
        let mut replies = replies.map(Vec::into_iter);
        let answer = |asking: Result<Option<Asking>, Error>| {
            let Some(asking) = asking? else { return Ok(search::Answered::default()) };
            let reply = replies.as_mut().map_err(|error| error.clone())?.next().expect("a reply to each");
            let answered = asking.read(reply)?;
            // The older protocol does not say that hits are not all there are.
            if took >= time {
                return Err(search::incomplete("its time was over"));
            }
            Ok(answered)
        };
        let blame = |error| shard.blame(self.core.noticed(error));
        asked.into_iter().map(answer).map(|answered| answered.map_err(blame)).collect()
    }

    /// The documents of a collection on each shard, as last seen; empty where there is but one.
    pub(super) fn shards(&self, collection: &str) -> Vec<(String, u64)> {
        let state = self.core.state();
        let Ok(collection) = state.get(collection) else { return Vec::new() };
        if collection.indexes.len() < 2 {
            return Vec::new();
        }
        let documents = |(shard, index): (&String, &state::Index)| (shard.clone(), index.info.documents);
        collection.indexes.iter().map(documents).collect()
    }
}

/// What shards answered to one query, brought together: the hits it asks for, and how many had gone.
fn join(
    asked: &Sought<'_>,
    shards: &[Arc<Shard>],
    of_shards: impl Iterator<Item = Result<search::Answered, Error>>,
    are_parts: bool,
) -> Result<(Gathered, usize), Error> {
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
                if trouble.is_none() || shard.primary.connections.obstacle().is_some() {
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
    let found = Found { hits, filter_us: 0, search_us: 0, fetch_us: 0 };
    let unanswered = unanswered.into_iter().map(|error| error.message).collect();
    Ok((Gathered { found, unanswered }, vanished))
}

/// The hits `query` asks for, of all that shards gave. One that moved from one to another while they
/// were asked comes once.
fn nearest(mut hits: Vec<Hit>, query: &Query<'_>) -> Vec<Hit> {
    hits.sort_by(|one, two| {
        one.distance.total_cmp(&two.distance).then_with(|| one.document.key.cmp(&two.document.key))
    });
    let mut seen = HashSet::with_capacity(hits.len());
    hits.retain(|hit| seen.insert(hit.document.key.clone()));
    hits.into_iter().skip(query.offset).take(query.k).collect()
}
