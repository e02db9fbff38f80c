//! The encoding of a document on disk.
//!
//! ```text
//! format u8 = 1 | kind u8 = 0 (hash) | seq u64 | expiry: flag u8 [, Unix ms u64]
//! key: length u16, bytes | fields: count u16, then each: name length u16, value u32, name, value
//! CRC-32 over the document's number and all of the above, u32
//! ```
//!
//! Numbers are little-endian. The `u32` before a value has its length in the lower 28 bits and its type in the upper
//! four: 0 for bytes. Other types, and other kinds of documents, are reserved; see [`crate::state`] on features.

use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::{Cursor, tagged_len};
use crate::expiry;
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::{DocId, Document, Field, Seq};

const FORMAT: u8 = 1;
const KIND_HASH: u8 = 0;
const TYPE_BYTES: u32 = 0;
/// Bits of a value's length. The type is above them.
const VALUE_LEN_BITS: u32 = 28;
const _: () = assert!(DOCUMENT_BYTES_MAX < 1 << VALUE_LEN_BITS);

/// The caller has checked the document against [`crate::limits`], so every length fits its field.
pub(crate) fn encode(
    doc: DocId,
    key: &[u8],
    seq: Seq,
    expires_at_ms: Option<u64>,
    fields: &[Field],
) -> Vec<u8> {
    let payload: usize = fields.iter().map(|field| 6 + field.name.len() + field.value.len()).sum();
    let mut record = Vec::with_capacity(2 + 8 + 9 + 2 + key.len() + 2 + payload + 4);
    record.push(FORMAT);
    record.push(KIND_HASH);
    record.extend_from_slice(&seq.to_le_bytes());
    expiry::encode(&mut record, expires_at_ms);
    put_len16(&mut record, key.len());
    record.extend_from_slice(key);
    put_len16(&mut record, fields.len());
    for field in fields {
        put_len16(&mut record, field.name.len());
        let len = u32::try_from(field.value.len()).expect("a value is at most DOCUMENT_BYTES_MAX long");
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(&field.name);
        record.extend_from_slice(&field.value);
    }
    append_checksum(&doc.0.to_le_bytes(), &mut record);
    record
}

fn put_len16(record: &mut Vec<u8>, len: usize) {
    let len = u16::try_from(len).expect("keys, field names and field counts are limited to less than 65,536");
    record.extend_from_slice(&len.to_le_bytes());
}

/// Decodes a document, or returns what is wrong with the record.
pub(crate) fn decode(doc: DocId, record: &[u8]) -> Result<Document, &'static str> {
    let mut cursor = Cursor(strip_checksum(&doc.0.to_le_bytes(), record)?);
    if cursor.u8()? != FORMAT {
        return Err("unknown document format");
    }
    if cursor.u8()? != KIND_HASH {
        return Err("unknown document kind");
    }
    let seq = cursor.u64()?;
    let expires_at_ms = expiry::decode(&mut cursor)?;
    let key_len = cursor.u16()?;
    let key = cursor.slice(usize::from(key_len))?.into();
    let count = usize::from(cursor.u16()?);
    // A wrong count must not reserve excessive memory. Each field takes at least six bytes.
    let mut fields = Vec::with_capacity(count.min(cursor.0.len() / 6));
    for _ in 0..count {
        let name_len = usize::from(cursor.u16()?);
        let (value_type, value_len) = tagged_len(cursor.u32()?, VALUE_LEN_BITS);
        if value_type != TYPE_BYTES {
            return Err("unknown type of a field value");
        }
        let name = cursor.slice(name_len)?.into();
        let value = cursor.slice(value_len)?.into();
        fields.push(Field { name, value });
    }
    cursor.end()?;
    Ok(Document { key, seq, expires_at_ms, fields })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn fields() -> impl Strategy<Value = Vec<Field>> {
        let field = (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(name, value)| Field { name: name.into(), value: value.into() });
        prop::collection::vec(field, 0..8)
    }

    fn config() -> ProptestConfig {
        ProptestConfig {
            rng_seed: RngSeed::Fixed(9_301),
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn decodes_what_was_encoded(
            doc in any::<u64>(),
            key in prop::collection::vec(any::<u8>(), 1..100),
            seq in any::<u64>(),
            expires_at_ms in any::<Option<u64>>(),
            fields in fields(),
        ) {
            let record = encode(DocId(doc), &key, seq, expires_at_ms, &fields);
            let document = Document { key: key.into(), seq, expires_at_ms, fields };
            prop_assert_eq!(decode(DocId(doc), &record), Ok(document));
            prop_assert!(decode(DocId(doc ^ 1), &record).is_err(), "a record under another document number");
        }

        #[test]
        fn detects_every_flipped_bit_and_truncation(fields in fields(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut record = encode(DocId(1), b"key", 2, Some(3), &fields);
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert!(decode(DocId(1), &record).is_err());
            record[at] ^= 1 << bit;
            prop_assert!(decode(DocId(1), &record[..at]).is_err());
        }

        /// A correct checksum does not guarantee valid content, because another program may have written it.
        #[test]
        fn arbitrary_bytes_are_an_error_or_a_document(mut bytes in prop::collection::vec(any::<u8>(), 0..300), with_checksum in any::<bool>()) {
            if let [format, kind, ..] = &mut *bytes {
                (*format, *kind) = (FORMAT, KIND_HASH);
            }
            if with_checksum {
                append_checksum(&1u64.to_le_bytes(), &mut bytes);
            }
            if let Ok(document) = decode(DocId(1), &bytes) {
                let again = encode(DocId(1), &document.key, document.seq, document.expires_at_ms, &document.fields);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_value_of_an_unknown_type_is_an_error() {
        let fields = [Field { name: b"n"[..].into(), value: b"val"[..].into() }];
        let mut record = encode(DocId(7), b"key", 5, None, &fields);
        record.truncate(record.len() - 4);
        let high_byte_of_length = record.len() - b"nval".len() - 1;
        record[high_byte_of_length] |= 1 << 4;
        append_checksum(&7u64.to_le_bytes(), &mut record);
        assert_eq!(decode(DocId(7), &record), Err("unknown type of a field value"));
    }

    /// Pins the format, so that it cannot change by accident.
    #[test]
    fn encodes_the_documented_format() {
        let fields = [Field { name: b"n"[..].into(), value: b"val"[..].into() }];
        let record = encode(DocId(7), b"key", 5, Some(9), &fields);
        let mut expected = vec![1, 0];
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 9, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([3, 0, b'k', b'e', b'y']);
        expected.extend([1, 0]);
        expected.extend([1, 0, 3, 0, 0, 0, b'n', b'v', b'a', b'l']);
        expected.extend([0; 4]);
        let len = expected.len();
        expected[len - 4..].copy_from_slice(&record[record.len() - 4..]);
        assert_eq!(record, expected);
    }
}
