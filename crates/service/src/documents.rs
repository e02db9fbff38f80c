//! Requests and results of document operations.

use std::time::Duration;

use crate::{Document, Expected, Seq};

/// The value of a field to write. The schema determines its encoding.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Stored unchanged: text, joined tags, an encoded vector or other data.
    Bytes(Vec<u8>),
    /// A number, stored in its shortest decimal form.
    Number(f64),
    /// Tags, joined by the field's separator; a tag that contains the separator is rejected.
    Tags(Vec<String>),
    /// A vector, encoded in the field's element type.
    Vector(Vec<f32>),
}

/// Field names and values, in order. Names must be distinct.
pub type Fields = Vec<(String, Value)>;

/// One document to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// The id of the document. The key is the collection's first prefix followed by the id.
    pub id: String,
    /// All fields of the document.
    pub fields: Fields,
    /// The time to live from now; `None` applies the collection's default.
    pub ttl: Option<Duration>,
    /// The precondition.
    pub expected: Expected,
}

/// A change to one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// The id of the document.
    pub id: String,
    /// Fields to set.
    pub set: Fields,
    /// Fields to remove.
    pub remove: Vec<String>,
    /// The new time to live from now. `Some(None)` removes the document's own expiry, so that the collection's
    /// default applies, if there is one; `None` leaves the expiry unchanged.
    pub ttl: Option<Option<Duration>>,
    /// The precondition.
    pub expected: Expected,
}

/// The effect of a write on a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The document was created.
    Created,
    /// The document replaced an earlier version.
    Updated,
    /// The stored document was equal already.
    Unchanged,
}

/// The result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutResult {
    /// The id of the document.
    pub id: String,
    /// The effect of the write.
    pub outcome: Outcome,
    /// The sequence number of the write, used as the document's ETag.
    pub seq: Seq,
    /// Whether the text exceeded the model's input length, so that the vector represents only its beginning.
    /// Reported only for texts that this call embedded.
    pub truncated: bool,
}

/// One page of documents, with the cursor of the next page.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrolled {
    /// The documents.
    pub documents: Vec<Document>,
    /// The cursor of the next page, to be passed unchanged; `None` on the last page.
    pub next: Option<String>,
}

/// One page of keys, with the cursor of the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Vec<u8>>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}
