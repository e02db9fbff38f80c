//! Schemas: the same JSON in requests and responses.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{binary::Binary, object};
use crate::http::{Problem, bounds, error_code::ErrorCode};
use service::{
    Algorithm, Embedding, FieldKind, FieldSchema, MODEL, Metric, Quantization, Schema, VectorSchema,
    VectorType, article_schema, limits,
};

/// Members of a document that are not fields.
const RESERVED_NAMES: [&str; 2] = ["id", "ttl_s"];

/// The schema of a collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaBody {
    /// A document belongs to the collection if its key starts with one of these. If left out, the collection's name and
    /// a colon, which must not overlap with the prefixes of another collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefixes: Option<Vec<Binary>>,
    /// Time to live in seconds of documents that are written without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_s: Option<f64>,
    /// Indexed fields. If left out, title, content and a vector embedded from both.
    #[serde(default, deserialize_with = "object::optional_array", skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<FieldBody>>,
}

/// A field of a schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldBody {
    name: String,
    kind: KindName,
    /// TAG: the byte between tags; a comma if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    separator: Option<String>,
    /// TAG: whether tags are case-sensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    case_sensitive: Option<bool>,
    /// VECTOR: the index algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    algorithm: Option<AlgorithmName>,
    /// VECTOR: element type in requests and responses.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    vector_type: Option<VectorTypeName>,
    /// VECTOR: how the index stores it. If left out, `int8` for FLOAT32 and FLOAT16 in Nearfield's own HNSW graph,
    /// otherwise `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quantization: Option<QuantizationName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = bounds::dim)]
    dim: Option<usize>,
    /// VECTOR: the distance metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<MetricName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = bounds::m)]
    m: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = bounds::ef_construction)]
    ef_construction: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = bounds::default_ef_search)]
    ef_search: Option<usize>,
    /// VECTOR: the texts from which it is computed. If left out, documents contain the vector.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    embed: Option<EmbedBody>,
}

/// The source of a computed vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedBody {
    /// TEXT fields, joined by a space.
    #[serde(default = "default_embed_fields")]
    fields: Vec<String>,
    /// Name of the model.
    #[serde(default = "default_model")]
    model: String,
}

/// The kind of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Text,
    Tag,
    Numeric,
    Vector,
}

/// An index algorithm: HNSW graph or exact scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AlgorithmName {
    Hnsw,
    Flat,
}

/// The element type of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum VectorTypeName {
    Float32,
    Float16,
    Bfloat16,
    Int8,
}

/// How an index stores vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum QuantizationName {
    None,
    Int8,
    Int4,
}

/// A distance metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum MetricName {
    Cosine,
    Ip,
    L2,
}

fn default_embed_fields() -> Vec<String> {
    vec!["title".to_owned(), "content".to_owned()]
}

fn default_model() -> String {
    MODEL.to_owned()
}

impl SchemaBody {
    /// The dimensions that are left out and come from the field's model.
    pub(crate) fn unset_dimensions(&mut self) -> impl Iterator<Item = (&str, &mut Option<usize>)> {
        self.fields.iter_mut().flatten().filter_map(|field| match (&field.embed, &mut field.dim) {
            (Some(embed), dim @ None) => Some((embed.model.as_str(), dim)),
            _ => None,
        })
    }

    /// The schema. `default_quantization` returns the quantization of a field, by name, that
    /// leaves it out.
    pub(crate) fn into_schema(
        self,
        default_quantization: impl Fn(&str, &VectorSchema) -> Quantization,
    ) -> Result<Schema, Problem> {
        let ttl = match self.ttl_s {
            None => None,
            Some(seconds) => match Duration::try_from_secs_f64(seconds) {
                Ok(life) if !life.is_zero() => Some(life),
                _ => {
                    let detail = format!("ttl_s must be a number of seconds greater than 0, found {seconds}");
                    return Err(Problem::new(ErrorCode::Schema, detail).at("ttl_s"));
                }
            },
        };
        let prefixes = match self.prefixes {
            // The service adds the default.
            None => Vec::new(),
            Some(prefixes) if prefixes.is_empty() => {
                let detail = "\"prefixes\" is empty; list at least one, or leave it out for the default";
                return Err(Problem::new(ErrorCode::Schema, detail).at("prefixes"));
            }
            Some(prefixes) => prefixes.into_iter().map(|Binary(prefix)| prefix).collect(),
        };
        let bodies = self.fields.unwrap_or_else(|| {
            let article = article_schema("", &[], &[]);
            article.fields.iter().map(|field| FieldBody { quantization: None, ..field.into() }).collect()
        });
        let mut fields = Vec::with_capacity(bodies.len());
        for body in bodies {
            let is_unset = body.quantization.is_none();
            let mut field = body.into_field()?;
            if let FieldKind::Vector(vector) = &mut field.kind
                && is_unset
            {
                vector.quantization = default_quantization(&field.name, vector);
            }
            fields.push(field);
        }
        Ok(Schema { prefixes, fields, ttl })
    }
}

impl FieldBody {
    fn new(name: impl Into<String>, kind: KindName) -> FieldBody {
        FieldBody {
            name: name.into(),
            kind,
            separator: None,
            case_sensitive: None,
            algorithm: None,
            vector_type: None,
            quantization: None,
            dim: None,
            metric: None,
            m: None,
            ef_construction: None,
            ef_search: None,
            embed: None,
        }
    }

    fn into_field(self) -> Result<FieldSchema, Problem> {
        let name = self.name.clone();
        if RESERVED_NAMES.contains(&&*name) {
            let detail = format!(
                "field {name:?}: the name is reserved, because documents have a member of this name; choose another"
            );
            return Err(Problem::new(ErrorCode::Schema, detail).at(name));
        }
        if let Some(option) = self.misplaced_option() {
            let detail = format!("field {name:?}: {option} does not apply to this kind of field");
            return Err(Problem::new(ErrorCode::Schema, detail).at(name));
        }
        let kind = match self.kind {
            KindName::Text => FieldKind::Text,
            KindName::Numeric => FieldKind::Numeric,
            KindName::Tag => FieldKind::Tag {
                separator: match self.separator.as_deref().map(str::as_bytes) {
                    None => b',',
                    Some(&[byte]) => byte,
                    Some(_) => {
                        let detail = format!("field {name:?}: separator must be one byte, such as \",\"");
                        return Err(Problem::new(ErrorCode::Schema, detail).at(name));
                    }
                },
                case_sensitive: self.case_sensitive.unwrap_or(false),
            },
            KindName::Vector => FieldKind::Vector(self.into_vector()?),
        };
        Ok(FieldSchema { name, kind })
    }

    /// An option that does not apply to this kind of field.
    fn misplaced_option(&self) -> Option<&'static str> {
        let tag =
            [("separator", self.separator.is_some()), ("case_sensitive", self.case_sensitive.is_some())];
        let vector = [
            ("algorithm", self.algorithm.is_some()),
            ("type", self.vector_type.is_some()),
            ("quantization", self.quantization.is_some()),
            ("dim", self.dim.is_some()),
            ("metric", self.metric.is_some()),
            ("embed", self.embed.is_some()),
        ];
        let graph = [
            ("m", self.m.is_some()),
            ("ef_construction", self.ef_construction.is_some()),
            ("ef_search", self.ef_search.is_some()),
        ];
        let is_vector = self.kind == KindName::Vector;
        let is_graph = is_vector && self.algorithm != Some(AlgorithmName::Flat);
        let misplaced = |options: &[(&'static str, bool)], fits: bool| {
            options.iter().find(|(_, given)| *given && !fits).map(|(option, _)| *option)
        };
        misplaced(&tag, self.kind == KindName::Tag)
            .or_else(|| misplaced(&vector, is_vector))
            .or_else(|| misplaced(&graph, is_graph))
    }

    fn into_vector(self) -> Result<VectorSchema, Problem> {
        let dim = match self.dim {
            Some(dim) => dim,
            None => {
                let detail =
                    format!("field {:?}: dim, the number of values in a vector, is missing", self.name);
                return Err(Problem::new(ErrorCode::Schema, detail).at(self.name));
            }
        };
        Ok(VectorSchema {
            algorithm: match self.algorithm {
                Some(AlgorithmName::Flat) => Algorithm::Flat,
                Some(AlgorithmName::Hnsw) | None => Algorithm::Hnsw {
                    m: self.m.unwrap_or(limits::M_DEFAULT),
                    ef_construction: self.ef_construction.unwrap_or(limits::EF_CONSTRUCTION_DEFAULT),
                    ef_search: self.ef_search.unwrap_or(limits::EF_SEARCH_DEFAULT),
                },
            },
            vector_type: match self.vector_type {
                Some(VectorTypeName::Float32) | None => VectorType::Float32,
                Some(VectorTypeName::Float16) => VectorType::Float16,
                Some(VectorTypeName::Bfloat16) => VectorType::Bfloat16,
                Some(VectorTypeName::Int8) => VectorType::Int8,
            },
            quantization: match self.quantization {
                Some(QuantizationName::None) | None => Quantization::None,
                Some(QuantizationName::Int8) => Quantization::Int8,
                Some(QuantizationName::Int4) => Quantization::Int4,
            },
            dim,
            metric: match self.metric {
                Some(MetricName::Cosine) | None => Metric::Cosine,
                Some(MetricName::Ip) => Metric::Ip,
                Some(MetricName::L2) => Metric::L2,
            },
            embed: self.embed.map(|embed| Embedding { fields: embed.fields, model: embed.model }),
        })
    }
}

impl From<&FieldSchema> for FieldBody {
    fn from(field: &FieldSchema) -> FieldBody {
        match &field.kind {
            FieldKind::Text => FieldBody::new(&field.name, KindName::Text),
            FieldKind::Numeric => FieldBody::new(&field.name, KindName::Numeric),
            &FieldKind::Tag { separator, case_sensitive } => FieldBody {
                separator: Some(char::from(separator).to_string()),
                case_sensitive: Some(case_sensitive),
                ..FieldBody::new(&field.name, KindName::Tag)
            },
            FieldKind::Vector(vector) => FieldBody::of_vector(&field.name, vector),
        }
    }
}

impl FieldBody {
    fn of_vector(name: &str, vector: &VectorSchema) -> FieldBody {
        let graph = match vector.algorithm {
            Algorithm::Flat => None,
            Algorithm::Hnsw { m, ef_construction, ef_search } => Some((m, ef_construction, ef_search)),
        };
        FieldBody {
            algorithm: Some(graph.map_or(AlgorithmName::Flat, |_| AlgorithmName::Hnsw)),
            vector_type: Some(match vector.vector_type {
                VectorType::Float32 => VectorTypeName::Float32,
                VectorType::Float16 => VectorTypeName::Float16,
                VectorType::Bfloat16 => VectorTypeName::Bfloat16,
                VectorType::Int8 => VectorTypeName::Int8,
            }),
            quantization: Some(match vector.quantization {
                Quantization::None => QuantizationName::None,
                Quantization::Int8 => QuantizationName::Int8,
                Quantization::Int4 => QuantizationName::Int4,
            }),
            dim: Some(vector.dim),
            metric: Some(match vector.metric {
                Metric::Cosine => MetricName::Cosine,
                Metric::Ip => MetricName::Ip,
                Metric::L2 => MetricName::L2,
            }),
            m: graph.map(|(m, _, _)| m),
            ef_construction: graph.map(|(_, ef_construction, _)| ef_construction),
            ef_search: graph.map(|(_, _, ef_search)| ef_search),
            embed: vector
                .embed
                .as_ref()
                .map(|embed| EmbedBody { fields: embed.fields.clone(), model: embed.model.clone() }),
            ..FieldBody::new(name, KindName::Vector)
        }
    }
}

impl From<&Schema> for SchemaBody {
    fn from(schema: &Schema) -> SchemaBody {
        SchemaBody {
            prefixes: Some(schema.prefixes.iter().cloned().map(Binary).collect()),
            ttl_s: schema.ttl.map(|ttl| ttl.as_secs_f64()),
            fields: Some(schema.fields.iter().map(FieldBody::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Schema, String> {
        let body: SchemaBody = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let default_quantization = |_: &str, _: &VectorSchema| Quantization::Int8;
        body.into_schema(default_quantization)
            .map_err(|problem| serde_json::to_string(&problem).expect("a problem is JSON"))
    }

    #[test]
    fn an_empty_schema_is_the_default_schema() {
        let schema = read("{}").unwrap();
        // The service adds the default, which it checks.
        assert!(schema.prefixes.is_empty());
        assert_eq!(
            serde_json::to_value(SchemaBody::from(&schema)).unwrap(),
            serde_json::json!({
                "prefixes": [],
                "fields": [
                    {"name": "title", "kind": "text"},
                    {"name": "content", "kind": "text"},
                    {"name": "embedding", "kind": "vector", "algorithm": "hnsw", "type": "FLOAT32", "quantization": "int8",
                     "dim": 384, "metric": "cosine", "m": 16, "ef_construction": 200, "ef_search": 80,
                     "embed": {"fields": ["title", "content"], "model": "all-MiniLM-L6-v2"}}
                ]
            })
        );
    }

    #[test]
    fn schemas_survive_a_round_trip() {
        for json in [
            r#"{"prefixes":["a:",{"base64":"/w=="}],"ttl_s":1.5,"fields":[{"name":"t","kind":"tag","separator":";","case_sensitive":true}]}"#,
            r#"{"prefixes":["b:"],"fields":[{"name":"v","kind":"vector","algorithm":"flat","type":"BFLOAT16","quantization":"none","dim":3,"metric":"l2"},{"name":"n","kind":"numeric"}]}"#,
            r#"{"prefixes":["a:"],"fields":[{"name":"v","kind":"vector","algorithm":"hnsw","type":"INT8","quantization":"int4","dim":3,"metric":"ip","m":2,"ef_construction":3,"ef_search":4}]}"#,
        ] {
            let schema = read(json).unwrap();
            assert_eq!(serde_json::to_string(&SchemaBody::from(&schema)).unwrap(), json);
        }
    }

    #[test]
    fn rejects_invalid_schemas_by_name() {
        for (json, words) in [
            (r#"{"prefix":["a:"]}"#, "unknown field `prefix`"),
            (r#"{"fields":[{"name":"t","kind":"tags"}]}"#, "unknown variant `tags`"),
            (r#"{"fields":[{"name":"t","kind":"text","separator":","}]}"#, "separator does not apply"),
            (r#"{"fields":[{"name":"t","kind":"tag","separator":"::"}]}"#, "separator must be one byte"),
            (r#"{"fields":[{"name":"t","kind":"tag","metric":"l2"}]}"#, "metric does not apply"),
            (
                r#"{"fields":[{"name":"v","kind":"vector","algorithm":"flat","dim":3,"m":4}]}"#,
                "m does not apply",
            ),
            (
                r#"{"fields":[{"name":"v","kind":"vector"}]}"#,
                "dim, the number of values in a vector, is missing",
            ),
            (r#"{"fields":[{"name":"v","kind":"vector","dim":-3}]}"#, "expected usize"),
            (r#"{"fields":[{"name":"v","kind":"vector","dim":3,"dim":4}]}"#, "duplicate field `dim`"),
            (r#"{"ttl_s":-1}"#, "ttl_s must be"),
            (r#"{"ttl_s":0}"#, "ttl_s must be"),
            (r#"{"prefixes":[1]}"#, "base64"),
            (r#"{"prefixes":[]}"#, "is empty"),
            (r#"{"fields":[{"name":"id","kind":"numeric"}]}"#, "reserved"),
            (r#"{"fields":[{"name":"ttl_s","kind":"text"}]}"#, "reserved"),
        ] {
            let message = read(json).expect_err(json);
            assert!(message.contains(words), "{json}: {message}");
        }
    }
}
