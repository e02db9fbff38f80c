//! The number and version of a collection.

/// A collection's number and the version of its schema: what derived data hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionVersion {
    /// Number of the collection, never used again.
    pub id: u32,
    /// Version of its schema, from 1.
    pub version: u32,
}

impl CollectionVersion {
    /// Big-endian, so that the order of the bytes is the order of the numbers.
    pub(crate) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.id.to_be_bytes());
        bytes[4..].copy_from_slice(&self.version.to_be_bytes());
        bytes
    }
}
