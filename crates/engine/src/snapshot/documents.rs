//! The binary format of a collection's documents: ordinals, expiries, tags, numbers, missing vectors.
//!
//! One entry per label, that is, per number that is a document's ordinal, or the label of a further passage, or free.
//! It begins with a byte of flags: 1 for a document, 2 if that has an expiry, 4 for a passage, 0 if the label is free.
//! For a document: its id, the change that assigned the ordinal to it, its expiry; a number per NUMERIC field (NaN for
//! none); per TAG field the number of tags and each tag after its length; per VECTOR field whether the computed vector
//! is missing. For a passage: the number of its field among the VECTOR fields, the ordinal of its document, its
//! passage number, and the change that assigned the label to it. After the last entry, a byte 0xff; then the
//! documents that violate the schema, and the last violation, empty if there is none. Little-endian.

use std::io::{self, Write};

use store::DocId;

use crate::{
    attributes::DocumentAttributes,
    binary::{ByteReader, DecodeError, write_bytes},
    collection::{Collection, CollectionState},
    ordinals::Entry,
    passages::PassageKey,
    schema::{FieldKind, Schema},
};

/// Ordinals written per lock, so that no writer waits long.
const ORDINALS_PER_LOCK: u32 = 1024;

const IN_USE: u8 = 1;
const HAS_EXPIRY: u8 = 2;
const PASSAGE: u8 = 4;
const END_OF_DOCUMENTS: u8 = u8::MAX;

/// Writes the documents of `collection`. They may change meanwhile: each entry is consistent, but different entries
/// may belong to different moments. After loading, all changes since the start of the snapshot must be applied.
pub(super) fn write(collection: &Collection, output: &mut impl Write) -> io::Result<()> {
    let mut out = Vec::new();
    let mut first = 0;
    loop {
        let state = collection.state();
        let len = state.ordinals.len();
        let end = len.min(first + ORDINALS_PER_LOCK);
        for ordinal in first..end {
            write_document(&state, ordinal, &mut out);
        }
        let done = end == len;
        if done {
            out.push(END_OF_DOCUMENTS);
            out.extend_from_slice(&(state.invalid.len() as u64).to_le_bytes());
            for doc in &state.invalid {
                out.extend_from_slice(&doc.0.to_le_bytes());
            }
            write_bytes(&mut out, state.last_violation.as_deref().unwrap_or_default().as_bytes());
        }
        drop(state);
        output.write_all(&out)?;
        if done {
            return Ok(());
        }
        out.clear();
        first = end;
    }
}

fn write_document(state: &CollectionState, ordinal: u32, out: &mut Vec<u8>) {
    let Some(entry) = state.ordinals.entry(ordinal) else {
        write_passage(state, ordinal, out);
        return;
    };
    out.push(IN_USE | if entry.expires_at_ms.is_some() { HAS_EXPIRY } else { 0 });
    out.extend_from_slice(&entry.doc.0.to_le_bytes());
    out.extend_from_slice(&entry.since.to_le_bytes());
    if let Some(expires_at_ms) = entry.expires_at_ms {
        out.extend_from_slice(&expires_at_ms.to_le_bytes());
    }
    let values = state.attributes.get(ordinal);
    for number in values.numbers {
        out.extend_from_slice(&number.unwrap_or(f64::NAN).to_le_bytes());
    }
    for tags in values.tags {
        let count = u16::try_from(tags.len()).expect("the number of tags per value is limited");
        out.extend_from_slice(&count.to_le_bytes());
        for tag in tags {
            write_bytes(out, &tag);
        }
    }
    for unembedded in &state.unembedded {
        out.push(u8::from(unembedded.contains(ordinal)));
    }
}

fn write_passage(state: &CollectionState, label: u32, out: &mut Vec<u8>) {
    let Some((PassageKey { slot, ordinal, passage }, since)) = state.passages.get(label) else {
        out.push(0);
        return;
    };
    out.push(PASSAGE);
    out.extend_from_slice(
        &u16::try_from(slot).expect("a schema has at most FIELDS_MAX fields").to_le_bytes(),
    );
    out.extend_from_slice(&ordinal.to_le_bytes());
    out.extend_from_slice(&passage.to_le_bytes());
    out.extend_from_slice(&since.to_le_bytes());
}

/// Loads documents into the state of a collection with this schema. If a document or a passage occurs twice, the later
/// entry counts. Passages of documents that do not occur are dropped: their documents were written during the snapshot,
/// so they are among the changes that are applied next.
pub(super) fn read(bytes: &[u8], schema: &Schema) -> Result<CollectionState, DecodeError> {
    let count = |kind: fn(&FieldKind) -> bool| schema.fields.iter().filter(|field| kind(&field.kind)).count();
    let numbers = count(|kind| matches!(kind, FieldKind::Numeric));
    let tags = count(|kind| matches!(kind, FieldKind::Tag { .. }));
    let vectors = count(|kind| matches!(kind, FieldKind::Vector(_)));

    let mut state = CollectionState::new(schema, vectors);
    let mut input = ByteReader::new(bytes);
    let mut ordinal = 0;
    loop {
        let flags = input.u8()?;
        if flags == END_OF_DOCUMENTS {
            break;
        }
        if !matches!(flags, 0 | IN_USE | PASSAGE) && flags != IN_USE | HAS_EXPIRY {
            return Err(input.malformed("unknown flags"));
        }
        if flags == PASSAGE {
            let key =
                PassageKey { slot: usize::from(input.u16()?), ordinal: input.u32()?, passage: input.u16()? };
            if key.slot >= vectors || key.passage == 0 {
                return Err(input.malformed("a passage that cannot be"));
            }
            let since = input.u64()?;
            state.passages.restore(ordinal, key, since);
        }
        if flags & IN_USE != 0 {
            let doc = DocId(input.u64()?);
            let since = input.u64()?;
            let expires_at_ms = if flags & HAS_EXPIRY != 0 { Some(input.u64()?) } else { None };
            // A document that temporarily violated the schema while the snapshot was written has a new ordinal.
            if let Some(earlier) = state.ordinals.release(doc) {
                state.attributes.clear(earlier);
                for unembedded in &mut state.unembedded {
                    unembedded.remove(earlier);
                }
            }
            state.ordinals.restore(ordinal, Entry { doc, since, expires_at_ms });
            let values = read_attributes(&mut input, numbers, tags)?;
            state.attributes.set(ordinal, &values);
            for unembedded in &mut state.unembedded {
                if input.u8()? != 0 {
                    unembedded.insert(ordinal);
                }
            }
        }
        ordinal += 1;
    }
    let CollectionState { ordinals, passages, .. } = &mut state;
    passages.retain_documents(ordinals.live());
    ordinals.restore_free(ordinal, |label| passages.get(label).is_some());
    for _ in 0..input.u64()? {
        state.invalid.insert(DocId(input.u64()?));
    }
    state.last_violation = Some(input.text()?).filter(|reason| !reason.is_empty());
    input.end()?;
    Ok(state)
}

fn read_attributes(
    input: &mut ByteReader<'_>,
    numbers: usize,
    tags: usize,
) -> Result<DocumentAttributes, DecodeError> {
    let mut values = DocumentAttributes::default();
    for _ in 0..numbers {
        let number = input.f64()?;
        values.numbers.push((!number.is_nan()).then_some(number));
    }
    for _ in 0..tags {
        let count = input.u16()?;
        let mut tags = Vec::new();
        for _ in 0..count {
            tags.push(input.bytes()?.into());
        }
        values.tags.push(tags);
    }
    Ok(values)
}
