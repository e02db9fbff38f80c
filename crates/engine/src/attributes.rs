//! Attributes that filters select by: tags and numbers of a collection's documents, by ordinal.

mod numbers;
mod tags;

use roaring::RoaringBitmap;

use crate::schema::{FieldKind, Schema};
use numbers::NumericIndex;
pub(crate) use tags::split as split_tags;
use tags::{TagIndex, fold};

/// Tags and numbers of one document, in the order of the schema's TAG and NUMERIC fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DocumentAttributes {
    /// Tags per TAG field: case-folded, sorted, distinct.
    pub(crate) tags: Vec<Vec<Box<[u8]>>>,
    /// Number per NUMERIC field, always finite.
    pub(crate) numbers: Vec<Option<f64>>,
}

impl DocumentAttributes {
    /// Whether the TAG field `field` has one of `values`.
    pub(crate) fn has_tag(&self, schema: &Schema, field: &str, values: &[Vec<u8>]) -> bool {
        let tags = schema.fields.iter().filter_map(|field| match field.kind {
            FieldKind::Tag { case_sensitive, .. } => Some((&field.name, case_sensitive)),
            _ => None,
        });
        tags.zip(&self.tags).filter(|((name, _), _)| *name == field).any(|((_, case_sensitive), tags)| {
            values.iter().any(|value| {
                let value = fold(value, case_sensitive);
                tags.iter().any(|tag| **tag == *value)
            })
        })
    }

    /// The number of the NUMERIC field `field`.
    pub(crate) fn number(&self, schema: &Schema, field: &str) -> Option<f64> {
        let fields = schema.fields.iter().filter(|field| matches!(field.kind, FieldKind::Numeric));
        fields.zip(&self.numbers).find(|(schema, _)| schema.name == field).and_then(|(_, number)| *number)
    }
}

/// Postings of all TAG and NUMERIC fields of a schema.
#[derive(Debug)]
pub(crate) struct AttributeIndex {
    tags: Vec<TagField>,
    numbers: Vec<(String, NumericIndex)>,
}

#[derive(Debug)]
struct TagField {
    name: String,
    case_sensitive: bool,
    tags: TagIndex,
}

impl AttributeIndex {
    pub(crate) fn new(schema: &Schema) -> AttributeIndex {
        let mut attributes = AttributeIndex { tags: Vec::new(), numbers: Vec::new() };
        for field in &schema.fields {
            let name = field.name.clone();
            match field.kind {
                FieldKind::Tag { case_sensitive, .. } => {
                    attributes.tags.push(TagField { name, case_sensitive, tags: TagIndex::default() });
                }
                FieldKind::Numeric => attributes.numbers.push((name, NumericIndex::default())),
                FieldKind::Text | FieldKind::Vector(_) => {}
            }
        }
        attributes
    }

    /// Sets the attributes of `ordinal`, replacing any it had.
    pub(crate) fn set(&mut self, ordinal: u32, values: &DocumentAttributes) {
        for (field, tags) in self.tags.iter_mut().zip(&values.tags) {
            field.tags.set(ordinal, tags);
        }
        for ((_, numbers), number) in self.numbers.iter_mut().zip(&values.numbers) {
            numbers.set(ordinal, *number);
        }
    }

    /// Removes the attributes of `ordinal`.
    pub(crate) fn clear(&mut self, ordinal: u32) {
        for field in &mut self.tags {
            field.tags.set(ordinal, &[]);
        }
        for (_, numbers) in &mut self.numbers {
            numbers.set(ordinal, None);
        }
    }

    /// The attributes of `ordinal`.
    pub(crate) fn get(&self, ordinal: u32) -> DocumentAttributes {
        DocumentAttributes {
            tags: self.tags.iter().map(|field| field.tags.get(ordinal)).collect(),
            numbers: self.numbers.iter().map(|(_, numbers)| numbers.get(ordinal)).collect(),
        }
    }

    /// Ordinals with one of `values` in the TAG field `field`.
    pub(crate) fn with_any_tag(&self, field: &str, values: &[Vec<u8>]) -> RoaringBitmap {
        let field = self
            .tags
            .iter()
            .find(|tag_field| tag_field.name == field)
            .expect("a filter is checked against the schema before it is evaluated");
        field.tags.any_of(values.iter().map(|value| fold(value, field.case_sensitive)))
    }

    /// Ordinals whose number in the NUMERIC field `field` is in a range. Each end has a flag for whether it is excluded.
    pub(crate) fn in_range(&self, field: &str, min: (f64, bool), max: (f64, bool)) -> RoaringBitmap {
        let (_, numbers) = self
            .numbers
            .iter()
            .find(|(name, _)| name == field)
            .expect("a filter is checked against the schema before it is evaluated");
        numbers.in_range(min, max)
    }

    /// Approximate bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|field| field.tags.memory_bytes()).sum();
        let numbers: usize = self.numbers.iter().map(|(_, numbers)| numbers.memory_bytes()).sum();
        tags + numbers
    }
}
