//! Documents: named fields under a key.

use crate::Seq;

/// Number of a document, assigned when its key is first written and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId(pub u64);

/// One named value of a document. Names and values are bytes, as in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name.
    pub name: Box<[u8]>,
    /// Value.
    pub value: Box<[u8]>,
}

/// The document stored under a key. The stored record also contains a kind; the only kind is "hash".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The key.
    pub key: Box<[u8]>,
    /// Sequence number of the last change to the fields or the expiry.
    pub seq: Seq,
    /// When the document expires, in Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// Fields in the order they were written, with distinct names.
    pub fields: Vec<Field>,
}

impl Document {
    /// The value of the field called `name`.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.iter().find(|field| &*field.name == name).map(|field| &*field.value)
    }
}
