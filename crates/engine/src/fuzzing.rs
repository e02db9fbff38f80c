//! Fuzz targets for filters, vectors, schemas and collection snapshots.

use std::{
    io::{self, ErrorKind, Read, Write},
    sync::{Arc, LazyLock},
};

use index::{Cpu, Metric, VectorType};
use parking_lot::Mutex;
use store::{CollectionVersion, FrameWriter, HistoryId, Seq, StoreError};

use crate::{
    Algorithm, FieldKind, FieldSchema, FileStorage, Filter, Quantization, Schema, VectorSchema, WritableFile,
    collection::Collection,
    schema,
    snapshot::{self, Snapshots},
};

fn field(name: &str, kind: FieldKind) -> FieldSchema {
    FieldSchema { name: name.to_owned(), kind }
}

static FILTER_SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema {
    prefixes: vec![b"a:".to_vec()],
    fields: vec![
        field("tag", FieldKind::Tag { separator: b',', case_sensitive: false }),
        field("other", FieldKind::Tag { separator: b';', case_sensitive: true }),
        field("year", FieldKind::Numeric),
        field("text", FieldKind::Text),
    ],
    ttl: None,
});

/// Filters: text that parses is printed as text that parses to the same filter.
pub fn filter_parse(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Filter::parse(text, &FILTER_SCHEMA) {
        Ok(filter) => {
            let printed = filter.to_string();
            let decoded = Filter::parse(&printed, &FILTER_SCHEMA);
            let decoded =
                decoded.unwrap_or_else(|error| panic!("{text:?} is printed as {printed:?}: {error}"));
            assert_eq!(decoded.to_string(), printed, "{text:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Encoded vectors, after three bytes that select dimension, type and metric: an accepted vector is finite, has the
/// right dimension and round-trips.
pub fn vector_blob(input: &[u8]) {
    let [dim, vector_type, metric, bytes @ ..] = input else { return };
    let dim = usize::from(*dim).max(1);
    let types = [VectorType::Float32, VectorType::Float16, VectorType::Bfloat16, VectorType::Int8];
    let vector_type = types[usize::from(*vector_type) % types.len()];
    let metric = [Metric::Cosine, Metric::L2, Metric::Ip][usize::from(*metric) % 3];
    match index::decode(bytes, dim, vector_type, metric) {
        Ok(values) => {
            assert_eq!(values.len(), dim);
            assert!(values.iter().all(|value| value.is_finite()));
            assert!(index::check(&values, dim, metric).is_ok());
            let encoded = index::encode(&values, vector_type);
            let decoded = index::decode(&encoded, dim, vector_type, metric);
            assert_eq!(decoded.expect("an accepted vector is accepted again"), values);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Encoded schemas, as the store and the metadata in Redis contain them: a decoded schema encodes to the same bytes.
pub fn schema_bytes(input: &[u8]) {
    match schema::decode(input) {
        Ok(schema) => {
            assert_eq!(Schema::from_bytes(input).as_ref(), Ok(&schema));
            if schema.validate().is_ok() {
                assert_eq!(schema.to_bytes(), input);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

const VERSION: CollectionVersion = CollectionVersion { id: 1, version: 1 };
const STORE: [u8; 16] = [7; 16];

static SNAPSHOT_SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let vector = VectorSchema {
        algorithm: Algorithm::Hnsw { m: 2, ef_construction: 4, ef_search: 4 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 2,
        metric: Metric::L2,
        embed: None,
    };
    let fields = vec![
        field("tag", FieldKind::Tag { separator: b',', case_sensitive: false }),
        field("year", FieldKind::Numeric),
        field("place", FieldKind::Vector(vector)),
    ];
    Arc::new(Schema { prefixes: vec![b"a:".to_vec()], fields, ttl: None })
});

/// Collection snapshots: reads the input as a file, and as the index (whose length is in the first two bytes) and the
/// documents of a well-formed file. A snapshot that can be read can be written and read again.
pub fn collection_snapshot(input: &[u8]) {
    let _ = read(input);
    let Some((len, rest)) = input.split_first_chunk() else { return };
    let (index, rows) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let Ok(Some(collection)) = read(&file(index, rows)) else { return };
    let memory = MemoryStorage::default();
    let seq = snapshots(&memory).write(&collection, synced).expect("a write to memory succeeds");
    let written = memory.0.lock().clone();
    let decoded = read(&written).expect("a written snapshot loads").expect("the snapshot exists");
    assert_eq!(decoded.state().published, seq);
    assert_eq!(decoded.state().ordinals.live(), collection.state().ordinals.live());
    assert_eq!(decoded.indexes[0].stats().vectors, collection.indexes[0].stats().vectors);
    snapshots(&memory).write(&decoded, synced).expect("a write to memory succeeds");
    assert_eq!(*memory.0.lock(), written);
}

/// The last change of the store.
const LAST_CHANGE: (HistoryId, Seq) = (HistoryId([5; 16]), 9);

fn synced() -> Result<(HistoryId, Seq), StoreError> {
    Ok(LAST_CHANGE)
}

fn snapshots(memory: &MemoryStorage) -> Snapshots {
    Snapshots::open(Arc::new(memory.clone()), STORE).expect("memory holds no unfinished files")
}

fn read(file: &[u8]) -> Result<Option<Collection>, snapshot::SnapshotError> {
    let memory = MemoryStorage(Arc::new(Mutex::new(file.to_vec())));
    Ok(snapshots(&memory).read(VERSION, &SNAPSHOT_SCHEMA, Cpu::detect())?.map(|snapshot| snapshot.collection))
}

/// A file with a valid header and checksums.
fn file(index: &[u8], rows: &[u8]) -> Vec<u8> {
    let header = snapshots(&MemoryStorage::default()).header(VERSION, &SNAPSHOT_SCHEMA, 9);
    let mut frames = FrameWriter::new(snapshot::MAGIC.to_vec());
    let (history, last) = LAST_CHANGE;
    for stream in [&header, index, rows, &snapshot::trailer(history, last)] {
        frames.write_all(stream).and_then(|()| frames.end_stream()).expect("a write to a Vec succeeds");
    }
    frames.into_inner()
}

/// A storage that contains one file under every name.
#[derive(Clone, Debug, Default)]
struct MemoryStorage(Arc<Mutex<Vec<u8>>>);

impl FileStorage for MemoryStorage {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn open(&self, _name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(io::Cursor::new(self.0.lock().clone())))
    }

    fn create(&self, _name: &str) -> io::Result<Box<dyn WritableFile>> {
        self.0.lock().clear();
        Ok(Box::new(self.clone()))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for MemoryStorage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WritableFile for MemoryStorage {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(filter_parse, vector_blob, schema_bytes, collection_snapshot);
}
