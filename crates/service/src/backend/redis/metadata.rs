//! What Nearfield notes about a collection beside its index: what the index cannot hold.

use engine::CollectionVersion;
use redis::{Cmd, Value};

use super::{Error, Fingerprints, Schema, error, reply};

/// Every key of Nearfield's own begins with it.
pub(super) const KEY_PREFIX: &str = "nearfield:";

/// The hash of aliases: alias to collection.
pub(super) const ALIASES_KEY: &str = "nearfield:aliases";

/// The counter collections get their numbers from.
pub(super) const ID_COUNTER_KEY: &str = "nearfield:collections";

/// How notes are written. Others are refused.
const FORMAT: &str = "1";

const MODEL: &str = "model:";

/// What is noted of one collection.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CollectionMetadata {
    pub(super) version: CollectionVersion,
    pub(super) schema: Schema,
    /// What all vectors of its computed fields were made by.
    pub(super) models: Fingerprints,
}

/// The key of a collection's notes.
pub(super) fn key(collection: &str) -> String {
    format!("{KEY_PREFIX}meta:{collection}")
}

impl CollectionMetadata {
    /// Writes them.
    pub(super) fn to_hset(&self, collection: &str) -> Cmd {
        let mut command = redis::cmd("HSET");
        command.arg(key(collection)).arg("format").arg(FORMAT).arg("number").arg(self.version.id);
        command.arg("schema").arg(self.schema.to_bytes());
        for (field, fingerprint) in &self.models {
            command.arg(format!("{MODEL}{field}")).arg(hex(fingerprint));
        }
        command
    }

    /// Reads them; `None` if there are none.
    pub(super) fn parse(collection: &str, hash: Value) -> Result<Option<CollectionMetadata>, Error> {
        let damaged = |what: &str| {
            Error::unavailable(
                "metadata-damaged",
                format!(
                    "the notes on collection {collection:?} under {:?} cannot be read ({what}): delete them and make the collection again",
                    key(collection)
                ),
            )
        };
        let pairs = reply::pairs(hash, "a collection's notes")?;
        if pairs.is_empty() {
            return Ok(None);
        }
        let (mut format, mut number, mut schema, mut models) = (None, None, None, Vec::new());
        for (name, value) in pairs {
            let name = reply::text(name, "the name of a note")?;
            let value = reply::bytes(value, "a note")?;
            match name.as_str() {
                "format" => format = Some(value),
                "number" => {
                    number = std::str::from_utf8(&value).ok().and_then(|number| number.parse::<u32>().ok());
                }
                "schema" => schema = Some(Schema::from_bytes(&value).map_err(|why| damaged(&why))?),
                _ => {
                    if let Some(field) = name.strip_prefix(MODEL) {
                        let fingerprint = unhex(&value).ok_or_else(|| damaged("a model's fingerprint"))?;
                        models.push((field.to_owned(), fingerprint));
                    }
                }
            }
        }
        if format.as_deref() != Some(FORMAT.as_bytes()) {
            return Err(damaged("another format: a newer Nearfield may have written them"));
        }
        let schema = schema.ok_or_else(|| damaged("no schema"))?;
        schema.validate().map_err(|refused| damaged(&refused.to_string()))?;
        let id = number.ok_or_else(|| damaged("no number"))?;
        models.sort_unstable();
        Ok(Some(CollectionMetadata { version: CollectionVersion { id, version: 1 }, schema, models }))
    }
}

/// Reads the number a collection gets.
pub(super) fn parse_id(counter: Value) -> Result<u32, Error> {
    let number = reply::integer(counter, "the number of a collection")?;
    u32::try_from(number).map_err(|_| error::reply("the number of a collection"))
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

    /// What a hash holds after a HSET.
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
    fn notes_read_back() {
        let stored = stored(&metadata().to_hset("kb"));
        assert_eq!(CollectionMetadata::parse("kb", stored).unwrap(), Some(metadata()));
        assert_eq!(CollectionMetadata::parse("kb", Value::Array(vec![])).unwrap(), None);
    }

    #[test]
    fn notes_that_cannot_be_read_are_refused_by_name() {
        let Value::Array(good) = stored(&metadata().to_hset("kb")) else { unreachable!() };
        for (position, value) in [(1, "2"), (3, "x"), (5, "x"), (7, "abc")] {
            let mut damaged = good.clone();
            damaged[position] = Value::BulkString(value.as_bytes().to_vec());
            let error = CollectionMetadata::parse("kb", Value::Array(damaged)).unwrap_err();
            assert!(error.message.contains("nearfield:meta:kb"), "{}", error.message);
        }
    }
}
