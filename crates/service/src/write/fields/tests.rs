use engine::{FieldSchema, Metric, Quantization, VectorSchema, VectorType};

use super::*;
use crate::{Algorithm, ErrorKind};

fn schema() -> Schema {
    let field = |name: &str, kind| FieldSchema { name: name.to_owned(), kind };
    let vector = |vector_type| {
        FieldKind::Vector(VectorSchema {
            algorithm: Algorithm::Flat,
            vector_type,
            quantization: Quantization::None,
            dim: 3,
            metric: Metric::Cosine,
            embed: None,
        })
    };
    Schema {
        prefixes: vec![b"d:".to_vec()],
        fields: vec![
            field("title", FieldKind::Text),
            field("tags", FieldKind::Tag { separator: b'|', case_sensitive: false }),
            field("year", FieldKind::Numeric),
            field("wide", vector(VectorType::Float32)),
            field("narrow", vector(VectorType::Int8)),
        ],
        ttl: None,
    }
}

fn encode_one(name: &str, value: Value) -> Result<Vec<u8>, Error> {
    encode(&schema(), &vec![(name.to_owned(), value)]).map(|fields| fields[0].value.to_vec())
}

fn tags(tags: &[&str]) -> Value {
    Value::Tags(tags.iter().map(|&tag| tag.to_owned()).collect())
}

#[test]
fn encodes_numbers_in_their_shortest_exact_form() {
    let forms = [
        (0.0, "0"),
        (-0.0, "0"),
        (2024.0, "2024"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e300, "1e300"),
        (1.25e-300, "1.25e-300"),
        (f64::MAX, "1.7976931348623157e308"),
    ];
    for (number, form) in forms {
        assert_eq!(encode_one("year", Value::Number(number)), Ok(form.as_bytes().to_vec()));
        assert_eq!(form.parse::<f64>(), Ok(number));
    }
    // Any field except a vector field accepts a number.
    assert_eq!(encode_one("title", Value::Number(3.0)), Ok(b"3".to_vec()));
    assert_eq!(encode_one("elsewhere", Value::Number(3.0)), Ok(b"3".to_vec()));
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = encode_one("year", Value::Number(number)).unwrap_err();
        assert_eq!((error.code, error.at.as_deref()), ("number", Some("year")));
    }
    assert_eq!(encode_one("wide", Value::Number(1.0)).unwrap_err().code, "field-kind");
}

#[test]
fn joins_tags_and_rejects_tags_with_the_separator() {
    assert_eq!(encode_one("tags", tags(&["a", "b c", "d,e"])), Ok(b"a|b c|d,e".to_vec()));
    assert_eq!(encode_one("tags", tags(&[])), Ok(Vec::new()));
    for bad in [&["a|b"][..], &["a", ""], &[" "]] {
        let error = encode_one("tags", tags(bad)).unwrap_err();
        assert_eq!((error.kind, error.code, error.at.as_deref()), (ErrorKind::Invalid, "tag", Some("tags")));
    }
    for field in ["title", "year", "wide", "elsewhere"] {
        let error = encode_one(field, tags(&["a"])).unwrap_err();
        assert_eq!((error.code, error.at.as_deref()), ("field-kind", Some(field)));
        assert!(error.message.contains("needs a TAG field"), "{error}");
    }
}

#[test]
fn encodes_vectors_in_the_element_type_of_the_field() {
    let expected: Vec<u8> = [1.0f32, -2.0, 0.5].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(encode_one("wide", Value::Vector(vec![1.0, -2.0, 0.5])), Ok(expected));
    assert_eq!(encode_one("narrow", Value::Vector(vec![1.0, -2.0, 127.0])), Ok(vec![1, 254, 127]));
    let short = encode_one("wide", Value::Vector(vec![1.0])).unwrap_err();
    assert_eq!((short.code, short.at.as_deref()), ("vector-dimensions", Some("wide")));
    assert!(short.message.contains("vector dimensions do not match"), "{short}");
    for bad in [vec![0.0; 3], vec![1.0, f32::NAN, 0.0], vec![1.0, f32::INFINITY, 0.0]] {
        assert_eq!(encode_one("wide", Value::Vector(bad)).unwrap_err().code, "vector-value");
    }
    assert_eq!(encode_one("title", Value::Vector(vec![1.0; 3])).unwrap_err().code, "field-kind");
}

#[test]
fn rejects_a_repeated_field() {
    let twice = vec![("a".to_owned(), Value::Number(1.0)), ("a".to_owned(), Value::Number(1.0))];
    assert_eq!(encode(&schema(), &twice).unwrap_err().code, "field-repeated");
}

#[test]
fn rejects_empty_long_and_control_character_ids() {
    for id in ["1", "kb-001", "ü/?#", &"x".repeat(512)] {
        assert_eq!(check_id(id), Ok(()), "{id:?}");
    }
    for id in ["", "a\nb", "\u{7f}", "\u{85}", &"x".repeat(513), &"ü".repeat(257)] {
        assert_eq!(check_id(id).unwrap_err().code, "id", "{id:?}");
    }
}

#[test]
fn merge_sets_adds_and_removes_fields() {
    let field =
        |name: &str, value: &str| Field { name: name.as_bytes().into(), value: value.as_bytes().into() };
    let old = [field("a", "1"), field("b", "2"), field("c", "3")];
    let merged = merge(&old, vec![field("d", "4"), field("b", "two")], &["a".to_owned(), "x".to_owned()]);
    assert_eq!(merged, [field("b", "two"), field("c", "3"), field("d", "4")]);
    assert!(same(&old, &[field("c", "3"), field("a", "1"), field("b", "2")]));
    assert!(!same(&old, &[field("c", "3"), field("a", "1"), field("b", "x")]));
    assert!(!same(&old, &old[..2]));
}
