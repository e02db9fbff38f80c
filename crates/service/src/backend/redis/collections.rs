//! Creating, dropping, naming and describing collections.

use engine::{CollectionError, CollectionVersion, check_name};
use futures_util::future::try_join_all;
use redis::Cmd;

use super::{
    CollectionInfo, DropMode, Error, Fingerprints, Redis, Schema, error, index,
    metadata::{self, CollectionMetadata},
    reply,
    servers::{Shard, into_result},
    state::{Collection, ShardIndex},
};
use crate::{ErrorKind, Stats, error_mapping, sync::Arc};

impl Redis {
    /// All collections, with fresh `FT.INFO`.
    pub(in crate::backend) async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        if let Some(reason) = self.servers.unavailable_reason()
            && !self.has_cached_collections()
        {
            return Err(reason);
        }
        let state = self.state();
        let names: Vec<&str> = state.collections.keys().map(String::as_str).collect();
        self.refresh_index_info(&names).await?;
        Ok(self.state().collections.values().map(|collection| collection.to_info()).collect())
    }

    /// One collection, with fresh `FT.INFO`.
    pub(in crate::backend) async fn collection(&self, name: &str) -> Result<CollectionInfo, Error> {
        self.state().get(name)?;
        self.refresh_index_info(&[name]).await?;
        Ok(self.state().get(name)?.to_info())
    }

    /// Creates a collection, or adopts existing indexes with the same schema; `true` if it was created.
    pub(in crate::backend) async fn put_collection(
        self: &Arc<Self>,
        name: &str,
        schema: Schema,
        rebuild: bool,
        models: Fingerprints,
    ) -> Result<(CollectionInfo, bool), Error> {
        let (redis, name) = (self.clone(), name.to_owned());
        self.run_to_completion(
            async move { redis.put_collection_inner(&name, schema, rebuild, models).await },
        )
        .await
    }

    async fn put_collection_inner(
        &self,
        name: &str,
        schema: Schema,
        rebuild: bool,
        models: Fingerprints,
    ) -> Result<(CollectionInfo, bool), Error> {
        check_name(name).map_err(error_mapping::collection)?;
        let _ddl = self.ddl_lock.lock().await;
        let state = self.state();
        let oldest = state.servers.values().map(|server| server.search_version).min();
        index::check_supported(&schema, oldest.unwrap_or_default())?;
        schema.validate().map_err(|invalid| error_mapping::collection(invalid.into()))?;
        if let Some(collection) = state.by_alias(name) {
            let collection = collection.name.clone();
            return Err(error_mapping::collection(CollectionError::IsAlias {
                name: name.to_owned(),
                collection,
            }));
        }
        let differs = |difference: String| {
            if rebuild { cannot_rebuild(name, &difference) } else { exists(name, difference) }
        };
        let stored = self.load_metadata(name).await?;
        if let Some(difference) = stored.as_ref().and_then(|stored| stored.schema.difference(&schema)) {
            return Err(differs(difference));
        }
        let shards = self.index_shards(&self.servers.map())?;
        let found = try_join_all(shards.iter().map(|shard| self.indexes_on(shard))).await?;
        let mut existing: Vec<Option<ShardIndex>> =
            found.into_iter().map(|(mut indexes, _)| indexes.remove(name)).collect();
        if let Some(difference) = existing.iter().flatten().find_map(|index| index.info.difference(&schema)) {
            return Err(differs(difference));
        }
        if let Some(conflict) = state.conflict(name, &schema) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "schema-conflict",
                format!(
                    "collection {name:?} conflicts with another collection in this Redis: {conflict}; choose another prefix or field name"
                ),
            ));
        }
        let created = existing.iter().any(Option::is_none);
        let metadata = match stored {
            Some(stored) => stored,
            None => {
                let mut next = redis::cmd("INCR");
                next.arg(metadata::ID_COUNTER_KEY);
                let id = metadata::parse_id(self.send(metadata::ID_COUNTER_KEY, &next).await?)?;
                CollectionMetadata { version: CollectionVersion { id, version: 1 }, schema, models }
            }
        };
        for (shard, index) in shards.iter().zip(&mut existing) {
            if index.is_none() {
                *index = Some(self.create_index(name, &metadata, shard).await?);
            }
        }
        self.save_metadata(name, &metadata).await?;
        let indexes = shards.iter().map(|shard| shard.name()).zip(existing.into_iter().flatten()).collect();
        let aliases = state.get(name).map_or_else(|_| Vec::new(), |collection| collection.aliases.clone());
        let collection = Collection::new(name, metadata, aliases, indexes);
        let info = collection.to_info();
        self.cache_collection(name, Some(collection));
        Ok((info, created))
    }

    /// Drops a collection and its aliases.
    pub(in crate::backend) async fn drop_collection(
        self: &Arc<Self>,
        name: &str,
        documents: DropMode,
    ) -> Result<(), Error> {
        let (redis, name) = (self.clone(), name.to_owned());
        self.run_to_completion(async move { redis.drop_collection_inner(&name, documents).await }).await
    }

    async fn drop_collection_inner(&self, name: &str, documents: DropMode) -> Result<(), Error> {
        let _ddl = self.ddl_lock.lock().await;
        let state = self.state();
        let collection = state.get_by_own_name(name)?;
        let mut delete = redis::cmd("DEL");
        delete.arg(metadata::key(name));
        self.send(&metadata::key(name), &delete).await?;
        for alias in &collection.aliases {
            self.send(metadata::ALIASES_KEY, &remove_alias_command(alias)).await?;
        }
        for shard in self.index_shards(&self.servers.map())? {
            let Some(index) = collection.index_of(&shard) else { continue };
            let mut drop_index = redis::cmd("FT.DROPINDEX");
            drop_index.arg(&index.name);
            match shard.primary.connections.send(&drop_index).await.and_then(into_result) {
                Err(error) if error.code != error::INDEX_MISSING => return Err(shard.with_shard(error)),
                _ => {}
            }
        }
        self.cache_collection(name, None);
        if documents == DropMode::DeleteDocuments {
            self.unlink_prefixes(&collection.schema().prefixes).await?;
        }
        Ok(())
    }

    pub(in crate::backend) async fn set_alias(
        self: &Arc<Self>,
        alias: &str,
        collection: &str,
    ) -> Result<(), Error> {
        let (redis, alias, collection) = (self.clone(), alias.to_owned(), collection.to_owned());
        self.run_to_completion(async move { redis.set_alias_inner(&alias, &collection).await }).await
    }

    async fn set_alias_inner(&self, alias: &str, name: &str) -> Result<(), Error> {
        check_name(alias).map_err(error_mapping::collection)?;
        let _ddl = self.ddl_lock.lock().await;
        let state = self.state();
        let collection = state.get_by_own_name(name)?;
        if state.collections.contains_key(alias) {
            return Err(error_mapping::collection(CollectionError::NameTaken { alias: alias.to_owned() }));
        }
        self.save_alias(alias, name).await?;
        if let Some(former) = state.by_alias(alias) {
            let mut former = Collection::clone(former);
            former.aliases.retain(|own| own != alias);
            let name = former.name.clone();
            self.cache_collection(&name, Some(former));
        }
        // Read again: the alias may already have referred to this collection.
        let mut named = Collection::clone(self.state().get(&collection.name)?);
        named.aliases.push(alias.to_owned());
        named.aliases.sort_unstable();
        self.cache_collection(name, Some(named));
        Ok(())
    }

    pub(in crate::backend) async fn remove_alias(self: &Arc<Self>, alias: &str) -> Result<(), Error> {
        let (redis, alias) = (self.clone(), alias.to_owned());
        self.run_to_completion(async move { redis.remove_alias_inner(&alias).await }).await
    }

    async fn remove_alias_inner(&self, alias: &str) -> Result<(), Error> {
        let _ddl = self.ddl_lock.lock().await;
        let state = self.state();
        let Some(collection) = state.by_alias(alias) else {
            let known: Vec<&str> = state
                .collections
                .values()
                .flat_map(|collection| &collection.aliases)
                .map(String::as_str)
                .collect();
            let known = if known.is_empty() { "no aliases".to_owned() } else { known.join(", ") };
            return Err(error_mapping::collection(CollectionError::NotFound {
                name: alias.to_owned(),
                known,
            }));
        };
        if !self.servers.is_cluster() {
            let mut remove = redis::cmd("FT.ALIASDEL");
            remove.arg(alias);
            match self.send(alias, &remove).await {
                // Another client removed it from RediSearch; the saved alias is still there.
                Err(error) if error.kind != ErrorKind::Internal => return Err(error),
                _ => {}
            }
        }
        self.send(metadata::ALIASES_KEY, &remove_alias_command(alias)).await?;
        let mut collection = Collection::clone(collection);
        collection.aliases.retain(|own| own != alias);
        let name = collection.name.clone();
        self.cache_collection(&name, Some(collection));
        Ok(())
    }

    /// Saves the models that now compute all vectors of a collection.
    pub(in crate::backend) async fn save_models(
        &self,
        name: &str,
        models: Fingerprints,
    ) -> Result<(), Error> {
        let _ddl = self.ddl_lock.lock().await;
        let collection = Collection { models, ..Collection::clone(self.state().get(name)?) };
        self.save_metadata(name, &collection.metadata()).await?;
        self.cache_collection(name, Some(collection));
        Ok(())
    }

    /// The totals of all servers. The documents include every key in their databases, not only
    /// Nearfield's.
    pub(in crate::backend) async fn stats(&self) -> Result<Stats, Error> {
        let map = self.servers.map();
        let count = async |shard: &Shard| {
            let reply = shard.primary.connections.send(&redis::cmd("DBSIZE")).await;
            reply.and_then(|count| reply::integer(count, "DBSIZE")).map_err(|error| shard.with_shard(error))
        };
        let counts = try_join_all(map.shards().iter().map(|shard| count(shard))).await?;
        let documents = counts.into_iter().map(i64::unsigned_abs).sum();
        let memory_bytes = self.state().servers.values().map(|server| server.memory_bytes).sum();
        Ok(Stats { documents, memory_bytes, ..Stats::default() })
    }
}

fn remove_alias_command(alias: &str) -> Cmd {
    let mut command = redis::cmd("HDEL");
    command.arg(metadata::ALIASES_KEY).arg(alias);
    command
}

fn exists(name: &str, difference: String) -> Error {
    error_mapping::collection(CollectionError::Exists { name: name.to_owned(), difference })
}

fn cannot_rebuild(name: &str, difference: &str) -> Error {
    Error::invalid(
        "rebuild",
        format!(
            "collection {name:?} has a different schema ({difference}), and Redis cannot rebuild an index while the old one is in use: drop the collection, keep its documents (documents=keep) and create it again"
        ),
    )
}
