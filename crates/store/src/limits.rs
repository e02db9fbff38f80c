//! Size limits for arguments. They are checked before anything is written.

use std::collections::HashSet;

use crate::Field;
use crate::error::{StoreError, printable};

/// Maximum length of a key, in bytes. Keys must not be empty.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Maximum number of fields per document.
pub const FIELDS_MAX: usize = 1024;
/// Maximum length of a field name, in bytes.
pub const FIELD_NAME_BYTES_MAX: usize = 1 << 10;
/// Maximum size of a document, in bytes: the sum of its key, field names and field values.
pub const DOCUMENT_BYTES_MAX: usize = 32 << 20;
/// Maximum size of a computed vector, in bytes.
pub const VECTOR_BYTES_MAX: usize = 256 << 10;
/// Maximum size of a schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Maximum length of the name of a collection or an alias, in bytes. Names must not be empty.
pub const NAME_BYTES_MAX: usize = 128;

pub(crate) fn check(what: &'static str, key: &[u8], found: usize, max: usize) -> Result<(), StoreError> {
    if found > max {
        return Err(StoreError::TooLarge { what, key: printable(key), found, max });
    }
    Ok(())
}

pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    if name.is_empty() {
        return Err(StoreError::Empty { what: "collection name" });
    }
    check("bytes in the name", name.as_bytes(), name.len(), NAME_BYTES_MAX)
}

/// Checks whether [`crate::Writer::put`] would accept these arguments.
pub fn check_document(key: &[u8], fields: &[Field]) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::Empty { what: "key" });
    }
    check("bytes in the key", key, key.len(), KEY_BYTES_MAX)?;
    check("fields", key, fields.len(), FIELDS_MAX)?;
    let mut names = HashSet::with_capacity(fields.len());
    let mut bytes = key.len();
    for field in fields {
        check("bytes in a field name", key, field.name.len(), FIELD_NAME_BYTES_MAX)?;
        if !names.insert(&*field.name) {
            return Err(StoreError::DuplicateField { key: printable(key), field: printable(&field.name) });
        }
        bytes = bytes.saturating_add(field.name.len()).saturating_add(field.value.len());
    }
    check("bytes in the document", key, bytes, DOCUMENT_BYTES_MAX)
}
