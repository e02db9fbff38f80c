//! Collections as the HTTP interface describes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    client::{ApiPath, Client},
    error::UsageError,
};

/// A collection; the members that commands use.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CollectionInfo {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    pub(crate) schema: SchemaInfo,
    #[serde(default)]
    pub(crate) documents: u64,
    #[serde(default)]
    pub(crate) vectors: u64,
    #[serde(default)]
    pub(crate) tail: u64,
    #[serde(default)]
    pub(crate) unembedded: u64,
    #[serde(default)]
    pub(crate) failures: u64,
    #[serde(default)]
    pub(crate) last_failure: Option<String>,
    #[serde(default)]
    pub(crate) memory_bytes: u64,
    #[serde(default)]
    pub(crate) rebuilding: bool,
    /// Documents on each primary of a Redis Cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) shards: BTreeMap<String, u64>,
}

/// A schema.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SchemaInfo {
    #[serde(default)]
    pub(crate) fields: Vec<FieldInfo>,
}

/// A field.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct FieldInfo {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Separator between the tags of a TAG field.
    #[serde(default)]
    pub(crate) separator: Option<String>,
    /// How the vectors of a VECTOR field are computed.
    #[serde(default)]
    pub(crate) embed: Option<EmbedInfo>,
}

/// What the vectors of a VECTOR field are computed from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct EmbedInfo {
    pub(crate) fields: Vec<String>,
    #[serde(default)]
    pub(crate) model: String,
}

/// The response of `GET /collections`.
#[derive(Deserialize)]
pub(crate) struct CollectionList {
    pub(crate) collections: Vec<CollectionInfo>,
}

/// The collection called `name`; without a name, the only collection.
pub(crate) fn named_or_only(client: &Client, name: Option<&str>) -> anyhow::Result<CollectionInfo> {
    if let Some(name) = name {
        return client.get(ApiPath::collection(name));
    }
    let CollectionList { mut collections } = client.get("/collections")?;
    match collections.len() {
        1 => Ok(collections.remove(0)),
        0 => {
            Err(UsageError("there is no collection: create one with nearfield index FILE".to_owned()).into())
        }
        _ => {
            let names: Vec<&str> = collections.iter().map(|info| info.name.as_str()).collect();
            Err(UsageError(format!(
                "there are several collections; choose one with --collection: {}",
                names.join(", ")
            ))
            .into())
        }
    }
}
