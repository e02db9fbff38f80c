//! Backups that no store of ours makes, though their checksums are right.

use std::io::Read as _;

use store::{Backup, BackupError, FrameReader, FrameWriter, NameTarget, Store};

use crate::OPTIONS;
use crate::damaged::{COLLECTION, fill};
use crate::disks::Disk;

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

/// Takes the rows of a kind out of the second stream.
fn without(rows: &[u8], kind: u8) -> Vec<u8> {
    let (mut at, mut left) = (0, Vec::new());
    while rows[at] != 0 {
        let key = u16::from_le_bytes(rows[at + 1..at + 3].try_into().unwrap());
        let row = u32::from_le_bytes(rows[at + 3..at + 7].try_into().unwrap());
        let end = at + 7 + usize::from(key) + row as usize;
        if rows[at] != kind {
            left.extend_from_slice(&rows[at..end]);
        }
        at = end;
    }
    left.push(0);
    left
}

fn restored(backup: &[u8]) -> Result<Backup, BackupError> {
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
fn a_backup_whose_rows_lead_nowhere_is_refused() {
    const SCHEMA: u8 = 3;
    const NAME: u8 = 4;
    let whole = backup();
    let streams = streams(&whole);
    assert_eq!(backup_of(&streams), whole);
    restored(&whole).unwrap();
    let [header, rows, mut counts] = streams;
    counts[16..24].fill(0);
    let nameless = without(&without(&rows, SCHEMA), NAME);
    let refusal =
        restored(&backup_of(&[header.clone(), without(&rows, SCHEMA), counts.clone()])).unwrap_err();
    assert!(refusal.to_string().contains("table names, key \"docs\": it leads nowhere"), "{refusal}");
    counts[24..32].fill(0);
    let refusal = restored(&backup_of(&[header, nameless, counts])).unwrap_err();
    let reason = "table vectors, key collection 1, version 1: it is of a collection that is not there";
    assert!(refusal.to_string().contains(reason), "{refusal}");
}

#[test]
fn a_store_whose_names_lead_nowhere_is_not_backed_up() {
    for (name, target) in [
        ("docs", NameTarget::Collection(COLLECTION)),
        ("alias", NameTarget::Alias("docs".to_owned())),
        // To itself, and so to no collection.
        ("alias", NameTarget::Alias("alias".to_owned())),
    ] {
        let store = Store::open_with_backend(Disk::default(), OPTIONS).unwrap();
        let mut writer = store.write().unwrap();
        writer.set_name(name, &target).unwrap();
        writer.commit().unwrap();
        let refusal = store.read().unwrap().back_up(std::io::sink()).unwrap_err();
        assert!(refusal.to_string().contains("it leads nowhere"), "{refusal}");
    }
}

/// Where the header has the number of the next document, and of the last change.
const NEXT_DOC_AT: usize = 20;
const LAST_SEQ_AT: usize = 32;

#[test]
fn a_backup_with_numbers_no_store_comes_to_is_refused() {
    let whole = streams(&backup());
    for at in [NEXT_DOC_AT, LAST_SEQ_AT] {
        for number in [u64::MAX, u64::MAX / 2 + 1] {
            let mut hostile = whole.clone();
            hostile[0][at..at + 8].copy_from_slice(&number.to_le_bytes());
            let refusal = restored(&backup_of(&hostile)).unwrap_err();
            assert!(refusal.to_string().contains("a number that none comes to"), "{refusal}");
        }
        let mut high = whole.clone();
        high[0][at..at + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        restored(&backup_of(&high)).unwrap();
    }
}
