//! Bytes that are usually text: a string, or `{"base64": "..."}` if they are not UTF-8.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
    ser::SerializeMap,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

/// Bytes in a request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binary(pub(crate) Vec<u8>);

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Binary, D::Error> {
        deserializer.deserialize_any(BinaryVisitor)
    }
}

struct BinaryVisitor;

impl<'de> Visitor<'de> for BinaryVisitor {
    type Value = Binary;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(r#"a string or {"base64": "..."}"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Binary, E> {
        Ok(Binary(text.as_bytes().to_vec()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Binary, A::Error> {
        let invalid =
            || A::Error::custom(r#"bytes as an object must be {"base64": "..."} without other members"#);
        let Some((key, text)) = map.next_entry::<String, String>()? else { return Err(invalid()) };
        let only = map.next_key::<String>()?.is_none();
        if key != "base64" || !only {
            return Err(invalid());
        }
        decode(&text).map(Binary).map_err(A::Error::custom)
    }
}

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let base64 = ObjectBuilder::new().property("base64", text()).required("base64");
        OneOfBuilder::new()
            .item(text())
            .item(base64)
            .description(Some("Text, or any bytes as base64."))
            .into()
    }
}

impl ToSchema for Binary {}

/// Decodes standard base64 with or without padding.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let stripped = text.trim_end_matches('=');
    base64::prelude::BASE64_STANDARD_NO_PAD.decode(stripped).map_err(|error| format!("base64: {error}"))
}

/// Writes bytes as a string, or as base64 if they are not UTF-8.
pub(super) fn write<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => write_base64(bytes, serializer),
    }
}

/// Writes bytes as base64.
pub(super) fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry("base64", &BASE64_STANDARD.encode(bytes))?;
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_a_round_trip() {
        for bytes in [&b""[..], b"articles:", "\u{e9}\u{0}".as_bytes(), &[0xff, 0, 0x80]] {
            let json = serde_json::to_string(&Binary(bytes.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<Binary>(&json).unwrap().0, bytes, "{json}");
        }
        assert_eq!(serde_json::to_string(&Binary(vec![0xff])).unwrap(), r#"{"base64":"/w=="}"#);
        assert_eq!(serde_json::from_str::<Binary>(r#"{"base64":"/w"}"#).unwrap().0, [0xff]);
        for bad in
            [r#"{"base64":"/w==","x":"y"}"#, r#"{"base65":"/w=="}"#, r#"{"base64":"?"}"#, "{}", "1", "null"]
        {
            assert!(serde_json::from_str::<Binary>(bad).is_err(), "{bad}");
        }
    }
}
