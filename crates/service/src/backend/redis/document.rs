//! A document as a Redis hash, and the hash of its content that serves as its sequence number.

use redis::Value;
use sha1::{Digest, Sha1};

use super::{Document, Error, Field, reply};
use crate::Seq;

/// Hexadecimal digits used of each digest: 52 bits, which both JSON and Lua represent exactly.
const HEX_DIGITS: usize = 13;

/// The content hash is computed modulo 2 to this power.
const BITS: u32 = 4 * HEX_DIGITS as u32;

/// Parses a hash and its expiry.
pub(super) fn parse(key: &[u8], hash: Value, expiry: Value) -> Result<Option<Document>, Error> {
    let fields: Vec<Field> = reply::pairs(hash, "a hash")?
        .into_iter()
        .map(|(name, value)| {
            let name = reply::bytes(name, "a field's name")?.into();
            Ok(Field { name, value: reply::bytes(value, "a field's value")?.into() })
        })
        .collect::<Result<_, Error>>()?;
    if fields.is_empty() {
        // Redis has no empty hashes.
        return Ok(None);
    }
    let expires_at_ms = u64::try_from(reply::integer(expiry, "a key's expiry")?).ok();
    let seq = content_hash(fields.iter().map(|field| (&*field.name, &*field.value)), expires_at_ms);
    Ok(Some(Document { key: key.into(), seq, expires_at_ms, fields }))
}

/// The content hash: equal for equal fields in any order with the same expiry.
///
/// It is the sum modulo 2^52 of the first 52 bits of the SHA-1 of `LENGTH:NAMEVALUE` over all fields,
/// and over a field without a name whose value is the expiry in Unix milliseconds, if there is one. The
/// Lua script computes the same value.
pub(super) fn content_hash<'f>(
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    expires_at_ms: Option<u64>,
) -> Seq {
    let expiry = expires_at_ms.map(|expiry| expiry.to_string());
    let expiry = expiry.iter().map(|expiry| digest(b"", expiry.as_bytes()));
    let sum = fields.map(|(name, value)| digest(name, value)).chain(expiry).fold(0u64, u64::wrapping_add);
    sum % (1 << BITS)
}

fn digest(name: &[u8], value: &[u8]) -> u64 {
    let digest = Sha1::new()
        .chain_update(name.len().to_string())
        .chain_update(b":")
        .chain_update(name)
        .chain_update(value)
        .finalize();
    let first = u64::from_be_bytes(*digest.first_chunk().expect("a SHA-1 has 20 bytes"));
    first >> (64 - BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_hash_does_not_depend_on_field_order() {
        let fields = [(&b"title"[..], &b"Hello"[..]), (b"year", b"2024")];
        let reversed = [fields[1], fields[0]];
        assert_eq!(content_hash(fields.into_iter(), None), content_hash(reversed.into_iter(), None));
        // printf 5:titleHello | sha1sum; printf 4:year2024 | sha1sum
        let expected = (0x000e_81bd_f058_3b32u64 + 0x0009_823b_2d95_8f70u64) % (1 << 52);
        assert_eq!(content_hash(fields.into_iter(), None), expected);
    }

    #[test]
    fn the_content_hash_covers_names_values_and_expiry() {
        let number = |fields: &[(&str, &str)], expiry| {
            content_hash(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), expiry)
        };
        let one = number(&[("a", "bc")], None);
        for other in [
            number(&[("ab", "c")], None),
            number(&[("a", "b")], None),
            number(&[("a", "bc"), ("d", "")], None),
            number(&[("a", "bc")], Some(1)),
            number(&[("a", "bc")], Some(2)),
            number(&[], None),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn parses_a_hash_from_resp2_and_resp3_alike() {
        let two = reply::recorded("*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nv\r\n$4\r\n\x00\x01\x02\x03\r\n");
        let three = reply::recorded("%2\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nv\r\n$4\r\n\x00\x01\x02\x03\r\n");
        let two = parse(b"k", two, Value::Int(-1)).unwrap().unwrap();
        assert_eq!(Some(&two), parse(b"k", three, Value::Int(-1)).unwrap().as_ref());
        assert_eq!((two.field(b"v"), two.expires_at_ms), (Some(&[0, 1, 2, 3][..]), None));
        assert_eq!(parse(b"k", Value::Array(vec![]), Value::Int(-2)).unwrap(), None);
        let expiring = reply::recorded("%1\r\n$1\r\na\r\n$1\r\n1\r\n");
        assert_eq!(parse(b"k", expiring, Value::Int(77)).unwrap().unwrap().expires_at_ms, Some(77));
    }
}
