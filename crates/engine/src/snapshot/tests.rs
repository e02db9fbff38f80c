use index::{Metric, VectorType};
use store::DocId;

use super::*;
use crate::{
    attributes::Row,
    collection::{Step, What},
    folder::Directory,
    projection::{Projection, Slot},
    schema::{Algorithm, FieldKind, FieldSchema, Quantization, VectorSchema},
    upkeep::{is_stale, is_worth_while},
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
    let folder = Directory::open(directory.path().to_owned()).unwrap();
    Snapshots::open(Arc::new(folder), [7; 16]).unwrap()
}

fn placed(doc: u64, seq: Seq) -> Step {
    let vectors = vec![Slot::Vector(vec![doc as f32, 1.0])];
    let what = What::Placed { expires_at_ms: None, projection: Projection { row: Row::default(), vectors } };
    Step { doc: DocId(doc), seq, what }
}

#[test]
fn a_vector_whose_document_went_while_the_snapshot_was_written_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let version = CollectionVersion { id: 1, version: 1 };
    let collection = Collection::new(version, schema(), Cpu::detect());
    collection.publish((1..=4).map(|doc| placed(doc, doc)).collect(), 4);
    collection.publish(vec![Step { doc: DocId(2), seq: 5, what: What::Removed }], 5);
    // As if the index had been written before that, and the rows after it.
    collection.indexes[0].upsert(1, &[2.0, 1.0]);
    assert_eq!(snapshots.write(&collection, || Ok(())).unwrap(), 5);

    let read = snapshots.read(version, &schema(), Cpu::detect()).unwrap().unwrap();
    assert_eq!(read.indexes[0].stats().vectors, 3);
    assert_eq!(read.indexes[0].vector(1), None);
    // Its ordinal is the next to be given.
    read.publish(vec![placed(9, 6)], 6);
    assert_eq!(read.state().ordinals.ordinal(DocId(9)), Some(1));
    assert_eq!(read.state().published, 6);
}

#[test]
fn a_snapshot_of_another_schema_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let version = CollectionVersion { id: 1, version: 1 };
    snapshots.write(&Collection::new(version, schema(), Cpu::detect()), || Ok(())).unwrap();
    let mut other = Schema::clone(&schema());
    other.fields[0].name = "w".to_owned();
    let error = snapshots.read(version, &Arc::new(other), Cpu::detect()).unwrap_err();
    assert_eq!(error.to_string(), "its schema is another");
}

#[test]
fn a_graph_that_was_refined_is_worth_a_snapshot_and_is_not_refined_again() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let version = CollectionVersion { id: 1, version: 1 };
    let collection = Collection::new(version, schema(), Cpu::detect());
    collection.publish((1..=400).map(|doc| placed(doc, doc)).collect(), 400);
    collection.indexes[0].drain(usize::MAX);
    snapshots.write(&collection, || Ok(())).unwrap();
    assert!(!is_stale(&collection));

    assert!(collection.refine(100));
    assert!(!is_stale(&collection), "half a pass is not kept");
    while collection.refine(100) {}
    assert!(is_stale(&collection));
    snapshots.write(&collection, || Ok(())).unwrap();
    assert!(!is_stale(&collection));
    let read = snapshots.read(version, &schema(), Cpu::detect()).unwrap().unwrap();
    assert!(!read.refine(100));
}

#[test]
fn a_collection_that_rests_beside_a_busy_one_does_not_hold_its_changes_back() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = open(&directory);
    let collection = Collection::new(CollectionVersion { id: 1, version: 1 }, schema(), Cpu::detect());
    collection.publish(vec![placed(1, 1)], 1);
    snapshots.write(&collection, || Ok(())).unwrap();
    // What happens elsewhere is heard of, too.
    collection.publish(Vec::new(), 100_001);
    assert!(!is_worth_while(&collection));
    collection.publish(Vec::new(), 100_002);
    assert!(is_worth_while(&collection));
    snapshots.write(&collection, || Ok(())).unwrap();
    assert!(!is_worth_while(&collection));

    // A large one is worth its writing later.
    collection.publish((2..=30_000).map(|doc| placed(doc, 100_001 + doc)).collect(), 130_001);
    snapshots.write(&collection, || Ok(())).unwrap();
    collection.publish(Vec::new(), 130_001 + 120_000);
    assert!(!is_worth_while(&collection));
    collection.publish(Vec::new(), 130_001 + 120_001);
    assert!(is_worth_while(&collection));
}

#[test]
fn a_collection_without_a_snapshot_holds_no_changes_back() {
    let collection = Collection::new(CollectionVersion { id: 1, version: 1 }, schema(), Cpu::detect());
    collection.publish(vec![placed(1, 1)], 1_000_000);
    assert!(!is_worth_while(&collection));
}
