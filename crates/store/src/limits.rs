//! How large what comes in may be. Checked before anything is written.

use std::collections::HashSet;

use crate::Field;
use crate::error::{StoreError, shown};

/// Longest key, in bytes; the shortest has one.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Most fields of a document.
pub const FIELDS_MAX: usize = 1024;
/// Longest name of a field, in bytes.
pub const FIELD_NAME_BYTES_MAX: usize = 1 << 10;
/// Largest document, in bytes: its key and the names and values of its fields.
pub const DOCUMENT_BYTES_MAX: usize = 32 << 20;
/// Largest computed vector, in bytes.
pub const VECTOR_BYTES_MAX: usize = 256 << 10;
/// Largest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Longest name of a collection or an alias, in bytes; the shortest has one.
pub const NAME_BYTES_MAX: usize = 128;

pub(crate) fn check(what: &'static str, key: &[u8], found: usize, max: usize) -> Result<(), StoreError> {
    if found > max {
        return Err(StoreError::TooLarge { what, key: shown(key), found, max });
    }
    Ok(())
}

pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    if name.is_empty() {
        return Err(StoreError::Empty { what: "name of a collection" });
    }
    check("bytes of name", name.as_bytes(), name.len(), NAME_BYTES_MAX)
}

/// Whether [`crate::Writer::put`] would take these: sizes, an empty key, a field given twice.
pub fn check_document(key: &[u8], fields: &[Field]) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::Empty { what: "key" });
    }
    check("bytes of key", key, key.len(), KEY_BYTES_MAX)?;
    check("fields", key, fields.len(), FIELDS_MAX)?;
    let mut names = HashSet::with_capacity(fields.len());
    let mut bytes = key.len();
    for field in fields {
        check("bytes in the name of a field", key, field.name.len(), FIELD_NAME_BYTES_MAX)?;
        if !names.insert(&*field.name) {
            return Err(StoreError::DuplicateField { key: shown(key), field: shown(&field.name) });
        }
        bytes = bytes.saturating_add(field.name.len()).saturating_add(field.value.len());
    }
    check("bytes of document", key, bytes, DOCUMENT_BYTES_MAX)
}
