//! What a schema makes of documents that are kept elsewhere than in this engine.

use std::sync::Arc;

use store::{CollectionVersion, Field};

use crate::{
    filter::Filter,
    projection::Projector,
    schema::Schema,
    transaction::project_document,
    write::{ComputedVector, TextToEmbed, WriteError},
};

/// A schema put to use without an engine: the same rules for who keeps documents in another store.
#[derive(Debug)]
pub struct DocumentValidator {
    version: CollectionVersion,
    schema: Schema,
    projector: Projector,
}

impl DocumentValidator {
    /// The rules of a schema that has been validated.
    pub fn new(version: CollectionVersion, schema: Schema) -> DocumentValidator {
        let projector = Projector::new(&schema);
        DocumentValidator { version, schema, projector }
    }

    /// Number and version of the collection.
    pub fn version(&self) -> CollectionVersion {
        self.version
    }

    /// The schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Which texts of a document with these fields must be embedded. A field that brings its own
    /// vector needs none.
    pub fn texts_to_embed(&self, fields: &[Field]) -> Vec<TextToEmbed> {
        self.projector.texts(self.version, fields)
    }

    /// Checks a document as [`crate::Engine::validate`] would for one collection: the values of its
    /// fields, and those of `vectors` that were computed for this collection.
    pub fn check(&self, key: &[u8], fields: &[Field], vectors: &[ComputedVector]) -> Result<(), WriteError> {
        if !self.schema.matches_key(key) {
            return Ok(());
        }
        match project_document(&self.projector, self.version, key, fields, vectors)? {
            Ok(_) => Ok(()),
            Err(violation) => Err(violation.into_write_error(key)),
        }
    }

    /// Whether `filter`, which fits the schema, lets a document with these fields through. One that
    /// does not fit the schema is not in the collection.
    pub fn matches(&self, filter: &Filter, fields: &[Field]) -> bool {
        self.projector.attributes(fields).is_ok_and(|attributes| filter.matches(&attributes, &self.schema))
    }
}

/// Checks what every keyspace refuses of a document: an empty key, a field twice, something too large.
pub fn check_document(key: &[u8], fields: &[Field]) -> Result<(), WriteError> {
    store::check_document(key, fields).map_err(|error| WriteError::Document { source: Arc::new(error) })
}
