//! Computed vectors and their keys.

use crate::{CollectionVersion, DocId};

/// Identifies a computed vector: collection version, field, document, passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VectorKey {
    /// Collection and schema version for which it was computed.
    pub collection: CollectionVersion,
    /// Position of the vector field in that schema.
    pub field: u16,
    /// The document.
    pub doc: DocId,
    /// Passage number. Only 0 is produced for now.
    pub passage: u16,
}

/// A computed vector and the model that produced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVector {
    /// The model's fingerprint.
    pub model: [u8; 16],
    /// The elements, little-endian.
    pub bytes: Box<[u8]>,
}

pub(crate) const VECTOR_KEY_BYTES: usize = 20;

impl VectorKey {
    /// Encodes the key in big-endian, so that keys sort like their bytes.
    pub(crate) fn encode(self) -> [u8; VECTOR_KEY_BYTES] {
        let mut key = [0; VECTOR_KEY_BYTES];
        key[0..4].copy_from_slice(&self.collection.id.to_be_bytes());
        key[4..8].copy_from_slice(&self.collection.version.to_be_bytes());
        key[8..10].copy_from_slice(&self.field.to_be_bytes());
        key[10..18].copy_from_slice(&self.doc.0.to_be_bytes());
        key[18..20].copy_from_slice(&self.passage.to_be_bytes());
        key
    }

    pub(crate) fn decode(key: &[u8; VECTOR_KEY_BYTES]) -> VectorKey {
        let [i0, i1, i2, i3, v0, v1, v2, v3, f0, f1, doc @ .., o0, o1] = *key;
        VectorKey {
            collection: CollectionVersion {
                id: u32::from_be_bytes([i0, i1, i2, i3]),
                version: u32::from_be_bytes([v0, v1, v2, v3]),
            },
            field: u16::from_be_bytes([f0, f1]),
            doc: DocId(u64::from_be_bytes(doc)),
            passage: u16::from_be_bytes([o0, o1]),
        }
    }
}

/// The lowest and the highest possible key of a collection's field.
pub(crate) fn field_range(
    collection: CollectionVersion,
    field: u16,
) -> ([u8; VECTOR_KEY_BYTES], [u8; VECTOR_KEY_BYTES]) {
    let first = VectorKey { collection, field, doc: DocId(0), passage: 0 };
    let last = VectorKey { collection, field, doc: DocId(u64::MAX), passage: u16::MAX };
    (first.encode(), last.encode())
}

/// The lowest key after the field of `key`, or `None` after the highest possible field.
pub(crate) fn after_field(key: VectorKey) -> Option<[u8; VECTOR_KEY_BYTES]> {
    let (_, last) = field_range(key.collection, key.field);
    let position = last.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut after = [0; VECTOR_KEY_BYTES];
    after[..position].copy_from_slice(&last[..position]);
    after[position] = last[position] + 1;
    Some(after)
}
