//! Inconsistent backups with correct checksums.

use std::io::Read as _;

use store::{Backup, BackupError, FrameReader, FrameWriter, NameTarget, Store};

use crate::OPTIONS;
use crate::disks::Disk;
use crate::sample_store::{COLLECTION, fill};

const MAGIC_BYTES: usize = 8;

/// The streams of a backup: header, rows, counts.
type Streams = [Vec<u8>; 3];

fn streams(backup: &[u8]) -> Streams {
    let mut frames = FrameReader::new(&backup[MAGIC_BYTES..], MAGIC_BYTES as u64);
    std::array::from_fn(|number| {
        if number > 0 {
            frames.next_stream().unwrap();
        }
        let mut stream = Vec::new();
        frames.read_to_end(&mut stream).unwrap();
        stream
    })
}

fn backup_of(streams: &Streams) -> Vec<u8> {
    use std::io::Write as _;
    let mut frames = FrameWriter::new(b"NFBACKUP".to_vec());
    for stream in streams {
        frames.write_all(stream).unwrap();
        frames.end_stream().unwrap();
    }
    frames.into_inner()
}

/// Removes the rows of one kind from the second stream.
fn without(rows: &[u8], kind: u8) -> Vec<u8> {
    let (mut at, mut kept) = (0, Vec::new());
    while rows[at] != 0 {
        let key = u16::from_le_bytes(rows[at + 1..at + 3].try_into().unwrap());
        let row = u32::from_le_bytes(rows[at + 3..at + 7].try_into().unwrap());
        let end = at + 7 + usize::from(key) + row as usize;
        if rows[at] != kind {
            kept.extend_from_slice(&rows[at..end]);
        }
        at = end;
    }
    kept.push(0);
    kept
}

fn restore(backup: &[u8]) -> Result<Backup, BackupError> {
    let directory = tempfile::tempdir().unwrap();
    Backup::restore(backup, &directory.path().join("store"), OPTIONS)
}

fn backup() -> Vec<u8> {
    let store = Store::open_with_backend(Disk::default(), OPTIONS).unwrap();
    fill(&store);
    let mut backup = Vec::new();
    store.read().unwrap().back_up(&mut backup).unwrap();
    backup
}

#[test]
fn restoring_rejects_dangling_references() {
    const SCHEMA: u8 = 3;
    const NAME: u8 = 4;
    let intact = backup();
    let streams = streams(&intact);
    assert_eq!(backup_of(&streams), intact);
    restore(&intact).unwrap();
    let [header, rows, mut counts] = streams;
    counts[16..24].fill(0);
    let without_names = without(&without(&rows, SCHEMA), NAME);
    let error = restore(&backup_of(&[header.clone(), without(&rows, SCHEMA), counts.clone()])).unwrap_err();
    assert!(error.to_string().contains("table names, key \"docs\": its target does not exist"), "{error}");
    counts[24..32].fill(0);
    let error = restore(&backup_of(&[header, without_names, counts])).unwrap_err();
    let reason = "table vectors, key collection 1, version 1: the collection does not exist";
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn backing_up_rejects_dangling_names() {
    for (name, target) in [
        ("docs", NameTarget::Collection(COLLECTION)),
        ("alias", NameTarget::Alias("docs".to_owned())),
        // An alias of itself refers to no collection.
        ("alias", NameTarget::Alias("alias".to_owned())),
    ] {
        let store = Store::open_with_backend(Disk::default(), OPTIONS).unwrap();
        let mut writer = store.write().unwrap();
        writer.set_name(name, &target).unwrap();
        writer.commit().unwrap();
        let error = store.read().unwrap().back_up(std::io::sink()).unwrap_err();
        assert!(error.to_string().contains("its target does not exist"), "{error}");
    }
}

/// Offsets of the next document number and the last sequence number in the header.
const NEXT_DOC_AT: usize = 20;
const LAST_SEQ_AT: usize = 32;

#[test]
fn restoring_rejects_out_of_range_counters() {
    let intact = streams(&backup());
    for at in [NEXT_DOC_AT, LAST_SEQ_AT] {
        for number in [u64::MAX, u64::MAX / 2 + 1] {
            let mut changed = intact.clone();
            changed[0][at..at + 8].copy_from_slice(&number.to_le_bytes());
            let error = restore(&backup_of(&changed)).unwrap_err();
            assert!(error.to_string().contains("is out of range"), "{error}");
        }
        let mut high = intact.clone();
        high[0][at..at + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        restore(&backup_of(&high)).unwrap();
    }
}
