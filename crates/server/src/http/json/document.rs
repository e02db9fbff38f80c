//! Documents: flat objects in requests, fields typed by the schema in responses.

use std::{borrow::Cow, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema},
};

use super::{
    binary,
    value::{EXACT_MAX, RequestValue},
};
use crate::http::{Problem, error_code::ErrorCode};
use service::{Document, Expected, FIELDS_MAX, Field, FieldKind, Patch, Put, Schema, Value};

/// A document in a request. A problem with one of its members is stored here rather than failing the body, so that it is
/// reported for this document and does not affect others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DocumentRequest {
    id: Option<String>,
    ttl: Ttl,
    fields: Vec<(String, RequestValue)>,
    problem: Option<Problem>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Ttl {
    #[default]
    Unspecified,
    Never,
    After(Duration),
}

/// A document that is rejected, and why.
#[derive(Debug)]
pub(crate) struct RejectedDocument {
    /// Its id, if it has one.
    pub(crate) id: Option<String>,
    /// The problem.
    pub(crate) problem: Problem,
}

impl DocumentRequest {
    /// A write of the whole document under its own id, or under `path_id` if the path has one.
    pub(crate) fn into_put(
        self,
        path_id: Option<String>,
        expected: Expected,
    ) -> Result<Put, Box<RejectedDocument>> {
        let result_id = path_id.clone().or_else(|| self.id.clone());
        self.put(path_id, expected).map_err(|problem| Box::new(RejectedDocument { id: result_id, problem }))
    }

    fn put(self, path_id: Option<String>, expected: Expected) -> Result<Put, Problem> {
        let (id, ttl, fields) = self.validate(path_id)?;
        let ttl = match ttl {
            Ttl::Unspecified => None,
            Ttl::After(life) => Some(life),
            Ttl::Never => return Err(invalid_ttl("null")),
        };
        let mut values = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            match value {
                Some(value) => values.push((name, value)),
                None => return Err(invalid_value(&name, "null is not a value: leave the field out")),
            }
        }
        Ok(Put { id, fields: values, ttl, expected })
    }

    /// A change to the document `id`.
    pub(crate) fn into_patch(self, id: String, expected: Expected) -> Result<Patch, Problem> {
        let (id, ttl, fields) = self.validate(Some(id))?;
        let ttl = match ttl {
            Ttl::Unspecified => None,
            Ttl::Never => Some(None),
            Ttl::After(life) => Some(Some(life)),
        };
        let mut patch = Patch { id, set: Vec::new(), remove: Vec::new(), ttl, expected };
        for (name, value) in fields {
            match value {
                Some(value) => patch.set.push((name, value)),
                None => patch.remove.push(name),
            }
        }
        Ok(patch)
    }

    /// Whether this is `{"documents": ...}`, which contains documents.
    pub(crate) fn is_wrapper(&self) -> bool {
        self.id.is_none() && matches!(&self.fields[..], [(name, _)] if name == "documents")
    }

    #[expect(clippy::type_complexity, reason = "destructured by its two callers")]
    fn validate(
        self,
        path_id: Option<String>,
    ) -> Result<(String, Ttl, Vec<(String, Option<Value>)>), Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let id = match (path_id, self.id) {
            (Some(path), Some(own)) if path != own => {
                let detail =
                    format!("the document's id {own:?} differs from {path:?} in the path: leave it out");
                return Err(Problem::new(ErrorCode::IdMismatch, detail).at("id"));
            }
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => {
                return Err(Problem::new(ErrorCode::IdMissing, "the document has no \"id\"").at("id"));
            }
        };
        let mut fields = Vec::with_capacity(self.fields.len());
        for (name, value) in self.fields {
            match value {
                RequestValue::Value(value) => fields.push((name, Some(value))),
                RequestValue::Null => fields.push((name, None)),
                RequestValue::Invalid(reason) => return Err(invalid_value(&name, &reason)),
            }
        }
        Ok((id, self.ttl, fields))
    }

    fn add_member(&mut self, name: String, value: RequestValue) {
        let problem = match (name.as_str(), value) {
            ("id", value) if self.id.is_none() => match id(value) {
                Some(id) => {
                    self.id = Some(id);
                    return;
                }
                None => Problem::new(ErrorCode::Id, "\"id\" must be a string or an integer").at("id"),
            },
            ("ttl_s", value) if self.ttl == Ttl::Unspecified => match ttl(value) {
                Ok(ttl) => {
                    self.ttl = ttl;
                    return;
                }
                Err(problem) => problem,
            },
            (_, value) if !matches!(name.as_str(), "id" | "ttl_s") => {
                self.fields.push((name, value));
                return;
            }
            _ => repeated_member(&name),
        };
        self.problem.get_or_insert(problem);
    }
}

fn id(value: RequestValue) -> Option<String> {
    match value {
        RequestValue::Value(Value::Bytes(bytes)) => String::from_utf8(bytes).ok(),
        RequestValue::Value(Value::Number(number))
            if number.fract() == 0.0 && number.abs() <= EXACT_MAX as f64 =>
        {
            // Adding zero turns -0.0 into 0.0.
            Some(format!("{:.0}", number + 0.0))
        }
        _ => None,
    }
}

fn ttl(value: RequestValue) -> Result<Ttl, Problem> {
    match value {
        RequestValue::Null => Ok(Ttl::Never),
        RequestValue::Value(Value::Number(seconds)) if seconds > 0.0 => {
            match Duration::try_from_secs_f64(seconds) {
                Ok(life) => Ok(Ttl::After(life)),
                Err(_) => Err(invalid_ttl(&seconds.to_string())),
            }
        }
        RequestValue::Value(Value::Number(seconds)) => Err(invalid_ttl(&seconds.to_string())),
        _ => Err(invalid_ttl("another type")),
    }
}

fn invalid_ttl(found: &str) -> Problem {
    Problem::new(
        ErrorCode::Ttl,
        format!("\"ttl_s\" must be a number of seconds greater than 0, found {found}"),
    )
    .at("ttl_s")
}

fn invalid_value(name: &str, reason: &str) -> Problem {
    Problem::new(ErrorCode::FieldValue, format!("field {name:?}: {reason}")).at(name)
}

fn too_many_fields(given: usize) -> Problem {
    let detail = format!("{given} fields are more than the {FIELDS_MAX} that a document or a PATCH may have");
    Problem::new(ErrorCode::TooManyFields, detail)
}

fn repeated_member(name: &str) -> Problem {
    Problem::new(ErrorCode::FieldRepeated, format!("{name:?} is repeated")).at(name)
}

impl<'de> Deserialize<'de> for DocumentRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DocumentRequest, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = DocumentRequest;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a document: an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DocumentRequest, A::Error> {
        let mut document = DocumentRequest::default();
        let mut excess = 0;
        while let Some(name) = map.next_key::<String>()? {
            // Excess fields are not kept.
            if document.fields.len() == FIELDS_MAX && !matches!(name.as_str(), "id" | "ttl_s") {
                map.next_value::<IgnoredAny>()?;
                excess += 1;
                continue;
            }
            let value = map.next_value::<RequestValue>()?;
            document.add_member(name, value);
        }
        if excess > 0 {
            document.problem.get_or_insert(too_many_fields(FIELDS_MAX + excess));
        }
        if let Some(name) = first_repeated(&document.fields) {
            document.problem.get_or_insert(repeated_member(&name));
        }
        Ok(document)
    }
}

/// A name that two fields share.
fn first_repeated(fields: &[(String, RequestValue)]) -> Option<String> {
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned())
}

impl DocumentRequest {
    /// An element that is not an object: a problem of this element, not of its array.
    fn not_an_object(found: &str) -> DocumentRequest {
        let problem =
            Problem::new(ErrorCode::DocumentType, format!("expected a document as an object, found {found}"));
        DocumentRequest { problem: Some(problem), ..DocumentRequest::default() }
    }
}

/// An element of an array of documents.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ArrayDocument(pub(crate) DocumentRequest);

impl<'de> Deserialize<'de> for ArrayDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ArrayDocument, D::Error> {
        deserializer.deserialize_any(ArrayDocumentVisitor)
    }
}

struct ArrayDocumentVisitor;

impl<'de> Visitor<'de> for ArrayDocumentVisitor {
    type Value = ArrayDocument;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ArrayDocument, A::Error> {
        DocumentVisitor.visit_map(map).map(ArrayDocument)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<ArrayDocument, E> {
        Ok(ArrayDocument(DocumentRequest::not_an_object("a string")))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<ArrayDocument, E> {
        Ok(ArrayDocument(DocumentRequest::not_an_object("a number")))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<ArrayDocument, E> {
        Ok(ArrayDocument(DocumentRequest::not_an_object("a number")))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<ArrayDocument, E> {
        Ok(ArrayDocument(DocumentRequest::not_an_object("a number")))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<ArrayDocument, E> {
        Ok(ArrayDocument(DocumentRequest::not_an_object("a boolean")))
    }

    fn visit_unit<E: Error>(self) -> Result<ArrayDocument, E> {
        Ok(ArrayDocument(DocumentRequest::not_an_object("null")))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<ArrayDocument, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(ArrayDocument(DocumentRequest::not_an_object("an array")))
    }
}

impl PartialSchema for DocumentRequest {
    fn schema() -> RefOr<schema::Schema> {
        use schema::{AdditionalProperties, ObjectBuilder, Type};
        let number_or_text = schema::SchemaType::from_iter([Type::String, Type::Integer]);
        ObjectBuilder::new()
            .property(
                "id",
                ObjectBuilder::new()
                    .schema_type(number_or_text)
                    .description(Some("Required unless the path has it. No control characters.")),
            )
            .property(
                "ttl_s",
                ObjectBuilder::new()
                    .schema_type(schema::SchemaType::from_iter([Type::Number, Type::Null]))
                    .description(Some("Time to live in seconds, more than 0. In a PATCH, null removes it.")),
            )
            .additional_properties(Some(AdditionalProperties::<schema::Schema>::FreeForm(true)))
            .description(Some(
                "Every other member is a field: a string, a number, an array of strings (TAG), an array of numbers \
                 (VECTOR), or {\"base64\": \"...\"}. In a PATCH, null removes the field.",
            ))
            .examples([serde_json::json!({
                "id": "kb-001", "title": "Reset your password", "content": "Choose 'Forgot password' ...", "year": 2024
            })])
            .into()
    }
}

impl ToSchema for DocumentRequest {}

/// A document in a response.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocumentResponse<'a> {
    /// Its id in the collection.
    pub(crate) id: &'a str,
    /// Sequence number of its last change, which is its ETag.
    pub(crate) seq: u64,
    /// When it expires, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at_ms: Option<u64>,
    /// Its fields.
    #[schema(value_type = Object)]
    pub(crate) fields: DocumentFields<'a>,
}

/// Memory of a document, in bytes.
pub(crate) fn memory(document: &Document) -> usize {
    // A field is two allocations of their own.
    let field = |field: &Field| 2 * size_of::<Field>() + field.name.len() + field.value.len();
    size_of::<Document>() + document.key.len() + document.fields.iter().map(field).sum::<usize>()
}

/// Fields typed by the schema: NUMERIC as numbers, TAG as arrays, VECTOR and values that are not UTF-8 as base64, all
/// others as strings.
pub(crate) struct DocumentFields<'a> {
    document: &'a Document,
    schema: &'a Schema,
    vectors: bool,
}

impl<'a> DocumentFields<'a> {
    /// The fields of `document`, with vector fields if `vectors`.
    pub(crate) fn new(document: &'a Document, schema: &'a Schema, vectors: bool) -> DocumentFields<'a> {
        DocumentFields { document, schema, vectors }
    }
}

impl Serialize for DocumentFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in &self.document.fields {
            let in_schema = self.schema.fields.iter().find(|named| named.name.as_bytes() == &*field.name);
            let value = FieldValue { value: &field.value, kind: in_schema.map(|field| &field.kind) };
            if self.vectors || !matches!(value.kind, Some(FieldKind::Vector(_))) {
                map.serialize_entry(&name(&field.name), &value)?;
            }
        }
        map.end()
    }
}

/// The name of a field. It is UTF-8 unless another program wrote it to a Redis.
fn name(name: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(name)
}

struct FieldValue<'a> {
    value: &'a [u8],
    kind: Option<&'a FieldKind>,
}

impl Serialize for FieldValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.kind {
            None | Some(FieldKind::Text) => binary::write(self.value, serializer),
            Some(FieldKind::Vector(_)) => binary::write_base64(self.value, serializer),
            Some(FieldKind::Numeric) => match std::str::from_utf8(self.value).ok().and_then(number) {
                Some(JsonNumber::Whole(number)) => serializer.serialize_i64(number),
                Some(JsonNumber::Float(number)) => serializer.serialize_f64(number),
                None => binary::write(self.value, serializer),
            },
            Some(&FieldKind::Tag { separator, .. }) => match std::str::from_utf8(self.value) {
                Ok(text) => {
                    let mut tags = serializer.serialize_seq(None)?;
                    for tag in text.split(char::from(separator)).map(str::trim).filter(|tag| !tag.is_empty())
                    {
                        tags.serialize_element(tag)?;
                    }
                    tags.end()
                }
                Err(_) => binary::write_base64(self.value, serializer),
            },
        }
    }
}

/// A number in JSON.
enum JsonNumber {
    Whole(i64),
    Float(f64),
}

fn number(text: &str) -> Option<JsonNumber> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(JsonNumber::Whole(whole));
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(JsonNumber::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::FieldSchema;

    fn read(json: &str) -> DocumentRequest {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    fn code(problem: &Problem) -> String {
        serde_json::to_value(problem).unwrap()["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_put_has_id_ttl_and_fields() {
        let put =
            read(r#"{"id":7,"title":"T","ttl_s":1.5,"tags":["a"]}"#).into_put(None, Expected::Any).unwrap();
        assert_eq!(put.id, "7");
        for (id, expected) in [("-0", "0"), ("-0.0", "0"), ("5.0", "5"), ("-7", "-7"), ("1e3", "1000")] {
            let put = read(&format!("{{\"id\":{id}}}")).into_put(None, Expected::Any).unwrap();
            assert_eq!(put.id, expected);
        }
        assert_eq!(put.ttl, Some(Duration::from_millis(1500)));
        let fields = vec![
            ("title".to_owned(), Value::Bytes(b"T".to_vec())),
            ("tags".to_owned(), Value::Tags(vec!["a".to_owned()])),
        ];
        assert_eq!(put.fields, fields);
        let put = read(r#"{"title":"T"}"#).into_put(Some("kb/1".to_owned()), Expected::Absent).unwrap();
        assert_eq!((put.id.as_str(), put.expected), ("kb/1", Expected::Absent));
    }

    #[test]
    fn integer_ids_keep_all_digits() {
        for id in
            ["0", "-7", "1780000000000000", "9007199254740992", "9007199254740993", "18446744073709551615"]
        {
            let put = read(&format!(r#"{{"id":{id}}}"#)).into_put(None, Expected::Any).expect(id);
            assert_eq!(put.id, id);
        }
    }

    #[test]
    fn problems_name_the_member() {
        for (json, expected, at) in [
            (r#"{"title":"T"}"#, "id-missing", "id"),
            (r#"{"id":true}"#, "id", "id"),
            (r#"{"id":1.5}"#, "id", "id"),
            (r#"{"id":1e300}"#, "id", "id"),
            (r#"{"id":"a","id":"b"}"#, "field-repeated", "id"),
            (r#"{"id":"a","x":1,"y":2,"x":1}"#, "field-repeated", "x"),
            (r#"{"id":"a","ttl_s":0}"#, "ttl", "ttl_s"),
            (r#"{"id":"a","ttl_s":-1}"#, "ttl", "ttl_s"),
            (r#"{"id":"a","ttl_s":1e300}"#, "ttl", "ttl_s"),
            (r#"{"id":"a","ttl_s":"60"}"#, "ttl", "ttl_s"),
            (r#"{"id":"a","ttl_s":null}"#, "ttl", "ttl_s"),
            (r#"{"id":"a","open":true}"#, "field-value", "open"),
            (r#"{"id":"a","open":null}"#, "field-value", "open"),
        ] {
            let rejected = read(json).into_put(None, Expected::Any).expect_err(json);
            assert_eq!(code(&rejected.problem), expected, "{json}");
            assert_eq!(serde_json::to_value(&rejected.problem).unwrap()["at"], at, "{json}");
            if expected != "id" && expected != "id-missing" {
                assert_eq!(rejected.id.as_deref(), Some("a"), "{json}");
            }
        }
        let rejected = read(r#"{"id":"a"}"#).into_put(Some("b".to_owned()), Expected::Any).unwrap_err();
        assert_eq!(code(&rejected.problem), "id-mismatch");
    }

    #[test]
    fn a_patch_sets_and_removes_fields_and_ttl() {
        let patch = read(r#"{"title":"T","old":null,"ttl_s":null}"#)
            .into_patch("a".to_owned(), Expected::Seq(3))
            .unwrap();
        assert_eq!(patch.set, vec![("title".to_owned(), Value::Bytes(b"T".to_vec()))]);
        assert_eq!(patch.remove, vec!["old".to_owned()]);
        assert_eq!(patch.ttl, Some(None));
        assert_eq!(read("{}").into_patch("a".to_owned(), Expected::Any).unwrap().ttl, None);
    }

    #[test]
    fn excess_fields_are_counted_but_not_kept() {
        let json = |fields: usize| {
            let fields: String = (0..fields).map(|number| format!(r#""f{number}":null,"#)).collect();
            format!(r#"{{{fields}"id":"a"}}"#)
        };
        let most = read(&json(FIELDS_MAX));
        assert_eq!((most.fields.len(), most.problem.is_none()), (FIELDS_MAX, true));
        let more = read(&json(FIELDS_MAX + 2));
        assert_eq!((more.fields.len(), more.id.as_deref()), (FIELDS_MAX, Some("a")));
        let problem = more.into_patch("a".to_owned(), Expected::Any).unwrap_err();
        assert_eq!(code(&problem), "too-many-fields");
        assert!(serde_json::to_string(&problem).unwrap().contains("1026 fields"));
    }

    #[test]
    fn an_invalid_element_does_not_affect_the_others() {
        let items: Vec<ArrayDocument> =
            serde_json::from_str(r#"[{"id":"a"},1,"x",[{"id":"n"}],null,true,{"id":"b"}]"#).unwrap();
        let good: Vec<bool> =
            items.into_iter().map(|item| item.0.into_put(None, Expected::Any).is_ok()).collect();
        assert_eq!(good, [true, false, false, false, false, false, true]);
    }

    #[test]
    fn fields_are_typed_by_the_schema() {
        let field = |name: &str, kind| FieldSchema { name: name.to_owned(), kind };
        let schema = Schema {
            prefixes: vec![],
            ttl: None,
            fields: vec![
                field("year", FieldKind::Numeric),
                field("price", FieldKind::Numeric),
                field("odd", FieldKind::Numeric),
                field("tags", FieldKind::Tag { separator: b';', case_sensitive: false }),
            ],
        };
        let stored = |name: &str, value: &[u8]| Field { name: name.as_bytes().into(), value: value.into() };
        let document = Document {
            key: b"c:1"[..].into(),
            seq: 9,
            expires_at_ms: None,
            fields: vec![
                stored("year", b"2024"),
                stored("price", b"1.50"),
                stored("odd", b"inf"),
                stored("tags", b"a; b c;;"),
                stored("more", "\u{1F980}\"".as_bytes()),
                stored("raw", &[0xff]),
            ],
        };
        let response = DocumentResponse {
            id: "1",
            seq: 9,
            expires_at_ms: None,
            fields: DocumentFields::new(&document, &schema, false),
        };
        assert_eq!(
            serde_json::to_string(&response).unwrap(),
            "{\"id\":\"1\",\"seq\":9,\"fields\":{\"year\":2024,\"price\":1.5,\"odd\":\"inf\",\"tags\":[\"a\",\"b c\"],\
             \"more\":\"\u{1F980}\\\"\",\"raw\":{\"base64\":\"/w==\"}}}"
        );
    }
}
