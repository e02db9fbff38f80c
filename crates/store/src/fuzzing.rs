//! Bodies of the fuzz targets on what lies on disk. Checksums are put right first: what is behind
//! them is what another program, or a fault of ours, could have written.

use std::io::{Read as _, Write as _};

use redb::backends::InMemoryBackend;

use crate::block::Block;
use crate::item::Item;
use crate::key_entry::KeyEntry;
use crate::seal::seal;
use crate::state::State;
use crate::vector::{VECTOR_KEY_BYTES, VectorKey};
use crate::{
    Backup, Change, DocId, FrameReader, FrameWriter, NameTarget, Options, RecordCounts, Store, backup,
    record, state,
};

const DOC: DocId = DocId(7);
const ROW_KEY: [u8; VECTOR_KEY_BYTES] = [3; VECTOR_KEY_BYTES];
const NAME: &str = "kb";

/// A row of a table behind a byte that says of which: what is taken is written as it was read.
pub fn storage_record(input: &[u8]) {
    let Some((&table, row)) = input.split_first() else { return };
    let sealed = |place: &[u8]| {
        let mut row = row.to_vec();
        seal(place, &mut row);
        row
    };
    match table % 8 {
        0 => {
            let row = sealed(&DOC.0.to_le_bytes());
            if let Ok(document) = record::decode(DOC, &row) {
                let (seq, end) = (document.seq, document.expires_at_ms);
                assert_eq!(record::encode(DOC, &document.key, seq, end, &document.fields), row);
            }
            assert!(record::decode(DocId(DOC.0 + 1), &row).is_err(), "a row of another document");
        }
        1 => {
            let row = sealed(&ROW_KEY);
            if let Ok(block) = Block::decode(&ROW_KEY, &row) {
                assert_eq!(block.encode(&ROW_KEY), row);
                for entry in block.entries() {
                    assert_eq!(block.get(entry.doc, entry.passage), Some(entry));
                }
            }
        }
        2 => {
            let row = sealed(&DOC.0.to_le_bytes());
            if let Ok(change) = Change::decode(DOC.0, &row) {
                assert_eq!(change.encode(), row);
            }
        }
        3 => {
            let row = sealed(NAME.as_bytes());
            if let Ok((name, target)) = NameTarget::decode(NAME.as_bytes(), &row) {
                assert_eq!((&*name, target.encode(&name)), (NAME, row));
            }
        }
        4 => {
            let row = sealed(NAME.as_bytes());
            if let Ok(entry) = KeyEntry::decode(NAME.as_bytes(), &row) {
                assert_eq!(entry.encode(NAME.as_bytes()), row);
            }
        }
        5 => {
            let row = sealed(state::PLACE);
            if let Ok(state) = State::decode(&row) {
                assert_eq!(state.encode(), row);
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

/// Bytes as frames, and bytes in frames, cut where the first of them says.
fn frames(bytes: &[u8]) {
    let _ = FrameReader::new(bytes, 0).read_to_end(&mut Vec::new());
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let streams = bytes.split_at(usize::from(cut).min(bytes.len()));
    let mut writer = FrameWriter::new(Vec::new());
    for stream in [streams.0, streams.1] {
        for part in stream.chunks(usize::from(cut) + 1) {
            writer.write_all(part).expect("a Vec takes every byte");
            writer.flush().expect("a Vec takes every byte");
        }
        writer.end_stream().expect("a Vec takes every byte");
    }
    let written = writer.into_inner();
    let mut reader = FrameReader::new(&written[..], 0);
    for (stream, last) in [(streams.0, false), (streams.1, true)] {
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("what was written is read");
        assert_eq!(read, stream);
        if !last {
            reader.next_stream().expect("there is another stream");
        }
    }
    reader.end().expect("nothing is left over");
}

/// A backup as it comes, and one that holds what the bytes say: whatever is verified can be restored
/// unless its rows contradict each other, and is the same when it is backed up again.
pub fn backup_file(input: &[u8]) {
    let _ = Backup::verify(input);
    let file = whole_backup(input);
    let Ok(verified) = Backup::verify(&file[..]) else { return };
    let empty =
        Store::open_with_backend(InMemoryBackend::new(), Options::default()).expect("memory is a disk");
    match Backup::restore_into(&file[..], empty) {
        Ok((store, restored)) => {
            assert_eq!(restored, verified);
            assert_eq!(back_up(&store), verified);
            let next_doc = input.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
            let mut writer = store.write().expect("a restored store takes writes");
            let (doc, _) = writer.put(b"another", &[], None).expect("a document fits");
            writer.commit().expect("memory takes every byte");
            // Unless the backup has the key, nothing makes room for it.
            let new = u64::from(doc.0 == next_doc);
            assert_eq!(back_up(&store).counts.documents, verified.counts.documents + new);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn back_up(store: &Store) -> Backup {
    let mut file = Vec::new();
    let made = store.read().expect("an open store is read").back_up(&mut file);
    let made = made.expect("what was restored is whole");
    assert_eq!(Backup::verify(&file[..]).expect("what was made is right"), made);
    made
}

/// Numbers and items as `input` has them, with the checksums and counts they need.
fn whole_backup(input: &[u8]) -> Vec<u8> {
    const NUMBERS_BYTES: usize = 8 + 4 + 8;
    let (numbers, mut rest) = input.split_at(NUMBERS_BYTES.min(input.len()));
    let mut frames = FrameWriter::new(backup::MAGIC.to_vec());
    let mut counts = RecordCounts::default();
    let written = (|| -> std::io::Result<()> {
        frames.write_all(&[&backup::FORMAT.to_le_bytes()[..], &[9; 16], numbers].concat())?;
        frames.end_stream()?;
        while let Ok(Some(mut item)) = Item::read(&mut rest) {
            seal(&item.key, &mut item.row);
            if let Ok(row) = item.verify() {
                counts.add(&row);
            }
            item.write(&mut frames)?;
        }
        Item::write_end(&mut frames)?;
        frames.end_stream()?;
        frames.write_all(&counts.all().map(u64::to_le_bytes).concat())?;
        frames.end_stream()
    })();
    written.expect("a Vec takes every byte");
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
