//! DDL: create, rebuild, switch, drop and alias collections.

use std::sync::Arc;

use store::{CollectionVersion, NAME_BYTES_MAX, NameTarget, StoreError, Writer};

use crate::{
    binary::printable,
    collection::Collection,
    core::Core,
    load,
    progress::Progress,
    projection::VectorField,
    queue::GROUP_OPS_MAX,
    registry::{Registry, Versions},
    schema::{Schema, SchemaError, encode},
    transaction::Transaction,
};

/// Why a DDL operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages describe the fields")]
pub enum CollectionError {
    /// No collection has this name.
    #[error("no collection \"{name}\"; there are: {known}")]
    NotFound { name: String, known: String },
    /// The name is an alias, but the operation needs a collection's own name.
    #[error("\"{name}\" is an alias of collection \"{collection}\": use the collection's own name")]
    IsAlias { name: String, collection: String },
    /// The name belongs to another collection.
    #[error("collection \"{name}\" exists with another schema: {difference}; rebuild it or drop it first")]
    Exists { name: String, difference: String },
    /// The alias has the name of a collection.
    #[error("\"{alias}\" is the name of a collection; choose another name for the alias")]
    NameTaken { alias: String },
    /// The name has characters that are not allowed, or a wrong length.
    #[error(
        "\"{name}\" is not a valid name for a collection or an alias: use 1 to 128 of A-Z a-z 0-9 _ . : -, not only dots"
    )]
    Name { name: String },
    /// Another version is being built.
    #[error(
        "collection \"{name}\" is being rebuilt with another schema: {difference}; switch to it or drop the collection first"
    )]
    Rebuilding { name: String, difference: String },
    /// No other version is being built.
    #[error("collection \"{name}\" is not being rebuilt: there is nothing to switch to")]
    NotRebuilding { name: String },
    /// The version to switch to is incomplete: searches would not find some of its documents.
    #[error(
        "collection \"{name}\" cannot be switched yet: vectors of {missing} documents have not been computed for the rebuilt version"
    )]
    VectorsMissing { name: String, missing: u64 },
    /// The schema is invalid.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The store failed.
    #[error("the collection was not changed: {0}")]
    Store(#[from] StoreError),
    /// The store cannot be read.
    #[error("the collection cannot be read: {0}")]
    Read(#[source] StoreError),
    /// The engine is read-only after a failed write.
    #[error("the engine is read-only since a write failed ({reason}): open it again")]
    ReadOnly { reason: String },
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

/// What happens to the documents of a dropped collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropMode {
    /// They are kept.
    KeepDocuments,
    /// Every document under the collection's prefixes is deleted.
    DeleteDocuments,
}

impl Core {
    pub(crate) fn create_collection(&self, name: &str, schema: Schema) -> Result<(), CollectionError> {
        check_name(name)?;
        schema.validate()?;
        let _ddl_lock = self.ddl_lock.lock();
        let registry = self.registry();
        if let Some(collection) = registry.aliases.get(name) {
            return Err(CollectionError::IsAlias { name: name.to_owned(), collection: collection.clone() });
        }
        if let Some(versions) = registry.named.get(name) {
            return match versions.active.schema.difference(&schema) {
                None => Ok(()),
                Some(difference) => Err(CollectionError::Exists { name: name.to_owned(), difference }),
            };
        }
        let collection = self.begin_building(schema, |writer| {
            let version = CollectionVersion { id: writer.allocate_collection_id()?, version: 1 };
            writer.set_name(name, &NameTarget::Collection(version))?;
            Ok(version)
        })?;
        let backfilled = self.backfill(&collection);
        let versions = Versions { active: collection.clone(), rebuilding: None };
        self.finish_building(
            &collection,
            backfilled,
            |writer| writer.remove_name(name).map(drop),
            |registry| {
                registry.named.insert(name.to_owned(), versions);
            },
        )
    }

    pub(crate) fn rebuild_collection(&self, name: &str, schema: Schema) -> Result<(), CollectionError> {
        schema.validate()?;
        let _ddl_lock = self.ddl_lock.lock();
        let versions = self.versions_of(name)?;
        if let Some(rebuilding) = &versions.rebuilding {
            return match rebuilding.schema.difference(&schema) {
                None => Ok(()),
                Some(difference) => Err(CollectionError::Rebuilding { name: name.to_owned(), difference }),
            };
        }
        let old = versions.active;
        let version = CollectionVersion { id: old.version.id, version: old.version.version + 1 };
        let collection = self.begin_building(schema, |_| Ok(version))?;
        let backfilled = self.reuse_vectors(&old, &collection).and_then(|()| self.backfill(&collection));
        let versions = Versions { active: old, rebuilding: Some(collection.clone()) };
        self.finish_building(
            &collection,
            backfilled,
            |_| Ok(()),
            |registry| {
                registry.named.insert(name.to_owned(), versions);
            },
        )
    }

    pub(crate) fn switch_collection(&self, name: &str) -> Result<(), CollectionError> {
        let _ddl_lock = self.ddl_lock.lock();
        let versions = self.versions_of(name)?;
        let Some(rebuilt) = versions.rebuilding else {
            return Err(CollectionError::NotRebuilding { name: name.to_owned() });
        };
        // A write brings the vectors of its document, so no further ones can be missing later.
        let missing = rebuilt.state().unembedded_count();
        if missing > 0 {
            return Err(CollectionError::VectorsMissing { name: name.to_owned(), missing });
        }
        let old = versions.active.version;
        self.commit_ddl(|writer| {
            writer.set_name(name, &NameTarget::Collection(rebuilt.version))?;
            writer.remove_schema(old)?;
            let versions = Versions { active: rebuilt, rebuilding: None };
            Ok(((), |registry: &mut Registry| {
                registry.named.insert(name.to_owned(), versions);
            }))
        })?;
        self.remove_snapshot(old);
        Ok(())
    }

    pub(crate) fn drop_collection(&self, name: &str, documents: DropMode) -> Result<(), CollectionError> {
        let _ddl_lock = self.ddl_lock.lock();
        let versions = self.versions_of(name)?;
        if documents == DropMode::DeleteDocuments {
            for prefix in &versions.active.schema.prefixes {
                self.delete_prefix(prefix)?;
            }
        }
        let aliases = self.registry().aliases_of(name);
        self.commit_ddl(|writer| {
            writer.remove_name(name)?;
            for alias in &aliases {
                writer.remove_name(alias)?;
            }
            for collection in versions.all() {
                writer.remove_schema(collection.version)?;
            }
            Ok(((), |registry: &mut Registry| {
                registry.named.remove(name);
                registry.aliases.retain(|_, target| target != name);
            }))
        })?;
        for collection in versions.all() {
            self.remove_snapshot(collection.version);
        }
        Ok(())
    }

    pub(crate) fn set_alias(&self, alias: &str, collection: &str) -> Result<(), CollectionError> {
        check_name(alias)?;
        let _ddl_lock = self.ddl_lock.lock();
        self.versions_of(collection)?;
        if self.registry().named.contains_key(alias) {
            return Err(CollectionError::NameTaken { alias: alias.to_owned() });
        }
        self.commit_ddl(|writer| {
            writer.set_name(alias, &NameTarget::Alias(collection.to_owned()))?;
            Ok(((), |registry: &mut Registry| {
                registry.aliases.insert(alias.to_owned(), collection.to_owned());
            }))
        })
    }

    pub(crate) fn remove_alias(&self, alias: &str) -> Result<(), CollectionError> {
        let _ddl_lock = self.ddl_lock.lock();
        let registry = self.registry();
        if !registry.aliases.contains_key(alias) {
            let aliases = registry.aliases.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if aliases.is_empty() { "no aliases".to_owned() } else { aliases };
            return Err(CollectionError::NotFound { name: alias.to_owned(), known });
        }
        self.commit_ddl(|writer| {
            writer.remove_name(alias)?;
            Ok(((), |registry: &mut Registry| {
                registry.aliases.remove(alias);
            }))
        })
    }

    /// Starts a version that no search sees yet, but that receives writes from now on.
    fn begin_building(
        &self,
        schema: Schema,
        assign_version: impl FnOnce(&mut Writer<'_>) -> Result<CollectionVersion, StoreError>,
    ) -> Result<Arc<Collection>, CollectionError> {
        self.commit_ddl(|writer| {
            let version = assign_version(writer)?;
            writer.set_schema(version, &encode(&schema))?;
            let collection = Arc::new(Collection::new(version, Arc::new(schema), self.cpu));
            collection.begin_backfill();
            let building = collection.clone();
            Ok((collection, move |registry: &mut Registry| registry.building.push(building)))
        })
    }

    /// Completes a version after its backfill: activates it, or undoes its creation if the backfill failed.
    fn finish_building(
        &self,
        collection: &Collection,
        backfilled: Result<(), StoreError>,
        undo: impl FnOnce(&mut Writer<'_>) -> Result<(), StoreError>,
        activate: impl FnOnce(&mut Registry),
    ) -> Result<(), CollectionError> {
        let stop_building = |registry: &mut Registry| {
            registry.building.retain(|building| building.version != collection.version);
        };
        if let Err(error) = backfilled {
            self.commit_ddl(|writer| {
                undo(writer)?;
                writer.remove_schema(collection.version)?;
                Ok(((), stop_building))
            })?;
            return Err(error.into());
        }
        let _commit_lock = self.commit_lock.lock();
        self.change_registry(|registry| {
            stop_building(registry);
            activate(registry);
        });
        self.indexing_wake.notify();
        Ok(())
    }

    /// Commits a change of schemas and names, and applies it to the registry.
    fn commit_ddl<T, C: FnOnce(&mut Registry)>(
        &self,
        change: impl FnOnce(&mut Writer<'_>) -> Result<(T, C), StoreError>,
    ) -> Result<T, CollectionError> {
        let _commit_lock = self.commit_lock.lock();
        self.check_writable()?;
        let mut writer = self.store.write().inspect_err(|error| self.latch_ddl_failure(error))?;
        let (result, change) = change(&mut writer).inspect_err(|error| self.latch_ddl_failure(error))?;
        writer.commit().inspect_err(|error| self.latch_ddl_failure(error))?;
        self.change_registry(change);
        Ok(result)
    }

    fn check_writable(&self) -> Result<(), CollectionError> {
        if self.is_closing() {
            return Err(CollectionError::Closed);
        }
        match self.read_only_reason.get() {
            Some(reason) => Err(CollectionError::ReadOnly { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// A corrupt row fails this operation only. Any other failure of the disk makes the engine read-only.
    fn latch_ddl_failure(&self, error: &StoreError) {
        if matches!(
            error,
            StoreError::Io { .. }
                | StoreError::ReadOnly { .. }
                | StoreError::DiskFailedEarlier
                | StoreError::Displaced { .. }
                | StoreError::Damaged { .. }
        ) {
            self.latch_failure(error);
        }
    }

    /// The versions of a collection. Fails if `name` is an alias.
    fn versions_of(&self, name: &str) -> Result<Versions, CollectionError> {
        let registry = self.registry();
        match (registry.named.get(name), registry.aliases.get(name)) {
            (Some(versions), _) => Ok(versions.clone()),
            (None, Some(collection)) => {
                Err(CollectionError::IsAlias { name: name.to_owned(), collection: collection.clone() })
            }
            (None, None) => {
                Err(CollectionError::NotFound { name: name.to_owned(), known: registry.collection_names() })
            }
        }
    }

    /// Loads existing documents into a collection that already receives writes.
    fn backfill(&self, collection: &Collection) -> Result<(), StoreError> {
        let reader = self.store.read()?;
        load::backfill(collection, &reader, &Progress::default())?;
        collection.end_backfill(reader.last_seq()?);
        Ok(())
    }

    /// Copies computed vectors of the old version to a rebuilt one, for fields that embed the same text with the same
    /// model, so that they need not be computed again.
    fn reuse_vectors(&self, old: &Collection, new: &Collection) -> Result<(), StoreError> {
        let mut fields = Vec::new();
        for field in new.projector.vectors.iter().filter(|field| field.schema.embed.is_some()) {
            let has_equal_vectors = |old: &&VectorField| {
                old.name == field.name
                    && old.schema.embed == field.schema.embed
                    && old.schema.dim == field.schema.dim
                    && old.schema.vector_type == field.schema.vector_type
            };
            let source = old.projector.vectors.iter().find(has_equal_vectors);
            fields.extend(source.map(|source| (source.position, field.position)));
        }
        let reader = self.store.read()?;
        for (from, to) in fields {
            let mut rows = reader.vectors(old.version, from)?.peekable();
            while rows.peek().is_some() {
                let _commit_lock = self.commit_lock.lock();
                let mut writer = self.store.write().inspect_err(|error| self.latch_ddl_failure(error))?;
                for row in rows.by_ref().take(GROUP_OPS_MAX) {
                    let (key, vector) = row?;
                    // A document written since then has stored a new vector.
                    let seq = reader.document(key.doc)?.map(|document| document.seq);
                    if seq.is_some() && writer.document(key.doc)?.map(|document| document.seq) == seq {
                        let key = store::VectorKey { collection: new.version, field: to, ..key };
                        writer.set_vector(key, vector.model, &vector.bytes)?;
                    }
                }
                writer.commit().inspect_err(|error| self.latch_ddl_failure(error))?;
            }
        }
        Ok(())
    }

    /// Deletes every document whose key starts with `prefix`, in groups like other writes.
    fn delete_prefix(&self, prefix: &[u8]) -> Result<(), CollectionError> {
        loop {
            self.check_writable()?;
            let _commit_lock = self.commit_lock.lock();
            let reader = self.store.read()?;
            let keys: Vec<Box<[u8]>> = reader
                .keys(prefix, None)?
                .take(GROUP_OPS_MAX)
                .map(|key| key.map(|(key, _)| key))
                .collect::<Result<_, _>>()?;
            if keys.is_empty() {
                return Ok(());
            }
            self.transact(|transaction| {
                for key in &keys {
                    transaction.remove(key)?;
                }
                Ok(())
            })?;
        }
    }

    /// Runs one durable transaction outside the queue and publishes it as the committer does. The caller holds
    /// `commit_lock`.
    pub(crate) fn transact<T>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let writer = self.store.write().inspect_err(|error| self.latch_ddl_failure(error))?;
        let mut transaction = Transaction::new(writer, &self.registry(), self.time.now_ms());
        let result = change(&mut transaction).inspect_err(|error| self.latch_ddl_failure(error))?;
        let committed = transaction.commit(true).inspect_err(|error| self.latch_ddl_failure(error))?;
        self.publish(committed);
        Ok(result)
    }

    pub(crate) fn remove_snapshot(&self, version: CollectionVersion) {
        if let Err(error) = self.snapshots.remove(version) {
            // Harmless: it is no longer read, and is removed when the engine is next opened.
            self.warn(format!(
                "the snapshot of collection {}, version {}, was not removed: {error}",
                version.id, version.version
            ));
        }
    }
}

/// Checks that `name` can be the name of a collection or an alias. Names that consist of dots are rejected, because
/// URLs treat them as relative paths.
pub fn check_name(name: &str) -> Result<(), CollectionError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    let is_dots = name.bytes().all(|byte| byte == b'.');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && !is_dots {
        Ok(())
    } else {
        Err(CollectionError::Name { name: printable(name.as_bytes()) })
    }
}
