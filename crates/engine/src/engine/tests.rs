//! Behaviour when the disk fails.

use std::{
    io::{self, ErrorKind},
    sync::atomic::AtomicU64,
};

use index::Metric;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::{
    SystemClock,
    file_storage::DirectoryStorage,
    query::{Leg, Order, Page, VectorLeg},
    schema::{Algorithm, FieldKind, FieldSchema, Quantization, VectorSchema},
    search::DocumentFetcher,
    write::Expected,
};

mod changes;
mod clock_jumps;
mod snapshots;

/// A disk in memory that can fail from a certain call on, and remembers what was synced.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    bytes: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    calls: AtomicU64,
    syncs: AtomicU64,
    /// The first call that fails, and how it fails.
    fault: Mutex<Option<(u64, ErrorKind)>>,
}

impl Disk {
    fn fail_from(&self, call: u64, kind: ErrorKind) {
        *self.0.fault.lock() = Some((call, kind));
    }

    fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// The content after a power loss: what was synced.
    fn after_power_loss(&self) -> Disk {
        let synced = self.0.synced.lock().clone();
        let disk = Disk::default();
        *disk.0.bytes.lock() = synced.clone();
        *disk.0.synced.lock() = synced;
        disk
    }

    fn call(&self, grows: bool) -> io::Result<()> {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match *self.0.fault.lock() {
            // A full disk can still be read, synced, and written where it was written before.
            Some((_, ErrorKind::StorageFull)) if !grows => Ok(()),
            Some((first, kind)) if call >= first => Err(io::Error::new(kind, "injected fault")),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.call(false)?;
        Ok(self.0.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.call(false)?;
        let start = offset as usize;
        out.copy_from_slice(&self.0.bytes.lock()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(len as usize > self.0.bytes.lock().len())?;
        self.0.bytes.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(false)?;
        self.0.syncs.fetch_add(1, Ordering::Relaxed);
        let bytes = self.0.bytes.lock().clone();
        *self.0.synced.lock() = bytes;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call(offset as usize + data.len() > self.0.bytes.lock().len())?;
        let start = offset as usize;
        self.0.bytes.lock()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn open_on(disk: Disk) -> (TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_in(&dir, disk);
    (dir, engine)
}

fn open_in(dir: &TempDir, disk: Disk) -> Engine {
    open_with(dir, disk, Durability::Always, Arc::new(directory(dir)))
}

fn directory(dir: &TempDir) -> DirectoryStorage {
    DirectoryStorage::open(dir.path().join(SNAPSHOT_DIRECTORY)).unwrap()
}

fn open_with(dir: &TempDir, disk: Disk, durability: Durability, snapshots: Arc<dyn FileStorage>) -> Engine {
    open_with_options(disk, snapshots, Options { durability, ..options(dir) })
}

fn open_with_options(disk: Disk, snapshots: Arc<dyn FileStorage>, options: Options) -> Engine {
    let store = Store::open_with_backend(disk, options.store_options()).unwrap();
    Engine::start(store, snapshots, None, &options, &Progress::default()).unwrap()
}

fn options(dir: &TempDir) -> Options {
    Options {
        data_dir: dir.path().to_owned(),
        cpu: Cpu::detect(),
        clock: Arc::new(SystemClock),
        cache_bytes: 1 << 20,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        verify_bytes_max: 0,
        durability: Durability::Always,
        tail_max: 100,
        index_threads: 1,
        lower_priority: || {},
        on_read_only: |_| {},
    }
}

fn schema() -> Schema {
    let kind = FieldKind::Vector(VectorSchema {
        algorithm: Algorithm::Flat,
        vector_type: index::VectorType::Float32,
        quantization: Quantization::None,
        dim: 1,
        metric: Metric::L2,
        embed: None,
    });
    Schema {
        prefixes: vec![b"doc:".to_vec()],
        fields: vec![FieldSchema { name: "v".to_owned(), kind }],
        ttl: None,
    }
}

fn put(number: u8) -> Op {
    let value = f32::from(number).to_le_bytes();
    Op::Put {
        key: format!("doc:{number}").into(),
        fields: vec![Field { name: b"v".as_slice().into(), value: value.as_slice().into() }],
        expires_at_ms: None,
        vectors: Vec::new(),
        expected: Expected::Any,
    }
}

fn query(vector: &[f32], exact: bool) -> Query<'_> {
    Query {
        collection: "docs",
        legs: vec![Leg::Vector(VectorLeg { field: None, vector, ef_search: None, exact })],
        order: Order::Score,
        page: Page::first(100),
        filter: None,
        min_score: None,
        fields: None,
    }
}

#[test]
fn after_a_failure_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    const WRITES: u8 = 3;
    // Count the calls of a run without failures, then fail each of them in a separate run.
    let baseline = Disk::default();
    let (_dir, engine) = open_on(baseline.clone());
    engine.create_collection("docs", schema()).unwrap();
    let first = baseline.calls() + 1;
    for number in 0..WRITES {
        engine.write(vec![put(number)]).remove(0).unwrap();
    }
    let last = baseline.calls();
    drop(engine);
    assert!(last > first + 4 * u64::from(WRITES), "calls {first} to {last}");

    for call in first..=last {
        let disk = Disk::default();
        let (_dir, engine) = open_on(disk.clone());
        engine.create_collection("docs", schema()).unwrap();
        disk.fail_from(call, ErrorKind::Other);
        let mut acknowledged = Vec::new();
        let mut failed = false;
        for number in 0..WRITES {
            match engine.write(vec![put(number)]).remove(0) {
                Ok(_) => {
                    assert!(!failed, "call {call}: write {number} was acknowledged after a failure");
                    acknowledged.push(number);
                }
                Err(error) => {
                    assert_eq!(failed, matches!(error, WriteError::ReadOnly { .. }), "call {call}: {error}");
                    failed = true;
                }
            }
        }
        assert_eq!(engine.writable().is_err(), failed, "call {call}");
        if failed {
            assert!(engine.create_collection("more", schema()).is_err(), "call {call}");
        }
        drop(engine);

        let (_dir, engine) = open_on(disk.after_power_loss());
        let found = engine.search(&query(&[0.0], false)).unwrap().hits;
        let found: Vec<u8> = found
            .iter()
            .map(|hit| String::from_utf8_lossy(&hit.document.key)[4..].parse().unwrap())
            .collect();
        assert!(found.starts_with(&acknowledged), "call {call}: {acknowledged:?} of {found:?}");
        assert!(found.len() <= acknowledged.len() + 1, "call {call}: {acknowledged:?} of {found:?}");
        engine.write(vec![put(200)]).remove(0).unwrap();
    }
}

#[test]
fn an_engine_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Engine>();
}

/// Writes a document that is larger than the space that redb has allocated.
fn fill_up(engine: &Engine) -> WriteError {
    let Op::Put { key, mut fields, expires_at_ms, vectors, expected } = put(9) else { unreachable!() };
    fields.push(Field { name: b"long".as_slice().into(), value: vec![7; 8 << 20].into() });
    engine.write(vec![Op::Put { key, fields, expires_at_ms, vectors, expected }]).remove(0).unwrap_err()
}

#[test]
fn a_full_disk_is_reported_and_reads_continue() {
    let disk = Disk::default();
    let (_dir, engine) = open_on(disk.clone());
    engine.create_collection("docs", schema()).unwrap();
    engine.write(vec![put(1)]).remove(0).unwrap();
    disk.fail_from(0, ErrorKind::StorageFull);
    let error = fill_up(&engine);
    assert!(matches!(error, WriteError::Full { .. }), "{error}");
    assert_eq!(engine.search(&query(&[1.0], false)).unwrap().hits.len(), 1);
    assert!(engine.get(b"doc:1").unwrap().is_some());
    assert!(engine.get(b"doc:2").unwrap().is_none());
    let error = fill_up(&engine);
    assert!(matches!(error, WriteError::Full { .. }), "{error}");
    assert_eq!(engine.search(&query(&[1.0], false)).unwrap().hits.len(), 1);
    // Space becomes available.
    *disk.0.fault.lock() = None;
    engine.write(vec![put(2)]).remove(0).unwrap();
    assert_eq!(engine.search(&query(&[1.0], false)).unwrap().hits.len(), 2);
    drop(engine);
    let (_dir, engine) = open_on(disk.after_power_loss());
    assert_eq!(engine.search(&query(&[1.0], false)).unwrap().hits.len(), 2);
}

/// A rejection for lack of space is temporary. A failure that stops all writes is not reported as one, even if lack of
/// space caused it.
#[test]
fn creating_a_collection_on_a_full_disk_makes_the_engine_read_only_and_reports_it() {
    let calls_of = |disk: &Disk, engine: &Engine| {
        let before = disk.calls();
        engine.create_collection("more", schema()).unwrap();
        before + 1..=disk.calls()
    };
    let baseline = Disk::default();
    let (_dir, engine) = open_on(baseline.clone());
    let calls = calls_of(&baseline, &engine);
    let mut read_only_count = 0;
    for call in calls {
        let disk = Disk::default();
        let (_dir, engine) = open_on(disk.clone());
        disk.fail_from(call, ErrorKind::QuotaExceeded);
        let created = engine.create_collection("more", schema());
        // Space becomes available.
        *disk.0.fault.lock() = None;
        let writable = engine.writable();
        let is_full = matches!(&created, Err(CollectionError::Store(error)) if error.is_full());
        let written = engine.write(vec![put(1)]).remove(0);
        assert_eq!(writable.is_ok(), written.is_ok(), "call {call}: {created:?}, {writable:?}, {written:?}");
        assert!(!is_full || written.is_ok(), "call {call}: {created:?}, {written:?}");
        read_only_count += u64::from(writable.is_err());
    }
    assert!(read_only_count > 0, "no failed call made the engine read-only");
}

#[test]
fn a_document_changed_after_selection_is_filtered_again() {
    let (_dir, engine) = open_on(Disk::default());
    let mut schema = schema();
    let tag = FieldKind::Tag { separator: b',', case_sensitive: false };
    schema.fields.push(FieldSchema { name: "tenant".to_owned(), kind: tag });
    engine.create_collection("docs", schema).unwrap();
    let put = |tenant: &[u8]| {
        let Op::Put { key, mut fields, expires_at_ms, vectors, expected } = put(1) else { unreachable!() };
        fields.push(Field { name: b"tenant".as_slice().into(), value: tenant.into() });
        engine.write(vec![Op::Put { key, fields, expires_at_ms, vectors, expected }]).remove(0).unwrap();
    };
    put(b"a");
    let filter = engine.parse_filter("docs", "@tenant:{a}").unwrap();
    let (_, collection) = engine.core.active("docs").unwrap();
    let selection = collection.select(Some(&filter));
    let doc = collection.state().ordinals.doc(0, selection.seen);
    assert!(doc.is_some());
    let is_found = || {
        let fetch = DocumentFetcher {
            core: &engine.core,
            collection: &collection,
            seen: selection.seen,
            filter: Some(&filter),
            now_ms: 0,
        };
        let reader = engine.core.store.read().unwrap();
        fetch.document(&reader, doc).unwrap().is_some()
    };
    assert!(is_found());
    put(b"a");
    assert!(is_found());
    put(b"b");
    assert!(!is_found(), "tenant a must not see a document of tenant b");
}

/// A search may use a version that was dropped or replaced and no longer receives deletes.
#[test]
fn a_document_deleted_after_its_collection_was_dropped_is_not_reported_as_lost() {
    for is_switched in [false, true] {
        let (_dir, engine) = open_on(Disk::default());
        engine.create_collection("docs", schema()).unwrap();
        engine.write(vec![put(1)]).remove(0).unwrap();
        let (_, collection) = engine.core.active("docs").unwrap();
        let selection = collection.select(None);
        let doc = collection.state().ordinals.doc(0, selection.seen);
        if is_switched {
            let mut other = schema();
            other.ttl = Some(std::time::Duration::from_secs(1_000_000));
            engine.rebuild_collection("docs", other).unwrap();
            engine.switch_collection("docs").unwrap();
        } else {
            engine.drop_collection("docs", DropMode::KeepDocuments).unwrap();
        }
        let delete = Op::Delete { key: b"doc:1".to_vec(), expected: Expected::Any };
        engine.write(vec![delete]).remove(0).unwrap();
        let fetch = DocumentFetcher {
            core: &engine.core,
            collection: &collection,
            seen: selection.seen,
            filter: None,
            now_ms: 0,
        };
        let found = fetch.document(&engine.core.store.read().unwrap(), doc);
        assert!(matches!(found, Ok(None)), "switched {is_switched}: {found:?}");
    }
}

#[test]
fn a_thread_that_panics_continues_and_is_reported() {
    let (_dir, engine) = open_on(Disk::default());
    let runs = AtomicU64::new(0);
    engine.core.supervise(&|_| assert!(runs.fetch_add(1, Ordering::Relaxed) > 0, "on purpose"));
    assert_eq!(runs.into_inner(), 2);
    assert!(engine.warnings().iter().any(|warning| warning.contains("panicked and was started again")));
    // A thread that panics while the engine closes must not keep it from closing.
    engine.close();
    engine.core.supervise(&|_| panic!("on purpose"));
}
