//! Parsing of replies in either protocol: where RESP3 sends a map, RESP2 sends a list of alternating
//! names and values.

use redis::Value;

use super::{Error, error};

/// The pairs of a map, or of a list of alternating names and values.
pub(super) fn pairs(value: Value, what: &'static str) -> Result<Vec<(Value, Value)>, Error> {
    match value {
        Value::Map(pairs) => Ok(pairs),
        Value::Array(items) if items.len().is_multiple_of(2) => {
            let mut pairs = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(name), Some(value)) = (items.next(), items.next()) {
                pairs.push((name, value));
            }
            Ok(pairs)
        }
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected(other, what)),
    }
}

/// The items of a list or set.
pub(super) fn items(value: Value, what: &'static str) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected(other, what)),
    }
}

/// The bytes of a string of any type.
pub(super) fn bytes(value: Value, what: &'static str) -> Result<Vec<u8>, Error> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        Value::Double(number) => Ok(number.to_string().into_bytes()),
        other => Err(unexpected(other, what)),
    }
}

/// A string of any type as text.
pub(super) fn text(value: Value, what: &'static str) -> Result<String, Error> {
    let bytes = bytes(value, what)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// An integer, or a string that holds one.
pub(super) fn integer(value: Value, what: &'static str) -> Result<i64, Error> {
    match value {
        Value::Int(number) => Ok(number),
        other => {
            let text = text(other, what)?;
            text.parse().map_err(|_| error::reply(what))
        }
    }
}

/// A number, or a string that holds one.
pub(super) fn number(value: Value, what: &'static str) -> Result<f64, Error> {
    match value {
        Value::Double(number) => Ok(number),
        other => {
            let text = text(other, what)?;
            text.parse().map_err(|_| error::reply(what))
        }
    }
}

fn unexpected(value: Value, what: &'static str) -> Error {
    match value {
        Value::ServerError(reply) => error::server(&reply),
        _ => error::reply(what),
    }
}

/// Parses a recorded reply.
#[cfg(test)]
pub(super) fn recorded(wire: &str) -> Value {
    redis::parse_redis_value(wire.as_bytes()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_map_and_a_list_of_pairs_alike() {
        let two = "*4\r\n+a\r\n:1\r\n$1\r\nb\r\n$3\r\n2.5\r\n";
        let three = "%2\r\n+a\r\n:1\r\n$1\r\nb\r\n,2.5\r\n";
        for wire in [two, three] {
            let pairs = pairs(recorded(wire), "pairs").unwrap();
            let [(a, one), (b, two_and_a_half)] = <[_; 2]>::try_from(pairs).unwrap();
            assert_eq!((text(a, "a").unwrap(), integer(one, "1").unwrap()), ("a".to_owned(), 1));
            assert_eq!(
                (text(b, "b").unwrap(), number(two_and_a_half, "2.5").unwrap()),
                ("b".to_owned(), 2.5)
            );
        }
    }

    #[test]
    fn rejects_unexpected_shapes_and_keeps_the_code_of_error_replies() {
        assert_eq!(pairs(recorded("*1\r\n:1\r\n"), "a list").unwrap_err().code, "redis-reply");
        assert_eq!(integer(recorded("+x\r\n"), "a count").unwrap_err().code, "redis-reply");
        let error = items(recorded("-OOM command not allowed\r\n"), "a list").unwrap_err();
        assert_eq!(error.code, "redis-full");
    }
}
