//! Tests against recorded replies of a real server (Redis 7.4.1, RediSearch 2.10.5), one protocol line
//! per line of the file.

use super::*;
use crate::Embedding;

const INFO: [&str; 2] =
    [include_str!("../recorded/info_resp2.txt"), include_str!("../recorded/info_resp3.txt")];

const INFO_OPTIONS: [&str; 2] =
    [include_str!("../recorded/info_options_resp2.txt"), include_str!("../recorded/info_options_resp3.txt")];

fn read(recorded: &str) -> IndexInfo {
    IndexInfo::parse(reply::recorded(&recorded.replace('\n', "\r\n"))).unwrap()
}

fn field(name: &str, kind: FieldKind) -> FieldSchema {
    FieldSchema { name: name.to_owned(), kind }
}

fn vector() -> VectorSchema {
    VectorSchema {
        algorithm: Algorithm::Hnsw { m: 16, ef_construction: 200, ef_search: 80 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 4,
        metric: Metric::Cosine,
        embed: None,
    }
}

/// The schema of the recorded index.
fn article() -> Schema {
    let fields = vec![
        field("title", FieldKind::Text),
        field("content", FieldKind::Text),
        field("embedding", FieldKind::Vector(vector())),
    ];
    Schema { prefixes: vec![b"article:".to_vec()], fields, ttl: None }
}

fn words(command: &Cmd) -> String {
    let words = command.args_iter().map(|argument| match argument {
        redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => panic!("no cursors here"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn counts_arguments_of_a_vector_field_rather_than_options() {
    let mut schema = article();
    schema.prefixes.push(b"note:".to_vec());
    schema.fields[1] = field("tags", FieldKind::Tag { separator: b';', case_sensitive: true });
    schema.fields.push(field("year", FieldKind::Numeric));
    let flat = VectorSchema { algorithm: Algorithm::Flat, metric: Metric::L2, ..vector() };
    schema.fields.push(field("flat", FieldKind::Vector(flat)));
    assert_eq!(
        words(&create_command("kb", &schema)),
        "FT.CREATE kb ON HASH PREFIX 2 article: note: SCHEMA title TEXT tags TAG SEPARATOR ; CASESENSITIVE \
         embedding VECTOR HNSW 12 TYPE FLOAT32 DIM 4 DISTANCE_METRIC COSINE M 16 EF_CONSTRUCTION 200 \
         EF_RUNTIME 80 year NUMERIC flat VECTOR FLAT 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC L2"
    );
}

#[test]
fn parses_index_info_from_resp2_and_resp3_alike() {
    let [two, three] = INFO.map(read);
    assert_eq!(two, three);
    assert_eq!((two.failures, two.percent_indexed), (4, 1.0));
    assert!(two.documents > 0 && two.memory_bytes > 0, "{two:?}");
    assert_eq!(
        two.last_failure.as_deref(),
        Some("document \"article:empty\": Could not add vector with blob size 0 (expected size 16)")
    );
    let [two, three] = INFO_OPTIONS.map(read);
    assert_eq!(two, three);
    assert!(two.has_filter);
}

#[test]
fn ignores_impossible_sizes() {
    let sizes = "%4\n+inverted_sz_mb\n,17592186044415.996\n+doc_table_size_mb\n$18\n17592186044415.996\n\
                 +key_table_size_mb\n,nan\n+vector_index_sz_mb\n$3\n1.5\n";
    assert_eq!(read(sizes).memory_bytes, 3 << 19);
}

#[test]
fn adopts_an_equal_index_and_names_the_first_difference() {
    let info = read(INFO[0]);
    assert_eq!(info.difference(&article()), None);

    // Options that the index does not have make no difference.
    let mut schema = article();
    schema.ttl = Some(std::time::Duration::from_secs(1));
    let embed = Embedding { fields: vec!["title".to_owned()], model: "m".to_owned() };
    let algorithm = Algorithm::Hnsw { m: 16, ef_construction: 200, ef_search: 7 };
    schema.fields[2].kind = FieldKind::Vector(VectorSchema { embed: Some(embed), algorithm, ..vector() });
    assert_eq!(info.difference(&schema), None);

    let graph = |m, ef_construction| Algorithm::Hnsw { m, ef_construction, ef_search: 80 };
    let cases = [
        (VectorSchema { dim: 5, ..vector() }, "DIM is 4, not 5"),
        (VectorSchema { metric: Metric::Ip, ..vector() }, "DISTANCE_METRIC is COSINE, not IP"),
        (VectorSchema { vector_type: VectorType::Float16, ..vector() }, "DATA_TYPE is FLOAT32, not FLOAT16"),
        (VectorSchema { algorithm: Algorithm::Flat, ..vector() }, "ALGORITHM is HNSW, not FLAT"),
        (VectorSchema { algorithm: graph(32, 200), ..vector() }, "M is 16, not 32"),
        (VectorSchema { algorithm: graph(16, 100), ..vector() }, "EF_CONSTRUCTION is 200, not 100"),
    ];
    for (other, named) in cases {
        let mut schema = article();
        schema.fields[2].kind = FieldKind::Vector(other);
        assert_eq!(info.difference(&schema).unwrap(), format!("field \"embedding\": {named}"));
    }

    let mut schema = article();
    schema.prefixes[0] = b"a:".to_vec();
    assert_eq!(info.difference(&schema).unwrap(), "its prefixes are \"article:\", not \"a:\"");
    let mut schema = article();
    schema.fields[0].kind = FieldKind::Numeric;
    assert_eq!(info.difference(&schema).unwrap(), "field \"title\": its kind is TEXT, not NUMERIC");
    let mut schema = article();
    schema.fields.remove(1);
    assert_eq!(info.difference(&schema).unwrap(), "it has an additional field \"content\"");
    schema.fields.push(field("year", FieldKind::Numeric));
    assert_eq!(info.difference(&schema).unwrap(), "it has no field \"year\"");
}

#[test]
fn compares_tag_options_and_never_adopts_an_index_with_a_filter() {
    let mut info = read(INFO_OPTIONS[1]);
    let tag = |separator, case_sensitive| Schema {
        prefixes: vec![b"b:".to_vec(), b"a:".to_vec()],
        fields: vec![
            field("n", FieldKind::Numeric),
            field("t", FieldKind::Tag { separator, case_sensitive }),
            field("x", FieldKind::Text),
        ],
        ttl: None,
    };
    assert!(info.difference(&tag(b';', true)).unwrap().contains("FILTER"));
    info.has_filter = false;
    assert!(info.difference(&tag(b',', true)).unwrap().contains("SEPARATOR is ;, not ,"));
    assert!(info.difference(&tag(b';', false)).unwrap().contains("it is CASESENSITIVE"));
    assert_eq!(info.difference(&tag(b';', true)).unwrap(), "it has an additional field \"g\"");
}

#[test]
fn rejects_schemas_that_redis_does_not_support() {
    assert_eq!(check_supported(&article(), 21_005), Ok(()));
    let mut schema = article();
    for other in [
        VectorSchema { vector_type: VectorType::Int8, ..vector() },
        VectorSchema { quantization: Quantization::Int8, ..vector() },
        VectorSchema { quantization: Quantization::Int4, ..vector() },
    ] {
        schema.fields[2].kind = FieldKind::Vector(other);
        let error = check_supported(&schema, 21_005).unwrap_err();
        assert_eq!((error.code, error.at.as_deref()), ("schema", Some("embedding")));
    }
    schema.fields[2].kind = FieldKind::Vector(VectorSchema { vector_type: VectorType::Float16, ..vector() });
    assert_eq!(check_supported(&schema, 21_005), Ok(()));
    assert!(check_supported(&schema, 20_811).unwrap_err().message.contains("2.10"));
    for prefix in ["", "near", "nearfield:", "nearfield:meta:"] {
        let schema = Schema { prefixes: vec![prefix.into()], ..article() };
        assert_eq!(
            check_supported(&schema, 21_005).unwrap_err().at.as_deref(),
            Some("prefixes"),
            "{prefix:?}"
        );
    }
}
