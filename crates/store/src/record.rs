//! How a document lies on disk.
//!
//! ```text
//! format u8 = 1 | kind u8 = 0 (hash) | seq u64 | expiry: flag u8 [, Unix ms u64]
//! key: length u16, bytes | fields: count u16, then each: name length u16, value length u32, name, value
//! CRC-32 over the document's number and all of the above, u32
//! ```
//!
//! Numbers are little-endian.

use crate::seal::{Bytes, put_expiry, seal, take_expiry, unseal};
use crate::{DocId, Document, Field, Seq};

const FORMAT: u8 = 1;
const KIND_HASH: u8 = 0;

/// Lengths are within the limits of [`crate::limits`], which fit their width.
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
    put_expiry(&mut record, expires_at_ms);
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
    seal(&doc.0.to_le_bytes(), &mut record);
    record
}

fn put_len16(record: &mut Vec<u8>, len: usize) {
    let len = u16::try_from(len).expect("keys, names and field counts are limited to less than 65,536");
    record.extend_from_slice(&len.to_le_bytes());
}

/// The document, or what is wrong with the record.
pub(crate) fn decode(doc: DocId, record: &[u8]) -> Result<Document, &'static str> {
    let mut bytes = Bytes(unseal(&doc.0.to_le_bytes(), record)?);
    if bytes.u8()? != FORMAT {
        return Err("unknown format of a document");
    }
    if bytes.u8()? != KIND_HASH {
        return Err("unknown kind of document");
    }
    let seq = bytes.u64()?;
    let expires_at_ms = take_expiry(&mut bytes)?;
    let key_len = bytes.u16()?;
    let key = bytes.slice(usize::from(key_len))?.into();
    let count = usize::from(bytes.u16()?);
    // A count that lies must not reserve memory: each field takes at least six bytes.
    let mut fields = Vec::with_capacity(count.min(bytes.0.len() / 6));
    for _ in 0..count {
        let name_len = usize::from(bytes.u16()?);
        let value_len = usize::try_from(bytes.u32()?).map_err(|_| "a field's value is longer than memory")?;
        let name = bytes.slice(name_len)?.into();
        let value = bytes.slice(value_len)?.into();
        fields.push(Field { name, value });
    }
    bytes.end()?;
    Ok(Document { key, seq, expires_at_ms, fields })
}
