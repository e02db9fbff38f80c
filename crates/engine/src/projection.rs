//! What a collection indexes of a document: its attributes and vectors, and which texts must be embedded.

use index::VectorError;
use store::{CollectionVersion, Field};

use crate::{
    attributes::{DocumentAttributes, split_tags},
    binary::printable,
    schema::{Embedding, FieldKind, Schema, VectorSchema},
    write::TextToEmbed,
};

/// Maximum number of tags in one value.
const TAGS_MAX: usize = 1024;
/// Maximum length of a tag, in bytes.
const TAG_BYTES_MAX: usize = 4096;

/// The fields of a schema, grouped by kind.
#[derive(Debug)]
pub(crate) struct Projector {
    tags: Vec<(String, u8, bool)>,
    numbers: Vec<String>,
    /// VECTOR fields in the schema's order. A position in this list is called a *slot*.
    pub(crate) vectors: Vec<VectorField>,
}

/// A VECTOR field.
#[derive(Debug)]
pub(crate) struct VectorField {
    pub(crate) name: String,
    /// Position in the schema.
    pub(crate) position: u16,
    pub(crate) schema: VectorSchema,
}

/// What a collection indexes of one document.
#[derive(Debug)]
pub(crate) struct Projection {
    pub(crate) attributes: DocumentAttributes,
    /// By slot.
    pub(crate) vectors: Vec<FieldVectors>,
}

/// The vectors of a document in a VECTOR field.
#[derive(Debug)]
pub(crate) enum FieldVectors {
    /// No vector, and no text to compute one from.
    Absent,
    /// Text whose vector has not been computed yet.
    Pending,
    /// At least one vector, given by the document or computed. No two have the same passage number.
    Present(Vec<PassageVector>),
}

/// One of a document's vectors in a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PassageVector {
    pub(crate) passage: u16,
    pub(crate) values: Vec<f32>,
}

impl FieldVectors {
    /// The only vector in a field.
    pub(crate) fn single(values: Vec<f32>) -> FieldVectors {
        FieldVectors::Present(vec![PassageVector { passage: 0, values }])
    }
}

/// Why a document violates a schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SchemaViolation {
    pub(crate) field: String,
    pub(crate) reason: ViolationReason,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum ViolationReason {
    #[error("{0}")]
    Value(String),
    #[error(transparent)]
    Vector(#[from] VectorError),
}

impl Projector {
    pub(crate) fn new(schema: &Schema) -> Projector {
        let mut projector = Projector { tags: Vec::new(), numbers: Vec::new(), vectors: Vec::new() };
        for (position, field) in schema.fields.iter().enumerate() {
            let name = field.name.clone();
            match &field.kind {
                FieldKind::Text => {}
                FieldKind::Tag { separator, case_sensitive } => {
                    projector.tags.push((name, *separator, *case_sensitive));
                }
                FieldKind::Numeric => projector.numbers.push(name),
                FieldKind::Vector(schema) => projector.vectors.push(VectorField {
                    name,
                    position: u16::try_from(position).expect("a schema has at most FIELDS_MAX fields"),
                    schema: schema.clone(),
                }),
            }
        }
        projector
    }

    /// The slot of the VECTOR field at `position` in the schema.
    pub(crate) fn slot(&self, position: u16) -> Option<usize> {
        self.vectors.iter().position(|field| field.position == position)
    }

    /// What is indexed of a document with these fields. `computed` returns the computed vectors of a slot, and is
    /// called only for slots that need them.
    pub(crate) fn project(
        &self,
        fields: &[Field],
        mut computed: impl FnMut(usize) -> Result<Vec<PassageVector>, VectorError>,
    ) -> Result<Projection, SchemaViolation> {
        let attributes = self.attributes(fields)?;
        let mut vectors = Vec::with_capacity(self.vectors.len());
        for (slot, field) in self.vectors.iter().enumerate() {
            let violation =
                |error| SchemaViolation { field: field.name.clone(), reason: ViolationReason::Vector(error) };
            let VectorSchema { dim, vector_type, metric, .. } = field.schema;
            vectors.push(match (value(fields, &field.name), &field.schema.embed) {
                (Some(blob), _) => {
                    FieldVectors::single(index::decode(blob, dim, vector_type, metric).map_err(violation)?)
                }
                (None, Some(embed)) if text(fields, embed)?.is_some() => {
                    let vectors = computed(slot).map_err(violation)?;
                    if vectors.is_empty() { FieldVectors::Pending } else { FieldVectors::Present(vectors) }
                }
                (None, _) => FieldVectors::Absent,
            });
        }
        Ok(Projection { attributes, vectors })
    }

    /// Tags and numbers of a document with these fields.
    pub(crate) fn attributes(&self, fields: &[Field]) -> Result<DocumentAttributes, SchemaViolation> {
        let mut attributes = DocumentAttributes::default();
        for (name, separator, case_sensitive) in &self.tags {
            let tags = value(fields, name)
                .map_or_else(Vec::new, |value| split_tags(value, *separator, *case_sensitive));
            if tags.len() > TAGS_MAX {
                return Err(violation(name, format!("{} tags, at most {TAGS_MAX} are allowed", tags.len())));
            }
            if let Some(tag) = tags.iter().find(|tag| tag.len() > TAG_BYTES_MAX) {
                let reason = format!("a tag of {} bytes, at most {TAG_BYTES_MAX} are allowed", tag.len());
                return Err(violation(name, reason));
            }
            attributes.tags.push(tags);
        }
        for name in &self.numbers {
            attributes.numbers.push(match value(fields, name) {
                None => None,
                Some(value) => Some(number(value).ok_or_else(|| {
                    violation(name, format!("expected a finite number, found \"{}\"", printable(value)))
                })?),
            });
        }
        Ok(attributes)
    }

    /// Texts of a document with these fields that must be embedded.
    pub(crate) fn texts(&self, collection: CollectionVersion, fields: &[Field]) -> Vec<TextToEmbed> {
        let mut texts = Vec::new();
        for field in &self.vectors {
            if let Some(embed) = &field.schema.embed
                && value(fields, &field.name).is_none()
                && let Ok(Some(text)) = text(fields, embed)
            {
                texts.push(TextToEmbed {
                    collection,
                    field: field.position,
                    passage: 0,
                    model: embed.model.clone(),
                    text,
                });
            }
        }
        texts
    }
}

fn violation(field: &str, reason: String) -> SchemaViolation {
    SchemaViolation { field: field.to_owned(), reason: ViolationReason::Value(reason) }
}

fn value<'a>(fields: &'a [Field], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|field| *field.name == *name.as_bytes()).map(|field| &*field.value)
}

fn number(value: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// The values of the text fields, joined by spaces; `None` if they are all missing or blank.
fn text(fields: &[Field], embed: &Embedding) -> Result<Option<String>, SchemaViolation> {
    let mut text = String::new();
    for name in &embed.fields {
        let Some(value) = value(fields, name).filter(|value| !value.is_empty()) else { continue };
        let value = std::str::from_utf8(value)
            .map_err(|error| violation(name, format!("text to embed is not UTF-8: {error}")))?;
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(value);
    }
    Ok((!text.trim().is_empty()).then_some(text))
}
