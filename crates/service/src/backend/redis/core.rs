//! What the verbs and the keeper work with.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use engine::CollectionVersion;
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Value};

use super::{
    Clock, Error, OnChange, error,
    index::{self, Info},
    notes::{self, Notes},
    reply,
    seen::Seen,
    servers::{Map, Servers, Shard, refused},
    slots::{slot, word_in},
    state::{Collection, Index, State},
};
use crate::{
    ErrorKind,
    sync::{Arc, Mutex},
};

/// The store.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) servers: Servers,
    pub(super) clock: Arc<dyn Clock>,
    /// Held while collections are made or dropped, or looked at again.
    pub(super) structure: tokio::sync::Mutex<()>,
    /// Collections whose documents all have their vectors, as far as this process has to care.
    pub(super) swept: Mutex<BTreeSet<CollectionVersion>>,
    seen: Seen,
}

/// The indexes that were found on shards that answered, and what was known of the others.
struct Listed {
    /// By collection, then by shard.
    indexes: BTreeMap<String, BTreeMap<String, Index>>,
    /// Shards that answered.
    answered: Vec<Arc<Shard>>,
    troubles: BTreeMap<String, String>,
}

impl Core {
    pub(super) fn new(servers: Servers, clock: Arc<dyn Clock>, on_change: Arc<OnChange>) -> Core {
        Core {
            servers,
            clock,
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

    /// Whether every shard has an index of its own, which is asked by itself.
    pub(super) fn is_divided(&self) -> bool {
        self.servers.is_cluster() && !self.servers.map().shards().iter().any(|shard| shard.primary.spreads())
    }

    /// The shards whose indexes make up a collection: all, or any one where the servers ask each other.
    pub(super) fn shards(&self, map: &Map) -> Result<Vec<Arc<Shard>>, Error> {
        if self.is_divided() && !map.shards().is_empty() {
            return Ok(map.shards().to_vec());
        }
        Ok(vec![self.servers.any(map)?])
    }

    /// The name a collection's index has on a shard, if it is made now. It is a key to Redis, and has to
    /// be one that this shard holds.
    pub(super) fn index_name(&self, collection: &str, shard: &Shard) -> String {
        match shard.last_slot().filter(|_| self.is_divided()) {
            Some(slot) => format!("{collection}:{{{}}}", word_in(slot)),
            None => collection.to_owned(),
        }
    }

    /// Finds the servers well and lets everybody ask, or says why not. Collections are looked at if that
    /// is wanted, or if a server may be another than before.
    pub(super) async fn attend(&self, look: bool) -> Result<(), Error> {
        let refreshed = self.servers.refresh().await;
        let look = look || matches!(refreshed, Ok(true));
        let attended = self.servers.attend(look).await;
        refreshed?;
        let is_another = attended.iter().any(|attended| matches!(attended, Ok(true)));
        let attended: Result<(), Error> = attended.into_iter().try_for_each(|attended| attended.map(drop));
        if !self.servers.is_cluster() {
            attended.clone()?;
        }
        if look || is_another {
            match self.look_again().await {
                // It goes on with what is known, and looks again soon.
                Err(error) if !self.state().servers.is_empty() && error.kind != ErrorKind::Unavailable => {
                    tracing::warn!(%error, "the collections in Redis cannot be read");
                }
                Err(error) => {
                    if !self.servers.is_cluster() {
                        let map = self.servers.map();
                        map.shards()[0].primary.connections.trip(error.clone());
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        attended
    }

    /// Reads the collections anew. An index that is missing is made, empty as it may be. Of a shard that
    /// does not answer it goes on with what was known; of a single server that does not, it goes no
    /// further.
    pub(super) async fn look_again(&self) -> Result<(), Error> {
        let _structure = self.structure.lock().await;
        let (old, map) = (self.state(), self.servers.map());
        let mut servers = old.servers.clone();
        servers.retain(|address, _| map.shards().iter().any(|shard| shard.name() == *address));
        let server = |shard: &Arc<Shard>| Some((shard.name(), shard.primary.server()?));
        servers.extend(map.shards().iter().filter_map(server));
        let mut state = State { servers, troubles: old.troubles.clone(), ..State::default() };

        let Listed { mut indexes, answered, troubles } = self.list(&old, &map).await?;
        state.troubles.retain(|what, _| !what.starts_with(STRAY));
        state.troubles.extend(troubles);
        let aliases = match self.aliases().await {
            Ok(aliases) => aliases,
            Err(error) if self.lives_without(&error) => old.aliases(),
            Err(error) => return Err(error),
        };
        for name in old.collections.keys() {
            indexes.entry(name.clone()).or_default();
        }
        let noted = join_all(indexes.keys().map(|name| self.notes(name))).await;
        for ((name, mut indexes), noted) in indexes.into_iter().zip(noted) {
            let known = old.collections.get(&name);
            let restarted = |shard: &Shard| {
                let run_id = |servers: &BTreeMap<String, super::server::Server>| {
                    servers.get(&shard.name()).map(|server| server.run_id.clone())
                };
                run_id(&old.servers).is_some_and(|known| run_id(&state.servers) != Some(known))
            };
            let notes = match noted {
                Ok(Some(notes)) => notes,
                Ok(None) => {
                    let home_restarted =
                        map.of(notes::key(&name).as_bytes()).is_ok_and(|home| restarted(home));
                    match known {
                        Some(known) if home_restarted => {
                            self.make_notes_again(known).await?;
                            known.notes()
                        }
                        // An index without notes is none of Nearfield's; or somebody has dropped it.
                        _ => continue,
                    }
                }
                Err(error) if error.code == "metadata-damaged" => {
                    if state.troubles.insert(name.clone(), error.message.clone()).is_none() {
                        tracing::warn!(collection = name, %error, "a collection cannot be read");
                    }
                    continue;
                }
                Err(error) if self.lives_without(&error) => match known {
                    Some(known) => known.notes(),
                    None => continue,
                },
                Err(error) => return Err(error),
            };
            for shard in &answered {
                if indexes.contains_key(&shard.name()) {
                    continue;
                }
                match self.make_index(&name, &notes, shard).await {
                    Ok(index) => indexes.insert(shard.name(), index),
                    Err(error) if self.lives_without(&error) => continue,
                    Err(error) => return Err(error),
                };
                if restarted(shard) {
                    tracing::warn!(
                        collection = name,
                        shard = shard.name(),
                        "Redis has lost an index; it is made again"
                    );
                    state.troubles.insert(
                        name.clone(),
                        format!(
                            "collection {name:?}: Redis had lost its index, which has been made again; documents Redis lost are lost"
                        ),
                    );
                } else {
                    tracing::info!(
                        collection = name,
                        shard = shard.name(),
                        "an index is made where there was none"
                    );
                }
            }
            let of_name: Vec<String> = aliases
                .iter()
                .filter(|(_, target)| *target == name)
                .map(|(alias, _)| alias.clone())
                .collect();
            let collection = Collection::new(&name, notes, of_name, indexes);
            collection.tell_failures(known);
            let collection = match known {
                // The same checker, so that only what changed is new.
                Some(known) if known.notes() == collection.notes() => {
                    Collection { checker: known.checker.clone(), ..collection }
                }
                _ => collection,
            };
            state.collections.insert(name, Arc::new(collection));
        }
        self.seen.change(|seen| *seen = state);
        Ok(())
    }

    /// Whether what was last seen still stands, as far as it can be known: some servers of a cluster may
    /// be gone, but a single one may not.
    pub(super) fn is_known(&self) -> bool {
        self.servers.is_cluster() && !self.state().servers.is_empty()
    }

    /// Whether one server of several did not answer, and the others are there.
    fn lives_without(&self, error: &Error) -> bool {
        self.servers.is_cluster() && error.kind == ErrorKind::Unavailable
    }

    /// The indexes on every shard, with what they hold.
    async fn list(&self, old: &State, map: &Map) -> Result<Listed, Error> {
        let shards = self.shards(map)?;
        let found = join_all(shards.iter().map(|shard| self.indexes_on(shard))).await;
        let mut listed = Listed { indexes: BTreeMap::new(), answered: Vec::new(), troubles: BTreeMap::new() };
        for (shard, found) in shards.iter().zip(found) {
            let address = shard.name();
            match found {
                Ok((indexes, strays)) => {
                    for (collection, index) in indexes {
                        listed.indexes.entry(collection).or_default().insert(address.clone(), index);
                    }
                    for stray in strays {
                        listed.troubles.insert(
                            format!("{STRAY}{address} {stray}"),
                            format!(
                                "shard {address} still holds index {stray:?}, whose slot has moved away: it is not used, and costs memory there until that server is started afresh"
                            ),
                        );
                    }
                    listed.answered.push(shard.clone());
                }
                Err(error) if self.lives_without(&error) => {
                    for (name, collection) in &old.collections {
                        if let Some(index) = collection.indexes.get(&address) {
                            let of_name = listed.indexes.entry(name.clone()).or_default();
                            of_name.insert(address.clone(), index.clone());
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if listed.answered.is_empty() {
            return Err(self.servers.obstacle().unwrap_or_else(error::moving));
        }
        Ok(listed)
    }

    /// The indexes on one shard by their collections, with what they hold; and those whose slots have
    /// moved away.
    pub(super) async fn indexes_on(
        &self,
        shard: &Shard,
    ) -> Result<(BTreeMap<String, Index>, Vec<String>), Error> {
        let asked = async {
            let listed = shard.primary.connections.ask(&redis::cmd("FT._LIST")).await?;
            let (mut names, mut strays) = (BTreeMap::new(), Vec::new());
            for index in reply::items(listed, "FT._LIST")? {
                let index = reply::text(index, "FT._LIST")?;
                if !self.is_divided() {
                    names.insert(index.clone(), index);
                } else if let Some((collection, _)) =
                    index.strip_suffix('}').and_then(|it| it.split_once(":{"))
                {
                    if shard.holds(slot(index.as_bytes())) {
                        names.entry(collection.to_owned()).or_insert(index);
                    } else {
                        strays.push(index);
                    }
                }
            }
            let infos = try_join_all(names.values().map(|index| self.info(shard, index))).await?;
            let index = |((collection, name), info)| (collection, Index { name, info });
            Ok((names.into_iter().zip(infos).map(index).collect(), strays))
        };
        asked.await.map_err(|error| shard.blame(error))
    }

    /// What `FT.INFO` says of an index on a shard.
    pub(super) async fn info(&self, shard: &Shard, index: &str) -> Result<Info, Error> {
        let mut command = redis::cmd("FT.INFO");
        command.arg(index);
        let asked = shard.primary.connections.ask(&command).await.and_then(Info::read);
        asked.map_err(|error| shard.blame(error))
    }

    /// The index of a collection on a shard: made, or taken over where it stands and is equal.
    pub(super) async fn make_index(&self, name: &str, notes: &Notes, shard: &Shard) -> Result<Index, Error> {
        let index = self.index_name(name, shard);
        let command = index::create(&index, &notes.schema);
        let made = shard.primary.connections.ask(&command).await.and_then(refused);
        match made {
            // Another process was first.
            Err(error) if !error.message.contains("already exists") => return Err(shard.blame(error)),
            _ => {}
        }
        let began = Instant::now();
        loop {
            let info = self.info(shard, &index).await?;
            // A document that is written while Redis still looks for those that stood before is indexed
            // twice, and among equals changes its place.
            if !info.is_scanning || began.elapsed() > SCAN_TIME {
                return Ok(Index { name: index, info });
            }
            tokio::time::sleep(SCAN_LOOK).await;
        }
    }

    /// Aliases and the collections they lead to.
    async fn aliases(&self) -> Result<Vec<(String, String)>, Error> {
        const WHAT: &str = "aliases";
        let pairs = reply::pairs(self.hash(notes::ALIASES).await?, WHAT)?;
        pairs
            .into_iter()
            .map(|(alias, name)| Ok((reply::text(alias, WHAT)?, reply::text(name, WHAT)?)))
            .collect()
    }

    /// What is noted of a collection.
    pub(super) async fn notes(&self, collection: &str) -> Result<Option<Notes>, Error> {
        Notes::read(collection, self.hash(&notes::key(collection)).await?)
    }

    async fn hash(&self, key: &str) -> Result<Value, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(key);
        self.ask(key, &command).await
    }

    /// Sends one command about a key of Nearfield's own.
    pub(super) async fn ask(&self, key: &str, command: &Cmd) -> Result<Value, Error> {
        self.servers.ask(key.as_bytes(), command).await
    }

    /// Writes down again what is known of a collection whose notes were lost.
    async fn make_notes_again(&self, collection: &Collection) -> Result<(), Error> {
        let name = &collection.name;
        self.ask(&notes::key(name), &collection.notes().write(name)).await?;
        for alias in &collection.aliases {
            self.write_alias(alias, name).await?;
        }
        Ok(())
    }

    /// Notes an alias, and has Redis know it where an index has the collection's own name.
    pub(super) async fn write_alias(&self, alias: &str, name: &str) -> Result<(), Error> {
        if !self.servers.is_cluster() {
            let mut update = redis::cmd("FT.ALIASUPDATE");
            update.arg(alias).arg(name);
            self.ask(alias, &update).await.map_err(|error| self.noticed(error))?;
        }
        let mut note = redis::cmd("HSET");
        note.arg(notes::ALIASES).arg(alias).arg(name);
        self.ask(notes::ALIASES, &note).await?;
        Ok(())
    }

    /// Asks anew what the indexes of these collections hold. Of a shard that does not answer, what was
    /// known stands.
    pub(super) async fn read_infos(&self, names: &[&str]) -> Result<(), Error> {
        let (state, map) = (self.state(), self.servers.map());
        let shards = self.shards(&map)?;
        let of_name = async |name: &str| -> Result<BTreeMap<String, Index>, Error> {
            let collection = state.get(name)?;
            let mut indexes = BTreeMap::new();
            for shard in &shards {
                let Some(index) = collection.index_of(shard) else { continue };
                let info = match self.info(shard, &index.name).await {
                    Ok(info) => info,
                    Err(error) if self.lives_without(&error) => index.info.clone(),
                    Err(error) => return Err(self.noticed(error)),
                };
                indexes.insert(shard.name(), Index { name: index.name.clone(), info });
            }
            Ok(indexes)
        };
        let read = try_join_all(names.iter().map(|name| of_name(name))).await?;
        self.seen.change(|state| {
            for (name, indexes) in names.iter().zip(read) {
                if let Some(collection) = state.collections.get_mut(*name) {
                    *collection = Arc::new(collection.with(indexes));
                }
            }
        });
        Ok(())
    }

    /// Has the collections looked at again where an error says that an index is missing.
    pub(super) fn noticed(&self, error: Error) -> Error {
        if error.code == error::INDEX_MISSING {
            self.servers.look.notify_one();
        }
        error
    }
}

/// How long the first look of an index at the keys that stand is waited for, and the time between two
/// questions: where there are few it is over at once.
const SCAN_TIME: Duration = Duration::from_millis(200);
const SCAN_LOOK: Duration = Duration::from_millis(2);

/// What the troubles with indexes nobody uses are filed under: no collection has such a name.
const STRAY: &str = "stray index ";
