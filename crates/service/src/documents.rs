//! Documents on their way in.

use std::time::Duration;

use crate::{Document, Expected, Seq};

/// A field's value on its way in. How it looks in bytes follows from the schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Stored as it is: text, tags joined already, a vector's blob, anything.
    Bytes(Vec<u8>),
    /// A number, stored in its shortest decimal form.
    Number(f64),
    /// Tags, joined by the field's separator; a tag that contains it is refused.
    Tags(Vec<String>),
    /// A vector, encoded in the field's element type.
    Vector(Vec<f32>),
}

/// Names and values, in order, names distinct.
pub type Fields = Vec<(String, Value)>;

/// One document to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// Its id: the key is the collection's first prefix and this.
    pub id: String,
    /// All its fields.
    pub fields: Fields,
    /// Life from now on; the collection's default, if `None`.
    pub ttl: Option<Duration>,
    /// Guard.
    pub expected: Expected,
}

/// A change to one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// Its id.
    pub id: String,
    /// Fields to set.
    pub set: Fields,
    /// Fields to remove.
    pub remove: Vec<String>,
    /// New life from now on: `Some(None)` without an end of its own (the collection's default
    /// then holds, if it has one), `None` as it was.
    pub ttl: Option<Option<Duration>>,
    /// Guard.
    pub expected: Expected,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// New.
    Created,
    /// In place of another.
    Updated,
    /// It stood there already.
    Unchanged,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutResult {
    /// The id.
    pub id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The change's number: the document's ETag.
    pub seq: Seq,
    /// Whether its text was longer than the model reads, so that the vector stands for its
    /// beginning. CollectionHandle only of texts this call embedded.
    pub truncated: bool,
}

/// One page of documents, with the cursor of the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrolled {
    /// The documents.
    pub documents: Vec<Document>,
    /// Pass it on as it is to go on; `None` at the end.
    pub next: Option<String>,
}

/// One page of keys, with the cursor of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Vec<u8>>,
    /// Cursor of the next page; `None` at the end.
    pub next: Option<String>,
}
