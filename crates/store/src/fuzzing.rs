//! Bodies of the fuzz targets for the on-disk formats. Most of them first append correct checksums, so that
//! the input reaches the decoders: another program or a bug could write such content.

use std::io::{Read as _, Write as _};

use redb::backends::InMemoryBackend;

use crate::block::Block;
use crate::checksum::append_checksum;
use crate::key_entry::KeyEntry;
use crate::primary_row::PrimaryRow;
use crate::state::{FORMAT, State};
use crate::vector_key::{VECTOR_KEY_BYTES, VectorKey};
use crate::{
    Backup, Change, DocId, FrameReader, FrameWriter, NameTarget, Options, RecordCounts, Store, backup,
    record, state,
};

const DOC: DocId = DocId(7);
const ROW_KEY: [u8; VECTOR_KEY_BYTES] = [3; VECTOR_KEY_BYTES];
const NAME: &str = "kb";

/// Decodes a table row; the first byte of the input selects the table. Encoding a decoded row must
/// reproduce its bytes.
pub fn storage_record(input: &[u8]) {
    let Some((&table, row)) = input.split_first() else { return };
    let with_checksum = |key: &[u8]| {
        let mut row = row.to_vec();
        append_checksum(key, &mut row);
        row
    };
    match table % 8 {
        0 => {
            let row = with_checksum(&DOC.0.to_le_bytes());
            if let Ok(document) = record::decode(DOC, &row) {
                let (seq, expires_at_ms) = (document.seq, document.expires_at_ms);
                assert_eq!(record::encode(DOC, &document.key, seq, expires_at_ms, &document.fields), row);
            }
            assert!(
                record::decode(DocId(DOC.0 + 1), &row).is_err(),
                "the row decodes under another document number"
            );
        }
        1 => {
            let row = with_checksum(&ROW_KEY);
            if let Ok(block) = Block::decode(&ROW_KEY, &row) {
                assert_eq!(block.encode(&ROW_KEY), row);
                for entry in block.entries() {
                    assert_eq!(block.get(entry.doc, entry.passage), Some(entry));
                }
            }
        }
        2 => {
            let row = with_checksum(&DOC.0.to_le_bytes());
            if let Ok(change) = Change::decode(DOC.0, &row) {
                assert_eq!(change.encode(), row);
            }
        }
        3 => {
            let row = with_checksum(NAME.as_bytes());
            if let Ok((name, target)) = NameTarget::decode(NAME.as_bytes(), &row) {
                assert_eq!((&*name, target.encode(&name)), (NAME, row));
            }
        }
        4 => {
            let row = with_checksum(NAME.as_bytes());
            if let Ok(entry) = KeyEntry::decode(NAME.as_bytes(), &row) {
                assert_eq!(entry.encode(NAME.as_bytes()), row);
            }
        }
        5 => {
            let row = with_checksum(state::CHECKSUM_KEY);
            if let Ok(state) = State::decode(&row) {
                // A row of an older format is written in the current one.
                assert_eq!(State::decode(&state.encode()), Ok(State { format: FORMAT, ..state }));
            }
        }
        6 => {
            if let Some((key, _)) = row.split_first_chunk() {
                assert_eq!(VectorKey::decode(key).encode(), *key);
            }
        }
        _ => frames(row),
    }
}

/// Reads the bytes as frames, then writes them as two streams, split where the first byte says, and reads
/// them back.
fn frames(bytes: &[u8]) {
    let _ = FrameReader::new(bytes, 0).read_to_end(&mut Vec::new());
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let streams = bytes.split_at(usize::from(cut).min(bytes.len()));
    let mut writer = FrameWriter::new(Vec::new());
    for stream in [streams.0, streams.1] {
        for part in stream.chunks(usize::from(cut) + 1) {
            writer.write_all(part).expect("writing to a Vec never fails");
            writer.flush().expect("writing to a Vec never fails");
        }
        writer.end_stream().expect("writing to a Vec never fails");
    }
    let written = writer.into_inner();
    let mut reader = FrameReader::new(&written[..], 0);
    for (stream, last) in [(streams.0, false), (streams.1, true)] {
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("a written stream can be read");
        assert_eq!(read, stream);
        if !last {
            reader.next_stream().expect("there is another stream");
        }
    }
    reader.end().expect("no bytes are left");
}

/// Verifies the input as a backup, and a well-formed backup built from it. A backup that verifies can be
/// restored unless its rows contradict each other, and backing up the restored store gives the same counts.
pub fn backup_file(input: &[u8]) {
    let _ = Backup::verify(input);
    let file = well_formed_backup(input);
    let Ok(verified) = Backup::verify(&file[..]) else { return };
    let empty = Store::open_with_backend(InMemoryBackend::new(), Options::default())
        .expect("the in-memory backend opens");
    match Backup::restore_into(&file[..], empty) {
        Ok((store, restored)) => {
            assert_eq!(restored, verified);
            assert_eq!(back_up(&store), verified);
            let next_doc = input.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
            let mut writer = store.write().expect("a restored store accepts writes");
            let (doc, _) = writer.put(b"another", &[], None).expect("a document fits");
            writer.commit().expect("the in-memory backend commits");
            // The document count grows unless the backup already contains this key.
            let new = u64::from(doc.0 == next_doc);
            assert_eq!(back_up(&store).counts.documents, verified.counts.documents + new);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn back_up(store: &Store) -> Backup {
    let mut file = Vec::new();
    let created = store.read().expect("an open store can be read").back_up(&mut file);
    let created = created.expect("a restored store can be backed up");
    assert_eq!(Backup::verify(&file[..]).expect("a new backup verifies"), created);
    created
}

/// Builds a backup with the counters and rows in `input`, and correct checksums and counts.
fn well_formed_backup(input: &[u8]) -> Vec<u8> {
    const NUMBERS_BYTES: usize = 8 + 4 + 8;
    let (numbers, mut rest) = input.split_at(NUMBERS_BYTES.min(input.len()));
    let mut frames = FrameWriter::new(backup::MAGIC.to_vec());
    let mut counts = RecordCounts::default();
    let written = (|| -> std::io::Result<()> {
        frames.write_all(&[&backup::FORMAT.to_le_bytes()[..], &[9; 16], numbers, &[0; 4]].concat())?;
        frames.end_stream()?;
        while let Ok(Some(mut row)) = PrimaryRow::read(&mut rest) {
            append_checksum(&row.key, &mut row.value);
            if let Ok(verified) = row.verify() {
                counts.add(&verified);
            }
            row.write(&mut frames)?;
        }
        PrimaryRow::write_end(&mut frames)?;
        frames.end_stream()?;
        frames.write_all(&counts.to_array().map(u64::to_le_bytes).concat())?;
        frames.end_stream()
    })();
    written.expect("writing to a Vec never fails");
    frames.into_inner()
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(storage_record, backup_file);
}
