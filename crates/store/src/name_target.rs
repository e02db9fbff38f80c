//! Names of collections and aliases.

use crate::CollectionVersion;
use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::Cursor;

/// The target of a name: a collection or, for an alias, another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameTarget {
    /// A collection and its current version.
    Collection(CollectionVersion),
    /// An alias for the collection with this name.
    Alias(String),
}

impl NameTarget {
    /// `0 | id u32 | version u32 | CRC-32` or `1 | name | CRC-32`, little-endian. The checksum covers the
    /// name as key.
    pub(crate) fn encode(&self, name: &str) -> Vec<u8> {
        let mut entry = Vec::new();
        match self {
            NameTarget::Collection(collection) => {
                entry.push(0);
                entry.extend_from_slice(&collection.id.to_le_bytes());
                entry.extend_from_slice(&collection.version.to_le_bytes());
            }
            NameTarget::Alias(target) => {
                entry.push(1);
                entry.extend_from_slice(target.as_bytes());
            }
        }
        append_checksum(name.as_bytes(), &mut entry);
        entry
    }

    pub(crate) fn decode(name: &[u8], entry: &[u8]) -> Result<(String, NameTarget), &'static str> {
        let mut cursor = Cursor(strip_checksum(name, entry)?);
        let target = match cursor.u8()? {
            0 => {
                let collection = CollectionVersion { id: cursor.u32()?, version: cursor.u32()? };
                cursor.end()?;
                NameTarget::Collection(collection)
            }
            1 => NameTarget::Alias(text(cursor.0)?),
            _ => return Err("unknown kind of name"),
        };
        Ok((text(name)?, target))
    }
}

fn text(bytes: &[u8]) -> Result<String, &'static str> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a name is not UTF-8")
}
