//! The body of the fuzz target for replies of a Redis server and for values that other clients may
//! change.

use std::time::Duration;

use engine::{Leg, Order, Page, VectorLeg};
use redis::Value;

use super::{
    Error, Query, Schema, address::Addresses, doctor, document, error, index::IndexInfo, metadata,
    metadata::CollectionMetadata, reply, script, scroll, search, server, server::ServerInfo, slots,
};
use crate::article_schema;

/// Parses a reply in wire format. The first byte selects the parser.
pub fn redis_reply(input: &[u8]) {
    let Some((&to, wire)) = input.split_first() else { return };
    if to == b'u' {
        let text = String::from_utf8_lossy(wire);
        return check_error(Addresses::parse(&text).map(drop));
    }
    if to == b'c' {
        return cursor(&String::from_utf8_lossy(wire));
    }
    let Ok(value) = redis::parse_redis_value(wire) else { return };
    match to {
        b'i' => check_error(IndexInfo::parse(value).map(|info| check_info(&info))),
        b'n' => check_error(
            CollectionMetadata::parse("kb", value).map(|metadata| metadata.iter().for_each(check_metadata)),
        ),
        b'd' => {
            check_error(split(value).and_then(|(hash, expiry)| document::parse(b"k", hash, expiry)).map(drop))
        }
        b's' => check_error(search(value, false)),
        b'p' => check_error(search(value, true)),
        b'f' => check_error(split(value).and_then(|(exists, values)| fields(exists, values))),
        b't' => check_error(search::parse_count(value).map(drop)),
        b'r' => check_error(script::parse_reply(value).map(drop)),
        b'v' => check_error(split(value).and_then(|(info, modules)| server(info, modules))),
        b'w' => check_error(server::has_coordinator(value).map(drop)),
        b'l' => check_error(slots::parse_ranges(value).map(|ranges| check_ranges(&ranges))),
        b'm' => check_error(slots::is_migrating(value).map(drop)),
        b'k' => check_error(scroll::parse_scan(value).map(|(_, keys)| assert!(keys.is_sorted()))),
        b'g' => check_error(metadata::parse_id(value).map(drop)),
        b'o' => doctor::slow_commands(value).iter().for_each(|entry| assert!(entry.len() < 10_000)),
        b'e' => {
            let _ = slots::Redirection::parse(&value);
            if let Value::ServerError(reply) = &value {
                let error = error::server(reply);
                assert!(!error.message.is_empty() && !error.code.is_empty());
            }
        }
        _ => {}
    }
}

/// An error must have a code and a message.
fn check_error(read: Result<(), Error>) {
    if let Err(error) = read {
        assert!(!error.message.is_empty() && !error.code.is_empty());
    }
}

/// Two replies in one list.
fn split(value: Value) -> Result<(Value, Value), Error> {
    let [one, two] =
        <[Value; 2]>::try_from(reply::items(value, "two")?).map_err(|_| error::reply("two replies"))?;
    Ok((one, two))
}

fn schema() -> Schema {
    article_schema("article:", &["tags".to_owned()], &["year".to_owned()])
}

fn check_info(info: &IndexInfo) {
    let schema = schema();
    let _ = info.difference(&schema);
    let both = IndexInfo::sum([info, info].into_iter());
    assert!(both.documents >= info.documents);
    let _ = (info.pending_documents(), both.pending_documents());
}

/// Metadata must round-trip.
fn check_metadata(metadata: &CollectionMetadata) {
    let command = metadata.to_hset("kb");
    let words: Vec<Value> = command
        .args_iter()
        .skip(2)
        .map(|word| match word {
            redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
            _ => panic!("no cursors in a HSET"),
        })
        .collect();
    let again = CollectionMetadata::parse("kb", Value::Array(words)).expect("what was written is read");
    assert_eq!(again.as_ref(), Some(metadata));
}

/// A cursor must round-trip.
fn cursor(text: &str) {
    if let Ok(cursor) = scroll::ScrollCursor::decode(text) {
        assert_eq!(scroll::ScrollCursor::decode(&cursor.encode()).expect("what was written is read"), cursor);
    }
}

fn search(value: Value, is_part: bool) -> Result<(), Error> {
    let schema = schema();
    let vector = vec![0.5; 384];
    let query = Query {
        collection: "kb",
        legs: vec![Leg::Vector(VectorLeg {
            field: Some("embedding"),
            vector: &vector,
            ef_search: None,
            exact: false,
        })],
        order: Order::Score,
        page: Page::first(3),
        filter: None,
        min_score: Some(-1.0),
        fields: None,
    };
    let command = search::build_search(&query, "kb", &schema, Duration::from_secs(1), is_part)?;
    let found = command.expect("a query without a filter").parse(value)?;
    for hit in found.hits {
        assert!(!hit.distance.unwrap().is_nan() && hit.score >= -1.0);
    }
    Ok(())
}

fn fields(exists: Value, values: Value) -> Result<(), Error> {
    let names = ["title", "content"];
    let fields = search::parse_fields(exists, values, &names)?.unwrap_or_default();
    assert!(fields.iter().all(|field| names.iter().any(|name| name.as_bytes() == &*field.name)));
    Ok(())
}

fn server(info: Value, modules: Value) -> Result<(), Error> {
    let text = reply::text(info.clone(), "INFO")?;
    assert!(doctor::info_findings(&text).len() < 10);
    for is_cluster in [false, true] {
        if let Ok(server) = ServerInfo::read(info.clone(), modules.clone(), is_cluster) {
            assert!(server.warnings().len() < 2);
        }
    }
    Ok(())
}

fn check_ranges(ranges: &[slots::SlotRange]) {
    assert!(ranges.is_sorted_by_key(|range| range.first));
    for range in ranges {
        assert!(range.first <= range.last && range.last < slots::SLOTS && !range.servers.is_empty());
    }
}
