use proptest::prelude::*;

use super::*;

fn vector(embed: Option<Embedding>) -> VectorSchema {
    VectorSchema {
        algorithm: Algorithm::Hnsw { m: 16, ef_construction: 200, ef_search: 80 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 384,
        metric: Metric::Cosine,
        embed,
    }
}

fn named(name: &str, kind: FieldKind) -> FieldSchema {
    FieldSchema { name: name.to_owned(), kind }
}

fn articles() -> Schema {
    Schema {
        prefixes: vec![b"article:".to_vec()],
        fields: vec![
            named("title", FieldKind::Text),
            named("content", FieldKind::Text),
            named("category", FieldKind::Tag { separator: b',', case_sensitive: false }),
            named("year", FieldKind::Numeric),
            named(
                "embedding",
                FieldKind::Vector(vector(Some(Embedding {
                    fields: vec!["title".to_owned(), "content".to_owned()],
                    model: "all-MiniLM-L6-v2".to_owned(),
                }))),
            ),
        ],
        ttl: None,
    }
}

#[track_caller]
fn rejected(change: impl FnOnce(&mut Schema)) -> String {
    let mut schema = articles();
    change(&mut schema);
    schema.validate().expect_err("the schema is wrong").to_string()
}

fn vector_of(schema: &mut Schema) -> &mut VectorSchema {
    match &mut schema.fields[4].kind {
        FieldKind::Vector(vector) => vector,
        other => panic!("the fifth field is a vector, not {other:?}"),
    }
}

#[test]
fn accepts_a_valid_schema() {
    assert_eq!(articles().validate(), Ok(()));
}

#[test]
fn messages_name_the_field_and_what_is_allowed() {
    assert_eq!(
        rejected(|schema| schema.fields[1].name = "title".to_owned()),
        "field \"title\" is given twice"
    );
    assert_eq!(
        rejected(|schema| vector_of(schema).dim = 4097),
        "VECTOR field \"embedding\": dim must be 1 to 4096, found 4097"
    );
    assert_eq!(
        rejected(|schema| vector_of(schema).dim = 0),
        "VECTOR field \"embedding\": dim must be 1 to 4096, found 0"
    );
    assert_eq!(
        rejected(|schema| vector_of(schema).embed.as_mut().unwrap().fields[0] = "year".to_owned()),
        "VECTOR field \"embedding\": embed names \"year\", which is NUMERIC; TEXT fields of this \
         schema: title, content"
    );
    assert_eq!(
        rejected(|schema| vector_of(schema).embed.as_mut().unwrap().fields[0] = "body".to_owned()),
        "VECTOR field \"embedding\": embed names \"body\", which is no field of this schema; TEXT \
         fields of this schema: title, content"
    );
    assert_eq!(
        rejected(|schema| {
            schema.fields[2].kind = FieldKind::Tag { separator: b'a', case_sensitive: false };
        }),
        "TAG field \"category\": separator 'a' is not allowed, give one ASCII punctuation \
         character or a space"
    );
    assert_eq!(
        rejected(|schema| schema.ttl = Some(Duration::ZERO)),
        format!("ttl must be 1 ms to {} ms, found 0 ms", TTL_MAX.as_millis())
    );
}

#[test]
fn every_option_is_checked_against_its_range() {
    for (m, ef_construction, ef_search, option) in [
        (1, 200, 80, "m"),
        (129, 200, 80, "m"),
        (16, 0, 80, "ef_construction"),
        (16, 4097, 80, "ef_construction"),
        (16, 200, 0, "ef_search"),
        (16, 200, 4097, "ef_search"),
    ] {
        let message = rejected(|schema| {
            vector_of(schema).algorithm = Algorithm::Hnsw { m, ef_construction, ef_search };
        });
        assert!(message.starts_with(&format!("VECTOR field \"embedding\": {option} must be")), "{message}");
    }
}

#[test]
fn prefixes_are_bounded_and_distinct() {
    assert!(rejected(|schema| schema.prefixes.clear()).contains("at least one key prefix"));
    assert!(rejected(|schema| schema.prefixes.push(b"article:".to_vec())).contains("is given twice"));
    let many = (0..65).map(|i| format!("p{i}:").into_bytes()).collect();
    assert!(rejected(|schema| schema.prefixes = many).contains("at most 64 key prefixes, found 65"));
}

#[test]
fn the_difference_of_two_schemas_is_named() {
    let mut other = articles();
    assert_eq!(articles().difference(&other), None);
    other.fields.swap(0, 1);
    assert_eq!(articles().difference(&other).as_deref(), Some("the fields are in another order"));
    let mut other = articles();
    vector_of(&mut other).dim = 10;
    assert_eq!(articles().difference(&other).as_deref(), Some("field \"embedding\" differs"));
}

#[test]
fn the_bytes_of_format_1_stay_as_they_are() {
    let schema = Schema {
        prefixes: vec![b"a:".to_vec()],
        fields: vec![
            named("t", FieldKind::Text),
            named(
                "v",
                FieldKind::Vector(VectorSchema {
                    algorithm: Algorithm::Flat,
                    dim: 3,
                    metric: Metric::L2,
                    ..vector(None)
                }),
            ),
        ],
        ttl: Some(Duration::from_millis(7)),
    };
    let bytes = [
        1, 1, 0, 0, 0, 2, 0, 0, 0, b'a', b':', 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, b't', 0, 1, 0,
        0, 0, b'v', 3, 0, 0, 0, 3, 0, 0, 0, 2, 0,
    ];
    assert_eq!(encode(&schema), bytes);
    assert_eq!(decode(&bytes), Ok(schema));
}

#[test]
fn truncated_and_modified_bytes_never_panic() {
    let bytes = encode(&articles());
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut to {len} bytes");
    }
    for position in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = bytes.clone();
            changed[position] = value;
            // Any result is acceptable, except a panic or an unbounded allocation.
            let _ = decode(&changed);
        }
    }
}

fn kinds() -> impl Strategy<Value = FieldKind> {
    let algorithm = prop_oneof![
        Just(Algorithm::Flat),
        (2usize..129, 1usize..4097, 1usize..4097).prop_map(|(m, ef_construction, ef_search)| {
            Algorithm::Hnsw { m, ef_construction, ef_search }
        }),
    ];
    let vector_type = prop::sample::select(vec![
        VectorType::Float32,
        VectorType::Float16,
        VectorType::Bfloat16,
        VectorType::Int8,
    ]);
    let metric = prop::sample::select(vec![Metric::Cosine, Metric::Ip, Metric::L2]);
    let quantization = prop::sample::select(vec![Quantization::None, Quantization::Int8, Quantization::Int4]);
    let embed = prop::option::of(
        (prop::collection::vec(".{0,8}", 0..3), ".{0,8}")
            .prop_map(|(fields, model)| Embedding { fields, model }),
    );
    prop_oneof![
        Just(FieldKind::Text),
        Just(FieldKind::Numeric),
        (any::<u8>(), any::<bool>())
            .prop_map(|(separator, case_sensitive)| FieldKind::Tag { separator, case_sensitive }),
        (algorithm, vector_type, quantization, 0usize..5000, metric, embed).prop_map(
            |(algorithm, vector_type, quantization, dim, metric, embed)| {
                FieldKind::Vector(VectorSchema { algorithm, vector_type, quantization, dim, metric, embed })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn an_encoded_schema_decodes_to_the_same_schema(
        prefixes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4),
        fields in prop::collection::vec((".{0,9}", kinds()), 0..6),
        ttl_ms in prop::option::of(0..u64::MAX),
    ) {
        let schema = Schema {
            prefixes,
            fields: fields.into_iter().map(|(name, kind)| FieldSchema { name, kind }).collect(),
            ttl: ttl_ms.map(Duration::from_millis),
        };
        prop_assert_eq!(decode(&encode(&schema)), Ok(schema));
    }
}
