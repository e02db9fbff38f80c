//! What can be known of collections and of the whole engine.

use store::{CollectionVersion, Seq};

use crate::{
    Durability,
    registry::{Registry, Versions},
    schema::Schema,
};

/// What is known of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Aliases that lead to it.
    pub aliases: Vec<String>,
    /// Number and schema version that answers.
    pub version: CollectionVersion,
    /// Its schema.
    pub schema: Schema,
    /// Documents in it.
    pub documents: u64,
    /// Vectors that can be found, over all fields.
    pub vectors: u64,
    /// Of these, scanned exactly because no graph holds them yet.
    pub tail: u64,
    /// Documents still without their computed vectors (a collection made over existing keys), in
    /// this version and in one being built.
    pub unembedded: u64,
    /// Documents under its prefixes that do not fit its schema, and the last reason.
    pub failures: u64,
    /// Key and reason of the last of these.
    pub last_failure: Option<String>,
    /// Bytes in memory: graph, vectors, postings.
    pub memory_bytes: u64,
    /// A newer schema version being built beside this one.
    pub rebuilding: Option<CollectionVersion>,
}

/// Counts of the whole engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Documents in the keyspace, those included that have ended but are not reaped yet.
    pub documents: u64,
    /// The last change.
    pub last_seq: Seq,
    /// The last change that is durable.
    pub durable_seq: Seq,
    /// When changes become durable; `None` where another system says so.
    pub durability: Option<Durability>,
    /// Bytes of the store file.
    pub file_bytes: u64,
    /// Bytes in memory, over all collections.
    pub memory_bytes: u64,
    /// Commits since the engine was opened.
    pub commits: u64,
}

/// What is known of the collection called `name`.
pub(crate) fn info(registry: &Registry, name: &str, versions: &Versions, now_ms: u64) -> CollectionInfo {
    let collection = &versions.active;
    collection.hide_expired(now_ms);
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
