//! The identity of a collection's schema.

/// A collection's number and the version of its schema. Derived data belongs to one such pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionVersion {
    /// Number of the collection, never reused.
    pub id: u32,
    /// Version of its schema, starting at 1.
    pub version: u32,
}

impl CollectionVersion {
    /// Encodes in big-endian, so that the bytes sort like the numbers.
    pub(crate) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.id.to_be_bytes());
        bytes[4..].copy_from_slice(&self.version.to_be_bytes());
        bytes
    }
}
