//! Collections, aliases and statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema::SchemaBody;
use service::{CollectionInfo, Durability, Service, Stats};

/// A collection.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionResponse {
    name: String,
    aliases: Vec<String>,
    /// Number of the collection, which is never reused.
    id: u32,
    /// Version of its schema, starting at 1.
    version: u32,
    schema: SchemaBody,
    documents: u64,
    /// Searchable vectors.
    vectors: u64,
    /// Searchable vectors that are not in the graph yet, and are scanned exactly.
    tail: u64,
    /// Documents whose vectors are not computed yet.
    unembedded: u64,
    /// Documents under the prefixes that violate the schema.
    failures: u64,
    last_failure: Option<String>,
    memory_bytes: u64,
    /// Whether a newer version of the schema is being built.
    rebuilding: bool,
    /// Other collections that can share documents with this one, because their prefixes overlap; left out if there are
    /// none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overlaps: Vec<String>,
    /// Documents on each primary of a Redis Cluster, as of the last check; left out otherwise.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    shards: BTreeMap<String, u64>,
}

impl CollectionResponse {
    pub(crate) fn new(info: CollectionInfo, service: &Service) -> CollectionResponse {
        CollectionResponse {
            // Fails only if the collection has just been dropped.
            overlaps: service.overlapping(&info.name).unwrap_or_default(),
            shards: service.shards(&info.name).into_iter().collect(),
            schema: SchemaBody::from(&info.schema),
            name: info.name,
            aliases: info.aliases,
            id: info.version.id,
            version: info.version.version,
            documents: info.documents,
            vectors: info.vectors,
            tail: info.tail,
            unembedded: info.unembedded,
            failures: info.failures,
            last_failure: info.last_failure,
            memory_bytes: info.memory_bytes,
            rebuilding: info.rebuilding.is_some(),
        }
    }
}

/// All collections.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionsResponse {
    pub(crate) collections: Vec<CollectionResponse>,
}

/// The target of an alias.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasRequest {
    /// Name of the collection.
    pub(crate) collection: String,
}

/// An alias and its target.
#[derive(Serialize, ToSchema)]
pub(crate) struct AliasResponse {
    pub(crate) alias: String,
    pub(crate) collection: String,
}

/// The response of `GET /aliases`.
#[derive(Serialize, ToSchema)]
pub(crate) struct AliasesResponse {
    pub(crate) aliases: Vec<AliasResponse>,
}

/// Counts of the whole store.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatsResponse {
    /// Documents in the keyspace.
    documents: u64,
    /// Sequence number of the last change.
    last_seq: u64,
    /// Sequence number of the last durable change.
    durable_seq: u64,
    /// When changes become durable: always (before the response), everysec or none; left out if a Redis decides.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<&'static str>,
    /// Bytes of the store file.
    file_bytes: u64,
    /// Bytes of memory of all collections.
    memory_bytes: u64,
    /// Commits since the start of the server.
    commits: u64,
    /// Version of the server.
    #[schema(value_type = String)]
    version: &'static str,
}

impl From<Stats> for StatsResponse {
    fn from(stats: Stats) -> StatsResponse {
        StatsResponse {
            documents: stats.documents,
            last_seq: stats.last_seq,
            durable_seq: stats.durable_seq,
            durability: stats.durability.map(Durability::name),
            file_bytes: stats.file_bytes,
            memory_bytes: stats.memory_bytes,
            commits: stats.commits,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// A number of documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct CountResponse {
    pub(crate) count: u64,
}
