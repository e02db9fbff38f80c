//! Body of the fuzz target on what a Redis sends, or what stands in it for others to change.

use std::time::Duration;

use redis::Value;

use super::{
    Error, Query, Schema, address::Addresses, doctor, document, error, index::Info, notes, notes::Notes,
    reply, script, scroll, search, server, server::Server, slots,
};
use crate::article_schema;

/// A reply as it comes over the wire, behind a byte that says to what: read, or refused in words.
pub fn redis_reply(input: &[u8]) {
    let Some((&to, wire)) = input.split_first() else { return };
    if to == b'u' {
        let text = String::from_utf8_lossy(wire);
        return told(Addresses::parse(&text).map(drop));
    }
    if to == b'c' {
        return cursor(&String::from_utf8_lossy(wire));
    }
    let Ok(value) = redis::parse_redis_value(wire) else { return };
    match to {
        b'i' => told(Info::read(value).map(|info| check_info(&info))),
        b'n' => told(Notes::read("kb", value).map(|notes| notes.iter().for_each(check_notes))),
        b'd' => told(split(value).and_then(|(hash, end)| document::read(b"k", hash, end)).map(drop)),
        b's' => told(search(value, false)),
        b'p' => told(search(value, true)),
        b'f' => told(split(value).and_then(|(stands, values)| fields(stands, values))),
        b't' => told(search::counted(value).map(drop)),
        b'r' => told(script::ran(value).map(drop)),
        b'v' => told(split(value).and_then(|(info, modules)| server(info, modules))),
        b'w' => told(server::spreads(value).map(drop)),
        b'l' => told(slots::read(value).map(|ranges| check_ranges(&ranges))),
        b'm' => told(slots::are_moving(value).map(drop)),
        b'k' => told(scroll::scanned(value).map(|(_, keys)| assert!(keys.is_sorted()))),
        b'g' => told(notes::number(value).map(drop)),
        b'o' => doctor::slow_commands(value).iter().for_each(|told| assert!(told.len() < 10_000)),
        b'e' => {
            let _ = slots::Redirection::read(&value);
            if let Value::ServerError(refused) = &value {
                let error = error::server(refused);
                assert!(!error.message.is_empty() && !error.code.is_empty());
            }
        }
        _ => {}
    }
}

/// A refusal says why.
fn told(read: Result<(), Error>) {
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

fn check_info(info: &Info) {
    let schema = schema();
    let _ = info.difference(&schema);
    let both = Info::sum([info, info].into_iter());
    assert!(both.documents >= info.documents);
    let _ = (info.waiting(), both.waiting());
}

/// Notes come back as they are written.
fn check_notes(notes: &Notes) {
    let command = notes.write("kb");
    let words: Vec<Value> = command
        .args_iter()
        .skip(2)
        .map(|word| match word {
            redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
            _ => panic!("no cursors in a HSET"),
        })
        .collect();
    let again = Notes::read("kb", Value::Array(words)).expect("what was written is read");
    assert_eq!(again.as_ref(), Some(notes));
}

/// A place in a walk comes back as it is written.
fn cursor(text: &str) {
    if let Ok(place) = scroll::Place::read(text) {
        assert_eq!(scroll::Place::read(&place.write()).expect("what was written is read"), place);
    }
}

fn search(value: Value, is_part: bool) -> Result<(), Error> {
    let schema = schema();
    let vector = vec![0.5; 384];
    let query = Query {
        collection: "kb",
        field: Some("embedding"),
        vector: &vector,
        offset: 0,
        k: 3,
        filter: None,
        ef_search: None,
        exact: false,
        min_score: Some(-1.0),
        fields: None,
    };
    let asking = search::ask(&query, "kb", &schema, Duration::from_secs(1), is_part)?;
    let answered = asking.expect("no filter keeps all out").read(value)?;
    for hit in answered.hits {
        assert!(!hit.distance.is_nan() && hit.score >= -1.0);
    }
    Ok(())
}

fn fields(stands: Value, values: Value) -> Result<(), Error> {
    let wanted = ["title", "content"];
    let fields = search::fields(stands, values, &wanted)?.unwrap_or_default();
    assert!(fields.iter().all(|field| wanted.iter().any(|name| name.as_bytes() == &*field.name)));
    Ok(())
}

fn server(info: Value, modules: Value) -> Result<(), Error> {
    let text = reply::text(info.clone(), "INFO")?;
    assert!(doctor::of_info(&text).len() < 10);
    for is_cluster in [false, true] {
        if let Ok(server) = Server::read(info.clone(), modules.clone(), is_cluster) {
            assert!(server.warnings().len() < 2);
        }
    }
    Ok(())
}

fn check_ranges(ranges: &[slots::Range]) {
    assert!(ranges.is_sorted_by_key(|range| range.first));
    for range in ranges {
        assert!(range.first <= range.last && range.last < slots::SLOTS && !range.servers.is_empty());
    }
}
