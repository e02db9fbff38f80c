//! What Nearfield stores in Redis beside a collection's index: schema, models, id and aliases, which the
//! index cannot hold.

use engine::CollectionVersion;
use redis::{Cmd, Value};

use super::{Error, Fingerprints, Redis, Schema, error, reply, state::Collection};

/// Prefix of the keys that Nearfield itself uses.
pub(super) const KEY_PREFIX: &str = "nearfield:";

/// The hash of aliases: alias to collection.
pub(super) const ALIASES_KEY: &str = "nearfield:aliases";

/// The counter that collection ids come from.
pub(super) const ID_COUNTER_KEY: &str = "nearfield:collections";

/// Code of the error for metadata that cannot be read.
pub(super) const DAMAGED: &str = "metadata-damaged";

/// Version of the format. Others are rejected.
const FORMAT: &str = "1";

/// Prefix of the hash fields that hold a model's fingerprint.
const MODEL: &str = "model:";

/// The metadata of one collection.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CollectionMetadata {
    pub(super) version: CollectionVersion,
    pub(super) schema: Schema,
    /// The models that computed the vectors of its fields.
    pub(super) models: Fingerprints,
}

/// The key of a collection's metadata.
pub(super) fn key(collection: &str) -> String {
    format!("{KEY_PREFIX}meta:{collection}")
}

impl CollectionMetadata {
    /// The `HSET` command that saves it.
    pub(super) fn to_hset(&self, collection: &str) -> Cmd {
        let mut command = redis::cmd("HSET");
        command.arg(key(collection)).arg("format").arg(FORMAT).arg("number").arg(self.version.id);
        command.arg("schema").arg(self.schema.to_bytes());
        for (field, fingerprint) in &self.models {
            command.arg(format!("{MODEL}{field}")).arg(hex(fingerprint));
        }
        command
    }

    /// Parses the hash; `None` if it is empty.
    pub(super) fn parse(collection: &str, hash: Value) -> Result<Option<CollectionMetadata>, Error> {
        let damaged = |what: &str| {
            Error::unavailable(
                DAMAGED,
                format!(
                    "the metadata of collection {collection:?} under key {:?} cannot be read ({what}): delete the key and create the collection again",
                    key(collection)
                ),
            )
        };
        let pairs = reply::pairs(hash, "a collection's metadata")?;
        if pairs.is_empty() {
            return Ok(None);
        }
        let (mut format, mut number, mut schema, mut models) = (None, None, None, Vec::new());
        for (name, value) in pairs {
            let name = reply::text(name, "a metadata field")?;
            let value = reply::bytes(value, "a metadata value")?;
            match name.as_str() {
                "format" => format = Some(value),
                "number" => {
                    number = std::str::from_utf8(&value).ok().and_then(|number| number.parse::<u32>().ok());
                }
                "schema" => schema = Some(Schema::from_bytes(&value).map_err(|reason| damaged(&reason))?),
                _ => {
                    if let Some(field) = name.strip_prefix(MODEL) {
                        let fingerprint = unhex(&value).ok_or_else(|| damaged("a model's fingerprint"))?;
                        models.push((field.to_owned(), fingerprint));
                    }
                }
            }
        }
        if format.as_deref() != Some(FORMAT.as_bytes()) {
            return Err(damaged("unknown format: a newer Nearfield may have written it"));
        }
        let schema = schema.ok_or_else(|| damaged("no schema"))?;
        schema.validate().map_err(|invalid| damaged(&invalid.to_string()))?;
        let id = number.ok_or_else(|| damaged("no id"))?;
        models.sort_unstable();
        Ok(Some(CollectionMetadata { version: CollectionVersion { id, version: 1 }, schema, models }))
    }
}

impl Redis {
    /// The aliases with the collections they refer to.
    pub(super) async fn load_aliases(&self) -> Result<Vec<(String, String)>, Error> {
        const WHAT: &str = "aliases";
        let pairs = reply::pairs(self.hgetall(ALIASES_KEY).await?, WHAT)?;
        pairs
            .into_iter()
            .map(|(alias, name)| Ok((reply::text(alias, WHAT)?, reply::text(name, WHAT)?)))
            .collect()
    }

    /// The metadata of a collection.
    pub(super) async fn load_metadata(&self, collection: &str) -> Result<Option<CollectionMetadata>, Error> {
        CollectionMetadata::parse(collection, self.hgetall(&key(collection)).await?)
    }

    async fn hgetall(&self, key: &str) -> Result<Value, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(key);
        self.send(key, &command).await
    }

    /// Sends one command about one of Nearfield's own keys.
    pub(super) async fn send(&self, key: &str, command: &Cmd) -> Result<Value, Error> {
        self.servers.send(key.as_bytes(), command).await
    }

    pub(super) async fn save_metadata(&self, name: &str, metadata: &CollectionMetadata) -> Result<(), Error> {
        self.send(&key(name), &metadata.to_hset(name)).await.map(drop)
    }

    /// Saves the cached metadata of a collection again after Redis lost it.
    pub(super) async fn restore_metadata(&self, collection: &Collection) -> Result<(), Error> {
        let name = &collection.name;
        self.save_metadata(name, &collection.metadata()).await?;
        for alias in &collection.aliases {
            self.save_alias(alias, name).await?;
        }
        Ok(())
    }

    /// Saves an alias, and also sets it in RediSearch unless the store is a cluster, where no index has
    /// the collection's own name.
    pub(super) async fn save_alias(&self, alias: &str, name: &str) -> Result<(), Error> {
        if !self.servers.is_cluster() {
            let mut update = redis::cmd("FT.ALIASUPDATE");
            update.arg(alias).arg(name);
            self.send(alias, &update).await.map_err(|error| self.refresh_if_index_missing(error))?;
        }
        let mut save = redis::cmd("HSET");
        save.arg(ALIASES_KEY).arg(alias).arg(name);
        self.send(ALIASES_KEY, &save).await?;
        Ok(())
    }
}

/// Parses the reply of the id counter.
pub(super) fn parse_id(counter: Value) -> Result<u32, Error> {
    let number = reply::integer(counter, "the id of a collection")?;
    u32::try_from(number).map_err(|_| error::reply("the id of a collection"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &[u8]) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (digits.len() == 32).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::article_schema;

    fn metadata() -> CollectionMetadata {
        CollectionMetadata {
            version: CollectionVersion { id: 7, version: 1 },
            schema: article_schema("article:", &["tags".to_owned()], &["year".to_owned()]),
            models: vec![("embedding".to_owned(), [0xab; 16])],
        }
    }

    /// The contents of the hash after the HSET.
    fn stored(command: &Cmd) -> Value {
        let arguments: Vec<Value> = command
            .args_iter()
            .skip(2)
            .map(|argument| match argument {
                redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
                _ => panic!("no cursors in a HSET"),
            })
            .collect();
        Value::Array(arguments)
    }

    #[test]
    fn metadata_round_trips() {
        let stored = stored(&metadata().to_hset("kb"));
        assert_eq!(CollectionMetadata::parse("kb", stored).unwrap(), Some(metadata()));
        assert_eq!(CollectionMetadata::parse("kb", Value::Array(vec![])).unwrap(), None);
    }

    #[test]
    fn rejects_damaged_metadata_and_names_its_key() {
        let Value::Array(good) = stored(&metadata().to_hset("kb")) else { unreachable!() };
        for (position, value) in [(1, "2"), (3, "x"), (5, "x"), (7, "abc")] {
            let mut damaged = good.clone();
            damaged[position] = Value::BulkString(value.as_bytes().to_vec());
            let error = CollectionMetadata::parse("kb", Value::Array(damaged)).unwrap_err();
            assert!(error.message.contains("nearfield:meta:kb"), "{}", error.message);
        }
    }
}
