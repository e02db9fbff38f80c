use index::{Metric, VectorType};
use store::DocId;

use super::*;
use crate::{
    attributes::DocumentAttributes,
    collection::{DocumentChange, DocumentChangeKind},
    file_storage::DirectoryStorage,
    maintenance::{is_snapshot_stale, should_snapshot},
    projection::{FieldVectors, PassageVector, Projection, SchemaViolation, ViolationReason},
    schema::{Algorithm, FieldKind, FieldSchema, Quantization, VectorSchema},
};

fn schema() -> Arc<Schema> {
    let kind = FieldKind::Vector(VectorSchema {
        algorithm: Algorithm::Hnsw { m: 4, ef_construction: 10, ef_search: 10 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 2,
        metric: Metric::L2,
        embed: None,
    });
    let fields = vec![FieldSchema { name: "v".to_owned(), kind }];
    Arc::new(Schema { prefixes: vec![Vec::new()], fields, ttl: None })
}

fn open(directory: &tempfile::TempDir) -> Snapshots {
    let storage = DirectoryStorage::open(directory.path().to_owned()).unwrap();
    Snapshots::open(Arc::new(storage), [7; 16]).unwrap()
}

fn synced() -> Result<(HistoryId, Seq), StoreError> {
    Ok((HistoryId([8; 16]), Seq::MAX))
}

fn upserted(doc: u64, seq: Seq) -> DocumentChange {
    let vectors = vec![FieldVectors::single(vec![doc as f32, 1.0])];
    let kind = DocumentChangeKind::Upserted {
        expires_at_ms: None,
        projection: Projection { attributes: DocumentAttributes::default(), vectors },
    };
    DocumentChange { doc: DocId(doc), seq, kind }
}

#[test]
fn a_vector_of_a_document_deleted_during_a_snapshot_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let version = CollectionVersion { id: 1, version: 1 };
    let collection = Collection::new(version, schema(), Cpu::detect());
    collection.publish((1..=4).map(|doc| upserted(doc, doc)).collect(), 4);
    collection.publish(vec![DocumentChange { doc: DocId(2), seq: 5, kind: DocumentChangeKind::Removed }], 5);
    // As if the index had been written before the delete, and the documents after it.
    collection.indexes[0].upsert(1, &[2.0, 1.0]);
    assert_eq!(snapshots.write(&collection, synced).unwrap(), 5);

    let read = snapshots.read(version, &schema(), Cpu::detect()).unwrap().unwrap().collection;
    assert_eq!(read.indexes[0].stats().vectors, 3);
    assert_eq!(read.indexes[0].vector(1), None);
    // Its ordinal is the next to be assigned.
    read.publish(vec![upserted(9, 6)], 6);
    assert_eq!(read.state().ordinals.ordinal(DocId(9)), Some(1));
    assert_eq!(read.state().published, 6);
}

#[test]
fn a_snapshot_of_another_schema_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let version = CollectionVersion { id: 1, version: 1 };
    snapshots.write(&Collection::new(version, schema(), Cpu::detect()), synced).unwrap();
    let mut other = Schema::clone(&schema());
    other.fields[0].name = "w".to_owned();
    let error = snapshots.read(version, &Arc::new(other), Cpu::detect()).unwrap_err();
    assert_eq!(error.to_string(), "it has a different schema");
}

#[test]
fn a_refined_graph_is_snapshotted_and_not_refined_again() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let version = CollectionVersion { id: 1, version: 1 };
    let collection = Collection::new(version, schema(), Cpu::detect());
    collection.publish((1..=400).map(|doc| upserted(doc, doc)).collect(), 400);
    collection.indexes[0].drain(usize::MAX);
    snapshots.write(&collection, synced).unwrap();
    assert!(!is_snapshot_stale(&collection));

    assert!(collection.refine(100));
    assert!(!is_snapshot_stale(&collection), "half a pass does not count");
    while collection.refine(100) {}
    assert!(is_snapshot_stale(&collection));
    snapshots.write(&collection, synced).unwrap();
    assert!(!is_snapshot_stale(&collection));
    let read = snapshots.read(version, &schema(), Cpu::detect()).unwrap().unwrap().collection;
    assert!(!read.refine(100));
}

#[test]
fn an_idle_collection_does_not_retain_the_changes_of_a_busy_one() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let collection = Collection::new(CollectionVersion { id: 1, version: 1 }, schema(), Cpu::detect());
    collection.publish(vec![upserted(1, 1)], 1);
    snapshots.write(&collection, synced).unwrap();
    // Changes of other collections count too.
    collection.publish(Vec::new(), 100_001);
    assert!(!should_snapshot(&collection));
    collection.publish(Vec::new(), 100_002);
    assert!(should_snapshot(&collection));
    snapshots.write(&collection, synced).unwrap();
    assert!(!should_snapshot(&collection));

    // A large collection is written less often.
    collection.publish((2..=30_000).map(|doc| upserted(doc, 100_001 + doc)).collect(), 130_001);
    snapshots.write(&collection, synced).unwrap();
    collection.publish(Vec::new(), 130_001 + 120_000);
    assert!(!should_snapshot(&collection));
    collection.publish(Vec::new(), 130_001 + 120_001);
    assert!(should_snapshot(&collection));
}

#[test]
fn a_collection_without_a_snapshot_retains_no_changes() {
    let collection = Collection::new(CollectionVersion { id: 1, version: 1 }, schema(), Cpu::detect());
    collection.publish(vec![upserted(1, 1)], 1_000_000);
    assert!(!should_snapshot(&collection));
}

/// A buffer that calls a function once, at the first write.
struct WriteHook<F>(Vec<u8>, Option<F>);

impl<F: FnOnce()> Write for WriteHook<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(callback) = self.1.take() {
            callback();
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_document_written_twice_to_a_snapshot_loads_its_later_entry() {
    const DOCUMENTS: u64 = 2_000;
    let upserted_with_expiry = |doc, seq, expires_at_ms| match upserted(doc, seq) {
        DocumentChange { kind: DocumentChangeKind::Upserted { projection, .. }, .. } => DocumentChange {
            doc: DocId(doc),
            seq,
            kind: DocumentChangeKind::Upserted { expires_at_ms: Some(expires_at_ms), projection },
        },
        _ => unreachable!("`upserted` returns an upsert"),
    };
    let collection = Collection::new(CollectionVersion { id: 1, version: 1 }, schema(), Cpu::detect());
    let mut changes: Vec<DocumentChange> = (1..=DOCUMENTS).map(|doc| upserted(doc, doc)).collect();
    changes[2] = upserted_with_expiry(3, 3, 1_000);
    collection.publish(changes, DOCUMENTS);
    let mut out = WriteHook(
        Vec::new(),
        Some(|| {
            let violation = SchemaViolation {
                field: "v".to_owned(),
                reason: ViolationReason::Value("of another length".to_owned()),
            };
            let invalid = DocumentChange {
                doc: DocId(3),
                seq: 2_001,
                kind: DocumentChangeKind::Invalid { key: Box::default(), violation },
            };
            // Another document gets its ordinal, and it gets one that is written later.
            let again = upserted_with_expiry(3, 2_003, 2_000);
            collection.publish(vec![invalid, upserted(2_001, 2_002), again], 2_003);
        }),
    );
    documents::write(&collection, &mut out).unwrap();
    assert!(out.1.is_none());

    let read = documents::read(&out.0, &schema()).unwrap();
    let ordinal = collection.state().ordinals.ordinal(DocId(3)).unwrap();
    assert_eq!((ordinal, read.ordinals.ordinal(DocId(3))), (2_000, Some(2_000)));
    // The new document is among the changes that are applied again; its ordinal is free.
    assert!(read.ordinals.entry(2).is_none());
    assert_eq!(read.ordinals.live().len(), DOCUMENTS);
    assert_eq!((read.ordinals.expired(1_999, 9), read.ordinals.expired(2_000, 9)), (vec![], vec![DocId(3)]));
}

/// Pins the format, so that it cannot change by accident.
#[test]
fn documents_and_passages_have_the_documented_format() {
    let collection = Collection::new(CollectionVersion { id: 1, version: 1 }, schema(), Cpu::detect());
    let vectors = [0, 3].map(|passage| PassageVector { passage, values: vec![1.0, 2.0] });
    let projection = Projection {
        attributes: DocumentAttributes::default(),
        vectors: vec![FieldVectors::Present(vectors.to_vec())],
    };
    let kind = DocumentChangeKind::Upserted { expires_at_ms: Some(5), projection };
    collection.publish(vec![DocumentChange { doc: DocId(9), seq: 7, kind }], 7);
    collection.publish(vec![upserted(4, 8)], 8);
    let mut out = Vec::new();
    documents::write(&collection, &mut out).unwrap();
    let number = |number: u64| number.to_le_bytes();
    let expected = [
        // Document 9 with an expiry, its passage 3 under label 1, and document 4.
        &[3][..],
        &number(9),
        &number(7),
        &number(5),
        &[0],
        &[4, 0, 0, 0, 0, 0, 0, 3, 0],
        &number(7),
        &[1],
        &number(4),
        &number(8),
        &[0],
        &[255],
        &number(0),
        &[0; 4],
    ];
    assert_eq!(out, expected.concat());
}
