//! Collections made, dropped, named and told about.

use engine::{CollectionError, CollectionVersion, check_name};
use redis::Cmd;

use super::{
    CollectionInfo, Documents, Error, Fingerprints, Schema,
    core::{Core, info},
    error,
    index::{self, Info},
    notes::{self, Notes},
    reply,
    state::Collection,
};
use crate::service::{ErrorKind, Stats, refusal};

impl Core {
    /// All collections, asked anew.
    pub(super) async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        if let Some(obstacle) = self.connections.obstacle() {
            return Err(obstacle);
        }
        let state = self.state();
        let names: Vec<&str> = state.collections.keys().map(String::as_str).collect();
        self.read_infos(&names).await?;
        Ok(self.state().collections.values().map(|collection| collection.show()).collect())
    }

    /// One collection, asked anew.
    pub(super) async fn collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        self.state().get(name)?;
        self.read_infos(&[name]).await?;
        Ok(self.state().get(name)?.show())
    }

    /// Makes a collection, or takes over an index that is there and equal; `true` if it was made.
    pub(super) async fn put_collection(
        &self,
        name: &str,
        schema: Schema,
        rebuild: bool,
        models: Fingerprints,
    ) -> Result<(CollectionInfo, bool), Error> {
        check_name(name).map_err(refusal::collection)?;
        let _structure = self.structure.lock().await;
        let state = self.state();
        index::check(&schema, state.server.as_ref().map_or(0, |server| server.search))?;
        schema.validate().map_err(|refused| refusal::collection(refused.into()))?;
        if let Some(collection) = state.of_alias(name) {
            let collection = collection.name.clone();
            return Err(refusal::collection(CollectionError::IsAlias { name: name.to_owned(), collection }));
        }
        let mut read_notes = redis::cmd("HGETALL");
        read_notes.arg(notes::key(name));
        let noted = Notes::read(name, self.connections.ask(&read_notes).await?)?;
        if let Some(difference) = noted.as_ref().and_then(|noted| noted.schema.difference(&schema)) {
            return Err(if rebuild { cannot_rebuild(name, &difference) } else { exists(name, difference) });
        }
        let stands = match self.connections.ask(&info(name)).await {
            Ok(reply) => Some(Info::read(reply)?),
            Err(error) if error.code == error::INDEX_MISSING => None,
            Err(error) => return Err(error),
        };
        if let Some(difference) = stands.as_ref().and_then(|stands| stands.difference(&schema)) {
            return Err(if rebuild { cannot_rebuild(name, &difference) } else { exists(name, difference) });
        }
        if let Some(clash) = state.clash(name, &schema) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "collections-clash",
                format!(
                    "collection {name:?} cannot stand beside others in one Redis: {clash}; choose another prefix or field name"
                ),
            ));
        }
        let made = stands.is_none();
        if made {
            self.connections.ask(&index::create(name, &schema)).await?;
        }
        let notes = match noted {
            Some(noted) => noted,
            None => {
                let mut next = redis::cmd("INCR");
                next.arg(notes::COUNTER);
                let id = notes::number(self.connections.ask(&next).await?)?;
                Notes { version: CollectionVersion { id, version: 1 }, schema, models }
            }
        };
        self.connections.ask(&notes.write(name)).await?;
        let stands = Info::read(self.connections.ask(&info(name)).await?)?;
        let aliases = state.get(name).map_or_else(|_| Vec::new(), |known| known.aliases.clone());
        let collection = Collection::new(name, notes, aliases, stands);
        let shown = collection.show();
        self.set_collection(name, Some(collection));
        Ok((shown, made))
    }

    /// Drops a collection and its aliases.
    pub(super) async fn drop_collection(&self, name: &str, documents: Documents) -> Result<(), Error> {
        let _structure = self.structure.lock().await;
        let state = self.state();
        let collection = state.own(name)?;
        let mut unname = redis::cmd("DEL");
        unname.arg(notes::key(name));
        self.connections.ask(&unname).await?;
        for alias in &collection.aliases {
            self.connections.ask(&forget_alias(alias)).await?;
        }
        let mut drop_index = redis::cmd("FT.DROPINDEX");
        drop_index.arg(name);
        match self.connections.ask(&drop_index).await {
            Err(error) if error.code != error::INDEX_MISSING => return Err(error),
            _ => {}
        }
        self.set_collection(name, None);
        if documents == Documents::Delete {
            self.unlink_under(&collection.schema().prefixes).await?;
        }
        Ok(())
    }

    pub(super) async fn set_alias(&self, alias: &str, name: &str) -> Result<(), Error> {
        check_name(alias).map_err(refusal::collection)?;
        let _structure = self.structure.lock().await;
        let state = self.state();
        let collection = state.own(name)?;
        if state.collections.contains_key(alias) {
            return Err(refusal::collection(CollectionError::NameTaken { alias: alias.to_owned() }));
        }
        let mut update = redis::cmd("FT.ALIASUPDATE");
        update.arg(alias).arg(name);
        self.connections.ask(&update).await.map_err(|error| self.noticed(error))?;
        let mut note = redis::cmd("HSET");
        note.arg(notes::ALIASES).arg(alias).arg(name);
        self.connections.ask(&note).await?;
        if let Some(former) = state.of_alias(alias) {
            let mut former = Collection::clone(former);
            former.aliases.retain(|known| known != alias);
            let name = former.name.clone();
            self.set_collection(&name, Some(former));
        }
        // As it stands now: the alias may have led here already.
        let mut named = Collection::clone(self.state().get(&collection.name)?);
        named.aliases.push(alias.to_owned());
        named.aliases.sort_unstable();
        self.set_collection(name, Some(named));
        Ok(())
    }

    pub(super) async fn remove_alias(&self, alias: &str) -> Result<(), Error> {
        let _structure = self.structure.lock().await;
        let state = self.state();
        let Some(collection) = state.of_alias(alias) else {
            let known: Vec<&str> =
                state.collections.values().flat_map(|known| &known.aliases).map(String::as_str).collect();
            let known = if known.is_empty() { "no aliases".to_owned() } else { known.join(", ") };
            return Err(refusal::collection(CollectionError::NotFound { name: alias.to_owned(), known }));
        };
        let mut remove = redis::cmd("FT.ALIASDEL");
        remove.arg(alias);
        match self.connections.ask(&remove).await {
            // Others have removed it there: what is left is the note.
            Err(error) if error.kind != ErrorKind::Internal => return Err(error),
            _ => {}
        }
        self.connections.ask(&forget_alias(alias)).await?;
        let mut collection = Collection::clone(collection);
        collection.aliases.retain(|known| known != alias);
        let name = collection.name.clone();
        self.set_collection(&name, Some(collection));
        Ok(())
    }

    /// Notes that all vectors of a collection are computed by these models now.
    pub(super) async fn note_models(&self, name: &str, models: Fingerprints) -> Result<(), Error> {
        let _structure = self.structure.lock().await;
        let collection = Collection { models, ..Collection::clone(self.state().get(name)?) };
        self.connections.ask(&collection.notes().write(name)).await?;
        self.set_collection(name, Some(collection));
        Ok(())
    }

    /// Counts of the whole server: of every key in this database, whoever's it is.
    pub(super) async fn stats(&self) -> Result<Stats, Error> {
        let documents = reply::integer(self.connections.ask(&redis::cmd("DBSIZE")).await?, "DBSIZE")?;
        let memory_bytes = self.state().server.as_ref().map_or(0, |server| server.memory_bytes);
        Ok(Stats { documents: documents.unsigned_abs(), memory_bytes, ..Stats::default() })
    }
}

fn forget_alias(alias: &str) -> Cmd {
    let mut command = redis::cmd("HDEL");
    command.arg(notes::ALIASES).arg(alias);
    command
}

fn exists(name: &str, difference: String) -> Error {
    refusal::collection(CollectionError::Exists { name: name.to_owned(), difference })
}

fn cannot_rebuild(name: &str, difference: &str) -> Error {
    Error::invalid(
        "rebuild",
        format!(
            "collection {name:?} has another schema ({difference}), and a Redis cannot rebuild an index beside itself: drop the collection, keeping its documents (documents=keep), and make it again"
        ),
    )
}
