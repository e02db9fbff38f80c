use std::collections::BTreeMap;

use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::*;
use crate::{
    attributes::{AttributeIndex, DocumentAttributes, split_tags},
    schema::FieldSchema,
};

fn schema() -> Schema {
    let tag = |separator, case_sensitive| FieldKind::Tag { separator, case_sensitive };
    let field = |name: &str, kind| FieldSchema { name: name.to_owned(), kind };
    Schema {
        prefixes: vec![b"doc:".to_vec()],
        fields: vec![
            field("title", FieldKind::Text),
            field("category", tag(b',', false)),
            field("Code-1", tag(b';', true)),
            field("year", FieldKind::Numeric),
            field("price", FieldKind::Numeric),
        ],
        ttl: None,
    }
}

fn tag(field: &str, values: &[&str]) -> Filter {
    Filter::Tag {
        field: field.to_owned(),
        values: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
    }
}

fn range(field: &str, min: (f64, bool), max: (f64, bool)) -> Filter {
    Filter::Range {
        field: field.to_owned(),
        min: min.0,
        min_exclusive: min.1,
        max: max.0,
        max_exclusive: max.1,
    }
}

#[track_caller]
fn parses(text: &str, expected: Filter) {
    let filter = Filter::parse(text, &schema()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(filter, expected, "{text}");
    let printed = filter.to_string();
    assert_eq!(Filter::parse(&printed, &schema()).as_ref(), Ok(&filter), "{text} printed as {printed}");
}

#[track_caller]
fn rejected(text: &str, message: &str) {
    match Filter::parse(text, &schema()) {
        Ok(filter) => panic!("{text} was read as {filter:?}"),
        Err(error) => assert_eq!(error.to_string(), message, "{text}"),
    }
}

#[test]
fn everything() {
    for text in ["*", " * ", "(*)", "( ( * ) )"] {
        parses(text, Filter::All);
    }
}

#[test]
fn tags() {
    parses("@category:{billing}", tag("category", &["billing"]));
    parses("@category:{ billing | security }", tag("category", &["billing", "security"]));
    parses("@category : { two  words|x }", tag("category", &["two  words", "x"]));
    parses(r"@category:{a\-b|c\ d\ |\||\}}", tag("category", &["a-b", "c d ", "|", "}"]));
    parses(r#"@category:{"a b"|"say \"x|y\""}"#, tag("category", &["a b", "say \"x|y\""]));
    parses("@category:{a.b@c/d-e:f}", tag("category", &["a.b@c/d-e:f"]));
    parses("@category:{grün|日本}", tag("category", &["grün", "日本"]));
    parses(r"@Code\-1:{X}", tag("Code-1", &["X"]));
    parses(r"@category:{\*|100\%|w\'x'}", tag("category", &["*", "100%", "w'x'"]));
}

#[test]
fn ranges() {
    parses("@year:[2020 +inf]", range("year", (2020.0, false), (f64::INFINITY, false)));
    parses("@year:[(5 10]", range("year", (5.0, true), (10.0, false)));
    parses("@year:[ -INF , ( 10 ]", range("year", (f64::NEG_INFINITY, false), (10.0, true)));
    parses("@year:[(-1.5e3 (1e300]", range("year", (-1500.0, true), (1e300, true)));
    parses("@year:[2020]", range("year", (2020.0, false), (2020.0, false)));
    parses("@year:[(1000.0 inf]", range("year", (1000.0, true), (f64::INFINITY, false)));
}

#[test]
fn precedence_is_that_of_dialect_2() {
    let a = || tag("category", &["a"]);
    let b = || tag("category", &["b"]);
    let c = || tag("category", &["c"]);
    let not = |part| Filter::Not(Box::new(part));
    parses("@category:{a} @category:{b}", Filter::And(vec![a(), b()]));
    parses("@category:{a} @category:{b} | @category:{c}", Filter::Or(vec![Filter::And(vec![a(), b()]), c()]));
    parses(
        "@category:{a} (@category:{b} | @category:{c})",
        Filter::And(vec![a(), Filter::Or(vec![b(), c()])]),
    );
    parses("-@category:{a} @category:{b}", Filter::And(vec![not(a()), b()]));
    parses("-(@category:{a} @category:{b})", not(Filter::And(vec![a(), b()])));
    parses("- -@category:{a}", not(not(a())));
    parses("((@category:{a}))(-@category:{b})", Filter::And(vec![a(), not(b())]));
}

#[test]
fn filters_that_real_clients_send() {
    parses(
        r"(@category:{a\-b} @year:[(2020 +inf])",
        Filter::And(vec![tag("category", &["a-b"]), range("year", (2020.0, true), (f64::INFINITY, false))]),
    );
    parses(
        "((-@category:{x|y}) @year:[(1000.0 +inf])",
        Filter::And(vec![
            Filter::Not(Box::new(tag("category", &["x", "y"]))),
            range("year", (1000.0, true), (f64::INFINITY, false)),
        ]),
    );
    parses("@category:{01M816N7HHAXQM0QSHV177HAFX}", tag("category", &["01M816N7HHAXQM0QSHV177HAFX"]));
}

#[test]
fn errors_name_the_position_and_the_fix() {
    rejected("", "filter: the text ends at byte 0 where * (everything) or a condition is expected");
    rejected(
        "@nope:{a}",
        "filter: no field \"nope\" at byte 0; fields that a filter can use: category, Code-1, \
         year, price",
    );
    rejected(
        "@category:{a} @year:{2020}",
        "filter: field \"year\" at byte 14 is NUMERIC, but {...} is for TAG fields",
    );
    rejected(
        "@category:[1 2]",
        "filter: field \"category\" at byte 0 is TAG, but [min max] is for NUMERIC fields",
    );
    rejected(
        "@title:password",
        "filter: \"@title:password\" at byte 0 is full-text search, which filters do not support; write \
         @field:{tag} or @field:[min max]",
    );
    rejected(
        "@category:{a} reset password",
        "filter: \"reset\" at byte 14 is full-text search, which filters do not support; write @field:{tag} \
         or @field:[min max]",
    );
    rejected("@year:[1 x]", "filter: \"x\" at byte 9 is not a number");
    rejected("@year:[nan 1]", "filter: \"nan\" at byte 7 is not a number");
    rejected("@year:[1e999 inf]", "filter: \"1e999\" at byte 7 is not a number");
    rejected("@year:[5 1]", "filter: the range of \"year\" at byte 6 is reversed: 5 is more than 1");
    rejected("@category:{a", "filter: the text ends at byte 12 where | or } after a tag is expected");
    rejected("@category:{}", "filter: found \"}\" at byte 11 where a tag is expected");
    rejected("@category:{a|}", "filter: found \"}\" at byte 13 where a tag is expected");
    rejected("@category:{a))", "filter: the text ends at byte 14 where | or } after a tag is expected");
    rejected("(@category:{a}", "filter: the text ends at byte 14 where ) is expected");
    rejected("@category:{a})", "filter: found \")\" at byte 13 where the end of the filter is expected");
    rejected(
        "@category:{a} |",
        "filter: the text ends at byte 15 where @field:{tag}, @field:[min max], - or ( is expected",
    );
    rejected(
        "@category:{bil*}",
        "filter: a prefix or a pattern in a tag at byte 14 is not supported: write the whole tag, or a \
         backslash before the character",
    );
    rejected(
        "* @category:{a}",
        "filter: * next to other conditions at byte 0 is not supported: leave it out",
    );
    rejected(
        "@category:{$c}",
        "filter: a parameter ($) at byte 11 is not supported: write the value itself, or \\$",
    );
    rejected(
        "@category:{a}=>[KNN 3 @v $b]",
        "filter: => at byte 13 is not supported: write only the part before it",
    );
    rejected(r"@category:{a\", r"filter: the text ends at byte 13 where a character after \ is expected");
}

#[test]
fn length_depth_and_terms_are_bounded() {
    let long = format!("@category:{{{}}}", "a".repeat(TEXT_BYTES_MAX));
    assert!(matches!(Filter::parse(&long, &schema()), Err(FilterError::Length { .. })));

    let nested = |depth| "(".repeat(depth) + "@category:{a}" + &")".repeat(depth);
    assert!(Filter::parse(&nested(DEPTH_MAX), &schema()).is_ok());
    assert!(matches!(Filter::parse(&nested(DEPTH_MAX + 1), &schema()), Err(FilterError::Depth { .. })));
    let negated = |depth| "-".repeat(depth) + "@category:{a}";
    parses(
        &negated(DEPTH_MAX),
        (0..DEPTH_MAX).fold(tag("category", &["a"]), |f, _| Filter::Not(Box::new(f))),
    );
    assert!(matches!(Filter::parse(&negated(DEPTH_MAX + 1), &schema()), Err(FilterError::Depth { .. })));

    // Unions and intersections do not count as levels.
    let mixed = |depth| "-(@year:[1 2] | @year:[3 4] ".repeat(depth) + "@category:{a}" + &")".repeat(depth);
    let filter = Filter::parse(&mixed(DEPTH_MAX), &schema()).unwrap();
    assert_eq!(filter.check(&schema()), Ok(()));
    assert!(matches!(Filter::parse(&mixed(DEPTH_MAX + 1), &schema()), Err(FilterError::Depth { .. })));
    let deeper = Filter::And(vec![Filter::Not(Box::new(filter)), tag("category", &["a"])]);
    assert!(matches!(deeper.check(&schema()), Err(FilterError::Depth { .. })));

    let terms = |count| format!("@category:{{{}}}", vec!["a"; count].join("|"));
    assert!(Filter::parse(&terms(TERMS_MAX), &schema()).is_ok());
    assert!(matches!(Filter::parse(&terms(TERMS_MAX + 1), &schema()), Err(FilterError::Terms { .. })));
}

#[test]
fn checks_a_filter_that_was_not_parsed() {
    assert!(matches!(tag("nope", &["a"]).check(&schema()), Err(FilterError::UnknownField { .. })));
    assert!(matches!(tag("year", &["a"]).check(&schema()), Err(FilterError::Kind { .. })));
    let nan = range("year", (f64::NAN, false), (1.0, false));
    assert!(matches!(nan.check(&schema()), Err(FilterError::Number { .. })));
    let deep = (0..=DEPTH_MAX).fold(Filter::All, |filter, _| Filter::Not(Box::new(filter)));
    assert!(matches!(deep.check(&schema()), Err(FilterError::Depth { .. })));
}

/// Filters as the parser builds them: no node of a single part, no `All` inside another filter.
fn filters() -> impl Strategy<Value = Filter> {
    let number = prop_oneof![
        3 => (-5i32..15).prop_map(f64::from),
        1 => any::<f64>().prop_filter("a number", |number| !number.is_nan()),
        1 => prop::sample::select(vec![f64::INFINITY, f64::NEG_INFINITY, -0.0]),
    ];
    let word = prop_oneof![
        4 => "[a-dA-D]{1,2}",
        1 => "[ -~]{1,6}",
        1 => "\\PC{1,4}",
    ];
    let leaf = prop_oneof![
        (prop::sample::select(vec!["category", "Code-1"]), prop::collection::vec(word, 1..4)).prop_map(
            |(field, values)| Filter::Tag {
                field: field.to_owned(),
                values: values.into_iter().map(String::into_bytes).collect(),
            }
        ),
        (
            prop::sample::select(vec!["year", "price"]),
            (number.clone(), any::<bool>()),
            (number, any::<bool>())
        )
            .prop_map(|(field, a, b)| {
                let (min, max) = if a.0 <= b.0 { (a, b) } else { (b, a) };
                range(field, min, max)
            }),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    });
    prop_oneof![1 => Just(Filter::All), 20 => tree]
}

/// A document as given: raw values per field.
type Values = BTreeMap<&'static str, String>;

fn documents() -> impl Strategy<Value = Vec<Option<Values>>> {
    let document = (
        prop::option::of("[a-dA-D ]{0,3}(,[a-dA-D ]{0,3}){0,2}"),
        prop::option::of("[a-dA-D ]{0,3}(;[a-dA-D]{0,3}){0,2}"),
        prop::option::of(-5i32..15),
        prop::option::of(-5i32..15),
    )
        .prop_map(|(category, code, year, price)| {
            let mut values = Values::new();
            values.extend(category.map(|value| ("category", value)));
            values.extend(code.map(|value| ("Code-1", value)));
            values.extend(year.map(|value| ("year", value.to_string())));
            values.extend(price.map(|value| ("price", (f64::from(value) / 2.0).to_string())));
            values
        });
    prop::collection::vec(prop::option::weighted(0.9, document), 0..60)
}

fn document_attributes(values: &Values) -> DocumentAttributes {
    let tags = |field, separator, case_sensitive| {
        values
            .get(field)
            .map_or_else(Vec::new, |value: &String| split_tags(value.as_bytes(), separator, case_sensitive))
    };
    let number = |field| values.get(field).map(|value: &String| value.parse().unwrap());
    DocumentAttributes {
        tags: vec![tags("category", b',', false), tags("Code-1", b';', true)],
        numbers: vec![number("year"), number("price")],
    }
}

/// The oracle: evaluates the filter for one document from its raw values.
fn oracle(filter: &Filter, document: &Values) -> bool {
    match filter {
        Filter::All => true,
        Filter::Tag { field, values } => {
            let (separator, fold): (char, fn(&str) -> String) = match field.as_str() {
                "category" => (',', |word| word.trim().to_lowercase()),
                _ => (';', |word| word.trim().to_owned()),
            };
            let Some(found) = document.get(field.as_str()) else { return false };
            found.split(separator).any(|word| {
                !word.trim().is_empty()
                    && values.iter().any(|value| {
                        let value = std::str::from_utf8(value).unwrap();
                        let value = if separator == ',' { value.to_lowercase() } else { value.to_owned() };
                        value == fold(word)
                    })
            })
        }
        Filter::Range { field, min, min_exclusive, max, max_exclusive } => {
            document.get(field.as_str()).is_some_and(|value| {
                let number: f64 = value.parse().unwrap();
                let above = if *min_exclusive { number > *min } else { number >= *min };
                let below = if *max_exclusive { number < *max } else { number <= *max };
                above && below
            })
        }
        Filter::And(parts) => parts.iter().all(|part| oracle(part, document)),
        Filter::Or(parts) => parts.iter().any(|part| oracle(part, document)),
        Filter::Not(part) => !oracle(part, document),
    }
}

proptest! {
    #[test]
    fn a_printed_filter_parses_to_the_same_filter(filter in filters()) {
        let printed = filter.to_string();
        prop_assert_eq!(Filter::parse(&printed, &schema()), Ok(filter), "{}", printed);
    }

    #[test]
    fn any_text_parses_or_is_rejected(text in "[-@(){}\\[\\]|*\\\\ \":a-c0-9ä]{0,40}|(@category:\\{|@year:\\[|\\PC){0,8}") {
        if let Ok(filter) = Filter::parse(&text, &schema()) {
            prop_assert_eq!(Filter::parse(&filter.to_string(), &schema()), Ok(filter));
        }
    }

    #[test]
    fn evaluation_agrees_with_matching_each_document(
        filters in prop::collection::vec(filters(), 1..6),
        first in documents(),
        second in documents(),
    ) {
        let mut attributes = AttributeIndex::new(&schema());
        // The second generation overwrites part of the first, like updates and deletes.
        let mut current = first;
        for (ordinal, values) in current.iter().enumerate() {
            if let Some(values) = values {
                attributes.set(ordinal as u32, &document_attributes(values));
            }
        }
        for (ordinal, values) in second.into_iter().enumerate().step_by(2) {
            match &values {
                Some(values) => attributes.set(ordinal as u32, &document_attributes(values)),
                None => attributes.clear(ordinal as u32),
            }
            if ordinal >= current.len() {
                current.resize(ordinal + 1, None);
            }
            current[ordinal] = values;
        }
        let live = |(ordinal, values): (usize, &Option<Values>)| values.as_ref().map(|_| ordinal as u32);
        let all: RoaringBitmap = current.iter().enumerate().filter_map(live).collect();
        for filter in filters {
            let expected: RoaringBitmap = all
                .iter()
                .filter(|ordinal| oracle(&filter, current[*ordinal as usize].as_ref().unwrap()))
                .collect();
            prop_assert_eq!(&filter.evaluate(&attributes, &all), &expected, "{}", filter);
            for ordinal in &all {
                let one = filter.matches(&attributes.get(ordinal), &schema());
                prop_assert_eq!(one, expected.contains(ordinal), "{} of {}", filter, ordinal);
            }
        }
        for ordinal in &all {
            prop_assert_eq!(attributes.get(ordinal), document_attributes(current[ordinal as usize].as_ref().unwrap()));
        }
    }
}
