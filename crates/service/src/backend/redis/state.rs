//! The cached collections, which every call can read without waiting.

use std::collections::BTreeMap;

use engine::{CollectionError, DocumentValidator, check_document, decode_vector};

use super::{
    CollectionInfo, ComputedVector, Document, Error, Field, Fingerprints, Op, Schema, TextToEmbed,
    WriteError, error, index::IndexInfo, metadata::CollectionMetadata, server::ServerInfo, servers::Shard,
};
use crate::{FieldKind, VectorSchema, error_mapping, sync::Arc};

/// The state of the servers and their collections.
#[derive(Clone, Debug, Default)]
pub(super) struct CachedState {
    /// The primaries that were reached, by address.
    pub(super) servers: BTreeMap<String, ServerInfo>,
    pub(super) collections: BTreeMap<String, Arc<Collection>>,
    /// Indexes that were lost and created again, and collections whose metadata cannot be read.
    pub(super) warnings: BTreeMap<String, String>,
}

/// One collection.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) validator: Arc<DocumentValidator>,
    pub(super) models: Fingerprints,
    /// The index on each shard, by the shard's name.
    pub(super) indexes: BTreeMap<String, ShardIndex>,
    /// The sum over all shards.
    pub(super) info: IndexInfo,
}

/// A RediSearch index over the documents of one shard.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShardIndex {
    pub(super) name: String,
    pub(super) info: IndexInfo,
}

/// A shard with more documents than this multiple of the mean causes a warning.
const IMBALANCE_FACTOR: f64 = 1.5;

/// Collections with fewer documents are not checked for imbalance.
const IMBALANCE_DOCUMENTS_MIN: u64 = 1000;

impl Collection {
    pub(super) fn new(
        name: &str,
        metadata: CollectionMetadata,
        aliases: Vec<String>,
        indexes: BTreeMap<String, ShardIndex>,
    ) -> Collection {
        let validator = Arc::new(DocumentValidator::new(metadata.version, metadata.schema));
        let info = IndexInfo::sum(indexes.values().map(|index| &index.info));
        Collection { name: name.to_owned(), aliases, validator, models: metadata.models, indexes, info }
    }

    /// A copy with the current state of its indexes.
    pub(super) fn with_indexes(&self, indexes: BTreeMap<String, ShardIndex>) -> Collection {
        let info = IndexInfo::sum(indexes.values().map(|index| &index.info));
        Collection { indexes, info, ..self.clone() }
    }

    /// Logs documents that could not be indexed, if there are more of them than `cached` has.
    pub(super) fn log_failures(&self, cached: Option<&Arc<Collection>>) {
        if let Some(failure) = &self.info.last_failure
            && cached.is_none_or(|cached| cached.info.failures < self.info.failures)
        {
            tracing::warn!(
                collection = self.name,
                failures = self.info.failures,
                "Redis could not index some documents; the last: {failure}"
            );
        }
    }

    /// A warning if one shard holds far more documents than the others.
    fn imbalance_warning(&self) -> Option<String> {
        let shards = self.indexes.len();
        let mean = self.info.documents as f64 / shards.max(1) as f64;
        let (shard, largest) = self.indexes.iter().max_by_key(|(_, index)| index.info.documents)?;
        let documents = largest.info.documents;
        (self.info.documents >= IMBALANCE_DOCUMENTS_MIN && documents as f64 > IMBALANCE_FACTOR * mean).then(|| {
            format!(
                "collection {:?}: shard {shard} holds {documents} of {} documents, more than {IMBALANCE_FACTOR} times the mean: avoid hash tags in ids, or move slots",
                self.name, self.info.documents
            )
        })
    }

    /// Its index on a shard. In a cluster with a search coordinator, every server answers for the only
    /// index.
    pub(super) fn index_of(&self, shard: &Shard) -> Option<&ShardIndex> {
        let only = || self.indexes.values().find(|index| index.name == self.name);
        self.indexes.get(&shard.name()).or_else(only)
    }

    /// The name of its index on a shard; an error if the index does not contain all documents of the
    /// shard yet.
    pub(super) fn queryable_index(&self, shard: &Shard) -> Result<&str, Error> {
        match self.index_of(shard) {
            None => Err(shard.with_shard(error::index_missing(&self.name))),
            Some(ShardIndex { name, info }) if info.is_scanning && *name != self.name => {
                Err(shard.with_shard(error::index_incomplete(&self.name, info.documents)))
            }
            Some(ShardIndex { name, .. }) => Ok(name),
        }
    }

    pub(super) fn schema(&self) -> &Schema {
        self.validator.schema()
    }

    pub(super) fn metadata(&self) -> CollectionMetadata {
        CollectionMetadata {
            version: self.validator.version(),
            schema: self.schema().clone(),
            models: self.models.clone(),
        }
    }

    /// Whether the collections look the same to callers.
    fn is_equivalent(&self, other: &Collection) -> bool {
        self.aliases == other.aliases
            && self.models == other.models
            && self.validator.version() == other.validator.version()
            && self.schema() == other.schema()
    }

    pub(super) fn to_info(&self) -> CollectionInfo {
        let vector_fields = vector_fields(self.schema()).count() as u64;
        CollectionInfo {
            name: self.name.clone(),
            aliases: self.aliases.clone(),
            version: self.validator.version(),
            schema: self.schema().clone(),
            documents: self.info.documents,
            vectors: vector_fields * self.info.documents,
            tail: 0,
            unembedded: 0,
            failures: self.info.failures,
            last_failure: self.info.last_failure.clone(),
            memory_bytes: self.info.memory_bytes,
            rebuilding: None,
        }
    }
}

/// The computed vector fields of a schema, with their positions.
pub(super) fn computed_fields(schema: &Schema) -> impl Iterator<Item = (u16, &str, &VectorSchema)> {
    vector_fields(schema).filter(|(_, _, vector)| vector.embed.is_some())
}

fn vector_fields(schema: &Schema) -> impl Iterator<Item = (u16, &str, &VectorSchema)> {
    schema.fields.iter().enumerate().filter_map(|(position, field)| match &field.kind {
        FieldKind::Vector(vector) => {
            let position = u16::try_from(position).expect("a validated schema is small");
            Some((position, field.name.as_str(), vector))
        }
        _ => None,
    })
}

impl CachedState {
    pub(super) fn get(&self, name: &str) -> Result<&Arc<Collection>, Error> {
        self.collections.get(name).ok_or_else(|| {
            let known = self.names();
            error_mapping::collection(CollectionError::NotFound { name: name.to_owned(), known })
        })
    }

    /// The collection of this name, which must not be an alias.
    pub(super) fn get_by_own_name(&self, name: &str) -> Result<&Arc<Collection>, Error> {
        match self.by_alias(name) {
            Some(collection) => Err(error_mapping::collection(CollectionError::IsAlias {
                name: name.to_owned(),
                collection: collection.name.clone(),
            })),
            None => self.get(name),
        }
    }

    /// The aliases with the collections they refer to.
    pub(super) fn aliases(&self) -> Vec<(String, String)> {
        let of = |collection: &Arc<Collection>| {
            let name = collection.name.clone();
            collection.aliases.iter().map(move |alias| (alias.clone(), name.clone())).collect::<Vec<_>>()
        };
        self.collections.values().flat_map(of).collect()
    }

    pub(super) fn by_alias(&self, alias: &str) -> Option<&Arc<Collection>> {
        self.collections.values().find(|collection| collection.aliases.iter().any(|own| own == alias))
    }

    fn names(&self) -> String {
        if self.collections.is_empty() {
            return "none".to_owned();
        }
        self.collections.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Whether an index is still scanning the keys that existed before it.
    pub(super) fn is_scanning(&self) -> bool {
        self.collections.values().any(|collection| collection.info.is_scanning)
    }

    /// Whether all collections look the same to callers.
    pub(super) fn is_equivalent(&self, other: &CachedState) -> bool {
        self.collections.len() == other.collections.len()
            && self.collections.iter().all(|(name, collection)| {
                other.collections.get(name).is_some_and(|other| collection.is_equivalent(other))
            })
    }

    /// The collections that contain a document with this key.
    fn collections_for_key<'s>(&'s self, key: &'s [u8]) -> impl Iterator<Item = &'s Collection> {
        self.collections
            .values()
            .map(|collection| &**collection)
            .filter(|collection| collection.schema().matches_key(key))
    }

    pub(super) fn texts_to_embed(&self, key: &[u8], fields: &[Field]) -> Vec<TextToEmbed> {
        self.collections_for_key(key)
            .flat_map(|collection| collection.validator.texts_to_embed(fields))
            .collect()
    }

    /// Checks a write as the engine would, and rejects what Redis would store but not index.
    pub(super) fn validate(&self, op: &Op) -> Result<(), WriteError> {
        let Op::Put { key, fields, vectors, .. } = op else { return Ok(()) };
        check_document(key, fields)?;
        let invalid = |field: &str, reason: &str| WriteError::Invalid {
            key: String::from_utf8_lossy(key).into_owned(),
            field: field.to_owned(),
            reason: reason.to_owned(),
        };
        if fields.is_empty() && vectors.is_empty() {
            return Err(invalid("", "Redis cannot store a document without fields"));
        }
        // Vectors may be added later, so other errors take precedence over missing vectors.
        let mut missing = None;
        for collection in self.collections_for_key(key) {
            match collection.validator.check(key, fields, vectors) {
                Err(error @ WriteError::VectorsMissing { .. }) => missing = Some(error),
                checked => checked?,
            }
            for field in &collection.schema().fields {
                let value = fields.iter().find(|stored| *stored.name == *field.name.as_bytes());
                if let (FieldKind::Tag { .. }, Some(value)) = (&field.kind, value)
                    && value.value.contains(&0)
                {
                    return Err(invalid(&field.name, "Redis reads a tag only up to the first NUL byte"));
                }
            }
        }
        missing.map_or(Ok(()), Err)
    }

    /// When a document without an expiry expires by the default TTL of its collections.
    pub(super) fn default_expiry(&self, key: &[u8], now_ms: u64) -> Option<u64> {
        let ttl = self.collections_for_key(key).filter_map(|collection| collection.schema().ttl).min()?;
        Some(now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The name and schema of the field that a computed vector belongs to; `None` if its collection was
    /// dropped.
    pub(super) fn vector_field(&self, vector: &ComputedVector) -> Option<(&str, &VectorSchema)> {
        let mut collections = self.collections.values();
        let collection =
            collections.find(|collection| collection.validator.version() == vector.collection)?;
        computed_fields(collection.schema())
            .find(|(position, ..)| *position == vector.field)
            .map(|(_, name, schema)| (name, schema))
    }

    /// Separates the computed vectors from the document's own fields.
    pub(super) fn split_vectors(&self, mut document: Document) -> (Document, Vec<ComputedVector>) {
        let mut vectors = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for collection in self.collections_for_key(&document.key) {
            for (position, name, schema) in computed_fields(collection.schema()) {
                let Some(blob) = document.field(name.as_bytes()) else { continue };
                names.push(name);
                let model = collection.models.iter().find(|(field, _)| field == name);
                // A vector of the wrong size is ignored: the next write computes it again.
                let values = decode_vector(blob, schema.dim, schema.vector_type, schema.metric);
                if let (Ok(values), Some((_, model))) = (values, model) {
                    let collection = collection.validator.version();
                    vectors.push(ComputedVector {
                        collection,
                        field: position,
                        passage: 0,
                        model: *model,
                        values,
                    });
                }
            }
        }
        document.fields.retain(|field| !names.iter().any(|name| *field.name == *name.as_bytes()));
        (document, vectors)
    }

    /// Why a collection conflicts with another. A key in both collections has only one field of a given
    /// name, so vector fields of that name must be defined alike.
    pub(super) fn conflict(&self, name: &str, schema: &Schema) -> Option<String> {
        let overlap = |other: &Schema| {
            schema
                .prefixes
                .iter()
                .any(|one| other.prefixes.iter().any(|two| one.starts_with(two) || two.starts_with(one)))
        };
        let others = self.collections.values().filter(|other| other.name != name && overlap(other.schema()));
        for other in others {
            for (_, field, vector) in vector_fields(schema) {
                let same = match other.schema().field(field) {
                    Some(FieldKind::Vector(other)) => {
                        (other.dim, other.vector_type, &other.embed)
                            == (vector.dim, vector.vector_type, &vector.embed)
                    }
                    Some(_) => false,
                    None => true,
                };
                if !same {
                    return Some(format!(
                        "field {field:?} is defined differently in collection {:?}, which covers some of the same keys",
                        other.name
                    ));
                }
            }
        }
        None
    }

    /// Warnings that do not prevent the store from answering.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (address, server) in &self.servers {
            warnings.extend(server.warnings().into_iter().map(|warning| format!("{address}: {warning}")));
        }
        warnings.extend(self.warnings.values().cloned());
        for collection in self.collections.values() {
            let waiting = collection.info.pending_documents();
            if waiting > 0 {
                warnings.push(format!(
                    "collection {:?}: about {waiting} documents are waiting to be indexed by Redis",
                    collection.name
                ));
            }
            warnings.extend(collection.imbalance_warning());
        }
        warnings
    }
}
