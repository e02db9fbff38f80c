//! Data written by earlier versions: every later version must read it.
//!
//! When the format changes, `WRITE_DATA_FORMAT=1 cargo test -p nearfield --test cli formats` writes the files again,
//! under the next number.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use crate::{backing_up::content, documents::home_with_items, program::TestHome};

const FILES: [&str; 3] = ["nearfield.redb", "snapshots/000001-000001.snapshot", "backup"];
const THINGS: usize = 40;
/// Longer than the project will live.
const TTL: &str = "30000d";

fn fixture_path(format: u32, name: &str) -> PathBuf {
    let name = name.replace('/', "-");
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data_formats");
    data.join(format!("{format}-{name}.gz"))
}

fn unpacked(format: u32, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(fixture_path(format, name)).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn things() -> TestHome {
    let (home, things) = home_with_items(THINGS);
    home.ok(&["index", &things, "-c", "things", "--ttl", TTL]);
    home
}

#[test]
fn reads_data_format_1() {
    let made = things();
    if std::env::var_os("WRITE_DATA_FORMAT").is_some() {
        made.ok(&["backup", "data/backup"]);
        for name in FILES {
            let mut file =
                GzEncoder::new(fs::File::create(fixture_path(1, name)).unwrap(), Compression::best());
            file.write_all(&fs::read(made.path("data").join(name)).unwrap()).unwrap();
            file.finish().unwrap();
        }
    }
    let expected = content(&made);
    assert_eq!(expected.len(), THINGS);

    let home = TestHome::new();
    for name in &FILES[..2] {
        home.write(&format!("data/{name}"), unpacked(1, name));
    }
    assert!(home.ok(&["check"]).starts_with("nothing is damaged: 40 documents"));
    assert_eq!(content(&home), expected);
    let info = home.json(&["collections"]);
    let things = &info["collections"][0];
    assert_eq!((&things["documents"], &things["vectors"]), (&THINGS.into(), &THINGS.into()), "{info}");

    let home = TestHome::new();
    let backup = home.write("backup", unpacked(1, "backup"));
    home.ok(&["restore", &backup]);
    assert_eq!(content(&home), expected);
}

#[test]
fn explains_that_a_newer_format_needs_an_upgrade() {
    let home = things();
    home.ok(&["backup", "saved"]);
    // The format is the first number of the first frame; the frame's checksum must match.
    let mut backup = fs::read(home.path("saved")).unwrap();
    let (frame, number) = (8..16, 16..20);
    assert_eq!(backup[number.clone()], 1u32.to_le_bytes());
    backup[number].copy_from_slice(&2u32.to_le_bytes());
    let len = u32::from_le_bytes(backup[frame.start..frame.start + 4].try_into().unwrap()) as usize;
    let checked = [&0u64.to_le_bytes()[..], &backup[frame.end..frame.end + len]].concat();
    let sum = crc32fast::hash(&checked).to_le_bytes();
    backup[frame.start + 4..frame.end].copy_from_slice(&sum);
    let newer = home.write("newer", backup);
    home.fails(1, &["restore", &newer, "--replace"], &["newer version of Nearfield", "upgrade"]);
    assert_eq!(content(&home).len(), THINGS);
}
