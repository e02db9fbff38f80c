//! Schemas of collections.

mod encoding;

use std::time::Duration;

use index::{Metric, VectorType};

use crate::binary::printable;
pub(crate) use encoding::{decode, encode};

/// Maximum number of prefixes per schema.
pub(crate) const PREFIXES_MAX: usize = 64;
/// Maximum length of a prefix, in bytes.
pub(crate) const PREFIX_BYTES_MAX: usize = 1024;
/// Maximum number of fields per schema.
pub(crate) const FIELDS_MAX: usize = 1024;
/// Maximum length of a field name, in bytes.
pub(crate) const FIELD_NAME_BYTES_MAX: usize = 256;
/// Maximum default lifetime of a document: a thousand years.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(1000 * 366 * 24 * 3600);

/// Allowed values of `m`, the links per node.
pub const M_RANGE: std::ops::RangeInclusive<usize> = 2..=128;
/// Allowed values of `ef_construction` and `ef_search`.
pub const EF_RANGE: std::ops::RangeInclusive<usize> = 1..=4096;

/// How a VECTOR field is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Exhaustive search.
    Flat,
    /// Hierarchical navigable small world graph.
    Hnsw {
        /// Links per node, within [`M_RANGE`].
        m: usize,
        /// Candidates while building, within [`EF_RANGE`].
        ef_construction: usize,
        /// Candidates while searching, within [`EF_RANGE`].
        ef_search: usize,
    },
}

/// How the index represents a vector for graph search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantization {
    /// In the vector's own type.
    #[default]
    None,
    /// 8-bit codes, rescored with 8 additional bits.
    Int8,
    /// 4-bit codes, rescored with 8 additional bits.
    Int4,
}

/// Which text fields are embedded, and by which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// TEXT fields, joined by a space in this order.
    pub fields: Vec<String>,
    /// Name of the model.
    pub model: String,
}

/// Options of a VECTOR field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorSchema {
    /// Graph or exhaustive search.
    pub algorithm: Algorithm,
    /// Element type of vectors in documents.
    pub vector_type: VectorType,
    /// How the index represents vectors.
    pub quantization: Quantization,
    /// Values per vector.
    pub dim: usize,
    /// Distance metric.
    pub metric: Metric,
    /// How vectors are computed from text; `None` if documents contain them.
    pub embed: Option<Embedding>,
}

/// Kind of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Text, to embed and to return.
    Text,
    /// Tags, divided by `separator`.
    Tag {
        /// One ASCII character.
        separator: u8,
        /// Whether `A` and `a` differ.
        case_sensitive: bool,
    },
    /// A number.
    Numeric,
    /// A vector.
    Vector(VectorSchema),
}

impl FieldKind {
    /// The kind as schemas spell it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            FieldKind::Text => "TEXT",
            FieldKind::Tag { .. } => "TAG",
            FieldKind::Numeric => "NUMERIC",
            FieldKind::Vector(_) => "VECTOR",
        }
    }
}

/// A named field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSchema {
    /// Name, as in documents.
    pub name: String,
    /// Kind and options.
    pub kind: FieldKind,
}

/// A schema over key prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// A document belongs to the collection if its key starts with one of these. The empty prefix matches every key.
    pub prefixes: Vec<Vec<u8>>,
    /// Indexed fields. Others are only stored.
    pub fields: Vec<FieldSchema>,
    /// Lifetime of documents that are written without an expiry. A document in several collections gets the shortest.
    pub ttl: Option<Duration>,
}

/// Why a schema is invalid. Messages contain the field, the value and what is allowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages describe the fields")]
#[non_exhaustive]
pub enum SchemaError {
    /// No prefix.
    #[error("a schema needs at least one key prefix (an empty prefix matches every key)")]
    NoPrefix,
    /// Too many prefixes.
    #[error("a schema has at most {max} key prefixes, found {found}")]
    PrefixCount { max: usize, found: usize },
    /// A prefix is too long.
    #[error("prefix \"{prefix}\" has {found} bytes, at most {max} are allowed")]
    PrefixLength { prefix: String, max: usize, found: usize },
    /// The same prefix twice.
    #[error("prefix \"{prefix}\" is given twice")]
    PrefixRepeated { prefix: String },
    /// No field.
    #[error("a schema needs at least one field")]
    NoFields,
    /// Too many fields.
    #[error("a schema has at most {max} fields, found {found}")]
    FieldCount { max: usize, found: usize },
    /// A field name is empty or too long.
    #[error("field name \"{field}\" has {found} bytes, 1 to {max} are allowed")]
    FieldName { field: String, max: usize, found: usize },
    /// The same field twice.
    #[error("field \"{field}\" is given twice")]
    FieldRepeated { field: String },
    /// The separator is not punctuation.
    #[error(
        "TAG field \"{field}\": separator {found:?} is not allowed, give one ASCII punctuation \
         character or a space"
    )]
    Separator { field: String, found: char },
    /// A number is out of range.
    #[error("VECTOR field \"{field}\": {option} must be {min} to {max}, found {found}")]
    Range { field: String, option: &'static str, min: usize, max: usize, found: usize },
    /// `embed` without fields.
    #[error("VECTOR field \"{field}\": embed names no TEXT field")]
    EmbedNoFields { field: String },
    /// `embed` without a model.
    #[error("VECTOR field \"{field}\": embed names no model")]
    EmbedModel { field: String },
    /// `embed` names a field twice.
    #[error("VECTOR field \"{field}\": embed names \"{text}\" twice")]
    EmbedRepeated { field: String, text: String },
    /// `embed` names a field that does not exist or is not TEXT.
    #[error(
        "VECTOR field \"{field}\": embed names \"{text}\", which is {found}; TEXT fields of this \
         schema: {known}"
    )]
    EmbedField { field: String, text: String, found: &'static str, known: String },
    /// The lifetime is too short or too long.
    #[error("ttl must be 1 ms to {max_ms} ms, found {found_ms} ms")]
    Ttl { max_ms: u128, found_ms: u128 },
}

impl Schema {
    /// Checks the schema.
    pub fn validate(&self) -> Result<(), SchemaError> {
        self.validate_prefixes()?;
        if self.fields.is_empty() {
            return Err(SchemaError::NoFields);
        }
        if self.fields.len() > FIELDS_MAX {
            return Err(SchemaError::FieldCount { max: FIELDS_MAX, found: self.fields.len() });
        }
        for (position, field) in self.fields.iter().enumerate() {
            if field.name.is_empty() || field.name.len() > FIELD_NAME_BYTES_MAX {
                return Err(SchemaError::FieldName {
                    field: printable(field.name.as_bytes()),
                    max: FIELD_NAME_BYTES_MAX,
                    found: field.name.len(),
                });
            }
            if self.fields[..position].iter().any(|earlier| earlier.name == field.name) {
                return Err(SchemaError::FieldRepeated { field: field.name.clone() });
            }
            match &field.kind {
                FieldKind::Text | FieldKind::Numeric => {}
                FieldKind::Tag { separator, .. } => {
                    if !(separator.is_ascii_punctuation() || *separator == b' ') {
                        return Err(SchemaError::Separator {
                            field: field.name.clone(),
                            found: char::from(*separator),
                        });
                    }
                }
                FieldKind::Vector(vector) => self.validate_vector(&field.name, vector)?,
            }
        }
        if let Some(ttl) = self.ttl
            && (ttl.as_millis() == 0 || ttl > TTL_MAX)
        {
            return Err(SchemaError::Ttl { max_ms: TTL_MAX.as_millis(), found_ms: ttl.as_millis() });
        }
        Ok(())
    }

    fn validate_prefixes(&self) -> Result<(), SchemaError> {
        if self.prefixes.is_empty() {
            return Err(SchemaError::NoPrefix);
        }
        if self.prefixes.len() > PREFIXES_MAX {
            return Err(SchemaError::PrefixCount { max: PREFIXES_MAX, found: self.prefixes.len() });
        }
        for (position, prefix) in self.prefixes.iter().enumerate() {
            if prefix.len() > PREFIX_BYTES_MAX {
                return Err(SchemaError::PrefixLength {
                    prefix: printable(prefix),
                    max: PREFIX_BYTES_MAX,
                    found: prefix.len(),
                });
            }
            if self.prefixes[..position].contains(prefix) {
                return Err(SchemaError::PrefixRepeated { prefix: printable(prefix) });
            }
        }
        Ok(())
    }

    fn validate_vector(&self, field: &str, vector: &VectorSchema) -> Result<(), SchemaError> {
        let within = |option, range: std::ops::RangeInclusive<usize>, found| {
            if range.contains(&found) {
                return Ok(());
            }
            Err(SchemaError::Range {
                field: field.to_owned(),
                option,
                min: *range.start(),
                max: *range.end(),
                found,
            })
        };
        within("dim", 1..=index::DIM_MAX, vector.dim)?;
        if let Algorithm::Hnsw { m, ef_construction, ef_search } = vector.algorithm {
            within("m", M_RANGE, m)?;
            within("ef_construction", EF_RANGE, ef_construction)?;
            within("ef_search", EF_RANGE, ef_search)?;
        }
        match &vector.embed {
            None => Ok(()),
            Some(embed) => self.validate_embedding(field, embed),
        }
    }

    fn validate_embedding(&self, field: &str, embed: &Embedding) -> Result<(), SchemaError> {
        if embed.fields.is_empty() {
            return Err(SchemaError::EmbedNoFields { field: field.to_owned() });
        }
        if embed.model.is_empty() {
            return Err(SchemaError::EmbedModel { field: field.to_owned() });
        }
        for (position, text) in embed.fields.iter().enumerate() {
            if embed.fields[..position].contains(text) {
                return Err(SchemaError::EmbedRepeated { field: field.to_owned(), text: text.clone() });
            }
            let found = match self.field(text) {
                Some(FieldKind::Text) => continue,
                Some(other) => other.name(),
                None => "no field of this schema",
            };
            return Err(SchemaError::EmbedField {
                field: field.to_owned(),
                text: printable(text.as_bytes()),
                found,
                known: self.field_names(|kind| matches!(kind, FieldKind::Text)),
            });
        }
        Ok(())
    }

    /// Encodes the schema. Equal schemas have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes a schema from [`Schema::to_bytes`]. `Err` describes what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Schema, String> {
        decode(bytes).map_err(|error| error.to_string())
    }

    /// Decodes and validates a schema from a store. Its checksum was correct, but another program may have written
    /// it.
    pub(crate) fn from_stored_bytes(bytes: &[u8]) -> Result<Schema, String> {
        let schema = Schema::from_bytes(bytes)?;
        schema.validate().map_err(|error| error.to_string())?;
        Ok(schema)
    }

    /// The kind of the field called `name`.
    pub fn field(&self, name: &str) -> Option<&FieldKind> {
        self.fields.iter().find(|field| field.name == name).map(|field| &field.kind)
    }

    /// Whether a document under `key` belongs to the collection.
    pub fn matches_key(&self, key: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Names of the fields whose kind is accepted, for messages.
    pub(crate) fn field_names(&self, accepts: impl Fn(&FieldKind) -> bool) -> String {
        let fields = self.fields.iter().filter(|field| accepts(&field.kind));
        let names: Vec<&str> = fields.map(|field| field.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Describes the first difference to `other`; `None` if they are equal.
    pub fn difference(&self, other: &Schema) -> Option<String> {
        if self.prefixes != other.prefixes {
            return Some("the prefixes differ".to_owned());
        }
        if self.ttl != other.ttl {
            return Some(format!("ttl is {:?}, not {:?}", self.ttl, other.ttl));
        }
        for field in &other.fields {
            match self.field(&field.name) {
                None => return Some(format!("it has no field \"{}\"", field.name)),
                Some(kind) if *kind != field.kind => {
                    return Some(format!("field \"{}\" differs", field.name));
                }
                Some(_) => {}
            }
        }
        for field in &self.fields {
            if other.field(&field.name).is_none() {
                return Some(format!("it has an additional field \"{}\"", field.name));
            }
        }
        (self.fields != other.fields).then(|| "the fields are in another order".to_owned())
    }
}

#[cfg(test)]
mod tests;
