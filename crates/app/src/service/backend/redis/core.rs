//! What the verbs and the keeper work with.

use std::{collections::BTreeSet, time::Duration};

use engine::CollectionVersion;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::Semaphore;

use super::{
    Clock, Error, OnChange,
    connections::Connections,
    error,
    index::{self, Info},
    notes::{self, Notes},
    reply,
    script::Script,
    seen::Seen,
    server::Server,
    state::{Collection, State},
};
use crate::service::{
    ErrorKind,
    sync::{Arc, AtomicUsize, Mutex},
};

/// Pipelines of writes on their way at once: while Redis works through one, the next is made.
const WRITES_MAX: usize = 2;

/// Documents in the first pipeline of writes, until it is known how fast they go.
pub(super) const GROUP_FIRST: usize = 16;

/// One Redis.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) connections: Connections,
    pub(super) script: Script,
    pub(super) clock: Arc<dyn Clock>,
    /// Held by pipelines of writes.
    pub(super) writing: Semaphore,
    /// Documents in a pipeline of writes, as fast as they went last.
    pub(super) group: AtomicUsize,
    /// Held while collections are made or dropped, or looked at again.
    pub(super) structure: tokio::sync::Mutex<()>,
    /// Collections whose documents all have their vectors, as far as this process has to care.
    pub(super) swept: Mutex<BTreeSet<CollectionVersion>>,
    seen: Seen,
}

impl Core {
    pub(super) fn new(connections: Connections, clock: Arc<dyn Clock>, on_change: Arc<OnChange>) -> Core {
        Core {
            connections,
            script: Script::new(),
            clock,
            writing: Semaphore::new(WRITES_MAX),
            group: AtomicUsize::new(GROUP_FIRST),
            structure: tokio::sync::Mutex::new(()),
            swept: Mutex::default(),
            seen: Seen::new(on_change),
        }
    }

    /// The collections as they were last seen.
    pub(super) fn state(&self) -> Arc<State> {
        self.seen.get()
    }

    /// Puts one collection in place, or takes it out.
    pub(super) fn set_collection(&self, name: &str, collection: Option<Collection>) {
        self.seen.change(|state| {
            state.troubles.remove(name);
            match collection {
                Some(collection) => state.collections.insert(name.to_owned(), Arc::new(collection)),
                None => state.collections.remove(name),
            };
        });
    }

    /// Sends commands that are few and small together; each must succeed.
    pub(super) async fn ask_together(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, Error> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        self.connections.ask_all(&pipeline, 0).await
    }

    /// Finds the server well and lets everybody ask, or says why not. Its collections are looked at
    /// if that is wanted, or if it may be another server.
    pub(super) async fn attend(&self, patience: Duration, look: bool) -> Result<(), Error> {
        let connections = &self.connections;
        let was_open = connections.breaker.is_open();
        let opened = connections.mend(patience).await?;
        if !(look || opened || was_open) {
            return Ok(());
        }
        let info = connections.ask_first(&redis::cmd("INFO"), patience).await?;
        let mut modules = redis::cmd("MODULE");
        modules.arg("LIST");
        let server = Server::read(info, connections.ask_first(&modules, patience).await?)?;
        let restarted = self.state().server.as_ref().is_none_or(|known| known.run_id != server.run_id);
        if was_open || restarted {
            connections.ask_first(&self.script.load(), patience).await?;
        }
        if restarted {
            tracing::info!(version = server.version, search = server.search, "Redis is the store");
        }
        // The commands below go the common way, which the breaker guards.
        connections.well();
        let looked = self.look_again(server).await;
        match looked {
            // It goes on with what is known, and looks again soon.
            Err(error) if self.state().server.is_some() && error.kind != ErrorKind::Unavailable => {
                tracing::warn!(%error, "the collections in Redis cannot be read");
                Ok(())
            }
            looked => looked,
        }
    }

    /// Reads the collections anew. One that is known here and whose index has gone with a restart of
    /// the server, or against its notes, is made again, empty as it may be.
    pub(super) async fn look_again(&self, server: Server) -> Result<(), Error> {
        let _structure = self.structure.lock().await;
        let old = self.state();
        let restarted = old.server.as_ref().is_some_and(|known| known.run_id != server.run_id);
        let mut state = State { server: Some(server), troubles: old.troubles.clone(), ..State::default() };

        let mut replies =
            self.ask_together(vec![redis::cmd("FT._LIST"), hash(notes::ALIASES)]).await?.into_iter();
        let mut next = || replies.next().expect("as many replies as commands");
        let listed = reply::items(next(), "FT._LIST")?;
        let mut names: Vec<String> =
            listed.into_iter().map(|name| reply::text(name, "FT._LIST")).collect::<Result<_, Error>>()?;
        let aliases: Vec<(String, String)> = reply::pairs(next(), "aliases")?
            .into_iter()
            .map(|(alias, name)| Ok((reply::text(alias, "an alias")?, reply::text(name, "an alias")?)))
            .collect::<Result<_, Error>>()?;
        let listed = names.len();
        names
            .extend(old.collections.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());

        let mut commands = Vec::with_capacity(2 * names.len());
        for name in &names {
            commands.push(hash(&notes::key(name)));
            commands.push(info(name));
        }
        let mut replies = self.ask_together(commands).await?.into_iter();
        for (position, name) in names.iter().enumerate() {
            let mut next = || replies.next().expect("as many replies as commands");
            let (noted, info) = (Notes::read(name, next()), next());
            let noted = match noted {
                Ok(noted) => noted,
                Err(error) if error.code == "notes-damaged" => {
                    if state.troubles.insert(name.clone(), error.message.clone()).is_none() {
                        tracing::warn!(collection = name, %error, "a collection cannot be read");
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let known = old.collections.get(name);
            let of_name: Vec<String> =
                aliases.iter().filter(|(_, target)| target == name).map(|(alias, _)| alias.clone()).collect();
            let collection = if position < listed {
                // An index without notes is none of Nearfield's.
                let Some(notes) = noted else { continue };
                Collection::new(name, notes, of_name, Info::read(info)?)
            } else {
                let known = known.expect("a name that is not listed is known here");
                if noted.is_none() && !restarted {
                    // Somebody has dropped it.
                    continue;
                }
                self.make_again(known).await?;
                state.troubles.insert(
                    name.clone(),
                    format!("collection {name:?}: Redis had lost its index, which has been made again; documents Redis lost are lost"),
                );
                Collection::clone(known)
            };
            if let Some(failure) = &collection.info.last_failure
                && known.is_none_or(|known| known.info.failures < collection.info.failures)
            {
                tracing::warn!(
                    collection = name,
                    failures = collection.info.failures,
                    "Redis leaves documents out that do not fit; the last: {failure}"
                );
            }
            let collection = match known {
                // The same checker, so that only what changed is new.
                Some(known) if known.notes() == collection.notes() => {
                    Collection { checker: known.checker.clone(), ..collection }
                }
                _ => collection,
            };
            state.collections.insert(name.clone(), Arc::new(collection));
        }
        self.seen.change(|seen| *seen = state);
        Ok(())
    }

    /// Makes a collection that was lost, from what is known of it here.
    async fn make_again(&self, collection: &Collection) -> Result<(), Error> {
        tracing::warn!(
            collection = collection.name,
            "Redis has lost the index of a collection; it is made again"
        );
        self.connections.ask(&index::create(&collection.name, collection.schema())).await?;
        self.connections.ask(&collection.notes().write(&collection.name)).await?;
        for alias in &collection.aliases {
            let mut update = redis::cmd("FT.ALIASUPDATE");
            update.arg(alias).arg(&collection.name);
            self.connections.ask(&update).await?;
            let mut note = redis::cmd("HSET");
            note.arg(notes::ALIASES).arg(alias).arg(&collection.name);
            self.connections.ask(&note).await?;
        }
        Ok(())
    }

    /// What `FT.INFO` says of these collections, which it puts in the state.
    pub(super) async fn read_infos(&self, names: &[&str]) -> Result<(), Error> {
        let replies = self.ask_together(names.iter().map(|name| info(name)).collect()).await?;
        let infos = replies.into_iter().map(Info::read).collect::<Result<Vec<_>, _>>();
        let infos = infos.map_err(|error| self.noticed(error))?;
        self.seen.change(|state| {
            for (name, info) in names.iter().zip(infos) {
                if let Some(collection) = state.collections.get_mut(*name) {
                    *collection = Arc::new(Collection { info, ..Collection::clone(collection) });
                }
            }
        });
        Ok(())
    }

    /// Has the collections looked at again where an error says that an index is missing.
    pub(super) fn noticed(&self, error: Error) -> Error {
        if error.code == error::INDEX_MISSING {
            self.connections.look.notify_one();
        }
        error
    }
}

fn hash(key: &str) -> Cmd {
    let mut command = redis::cmd("HGETALL");
    command.arg(key);
    command
}

pub(super) fn info(name: &str) -> Cmd {
    let mut command = redis::cmd("FT.INFO");
    command.arg(name);
    command
}
