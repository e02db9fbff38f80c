//! Data written by earlier versions: every later version must read it.
//!
//! When the format changes, `CURRENT` is raised and `WRITE_DATA_FORMAT=1 cargo test -p nearfield --test cli formats` writes the files again,
//! under the next number.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use redb::ReadableDatabase as _;
use serde_json::{Value, json};

use crate::{
    backing_up::exported_documents,
    documents::{home_with_documents, request},
    program::TestHome,
};

const FILES: [&str; 3] = ["nearfield.redb", "snapshots/000001-000001.snapshot", "backup"];
const DOCUMENTS: usize = 40;
/// 82 years, so that the documents of the fixture do not expire.
const TTL: &str = "30000d";

fn fixture_path(format: u32, name: &str) -> PathBuf {
    let name = name.replace('/', "-");
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data_formats");
    data.join(format!("{format}-{name}.gz"))
}

fn read_fixture(format: u32, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(fixture_path(format, name)).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn new_home() -> TestHome {
    let (home, file) = home_with_documents(DOCUMENTS);
    home.ok(&["index", &file, "-c", "things", "--ttl", TTL]);
    home
}

/// The format that this program writes.
const CURRENT: u32 = 2;

#[test]
fn reads_every_data_format() {
    let source = new_home();
    if std::env::var_os("WRITE_DATA_FORMAT").is_some() {
        source.ok(&["backup", "backup"]);
        fs::rename(source.path("backup"), source.path("data/backup")).unwrap();
        for name in FILES {
            pack(&fixture_path(CURRENT, name), &fs::read(source.path("data").join(name)).unwrap());
        }
    }
    let expected = exported_documents(&source);
    assert_eq!(expected.len(), DOCUMENTS);
    for format in 1..=CURRENT {
        let home = TestHome::new();
        for name in &FILES[..2] {
            home.write(&format!("data/{name}"), read_fixture(format, name));
        }
        assert!(home.ok(&["check"]).starts_with("nothing is damaged: 40 documents"));
        assert_eq!(exported_documents(&home), expected);
        let info = home.json(&["collections"]);
        let things = &info["collections"][0];
        assert_eq!(
            (&things["documents"], &things["vectors"]),
            (&DOCUMENTS.into(), &DOCUMENTS.into()),
            "{info}"
        );
        assert!(home.ok(&["check"]).starts_with("nothing is damaged: 40 documents"));

        let home = TestHome::new();
        let backup = home.write("backup", read_fixture(format, "backup"));
        home.ok(&["restore", &backup]);
        assert_eq!(exported_documents(&home), expected);
    }
}

fn pack(path: &Path, bytes: &[u8]) {
    let mut file = GzEncoder::new(fs::File::create(path).unwrap(), Compression::best());
    file.write_all(bytes).unwrap();
    file.finish().unwrap();
}

/// A home whose data directory has the first format.
fn first_format() -> TestHome {
    let home = TestHome::new();
    for name in &FILES[..2] {
        home.write(&format!("data/{name}"), read_fixture(1, name));
    }
    home
}

/// Format of a store file. The store must not be open.
fn format_of(store: &Path) -> u32 {
    let meta: redb::TableDefinition<'_, u8, &[u8]> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(store).unwrap();
    let transaction = database.begin_read().unwrap();
    let state = transaction.open_table(meta).unwrap().get(0).unwrap().unwrap();
    u32::from_le_bytes(*state.value().first_chunk().unwrap())
}

#[test]
fn opening_converts_the_first_format_and_keeps_a_copy() {
    let home = first_format();
    let (store, copy) = (home.path("data/nearfield.redb"), home.path("data/nearfield.redb.format-1"));
    home.ok(&["check"]);
    assert_eq!(format_of(&store), 1, "check converts nothing");
    assert!(!copy.exists());
    let opened = home.run(&["collections"]);
    assert!(opened.err.contains("was converted from format 1"), "{opened:?}");
    assert!(opened.err.contains(copy.to_str().unwrap()), "{opened:?}");
    assert_eq!((format_of(&store), format_of(&copy)), (CURRENT, 1));
    assert_eq!(home.run(&["collections"]).err, "", "it is converted once");
    let before = exported_documents(&home);

    // The copy is a complete store, for an earlier version of the program.
    let other = TestHome::new();
    other.write("data/nearfield.redb", fs::read(&copy).unwrap());
    assert!(other.ok(&["check"]).starts_with("nothing is damaged: 40 documents"));
    assert_eq!(exported_documents(&other), before);
    assert_eq!(exported_documents(&home), before);
    // The graph was not built again.
    let info = home.json(&["collections"]);
    assert_eq!(info["collections"][0]["tail"], 0, "{info}");
}

#[test]
fn a_killed_conversion_leaves_the_old_or_the_new_store() {
    let expected = exported_documents(&first_format());
    let mut converted = [0, 0];
    for kill in 0..12 {
        let home = first_format();
        for _ in 0..2 {
            let mut opening =
                home.command(&["collections"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(Duration::from_millis(6 * kill));
            opening.kill().unwrap();
            opening.wait().unwrap();
        }
        let format = format_of(&home.path("data/nearfield.redb"));
        converted[usize::from(format == CURRENT)] += 1;
        assert!(format == 1 || home.path("data/nearfield.redb.format-1").exists(), "killed after {kill}");
        assert!(home.ok(&["check"]).starts_with("nothing is damaged: 40 documents"));
        assert_eq!(exported_documents(&home), expected, "killed after {kill}");
        assert!(!home.path("data/nearfield.redb.unfinished").exists());
    }
    println!("killed before the conversion: {}, after it: {}", converted[0], converted[1]);
}

#[test]
fn a_store_of_a_newer_format_is_not_called_damaged() {
    let home = new_home();
    let store = home.path("data/nearfield.redb");
    let meta: redb::TableDefinition<'_, u8, &[u8]> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(&store).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert(0, &[7, 0, 0, 0, 1, 2][..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let unusable = TestHome::new();
    unusable.write("data", "a file in place of the directory");
    for command in [&["search", "x", "-c", "things"][..], &["collections"], &["check"]] {
        let code = unusable.run(command).code.unwrap();
        let words = ["written by a newer version of Nearfield, format 7; this program reads up to 2"];
        let failure = home.fails(code, command, &words);
        assert!(!failure.err.contains("damaged"), "{failure:?}");
    }
}

#[test]
fn explains_that_a_newer_format_needs_an_upgrade() {
    let home = new_home();
    home.ok(&["backup", "saved"]);
    // The format is the first number of the first frame; the frame's checksum must match.
    let mut backup = fs::read(home.path("saved")).unwrap();
    let (frame, number) = (8..16, 16..20);
    assert_eq!(backup[number.clone()], CURRENT.to_le_bytes());
    backup[number].copy_from_slice(&(CURRENT + 1).to_le_bytes());
    let len = u32::from_le_bytes(backup[frame.start..frame.start + 4].try_into().unwrap()) as usize;
    let checked = [&0u64.to_le_bytes()[..], &backup[frame.end..frame.end + len]].concat();
    let sum = crc32fast::hash(&checked).to_le_bytes();
    backup[frame.start + 4..frame.end].copy_from_slice(&sum);
    let newer = home.write("newer", backup);
    home.fails(1, &["restore", &newer, "--replace"], &["newer version of Nearfield", "upgrade"]);
    assert_eq!(exported_documents(&home).len(), DOCUMENTS);
}

fn directory_fixture(format: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data_formats/{format}-directory"))
}

fn directory_files() -> Vec<String> {
    let mut names = vec!["nearfield.redb".to_owned()];
    let snapshots = ["000001-000001", "000002-000002", "000003-000001", "000004-000001"];
    names.extend(snapshots.map(|name| format!("snapshots/{name}.snapshot")));
    names
}

fn unpacked_directory(format: u32) -> TestHome {
    let home = TestHome::new();
    for name in directory_files() {
        let mut bytes = Vec::new();
        let file = fs::File::open(directory_fixture(format).join(format!("{name}.gz"))).unwrap();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        home.write(&format!("data/{name}"), bytes);
    }
    home
}

/// Data directories of every format: four collections, an alias, a rebuilt version, removed vectors, every vector
/// type. That of the first format is as a killed server left it, with changes that are newer than the snapshots; that
/// of the second is what became of it.
#[test]
fn opens_a_data_directory_of_every_format() {
    if std::env::var_os("WRITE_DATA_FORMAT").is_some() {
        let home = unpacked_directory(CURRENT - 1);
        home.ok(&["collections"]);
        fs::create_dir_all(directory_fixture(CURRENT).join("snapshots")).unwrap();
        for name in directory_files() {
            let path = directory_fixture(CURRENT).join(format!("{name}.gz"));
            pack(&path, &fs::read(home.path("data").join(name)).unwrap());
        }
    }
    (1..=CURRENT).for_each(opens_a_data_directory);
}

fn opens_a_data_directory(format: u32) {
    let home = unpacked_directory(format);
    // Every format contains the same documents.
    let fixture = directory_fixture(1);
    let checked = home.ok(&["check"]);
    for count in ["412 documents", "9 computed vectors", "4 snapshots"] {
        assert!(checked.contains(count), "{checked}");
    }
    let collections = home.json(&["collections"]);
    let collections = collections["collections"].as_array().unwrap();
    let count = |info: &Value| [&info["documents"], &info["vectors"]].map(|count| count.as_u64().unwrap());
    let found: Vec<_> =
        collections.iter().map(|info| (info["name"].as_str().unwrap(), count(info))).collect();
    assert_eq!(found, [("brief", [5, 5]), ("help", [4, 4]), ("many", [399, 399]), ("points", [4, 16])]);
    assert_eq!(collections[0]["schema"]["fields"][3]["quantization"], "int4");
    assert_eq!(collections[1]["aliases"][0], "support");
    for name in ["help", "brief", "points"] {
        let expected = fs::read_to_string(fixture.join(format!("{name}.jsonl"))).unwrap();
        let exported = home.ok(&["export", "-c", name]);
        let lines = |text: &str| -> Vec<Value> {
            let mut documents: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            for document in &mut documents {
                // The searches below compare vectors.
                for vector in ["f32", "f16", "bf16", "i8"] {
                    document.as_object_mut().unwrap().remove(vector);
                }
                // The remaining TTL decreases; only the documents of `brief` have one.
                let ttl = document.as_object_mut().unwrap().remove("ttl_s");
                assert_eq!(ttl.is_some_and(|ttl| ttl.as_f64().unwrap() > 0.0), name == "brief", "{document}");
            }
            documents
        };
        assert_eq!(lines(&exported), lines(&expected), "{name}");
    }

    let ids = |collection: &str, body: Value| -> Vec<String> {
        let path = format!("/collections/{collection}/search");
        let (status, found) = request(&home, "POST", &path, &body);
        assert_eq!(status, 200, "{found}");
        let hits = found["results"].as_array().unwrap();
        hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    };
    let query = [1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(ids("many", json!({"vector": query, "k": 5})), ["m542", "m358", "m523", "m273", "m448"]);
    let filtered = json!({"vector": query, "k": 3, "exact": true, "filter": "@n:[300 400]"});
    assert_eq!(ids("many", filtered), ["m358", "m307", "m338"]);
    for (field, nearest) in [
        ("f32", ["p1", "p2", "p3"]),
        ("f16", ["p3", "p1", "p2"]),
        ("bf16", ["p3", "p1", "p2"]),
        ("i8", ["p1", "p2", "p3"]),
    ] {
        assert_eq!(
            ids("points", json!({"vector": [0, 0, 1, 0], "k": 3, "field": field})),
            nearest,
            "{field}"
        );
    }
    assert_eq!(ids("points", json!({"vector": [0, 0, 0, 1], "k": 1, "field": "f16"})), ["p4"]);
}
