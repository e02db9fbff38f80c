//! What a collection holds.

mod encoding;

use std::time::Duration;

use index::{Metric, VectorType};

use crate::binary::printable;
pub(crate) use encoding::{decode, encode};

/// Prefixes a schema may have.
pub(crate) const PREFIXES_MAX: usize = 64;
/// Bytes of a prefix.
pub(crate) const PREFIX_BYTES_MAX: usize = 1024;
/// Fields a schema may have.
pub(crate) const FIELDS_MAX: usize = 1024;
/// Bytes of a field's name in a schema.
pub(crate) const FIELD_NAME_BYTES_MAX: usize = 256;
/// Longest default life of a document: a thousand years.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(1000 * 366 * 24 * 3600);

/// Links a node, `m`.
const M: std::ops::RangeInclusive<usize> = 2..=128;
/// Breadth of a graph's building and searching.
const EF: std::ops::RangeInclusive<usize> = 1..=4096;

/// How a vector field is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Every vector is compared.
    Flat,
    /// Hierarchical navigable small world graph.
    Hnsw {
        /// Links a node, 2 to 128.
        m: usize,
        /// Breadth while building, up to 4096.
        ef_construction: usize,
        /// Breadth while searching, up to 4096.
        ef_search: usize,
    },
}

/// How the index holds a vector to walk past it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantization {
    /// As given.
    #[default]
    None,
    /// 8-bit codes, rescored by another 8 bits.
    Int8,
    /// 4-bit codes, rescored by another 8 bits.
    Int4,
}

/// Which text fields become a vector, and by which model.
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
    /// Graph or scan.
    pub algorithm: Algorithm,
    /// Element type given and given back.
    pub vector_type: VectorType,
    /// How the index holds it.
    pub quantization: Quantization,
    /// Values a vector.
    pub dim: usize,
    /// The distance.
    pub metric: Metric,
    /// Computed from text, or brought by the document.
    pub embed: Option<Embedding>,
}

/// What a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Text, to embed and to show.
    Text,
    /// Exact words, several in a value divided by `separator`.
    Tag {
        /// One byte.
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
    /// The kind as a schema spells it.
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
    /// A document belongs to the collection if its key starts with one of these; the empty
    /// prefix takes every key.
    pub prefixes: Vec<Vec<u8>>,
    /// Fields that are indexed; others are only stored.
    pub fields: Vec<FieldSchema>,
    /// Life of a document that is written without an end of its own. A document in several
    /// collections gets the shortest.
    pub ttl: Option<Duration>,
}

/// Why a schema is refused. Messages name field, value and what is allowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
#[non_exhaustive]
pub enum SchemaError {
    /// No prefix at all.
    #[error("a schema needs at least one key prefix (an empty prefix takes every key)")]
    NoPrefix,
    /// Too many prefixes.
    #[error("a schema has at most {max} key prefixes, found {found}")]
    PrefixCount { max: usize, found: usize },
    /// A prefix too long.
    #[error("prefix \"{prefix}\" has {found} bytes, at most {max} are allowed")]
    PrefixLength { prefix: String, max: usize, found: usize },
    /// The same prefix twice.
    #[error("prefix \"{prefix}\" is given twice")]
    PrefixRepeated { prefix: String },
    /// Nothing to index.
    #[error("a schema needs at least one field")]
    NoFields,
    /// Too many fields.
    #[error("a schema has at most {max} fields, found {found}")]
    FieldCount { max: usize, found: usize },
    /// A name that is empty or too long.
    #[error("field name \"{field}\" has {found} bytes, 1 to {max} are allowed")]
    FieldName { field: String, max: usize, found: usize },
    /// The same field twice.
    #[error("field \"{field}\" is given twice")]
    FieldRepeated { field: String },
    /// A separator that could be part of a word.
    #[error(
        "TAG field \"{field}\": separator {found:?} is not allowed, give one ASCII punctuation \
         character or a space"
    )]
    Separator { field: String, found: char },
    /// A number out of its range.
    #[error("VECTOR field \"{field}\": {option} must be {min} to {max}, found {found}")]
    Range { field: String, option: &'static str, min: usize, max: usize, found: usize },
    /// An embedding without text.
    #[error("VECTOR field \"{field}\": embed names no TEXT field")]
    EmbedNoFields { field: String },
    /// An embedding without model.
    #[error("VECTOR field \"{field}\": embed names no model")]
    EmbedModel { field: String },
    /// An embedding of the same text twice.
    #[error("VECTOR field \"{field}\": embed names \"{text}\" twice")]
    EmbedRepeated { field: String, text: String },
    /// An embedding of a field the schema lacks or that is no text.
    #[error(
        "VECTOR field \"{field}\": embed names \"{text}\", which is {found}; TEXT fields of this \
         schema: {known}"
    )]
    EmbedField { field: String, text: String, found: &'static str, known: String },
    /// A life of nothing or of ages.
    #[error("ttl must be 1 ms to {max_ms} ms, found {found_ms} ms")]
    Ttl { max_ms: u128, found_ms: u128 },
}

impl Schema {
    /// Checks everything a schema can get wrong on its own.
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
            within("m", M, m)?;
            within("ef_construction", EF, ef_construction)?;
            within("ef_search", EF, ef_search)?;
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

    /// The schema as bytes, the same for equal schemas.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads back what [`Schema::to_bytes`] made; `Err` says what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Schema, String> {
        decode(bytes).map_err(|malformed| malformed.to_string())
    }

    /// Reads back what a store holds. Its checksum was right, yet another program may have written it: what no
    /// collection could be made with is refused, as it was when it came.
    pub(crate) fn from_stored_bytes(bytes: &[u8]) -> Result<Schema, String> {
        let schema = Schema::from_bytes(bytes)?;
        schema.validate().map_err(|refused| refused.to_string())?;
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

    /// Names of the fields of some kind, for messages.
    pub(crate) fn field_names(&self, kind: impl Fn(&FieldKind) -> bool) -> String {
        let names: Vec<&str> =
            self.fields.iter().filter(|field| kind(&field.kind)).map(|field| field.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The first thing in which `other` is not the same, in words; `None` if they are equal.
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
                return Some(format!("it has a field \"{}\" besides", field.name));
            }
        }
        (self.fields != other.fields).then(|| "the fields are in another order".to_owned())
    }
}

#[cfg(test)]
mod tests;
