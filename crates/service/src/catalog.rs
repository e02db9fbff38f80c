//! Names and schemas of the collections as of the last refresh, so that calls can look them up
//! without blocking.

use std::collections::HashMap;

use engine::{CollectionVersion, Filter};

use crate::{CollectionInfo, Error, ErrorKind, FieldKind, Schema, VectorSchema, error_mapping, sync::Arc};

/// The name, version and schema of a collection.
#[derive(Debug)]
pub(crate) struct CollectionHandle {
    pub(crate) name: String,
    pub(crate) version: CollectionVersion,
    pub(crate) schema: Schema,
}

impl CollectionHandle {
    /// The vector field called `named`, or the only vector field.
    pub(crate) fn vector_field(&self, named: Option<&str>) -> Result<(&str, &VectorSchema), Error> {
        let mut vectors = vector_fields(&self.schema);
        let names = || {
            let fields: Vec<_> = vector_fields(&self.schema).map(|(name, _)| format!("{name:?}")).collect();
            if fields.is_empty() { "none".to_owned() } else { fields.join(", ") }
        };
        let Some(named) = named else {
            return match (vectors.next(), vectors.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(Error::invalid(
                    "field-not-found",
                    format!("collection {:?} has no vector field, so it cannot be searched", self.name),
                )),
                (Some(_), Some(_)) => Err(Error::invalid(
                    "field-ambiguous",
                    format!(
                        "collection {:?} has several vector fields; specify one of {}",
                        self.name,
                        names()
                    ),
                )
                .at("field")),
            };
        };
        vectors.find(|(name, _)| *name == named).ok_or_else(|| {
            Error::invalid(
                "field-not-found",
                format!(
                    "collection {:?} has no vector field {named:?}; its vector fields: {}",
                    self.name,
                    names()
                ),
            )
            .at("field")
        })
    }

    /// The possible keys of a document id, starting with the key of a new document.
    pub(crate) fn keys(&self, id: &str) -> impl Iterator<Item = Vec<u8>> {
        outermost_prefixes(&self.schema).map(move |prefix| [prefix, id.as_bytes()].concat())
    }

    /// The key a new document is written under.
    pub(crate) fn key(&self, id: &str) -> Vec<u8> {
        self.keys(id).next().unwrap_or_else(|| id.as_bytes().to_vec())
    }

    /// Parses a filter over the collection's fields.
    pub(crate) fn parse_filter(&self, text: &str) -> Result<Filter, Error> {
        Filter::parse(text, &self.schema).map_err(|error| error_mapping::query(error.into()))
    }

    /// The id of the document under `key`.
    pub(crate) fn id(&self, key: &[u8]) -> String {
        id_of(&self.schema, key)
    }
}

/// The vector fields of a schema, with their names.
pub(crate) fn vector_fields(schema: &Schema) -> impl Iterator<Item = (&str, &VectorSchema)> {
    schema.fields.iter().filter_map(|field| match &field.kind {
        FieldKind::Vector(vector) => Some((field.name.as_str(), vector)),
        _ => None,
    })
}

/// The names of the models that a schema uses.
pub(crate) fn models(schema: &Schema) -> impl Iterator<Item = &str> {
    vector_fields(schema).filter_map(|(_, vector)| vector.embed.as_ref().map(|embed| embed.model.as_str()))
}

/// Names in a message, up to a limit.
const NAMES_SHOWN_MAX: usize = 20;

/// The names, for a message; the first of them if there are many.
fn list(names: &[String]) -> String {
    match names.split_at_checked(NAMES_SHOWN_MAX) {
        Some((shown, more @ [_, ..])) => format!("{} and {} more", shown.join(", "), more.len()),
        _ => names.join(", "),
    }
}

/// `key` without the outermost prefix of the schema that it starts with.
pub(crate) fn id_of(schema: &Schema, key: &[u8]) -> String {
    let id = outermost_prefixes(schema).find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key);
    String::from_utf8_lossy(id).into_owned()
}

/// The prefixes that no other prefix of the schema includes. The others add no document to the collection, and an id
/// that could follow either would name two.
fn outermost_prefixes(schema: &Schema) -> impl Iterator<Item = &[u8]> {
    let prefixes = || schema.prefixes.iter().map(Vec::as_slice);
    let is_outermost =
        move |prefix: &&[u8]| !prefixes().any(|other| other != *prefix && prefix.starts_with(other));
    prefixes().filter(is_outermost)
}

/// Whether a key may have a prefix of both schemas.
fn has_common_keys(one: &Schema, other: &Schema) -> bool {
    one.prefixes.iter().any(|prefix| {
        other.prefixes.iter().any(|other| prefix.starts_with(other) || other.starts_with(prefix))
    })
}

/// All collections.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    by_name: HashMap<String, Arc<CollectionHandle>>,
    names: Vec<String>,
}

impl Catalog {
    pub(crate) fn new(collections: Vec<CollectionInfo>) -> Catalog {
        let mut catalog = Catalog::default();
        for info in collections {
            let handle =
                CollectionHandle { name: info.name.clone(), version: info.version, schema: info.schema };
            let handle = Arc::new(handle);
            for alias in info.aliases {
                catalog.by_name.insert(alias, handle.clone());
            }
            catalog.by_name.insert(info.name.clone(), handle);
            catalog.names.push(info.name);
        }
        catalog.names.sort_unstable();
        catalog
    }

    /// The collection with this name or alias; without a name, the only collection.
    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<&Arc<CollectionHandle>, Error> {
        match name {
            Some(name) => self.by_name.get(name).ok_or_else(|| self.not_found(name)),
            None => match self.names.as_slice() {
                [only] => Ok(&self.by_name[only]),
                [] => Err(Error::new(
                    ErrorKind::NotFound,
                    "collection-not-found",
                    "there is no collection yet; create one first (`nearfield index FILE`, or PUT a schema)",
                )),
                several => Err(Error::invalid(
                    "collection-ambiguous",
                    format!("there are several collections; specify one of {}", list(several)),
                )
                .at("collection")),
            },
        }
    }

    pub(crate) fn collections(&self) -> impl Iterator<Item = &Arc<CollectionHandle>> {
        self.names.iter().map(|name| &self.by_name[name])
    }

    /// The collections, other than `name`, that can share documents with one of this schema.
    pub(crate) fn overlapping<'c>(
        &'c self,
        name: &'c str,
        schema: &'c Schema,
    ) -> impl Iterator<Item = &'c CollectionHandle> {
        let others = self.collections().filter(move |other| other.name != name);
        others.map(|other| &**other).filter(move |other| has_common_keys(schema, &other.schema))
    }

    /// Whether documents of `collection` may also belong to another collection that has no name or alias for which
    /// `may_read` returns true.
    pub(crate) fn shares_documents(
        &self,
        collection: &CollectionHandle,
        may_read: impl Fn(&str) -> bool,
    ) -> bool {
        let is_readable = |other: &CollectionHandle| {
            self.by_name.iter().any(|(name, handle)| handle.name == other.name && may_read(name))
        };
        self.overlapping(&collection.name, &collection.schema).any(|other| !is_readable(other))
    }

    /// Whether a collection has this name. Aliases do not count.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.binary_search_by(|existing| existing.as_str().cmp(name)).is_ok()
    }

    /// Whether a document with this key and no expiry expires by a collection's default TTL.
    pub(crate) fn has_default_ttl(&self, key: &[u8]) -> bool {
        self.collections().any(|collection| {
            collection.schema.ttl.is_some()
                && collection.schema.prefixes.iter().any(|prefix| key.starts_with(prefix))
        })
    }

    fn not_found(&self, name: &str) -> Error {
        let existing = match self.names.as_slice() {
            [] => "there are no collections yet".to_owned(),
            names => format!("collections: {}", list(names)),
        };
        Error::new(
            ErrorKind::NotFound,
            "collection-not-found",
            format!("there is no collection or alias {name:?}; {existing}"),
        )
        .at("collection")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_list_a_limited_number_of_names() {
        let names = |count: usize| (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>();
        assert_eq!(list(&names(2)), "c0, c1");
        assert!(list(&names(NAMES_SHOWN_MAX)).ends_with("c18, c19"));
        assert!(list(&names(NAMES_SHOWN_MAX + 3)).ends_with("c18, c19 and 3 more"));
    }
}
