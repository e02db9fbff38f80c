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

#[test]
fn reads_data_format_1() {
    let source = new_home();
    if std::env::var_os("WRITE_DATA_FORMAT").is_some() {
        source.ok(&["backup", "data/backup"]);
        for name in FILES {
            let mut file =
                GzEncoder::new(fs::File::create(fixture_path(1, name)).unwrap(), Compression::best());
            file.write_all(&fs::read(source.path("data").join(name)).unwrap()).unwrap();
            file.finish().unwrap();
        }
    }
    let expected = exported_documents(&source);
    assert_eq!(expected.len(), DOCUMENTS);

    let home = TestHome::new();
    for name in &FILES[..2] {
        home.write(&format!("data/{name}"), read_fixture(1, name));
    }
    assert!(home.ok(&["check"]).starts_with("nothing is damaged: 40 documents"));
    assert_eq!(exported_documents(&home), expected);
    let info = home.json(&["collections"]);
    let collection = &info["collections"][0];
    assert_eq!(
        (&collection["documents"], &collection["vectors"]),
        (&DOCUMENTS.into(), &DOCUMENTS.into()),
        "{info}"
    );

    let home = TestHome::new();
    let backup = home.write("backup", read_fixture(1, "backup"));
    home.ok(&["restore", &backup]);
    assert_eq!(exported_documents(&home), expected);
}

#[test]
fn explains_that_a_newer_format_needs_an_upgrade() {
    let home = new_home();
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
    assert_eq!(exported_documents(&home).len(), DOCUMENTS);
}

/// A data directory of the first format, left by a killed server: four collections, an alias, a rebuilt version,
/// removed vectors, every vector type, and changes that are newer than the snapshots.
#[test]
fn opens_a_data_directory_of_the_first_format() {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data_formats/1-directory");
    let home = TestHome::new();
    let mut names = vec!["nearfield.redb".to_owned()];
    let snapshots = ["000001-000001", "000002-000002", "000003-000001", "000004-000001"];
    names.extend(snapshots.map(|name| format!("snapshots/{name}.snapshot")));
    for name in names {
        let mut bytes = Vec::new();
        let file = fs::File::open(fixture.join(format!("{name}.gz"))).unwrap();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        home.write(&format!("data/{name}"), bytes);
    }
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
