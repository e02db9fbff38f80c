//! Argument checks, numbering and isolation of transactions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use store::{
    CollectionVersion, DOCUMENT_BYTES_MAX, DocId, FIELD_NAME_BYTES_MAX, FIELDS_MAX, Field, KEY_BYTES_MAX,
    NAME_BYTES_MAX, NameTarget, SCHEMA_BYTES_MAX, Store, StoreError, VECTOR_BYTES_MAX, VectorKey, Writer,
};

use crate::OPTIONS;
use crate::disks::Disk;

const COLLECTION: CollectionVersion = CollectionVersion { id: 1, version: 1 };

fn field(name: &[u8], value: &[u8]) -> Field {
    Field { name: name.into(), value: value.into() }
}

fn empty_store() -> Store {
    Store::open_with_backend(Disk::default(), OPTIONS).unwrap()
}

/// A store with one document that has one vector.
fn store_of_one() -> (Store, VectorKey) {
    let store = empty_store();
    let mut writer = store.write().unwrap();
    let (doc, _) = writer.put(b"one", &[field(b"f", b"v")], None).unwrap();
    let key = VectorKey { collection: COLLECTION, field: 0, doc, passage: 0 };
    writer.set_vector(key, [1; 16], b"elements").unwrap();
    writer.commit().unwrap();
    (store, key)
}

fn assert_too_large<T: std::fmt::Debug>(result: Result<T, StoreError>, limit: usize) {
    match result {
        Err(StoreError::TooLarge { found, max, .. }) => assert_eq!((found, max), (limit + 1, limit)),
        other => panic!("not rejected for its size: {other:?}"),
    }
}

#[test]
fn accepts_sizes_up_to_each_limit_and_rejects_larger_ones() {
    let (store, vector) = store_of_one();
    let mut writer = store.write().unwrap();
    let fields = |count: usize| -> Vec<Field> {
        (0..count).map(|number| field(&u32::try_from(number).unwrap().to_le_bytes(), b"")).collect()
    };
    let long = |len: usize| "n".repeat(len);

    writer.put(&vec![b'k'; KEY_BYTES_MAX], &[], None).unwrap();
    assert_too_large(writer.put(&vec![b'k'; KEY_BYTES_MAX + 1], &[], None), KEY_BYTES_MAX);
    writer.put(b"a", &fields(FIELDS_MAX), None).unwrap();
    assert_too_large(writer.put(b"a", &fields(FIELDS_MAX + 1), None), FIELDS_MAX);
    writer.put(b"b", &[field(&vec![0; FIELD_NAME_BYTES_MAX], b"")], None).unwrap();
    assert_too_large(
        writer.put(b"b", &[field(&vec![0; FIELD_NAME_BYTES_MAX + 1], b"")], None),
        FIELD_NAME_BYTES_MAX,
    );
    writer.put(b"c", &[field(b"f", &vec![0; DOCUMENT_BYTES_MAX - 2])], None).unwrap();
    assert_too_large(
        writer.put(b"c", &[field(b"f", &vec![0; DOCUMENT_BYTES_MAX - 1])], None),
        DOCUMENT_BYTES_MAX,
    );
    writer.set_vector(vector, [0; 16], &vec![0; VECTOR_BYTES_MAX]).unwrap();
    assert_too_large(writer.set_vector(vector, [0; 16], &vec![0; VECTOR_BYTES_MAX + 1]), VECTOR_BYTES_MAX);
    writer.set_schema(COLLECTION, &vec![0; SCHEMA_BYTES_MAX]).unwrap();
    assert_too_large(writer.set_schema(COLLECTION, &vec![0; SCHEMA_BYTES_MAX + 1]), SCHEMA_BYTES_MAX);
    let target = NameTarget::Collection(COLLECTION);
    writer.set_name(&long(NAME_BYTES_MAX), &target).unwrap();
    assert_too_large(writer.set_name(&long(NAME_BYTES_MAX + 1), &target), NAME_BYTES_MAX);
    assert_too_large(writer.set_name("alias", &NameTarget::Alias(long(NAME_BYTES_MAX + 1))), NAME_BYTES_MAX);

    // Rejected arguments leave no trace and do not abort the transaction.
    writer.commit().unwrap();
    let reader = store.read().unwrap();
    assert_eq!((reader.document_count().unwrap(), reader.last_seq().unwrap()), (5, 5));
    let (_, largest) = reader.get(b"c").unwrap().unwrap();
    assert_eq!(largest.field(b"f").unwrap().len(), DOCUMENT_BYTES_MAX - 2);
    assert_eq!(reader.vector(vector).unwrap().unwrap().bytes.len(), VECTOR_BYTES_MAX);
}

#[test]
fn rejects_empty_keys_duplicate_fields_and_unknown_documents() {
    let (store, vector) = store_of_one();
    let mut writer = store.write().unwrap();
    assert!(matches!(writer.put(b"", &[], None), Err(StoreError::Empty { .. })));
    assert!(matches!(
        writer.set_name("", &NameTarget::Collection(COLLECTION)),
        Err(StoreError::Empty { .. })
    ));
    let twice = [field(b"f", b"1"), field(b"g", b"2"), field(b"f", b"3")];
    let error = writer.put(b"key", &twice, None).unwrap_err();
    assert_eq!(error.to_string(), "\"key\": field \"f\" is given twice");
    let unknown = DocId(99);
    let unknown_vector = VectorKey { doc: unknown, ..vector };
    assert!(matches!(
        writer.set_vector(unknown_vector, [0; 16], b""),
        Err(StoreError::UnknownDocument { doc: 99 })
    ));
    assert!(matches!(writer.touch(unknown), Err(StoreError::UnknownDocument { doc: 99 })));
    assert_eq!(writer.delete(b"nobody").unwrap(), None);
    writer.commit().unwrap();
    assert_eq!(store.read().unwrap().last_seq().unwrap(), 1);
}

#[test]
fn numbers_are_never_reused() {
    let store = empty_store();
    let mut writer = store.write().unwrap();
    assert_eq!(writer.put(b"a", &[], None).unwrap(), (DocId(1), 1));
    assert_eq!(writer.put(b"a", &[], None).unwrap(), (DocId(1), 2));
    assert_eq!(writer.delete(b"a").unwrap(), Some((DocId(1), 3)));
    assert_eq!(writer.put(b"a", &[], None).unwrap(), (DocId(2), 4));
    assert_eq!(writer.allocate_collection_id().unwrap(), 1);
    writer.commit().unwrap();
    let mut writer = store.write().unwrap();
    writer.delete(b"a").unwrap();
    writer.commit().unwrap();
    let mut writer = store.write().unwrap();
    assert_eq!(writer.put(b"a", &[], None).unwrap(), (DocId(3), 6));
    assert_eq!(writer.allocate_collection_id().unwrap(), 2);
}

fn rewrite_everything(store: &Store, round: u8) {
    let mut writer: Writer<'_> = store.write().unwrap();
    for number in 0..200u8 {
        let key = [b'k', number];
        let (doc, _) = writer.put(&key, &[field(b"f", &[round; 700])], Some(u64::from(round))).unwrap();
        let key = VectorKey { collection: COLLECTION, field: 0, doc, passage: 0 };
        writer.set_vector(key, [round; 16], &[round; 900]).unwrap();
    }
    writer.commit().unwrap();
}

#[test]
fn snapshots_and_their_iterators_are_isolated_from_later_commits() {
    let store = empty_store();
    rewrite_everything(&store, 1);
    let reader = store.read().unwrap();
    let mut documents = reader.documents().unwrap();
    let mut keys = reader.keys(b"k", None).unwrap();
    let mut vectors = reader.vectors(COLLECTION, 0).unwrap();
    let mut changes = reader.changes(0).unwrap();
    for round in 2..6 {
        rewrite_everything(&store, round);
        for _ in 0..20 {
            let (_, document) = documents.next().unwrap().unwrap();
            assert_eq!((document.field(b"f").unwrap(), document.expires_at_ms), (&[1; 700][..], Some(1)));
            keys.next().unwrap().unwrap();
            assert_eq!(vectors.next().unwrap().unwrap().1.model, [1; 16]);
            assert!(changes.next().unwrap().unwrap().seq <= 200);
        }
    }
    // The iterators keep their snapshot alive after the reader was dropped.
    drop(reader);
    rewrite_everything(&store, 7);
    assert_eq!(documents.map(|row| row.unwrap()).filter(|(_, document)| document.seq <= 200).count(), 120);
    assert_eq!((keys.count(), vectors.count(), changes.count()), (120, 120, 120));
    assert_eq!(store.read().unwrap().expired(7, 1000).unwrap().len(), 200);
}

#[test]
fn writers_are_serialized_and_readers_do_not_wait() {
    let (store, _) = store_of_one();
    let first_ended = AtomicBool::new(false);
    let mut first = store.write().unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| {
            let mut writer = store.write().unwrap();
            assert!(first_ended.load(Ordering::SeqCst), "two writers at a time");
            let seq = writer.put(b"second", &[], None).unwrap().1;
            writer.commit().unwrap();
            seq
        });
        first.put(b"first", &[], None).unwrap();
        assert_eq!(store.read().unwrap().get(b"first").unwrap(), None);
        first_ended.store(true, Ordering::SeqCst);
        first.commit().unwrap();
        assert_eq!(second.join().unwrap(), 3);
    });
}

#[test]
fn reports_the_file_size() {
    let (store, _) = store_of_one();
    assert!(store.file_bytes().unwrap() > 4096);
}
