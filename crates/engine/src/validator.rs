//! Checks documents in other stores against a schema.

use std::sync::Arc;

use store::{CollectionVersion, Field};

use crate::{
    filter::Filter,
    projection::Projector,
    schema::Schema,
    transaction::project_document,
    write::{ComputedVector, TextToEmbed, WriteError},
};

/// Applies a schema's rules without an engine, to documents in another store.
#[derive(Debug)]
pub struct DocumentValidator {
    version: CollectionVersion,
    schema: Schema,
    projector: Projector,
}

impl DocumentValidator {
    /// A validator for a schema that has passed [`Schema::validate`].
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

    /// The texts of a document with these fields that must be embedded. A field whose vector is given needs none.
    pub fn texts_to_embed(&self, fields: &[Field]) -> Vec<TextToEmbed> {
        self.projector.texts(self.version, fields)
    }

    /// Checks a document as [`crate::Engine::validate`] does, for one collection: its field values, and those
    /// `vectors` that were computed for this collection.
    pub fn check(&self, key: &[u8], fields: &[Field], vectors: &[ComputedVector]) -> Result<(), WriteError> {
        if !self.schema.matches_key(key) {
            return Ok(());
        }
        match project_document(&self.projector, self.version, key, fields, vectors)? {
            Ok(_) => Ok(()),
            Err(violation) => Err(violation.into_write_error(key)),
        }
    }

    /// Whether a document with these fields matches `filter`, which must be valid for the schema. A document that
    /// violates the schema is not in the collection, so it does not match.
    pub fn matches(&self, filter: &Filter, fields: &[Field]) -> bool {
        self.projector.attributes(fields).is_ok_and(|attributes| filter.matches(&attributes, &self.schema))
    }
}

/// Checks the limits of every keyspace: fails on an empty key, a duplicate field, or a key, field or document that is
/// too large.
pub fn check_document(key: &[u8], fields: &[Field]) -> Result<(), WriteError> {
    store::check_document(key, fields).map_err(|error| WriteError::Document { source: Arc::new(error) })
}
