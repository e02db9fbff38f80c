//! What is known of collections, aliases and the whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema::SchemaBody;
use service::{CollectionInfo, Durability, Service, Stats};

/// What is known of a collection.
#[derive(Serialize, ToSchema)]
pub(crate) struct CollectionResponse {
    name: String,
    aliases: Vec<String>,
    /// Number of the collection, never used again.
    id: u32,
    /// Version of its schema, from 1.
    version: u32,
    schema: SchemaBody,
    documents: u64,
    /// Vectors that can be found.
    vectors: u64,
    /// Of these, scanned exactly because no graph holds them yet.
    tail: u64,
    /// Documents still without their computed vectors.
    unembedded: u64,
    /// Documents under the prefixes that do not fit the schema.
    failures: u64,
    last_failure: Option<String>,
    memory_bytes: u64,
    /// Whether a newer schema version is being built beside this one.
    rebuilding: bool,
    /// Documents on each primary of a Redis Cluster, as last seen; left out elsewhere.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    shards: BTreeMap<String, u64>,
}

impl CollectionResponse {
    pub(crate) fn new(info: CollectionInfo, service: &Service) -> CollectionResponse {
        CollectionResponse {
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

/// Where an alias shall lead.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasRequest {
    /// Name of the collection.
    pub(crate) collection: String,
}

/// Where an alias leads.
#[derive(Serialize, ToSchema)]
pub(crate) struct AliasResponse {
    pub(crate) alias: String,
    pub(crate) collection: String,
}

/// Counts of the whole system.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatsResponse {
    /// Documents in the keyspace.
    documents: u64,
    /// The last change.
    last_seq: u64,
    /// The last change that is durable.
    durable_seq: u64,
    /// When changes become durable: always (before they are answered), everysec or none; left out where a Redis says.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<&'static str>,
    /// Bytes of the store file.
    file_bytes: u64,
    /// Bytes in memory, over all collections.
    memory_bytes: u64,
    /// Commits since the server was started.
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

/// A count of documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct CountResponse {
    pub(crate) count: u64,
}
