//! A Redis with the search module: documents are hashes, as whoever else uses the Redis would write
//! them, and collections are indexes over their keys.
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
mod notes;
mod reply;
mod script;
mod scroll;
mod search;
mod seen;
mod server;
mod state;

use std::{sync::mpsc, time::Instant};

use redis::Pipeline;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use self::{address::Address, connections::Connections, core::Core};
use super::{
    Clock, CollectionInfo, ComputedVector, Cursor, Document, Documents, Error, Field, Filter, Fingerprints,
    Found, Lacking, NotWritten, OnChange, Op, Query, Results, Schema, Scrolled, Stats, Stood, TextToEmbed,
    WriteError, Written, no_cursor,
};
use crate::service::{
    Expected, RedisStore, refusal,
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

impl Redis {
    /// Opens the connections. Waits until they are open or the first attempt has failed: then they
    /// are opened as soon as the server answers.
    pub(super) fn open(
        store: &RedisStore,
        clock: Arc<dyn Clock>,
        on_change: Arc<OnChange>,
    ) -> Result<Redis, Error> {
        let address = Address::parse(&store.url)?;
        let connections = Connections::new(address, store);
        let core = Arc::new(Core::new(connections, clock, on_change));
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
        self.core.connections.close();
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

    /// What the server calls itself as long as it runs.
    pub(super) fn server_id(&self) -> Option<String> {
        self.core.state().server.as_ref().map(|server| server.run_id.clone())
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
        let connections = &self.core.connections;
        match search::count(collection, filter, connections.command_timeout) {
            None => Ok(0),
            Some(command) => {
                let reply = connections.ask(&command).await.map_err(|error| self.core.noticed(error))?;
                search::counted(reply)
            }
        }
    }

    pub(super) async fn stats(&self) -> Result<Stats, Error> {
        self.core.stats().await
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.core.state().warnings()
    }

    pub(super) fn obstacle(&self) -> Option<Error> {
        self.core.connections.obstacle()
    }

    /// Answers these queries, asked together; one list of hits or one error each.
    pub(in crate::service) async fn search(
        &self,
        queries: &[Query<'_>],
        deadline: Instant,
    ) -> Result<Vec<Result<Found, Error>>, Error> {
        let mut found: Vec<Option<Result<Found, Error>>> = queries.iter().map(|_| None).collect();
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
        queries: &[Query<'_>],
        positions: &[usize],
        deadline: Instant,
        last: bool,
    ) -> Result<Vec<(usize, Option<Result<Found, Error>>)>, Error> {
        let began = Instant::now();
        let state = self.core.state();
        let connections = &self.core.connections;
        let time = deadline.saturating_duration_since(began).min(connections.command_timeout);
        let mut results = Vec::with_capacity(positions.len());
        let mut asked = Vec::with_capacity(positions.len());
        for position in positions {
            let query = &queries[*position];
            let asking = state
                .get(query.collection)
                .and_then(|collection| search::ask(query, collection.schema(), time));
            match asking {
                Ok(Some(asking)) => asked.push((*position, asking)),
                Ok(None) => results.push((*position, Some(Ok(nothing())))),
                Err(error) => results.push((*position, Some(Err(error)))),
            }
        }
        let replies = match asked.as_mut_slice() {
            [] => Vec::new(),
            [(position, asking)] => match connections.ask(&asking.command).await {
                Ok(reply) => vec![reply],
                Err(error) => {
                    results.push((*position, Some(Err(self.core.noticed(error)))));
                    return Ok(results);
                }
            },
            several => {
                let mut pipeline = Pipeline::with_capacity(several.len());
                for (_, asking) in several {
                    pipeline.add_command(asking.command.take());
                }
                connections.ask_all(&pipeline, 0).await?
            }
        };
        let took = began.elapsed();
        for ((position, asking), reply) in asked.iter().zip(replies) {
            let result = match asking.read(reply) {
                // The older protocol does not say that hits are not all there are.
                Ok(_) if took >= time => Some(Err(search::incomplete("its time was over"))),
                Ok(answered) if answered.vanished > 0 && !last => None,
                Ok(answered) => Some(Ok(Found { hits: answered.hits, search_us: us(took), ..nothing() })),
                Err(error) => Some(Err(self.core.noticed(error))),
            };
            results.push((*position, result));
        }
        Ok(results)
    }
}

fn nothing() -> Found {
    Found { hits: Vec::new(), filter_us: 0, search_us: 0, fetch_us: 0 }
}
