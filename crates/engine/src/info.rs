//! Statistics of collections and of the engine.

use store::{CollectionVersion, Seq};

use crate::{
    Durability,
    clock::EngineClock,
    registry::{Registry, Versions},
    schema::Schema,
};

/// State of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Name.
    pub name: String,
    /// Aliases of the collection.
    pub aliases: Vec<String>,
    /// Number and active schema version.
    pub version: CollectionVersion,
    /// Active schema.
    pub schema: Schema,
    /// Number of documents.
    pub documents: u64,
    /// Number of vectors, over all fields.
    pub vectors: u64,
    /// Of these, how many are not linked into a graph yet and are scanned exactly.
    pub tail: u64,
    /// Number of documents whose computed vectors are missing, because the collection was created after them. Includes
    /// those of a version that is being built.
    pub unembedded: u64,
    /// Number of documents under the prefixes that violate the schema.
    pub failures: u64,
    /// Key and reason of the last violation.
    pub last_failure: Option<String>,
    /// Memory used by graphs, vectors and postings, in bytes.
    pub memory_bytes: u64,
    /// A newer version that is being built.
    pub rebuilding: Option<CollectionVersion>,
}

/// Statistics of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of documents in the keyspace, including expired ones that are not purged yet.
    pub documents: u64,
    /// Sequence number of the last change.
    pub last_seq: Seq,
    /// Sequence number of the last durable change.
    pub durable_seq: Seq,
    /// When changes become durable; `None` if another system determines it.
    pub durability: Option<Durability>,
    /// Length of the store file, in bytes.
    pub file_bytes: u64,
    /// Memory used by all collections, in bytes.
    pub memory_bytes: u64,
    /// Number of commits since the engine was opened.
    pub commits: u64,
}

/// State of the collection called `name`.
pub(crate) fn info(
    registry: &Registry,
    name: &str,
    versions: &Versions,
    time: &EngineClock,
) -> CollectionInfo {
    let collection = &versions.active;
    collection.hide_expired(time);
    let stats: Vec<index::Stats> = collection.indexes.iter().map(index::Index::stats).collect();
    let memory_bytes = collection.memory_bytes() as u64;
    let unembedded = versions.all().map(|collection| collection.state().unembedded_count()).sum();
    let state = collection.state();
    CollectionInfo {
        name: name.to_owned(),
        aliases: registry.aliases_of(name),
        version: collection.version,
        schema: Schema::clone(&collection.schema),
        documents: state.ordinals.live().len(),
        vectors: stats.iter().map(|stats| stats.vectors as u64).sum(),
        tail: stats.iter().map(|stats| stats.tail as u64).sum(),
        unembedded,
        failures: state.invalid.len() as u64,
        last_failure: state.last_violation.clone().filter(|_| !state.invalid.is_empty()),
        memory_bytes,
        rebuilding: versions.rebuilding.as_ref().map(|rebuilding| rebuilding.version),
    }
}
