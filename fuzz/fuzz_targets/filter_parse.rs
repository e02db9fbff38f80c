//! Filters: what parses is printed as something that parses to the same.
#![no_main]

use std::sync::LazyLock;

use engine::{FieldKind, FieldSchema, Filter, Schema};
use libfuzzer_sys::fuzz_target;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let field = |name: &str, kind| FieldSchema { name: name.to_owned(), kind };
    Schema {
        prefixes: vec![b"a:".to_vec()],
        fields: vec![
            field("tag", FieldKind::Tag { separator: b',', case_sensitive: false }),
            field("other", FieldKind::Tag { separator: b';', case_sensitive: true }),
            field("year", FieldKind::Numeric),
            field("text", FieldKind::Text),
        ],
        ttl: None,
    }
});

fuzz_target!(|text: &str| {
    if let Ok(filter) = Filter::parse(text, &SCHEMA) {
        let printed = filter.to_string();
        let again = Filter::parse(&printed, &SCHEMA);
        let again = again.unwrap_or_else(|error| panic!("{text:?} is printed as {printed:?}: {error}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
    }
});
