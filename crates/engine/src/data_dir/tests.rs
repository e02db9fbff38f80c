use std::{env, fs, process::Command};

use index::{Metric, VectorType};
use store::{Field, NameTarget};
use tempfile::TempDir;

use super::*;
use crate::{
    ComputedVector, Engine, Expected, Op, SystemClock,
    schema::{Algorithm, Embedding, FieldKind, FieldSchema, Quantization, VectorSchema},
};

const VERSION: CollectionVersion = CollectionVersion { id: 1, version: 1 };

fn schema() -> Schema {
    let vector = VectorSchema {
        algorithm: Algorithm::Hnsw { m: 16, ef_construction: 40, ef_search: 40 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 4,
        metric: Metric::L2,
        embed: None,
    };
    let field = FieldSchema { name: "v".to_owned(), kind: FieldKind::Vector(vector) };
    Schema { prefixes: vec![Vec::new()], fields: vec![field], ttl: None }
}

fn vector_of(schema: &mut Schema) -> &mut VectorSchema {
    let FieldKind::Vector(vector) = &mut schema.fields[0].kind else { unreachable!("it is a vector") };
    vector
}

/// A data directory whose store has a collection with this schema and no documents.
fn directory_with(schema: &Schema) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join(STORE_FILE), OPTIONS).unwrap();
    let mut writer = store.write().unwrap();
    assert_eq!(writer.allocate_collection_id().unwrap(), VERSION.id);
    writer.set_schema(VERSION, &schema.to_bytes()).unwrap();
    writer.set_name("docs", &NameTarget::Collection(VERSION)).unwrap();
    writer.commit().unwrap();
    directory
}

fn open(path: &Path) -> Result<Engine, OpenError> {
    Engine::open(crate::Options {
        data_dir: path.to_owned(),
        cpu: Cpu::detect(),
        clock: std::sync::Arc::new(SystemClock),
        cache_bytes: 1 << 20,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        verify_bytes_max: 0,
        durability: crate::Durability::Always,
        tail_max: 100,
        index_threads: 1,
        lower_priority: || {},
        on_read_only: |_| {},
    })
}

#[test]
fn an_invalid_schema_is_rejected_from_every_source() {
    type Change = fn(&mut Schema);
    let changes: [(Change, &str); 4] = [
        (|schema| vector_of(schema).dim = 0, "dim must be 1 to"),
        (
            |schema| {
                let Algorithm::Hnsw { m, .. } = &mut vector_of(schema).algorithm else { unreachable!() };
                *m = 0;
            },
            "m must be 2 to",
        ),
        (
            |schema| {
                let text = |number| FieldSchema { name: format!("f{number}"), kind: FieldKind::Text };
                schema.fields.extend((0..70_000).map(text));
            },
            "at most 1024 fields",
        ),
        (|schema| schema.prefixes.clear(), "at least one key prefix"),
    ];
    for (change, reason) in changes {
        let mut schema = schema();
        change(&mut schema);
        let directory = directory_with(&schema);
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::Schema { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");

        let data_dir = DataDir::lock(directory.path()).unwrap();
        let checked = data_dir.check(Cpu::detect(), 0).unwrap();
        let [damage] = &checked.store.damage[..] else { panic!("{:?}", checked.store.damage) };
        assert!(damage.to_string().contains(reason), "{damage}");

        let mut backup = Vec::new();
        let store = Store::open(&data_dir.store_file(), OPTIONS).unwrap();
        store.read().unwrap().back_up(&mut backup).unwrap();
        let other = tempfile::tempdir().unwrap();
        let error = DataDir::lock(other.path()).unwrap().restore(&backup[..], false).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        let remaining = fs::read_dir(other.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(remaining.collect::<Vec<_>>(), [LOCK_FILE]);
    }
}

#[test]
fn accepts_a_valid_schema() {
    let directory = directory_with(&schema());
    let engine = open(directory.path()).unwrap();
    assert_eq!(engine.collections().len(), 1);
}

/// Replaces computed vectors without logging a change, as no program does.
#[test]
fn check_compares_every_vector_of_a_snapshot_with_the_store() {
    let mut schema = schema();
    schema.fields.push(FieldSchema { name: "t".to_owned(), kind: FieldKind::Text });
    vector_of(&mut schema).embed = Some(Embedding { fields: vec!["t".to_owned()], model: "m".to_owned() });
    let directory = directory_with(&schema);
    let engine = open(directory.path()).unwrap();
    let fields = vec![Field { name: b"t"[..].into(), value: b"text"[..].into() }];
    let vectors = engine.texts_to_embed(b"d", &fields);
    let [text] = &vectors[..] else { panic!("{vectors:?}") };
    let vector = |passage, value| ComputedVector {
        collection: text.collection,
        field: text.field,
        passage,
        model: [1; 16],
        values: vec![value; 4],
    };
    let put = Op::Put {
        key: b"d"[..].into(),
        fields,
        expires_at_ms: None,
        vectors: vec![vector(0, 1.0), vector(1, 2.0)],
        expected: Expected::Any,
    };
    engine.write(vec![put]).remove(0).unwrap();
    engine.close();
    drop(engine);
    let check = || DataDir::lock(directory.path()).unwrap().check(Cpu::detect(), 0).unwrap();
    assert!(check().is_clean(), "{:?}", check());
    for passage in [0, 1] {
        let store = Store::open(&directory.path().join(STORE_FILE), OPTIONS).unwrap();
        let (doc, _) = store.read().unwrap().get(b"d").unwrap().unwrap();
        let key = store::VectorKey { collection: text.collection, field: text.field, doc, passage };
        let replace = |value: f32| {
            let store = Store::open(&directory.path().join(STORE_FILE), OPTIONS).unwrap();
            let mut writer = store.write().unwrap();
            writer.set_vector(key, [1; 16], &value.to_le_bytes().repeat(4)).unwrap();
            writer.commit().unwrap();
        };
        drop(store);
        replace(9.0);
        let checked = check();
        assert!(checked.store.is_clean());
        let [(_, Some(damage))] = &checked.snapshots[..] else { panic!("{checked:?}") };
        assert!(damage.contains("does not match the store: document number 1: its vector"), "{damage}");
        replace(f32::from(passage) + 1.0);
        assert!(check().is_clean());
    }
}

/// Name and content of every file in a directory and its directories.
fn contents(path: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn check_changes_nothing_even_where_the_store_was_not_closed() {
    let directory = directory_with(&schema());
    let engine = open(directory.path()).unwrap();
    engine.write(vec![put(b"d")]).remove(0).unwrap();
    engine.close();
    drop(engine);
    let engine = open(directory.path()).unwrap();
    engine.write(vec![put(b"e")]).remove(0).unwrap();
    // As a kill at this moment leaves it.
    let killed = tempfile::tempdir().unwrap();
    for (path, bytes) in contents(directory.path()) {
        let copy = killed.path().join(path.strip_prefix(directory.path()).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, bytes).unwrap();
    }
    let unfinished = killed.path().join(SNAPSHOT_DIRECTORY).join("000001-000001.snapshot.unfinished");
    fs::write(unfinished, "half").unwrap();
    let before = contents(killed.path());
    let checked = DataDir::lock_unchanged(killed.path()).unwrap().check(Cpu::detect(), 0).unwrap();
    assert!(checked.is_clean(), "{checked:?}");
    assert_eq!((checked.store.counts.documents, checked.snapshots.len()), (2, 1));
    assert!(contents(killed.path()) == before);
}

#[cfg(unix)]
#[test]
fn files_and_directories_are_created_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    fn check(path: &Path) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        }
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep").join("data");
    let engine = open(&path).unwrap();
    engine.create_collection("docs", schema()).unwrap();
    engine.write(vec![put(b"d")]).remove(0).unwrap();
    engine.close();
    check(&home.path().join("deep"));
    for file in [STORE_FILE, LOCK_FILE, "snapshots/000001-000001.snapshot"] {
        assert!(path.join(file).exists(), "{file}");
    }
}

fn put(key: &[u8]) -> Op {
    Op::Put {
        key: key.into(),
        fields: Vec::new(),
        expires_at_ms: None,
        vectors: Vec::new(),
        expected: Expected::Any,
    }
}

#[test]
fn a_replaced_store_is_not_reported_as_unchanged() {
    let directory = directory_with(&schema());
    let data_dir = DataDir::lock(directory.path()).unwrap();
    let before = fs::read(data_dir.store_file()).unwrap();
    // Not a directory, so its removal as one fails.
    fs::write(directory.path().join(SNAPSHOT_DIRECTORY), "in the way").unwrap();
    let (report, kept) = data_dir.repair().unwrap();
    assert!(report.is_clean());
    assert_eq!(fs::read(kept).unwrap().len(), before.len());
    assert_ne!(fs::read(data_dir.store_file()).unwrap(), before);
}

/// Environment variable with the directory that the test below opens.
const OPENED: &str = "NEARFIELD_TEST_OPENED";

#[test]
#[ignore = "run by the test below, in a separate process"]
fn opens_the_directory_named_by_the_environment() {
    let path = env::var_os(OPENED).expect("the test below sets it");
    open(Path::new(&path)).unwrap();
}

/// Directories that a process syncs when it opens `path`, according to a trace written to `home`; `None` if strace is
/// missing.
fn synced_by_opening(path: &Path, home: &Path) -> Option<Vec<String>> {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        assert!(env::var("NEARFIELD_REQUIRE_TOOLS").as_deref() != Ok("1"), "strace is missing");
        println!("SKIPPED: there is no strace here");
        return None;
    }
    let trace = home.join("trace");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-s", "0", "-e", "trace=fsync", "-o"])
        .arg(&trace)
        .arg(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "data_dir::tests::opens_the_directory_named_by_the_environment"])
        .env(OPENED, path)
        .status()
        .unwrap();
    assert!(status.success());
    let trace = fs::read_to_string(trace).unwrap();
    let name =
        |line: &str| Some(line.split_once("fsync(")?.1.split_once('<')?.1.split_once('>')?.0.to_owned());
    Some(trace.lines().filter_map(name).collect())
}

#[test]
fn a_created_directory_survives_power_loss() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let path = home.join("data");
    // Missing, and as left by a process that was killed before it synced.
    for opening in ["first", "second"] {
        let Some(synced) = synced_by_opening(&path, &home) else { return };
        for directory in [&home, &path] {
            let synced = synced.iter().any(|synced| Path::new(synced) == directory);
            assert!(synced, "{} was not synced at the {opening} opening", directory.display());
        }
    }
    let deep = home.join("one").join("two");
    let Some(synced) = synced_by_opening(&deep, &home) else { return };
    for directory in [&home, &home.join("one"), &deep] {
        assert!(synced.iter().any(|synced| Path::new(synced) == directory), "{synced:?}");
    }
}
