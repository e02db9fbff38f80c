//! Values of fields in requests.

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::binary;
use service::Value;

/// Integers up to this are exact as 64-bit floats.
pub(super) const EXACT_MAX: u64 = 1 << 53;

/// The value of a field, or why it is invalid. An invalid value does not fail the parsing of the body, so that the error
/// can name the field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RequestValue {
    /// A value.
    Value(Value),
    /// Remove the field.
    Null,
    /// Invalid; the reason, to follow the field's name.
    Invalid(String),
}

impl<'de> Deserialize<'de> for RequestValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RequestValue, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

const EXPECTED: &str = r#"a string, a number, an array of strings, an array of numbers or {"base64": "..."}"#;

fn invalid(found: &str) -> RequestValue {
    RequestValue::Invalid(format!("{found} is not a valid value: expected {EXPECTED}"))
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = RequestValue;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<RequestValue, E> {
        Ok(RequestValue::Value(Value::Bytes(text.as_bytes().to_vec())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<RequestValue, E> {
        Ok(RequestValue::Value(Value::Bytes(text.into_bytes())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<RequestValue, E> {
        Ok(RequestValue::Value(Value::Number(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<RequestValue, E> {
        Ok(RequestValue::Value(match number {
            0..=EXACT_MAX => Value::Number(number as f64),
            _ => Value::Bytes(number.to_string().into_bytes()),
        }))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<RequestValue, E> {
        Ok(RequestValue::Value(match number.unsigned_abs() {
            0..=EXACT_MAX => Value::Number(number as f64),
            _ => Value::Bytes(number.to_string().into_bytes()),
        }))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<RequestValue, E> {
        Ok(invalid("a boolean"))
    }

    fn visit_unit<E: Error>(self) -> Result<RequestValue, E> {
        Ok(RequestValue::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RequestValue, A::Error> {
        let value = match seq.next_element::<Element>()? {
            None => return Ok(RequestValue::Value(Value::Tags(Vec::new()))),
            Some(Element::Text(first)) => {
                let mut tags = vec![first];
                loop {
                    match seq.next_element()? {
                        Some(Element::Text(tag)) => tags.push(tag),
                        Some(_) => break None,
                        None => break Some(Value::Tags(tags)),
                    }
                }
            }
            Some(Element::Number(first)) => {
                let mut vector = Vec::with_capacity(seq.size_hint().unwrap_or(384));
                vector.push(first);
                loop {
                    match seq.next_element()? {
                        Some(Element::Number(number)) => vector.push(number),
                        Some(_) => break None,
                        None => break Some(Value::Vector(vector)),
                    }
                }
            }
            Some(Element::Other) => None,
        };
        match value {
            Some(value) => Ok(RequestValue::Value(value)),
            None => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(invalid("an array of mixed or unsupported elements"))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RequestValue, A::Error> {
        let first = match map.next_key::<String>()? {
            Some(key) if key == "base64" => map.next_value()?,
            Some(_) => {
                map.next_value::<IgnoredAny>()?;
                Element::Other
            }
            None => Element::Other,
        };
        let mut alone = true;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            alone = false;
        }
        Ok(match first {
            Element::Text(text) if alone => match binary::decode(&text) {
                Ok(bytes) => RequestValue::Value(Value::Bytes(bytes)),
                Err(reason) => RequestValue::Invalid(format!("is not {reason}")),
            },
            _ => invalid("an object"),
        })
    }
}

/// An element of an array.
enum Element {
    Text(String),
    Number(f32),
    Other,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Element, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a string or a number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Element, E> {
        Ok(Element::Number(number as f32))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Element, E> {
        Ok(Element::Number(number as f32))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Element, E> {
        Ok(Element::Number(number as f32))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Element, E> {
        Ok(Element::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Element, E> {
        Ok(Element::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Element::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Element::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> RequestValue {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    fn value(value: Value) -> RequestValue {
        RequestValue::Value(value)
    }

    #[test]
    fn json_types_become_values() {
        assert_eq!(read(r#""a\u00e9""#), value(Value::Bytes("aé".as_bytes().to_vec())));
        assert_eq!(read("2024"), value(Value::Number(2024.0)));
        assert_eq!(read("-0.5"), value(Value::Number(-0.5)));
        assert_eq!(read("9007199254740992"), value(Value::Number(9_007_199_254_740_992.0)));
        assert_eq!(
            read("9007199254740993"),
            value(Value::Bytes(b"9007199254740993".to_vec())),
            "all digits are kept"
        );
        assert_eq!(read("-9007199254740993"), value(Value::Bytes(b"-9007199254740993".to_vec())));
        assert_eq!(read("[]"), value(Value::Tags(vec![])));
        assert_eq!(read(r#"["a","b"]"#), value(Value::Tags(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(read("[1,-2.5,3]"), value(Value::Vector(vec![1.0, -2.5, 3.0])));
        assert_eq!(read(r#"{"base64":"AP8="}"#), value(Value::Bytes(vec![0, 255])));
        assert_eq!(read("null"), RequestValue::Null);
    }

    #[test]
    fn an_invalid_value_does_not_affect_others() {
        for bad in [
            "true",
            "{}",
            r#"{"a":1}"#,
            r#"{"base64":"AP8=","a":1}"#,
            r#"{"base64":7}"#,
            r#"{"base64":"*"}"#,
            r#"{"base64":{"base64":"AP8="}}"#,
            r#"[1,"a",{"b":[2]}]"#,
            r#"["a",1]"#,
            "[[1],[2]]",
            "[null]",
            r#"[{"a":1}]"#,
        ] {
            let json = format!("[{bad}, \"after\"]");
            let values: Vec<RequestValue> =
                serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert!(matches!(values[0], RequestValue::Invalid(_)), "{bad}: {:?}", values[0]);
            assert_eq!(values[1], value(Value::Bytes(b"after".to_vec())), "{bad}");
        }
    }
}
