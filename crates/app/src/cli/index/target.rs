//! The collection to index into: its fields, and its creation.

use axum::http::Method;
use serde_json::{Value, json};

use super::columns::{ColumnMapping, SchemaFields};
use crate::cli::{
    client::{ApiPath, ApiRequest, Client},
    collection::{CollectionInfo, FieldInfo},
};

/// A collection that exists or is to be created.
#[derive(Debug)]
pub(crate) enum TargetCollection {
    /// It exists, with these fields.
    Existing(Vec<FieldInfo>),
    /// It does not exist.
    New {
        name: String,
        /// The model that embeds its documents.
        model: String,
        /// The schema to create it with.
        schema: Value,
        schema_fields: SchemaFields,
    },
}

impl TargetCollection {
    /// Looks up the collection `name`. If it does not exist, it will get the fields title and content, embedded
    /// together, and the tags and numbers of `mapping`.
    pub(crate) fn find(
        client: &Client,
        name: &str,
        mapping: &ColumnMapping,
        model: &str,
    ) -> anyhow::Result<TargetCollection> {
        let path = ApiPath::collection(name);
        let response =
            client.execute(&ApiRequest { method: Method::GET, path: path.as_ref(), body: None })?;
        if response.status != 404 {
            let info: CollectionInfo = response.error_for_status()?.json()?;
            return Ok(TargetCollection::Existing(info.schema.fields));
        }
        let mut fields =
            vec![json!({"name": "title", "kind": "text"}), json!({"name": "content", "kind": "text"})];
        fields.extend(mapping.tags.iter().map(|name| json!({"name": name, "kind": "tag"})));
        fields.extend(mapping.numerics.iter().map(|name| json!({"name": name, "kind": "numeric"})));
        let embed = json!({"fields": ["title", "content"], "model": model});
        fields.push(json!({"name": "embedding", "kind": "vector", "embed": embed}));
        let schema_fields = SchemaFields {
            embedded: vec!["title".to_owned(), "content".to_owned()],
            typed: mapping.tags.iter().chain(&mapping.numerics).cloned().collect(),
            numerics: mapping.numerics.clone(),
            exist: false,
        };
        Ok(TargetCollection::New {
            name: name.to_owned(),
            model: model.to_owned(),
            schema: json!({"fields": fields}),
            schema_fields,
        })
    }

    /// Whether documents are embedded with this model.
    pub(crate) fn embeds_with(&self, model: &str) -> bool {
        match self {
            TargetCollection::New { model: new, .. } => new == model,
            TargetCollection::Existing(fields) => {
                fields.iter().flat_map(|field| &field.embed).any(|embed| embed.model == model)
            }
        }
    }

    /// Whether it is still to be created.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self, TargetCollection::New { .. })
    }

    /// The fields that affect how rows are read.
    pub(crate) fn schema_fields(&self) -> SchemaFields {
        match self {
            TargetCollection::New { schema_fields, .. } => schema_fields.clone(),
            TargetCollection::Existing(fields) => {
                let of = |test: &dyn Fn(&FieldInfo) -> bool| {
                    fields.iter().filter(|field| test(field)).map(|field| field.name.clone()).collect()
                };
                SchemaFields {
                    embedded: fields
                        .iter()
                        .flat_map(|field| &field.embed)
                        .flat_map(|embed| embed.fields.clone())
                        .collect(),
                    typed: of(&|field| field.kind != "text"),
                    numerics: of(&|field| field.kind == "numeric"),
                    exist: true,
                }
            }
        }
    }

    /// Creates it if it does not exist.
    pub(crate) fn create(&self, client: &Client) -> anyhow::Result<()> {
        if let TargetCollection::New { name, schema, .. } = self {
            client.send(Method::PUT, ApiPath::collection(name), Some(schema))?;
        }
        Ok(())
    }
}
