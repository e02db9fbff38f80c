//! Snapshots taken while writes continue.

use std::{fs, sync::atomic::AtomicBool};

use super::*;

/// Stops the writer when it is dropped, also if the test panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Copies the snapshots in `dir` to a new directory.
fn copy_of_snapshots(dir: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let snapshots = copy.path().join(SNAPSHOT_DIRECTORY);
    fs::create_dir(&snapshots).unwrap();
    for entry in fs::read_dir(dir.path().join(SNAPSHOT_DIRECTORY)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), snapshots.join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_snapshot_taken_during_writes_is_completed_by_the_change_log() {
    const KEYS: u8 = 120;
    let disk = Disk::default();
    let (dir, engine) = open_on(disk.clone());
    engine.create_collection("docs", schema()).unwrap();
    let hits = |engine: &Engine| -> Vec<(Box<[u8]>, u64, u32)> {
        let hits = engine.search(&query(&[0.0], true)).unwrap().hits;
        hits.into_iter()
            .map(|hit| (hit.document.key, hit.document.seq, hit.distance.unwrap().to_bits()))
            .collect()
    };
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Keys are deleted and new ones reuse their ordinals, until enough snapshots were compared.
            let mut round = 0u64;
            while writing.load(Ordering::Relaxed) {
                round += 1;
                let number = (round * 37 % u64::from(KEYS)) as u8;
                let op = if round.is_multiple_of(2) {
                    Op::Delete { key: put(number).key().to_vec(), expected: Expected::Any }
                } else {
                    put(number)
                };
                engine.write(vec![op]).remove(0).unwrap();
            }
        });
        let stop = StopOnDrop(&writing);
        for _ in 0..12 {
            engine.core.save(|_| true);
            let commit_lock = engine.core.commit_lock.lock();
            let remaining = disk.after_power_loss();
            let (with, without) = (copy_of_snapshots(&dir), tempfile::tempdir().unwrap());
            drop(commit_lock);
            let caught_up = open_in(&with, remaining.after_power_loss());
            let rebuilt = open_in(&without, remaining);
            assert_eq!(caught_up.warnings(), [] as [&str; 0]);
            assert_eq!(hits(&caught_up), hits(&rebuilt));
            let vectors = |engine: &Engine| engine.collection("docs").unwrap().vectors;
            assert_eq!(vectors(&caught_up), vectors(&rebuilt));
        }
        drop(stop);
        writer.join().unwrap();
    });
}

type Callback = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// A storage that runs callbacks once while a snapshot is written.
struct HookedStorage {
    directory: DirectoryStorage,
    /// Runs before the file is created.
    before_create: Callback,
    /// Runs after the file got its name.
    after_rename: Callback,
}

impl HookedStorage {
    fn new(dir: &TempDir) -> HookedStorage {
        HookedStorage {
            directory: directory(dir),
            before_create: Callback::default(),
            after_rename: Callback::default(),
        }
    }
}

fn run_once(callback: &Callback) {
    if let Some(callback) = callback.lock().take() {
        callback();
    }
}

impl std::fmt::Debug for HookedStorage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.directory.fmt(formatter)
    }
}

impl FileStorage for HookedStorage {
    fn names(&self) -> io::Result<Vec<String>> {
        self.directory.names()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn io::Read>> {
        self.directory.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn crate::WritableFile>> {
        run_once(&self.before_create);
        self.directory.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.directory.sync()?;
        run_once(&self.after_rename);
        Ok(())
    }
}

/// A snapshot may contain changes after the last one it claims to include. A change made while it is written must be
/// durable before the snapshot is used.
#[test]
fn a_snapshot_contains_nothing_that_the_store_loses_in_a_power_failure() {
    let (disk, dir) = (Disk::default(), tempfile::tempdir().unwrap());
    let storage = Arc::new(HookedStorage::new(&dir));
    let engine = Arc::new(open_with(&dir, disk.clone(), Durability::None, storage.clone()));
    engine.create_collection("docs", schema()).unwrap();
    engine.write(vec![put(1)]).remove(0).unwrap();
    let writer = engine.clone();
    *storage.before_create.lock() = Some(Box::new(move || {
        writer.write(vec![put(2)]).remove(0).unwrap();
    }));
    let remaining = Arc::new(Mutex::new(None));
    let saved = remaining.clone();
    *storage.after_rename.lock() = Some(Box::new(move || *saved.lock() = Some(disk.after_power_loss())));
    engine.core.save(|_| true);
    assert_eq!(engine.warnings(), [] as [&str; 0]);

    let snapshots = copy_of_snapshots(&dir);
    assert_eq!(fs::read_dir(snapshots.path().join(SNAPSHOT_DIRECTORY)).unwrap().count(), 1);
    let engine = open_in(&snapshots, remaining.lock().take().expect("the snapshot was written"));
    assert_eq!(engine.warnings(), [] as [&str; 0]);
    let found = || -> Vec<(String, f32)> {
        let hits = engine.search(&query(&[0.0], false)).unwrap().hits;
        hits.into_iter()
            .map(|hit| (String::from_utf8(hit.document.key.into()).unwrap(), hit.distance.unwrap()))
            .collect()
    };
    assert_eq!(found(), [("doc:1".to_owned(), 1.0), ("doc:2".to_owned(), 4.0)]);
    assert_eq!(engine.collection("docs").unwrap().documents, 2);
    // If anything was lost, this reuses its sequence numbers.
    engine.write(vec![put(4)]).remove(0).unwrap();
    assert_eq!(found()[2..], [("doc:4".to_owned(), 16.0)]);
}

#[test]
fn dropping_a_collection_during_its_snapshot_leaves_no_file() {
    for is_switched in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(HookedStorage::new(&dir));
        let engine = Arc::new(open_with(&dir, Disk::default(), Durability::Always, storage.clone()));
        engine.create_collection("docs", schema()).unwrap();
        engine.write(vec![put(1)]).remove(0).unwrap();
        let other = engine.clone();
        *storage.before_create.lock() = Some(Box::new(move || {
            if is_switched {
                let mut schema = schema();
                schema.ttl = Some(std::time::Duration::from_secs(1_000_000));
                other.rebuild_collection("docs", schema).unwrap();
                other.switch_collection("docs").unwrap();
            } else {
                other.drop_collection("docs", DropMode::KeepDocuments).unwrap();
            }
        }));
        engine.core.save(|_| true);
        assert_eq!(engine.warnings(), [] as [&str; 0]);
        assert!(storage.before_create.lock().is_none(), "a snapshot was written");
        assert_eq!(storage.names().unwrap(), [] as [&str; 0], "switched {is_switched}");
    }
}
