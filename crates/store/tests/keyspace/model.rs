//! A model of the store made of plain maps, and random transactions to apply to both.

use std::collections::BTreeMap;

use proptest::prelude::*;
use store::{
    Change, ChangeKind, CollectionVersion, DocId, Document, Field, NameTarget, Reader, Seq, Store,
    StoreError, StoredVector, VectorKey, Writer,
};

/// One step of a transaction. Small numbers select among few keys, collections and names, so that
/// steps often affect the same data.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put { key: u8, fields: Vec<(u8, Vec<u8>)>, expires_at_ms: Option<u64> },
    Delete { key: u8 },
    Touch { key: u8 },
    SetVector { key: u8, collection: u8, field: u16, passage: u16, bytes: Vec<u8> },
    RemoveVectors { key: u8, collection: u8 },
    SetSchema { collection: u8, schema: Vec<u8> },
    RemoveSchema { collection: u8 },
    NextCollection,
    SetName { name: u8, target: u8 },
    RemoveName { name: u8 },
    Trim { keep: u8 },
}

/// Steps of one transaction, and whether it is committed or dropped.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) steps: Vec<Step>,
    pub(crate) commit: bool,
    /// Whether the commit is durable.
    pub(crate) synced: bool,
}

pub(crate) fn transaction(steps_max: usize) -> impl Strategy<Value = Transaction> {
    let commit = prop_oneof![4 => Just(true), 1 => Just(false)];
    (prop::collection::vec(step(), 0..steps_max), commit).prop_map(|(steps, commit)| Transaction {
        steps,
        commit,
        synced: true,
    })
}

impl Transaction {
    /// Commits the prepared transaction, durably or not.
    pub(crate) fn commit(&self, writer: Writer<'_>) -> Result<(), StoreError> {
        if self.synced { writer.commit() } else { writer.commit_unsynced() }
    }
}

/// Like [`transaction`], but most commits are not durable.
pub(crate) fn unsynced_transaction(steps_max: usize) -> impl Strategy<Value = Transaction> {
    let synced = prop_oneof![3 => Just(false), 1 => Just(true)];
    (transaction(steps_max), synced).prop_map(|(transaction, synced)| Transaction { synced, ..transaction })
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..12u8;
    let collection = || 0..4u8;
    let payload = || {
        prop_oneof![
            6 => prop::collection::vec(any::<u8>(), 0..40),
            1 => prop::collection::vec(any::<u8>(), 1500..1600),
            1 => (any::<u8>(), 4000..9000usize).prop_map(|(byte, len)| vec![byte; len]),
        ]
    };
    let fields = prop::collection::btree_map(0..6u8, payload(), 0..5);
    // So long that a few vectors of one field do not fit into one block.
    let elements = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..40),
        3 => (any::<u8>(), 2000..9000usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    // Most vectors are in one field, so that blocks fill up. The others are at both ends of the ranges of
    // collections and fields, where skipping from field to field could overflow.
    let collection_field = prop_oneof![
        4 => Just((0, 0)),
        2 => (collection(), prop::sample::select(vec![0, 1, u16::MAX])),
    ];
    let expiry = prop::option::of(prop_oneof![0..50u64, Just(u64::MAX)]);
    prop_oneof![
        8 => (key(), fields, expiry).prop_map(|(key, fields, expires_at_ms)| Step::Put {
            key,
            fields: fields.into_iter().collect(),
            expires_at_ms
        }),
        3 => key().prop_map(|key| Step::Delete { key }),
        2 => key().prop_map(|key| Step::Touch { key }),
        8 => (key(), collection_field, 0..3u16, elements).prop_map(|(key, (collection, field), passage, bytes)| {
            Step::SetVector { key, collection, field, passage, bytes }
        }),
        2 => (key(), collection()).prop_map(|(key, collection)| Step::RemoveVectors { key, collection }),
        1 => (collection(), payload()).prop_map(|(collection, schema)| Step::SetSchema { collection, schema }),
        1 => collection().prop_map(|collection| Step::RemoveSchema { collection }),
        1 => Just(Step::NextCollection),
        1 => (0..4u8, 0..8u8).prop_map(|(name, target)| Step::SetName { name, target }),
        1 => (0..4u8).prop_map(|name| Step::RemoveName { name }),
        1 => (0..20u8).prop_map(|keep| Step::Trim { keep }),
    ]
}

fn key_bytes(key: u8) -> Vec<u8> {
    // Some keys are prefixes of others, and one is not UTF-8.
    match key {
        0 => b"doc".to_vec(),
        11 => vec![0xff, 0x00, 0xfe],
        _ => format!("doc:{key}").into_bytes(),
    }
}

fn collection_version(collection: u8) -> CollectionVersion {
    match collection {
        3 => CollectionVersion { id: u32::MAX, version: u32::MAX },
        _ => CollectionVersion { id: u32::from(collection / 2), version: u32::from(collection % 2) },
    }
}

fn name_text(name: u8) -> String {
    format!("name-{name}")
}

fn name_target(target: u8) -> NameTarget {
    if target < 4 {
        NameTarget::Collection(collection_version(target))
    } else {
        NameTarget::Alias(name_text(target - 4))
    }
}

/// Expects the error for an unknown document. Returns other errors, such as disk failures.
fn expect_unknown<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Result<(), StoreError> {
    match result {
        Err(StoreError::UnknownDocument { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(value) => panic!("an unknown document was accepted: {value:?}"),
    }
}

const MODEL: [u8; 16] = *b"the tested model";

/// The expected content of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    documents: BTreeMap<Vec<u8>, (DocId, Document)>,
    vectors: BTreeMap<VectorKey, StoredVector>,
    changes: BTreeMap<Seq, (DocId, ChangeKind)>,
    schemas: BTreeMap<CollectionVersion, Vec<u8>>,
    names: BTreeMap<String, NameTarget>,
    last_seq: Seq,
    trimmed_to: Seq,
    docs_allocated: u64,
    collections_allocated: u32,
}

impl Model {
    fn log(&mut self, doc: DocId, kind: ChangeKind) -> Seq {
        self.last_seq += 1;
        self.changes.retain(|_, (changed, _)| *changed != doc);
        self.changes.insert(self.last_seq, (doc, kind));
        self.last_seq
    }

    /// Applies one step to the writer and to the model, and compares the results.
    pub(crate) fn apply(&mut self, writer: &mut Writer<'_>, step: &Step) -> Result<(), StoreError> {
        match step {
            Step::Put { key, fields, expires_at_ms } => {
                let key = key_bytes(*key);
                let fields: Vec<Field> = fields
                    .iter()
                    .map(|(name, value)| Field { name: vec![*name].into(), value: value.clone().into() })
                    .collect();
                let actual = writer.put(&key, &fields, *expires_at_ms)?;
                let doc = match self.documents.get(&key) {
                    Some((doc, _)) => *doc,
                    None => {
                        self.docs_allocated += 1;
                        DocId(self.docs_allocated)
                    }
                };
                let seq = self.log(doc, ChangeKind::Written);
                assert_eq!(actual, (doc, seq));
                let document =
                    Document { key: key.clone().into(), seq, expires_at_ms: *expires_at_ms, fields };
                self.documents.insert(key, (doc, document));
            }
            Step::Delete { key } => {
                let actual = writer.delete(&key_bytes(*key))?;
                let expected = self.documents.remove(&key_bytes(*key)).map(|(doc, _)| {
                    self.vectors.retain(|key, _| key.doc != doc);
                    (doc, self.log(doc, ChangeKind::Deleted))
                });
                assert_eq!(actual, expected);
            }
            Step::Touch { key } => match self.documents.get(&key_bytes(*key)).map(|(doc, _)| *doc) {
                Some(doc) => assert_eq!(writer.touch(doc)?, self.log(doc, ChangeKind::Written)),
                None => {
                    let unknown = DocId(self.docs_allocated + 1);
                    expect_unknown(writer.touch(unknown))?;
                }
            },
            Step::SetVector { key, collection, field, passage, bytes } => {
                let doc = self.documents.get(&key_bytes(*key)).map(|(doc, _)| *doc);
                let key = VectorKey {
                    collection: collection_version(*collection),
                    field: *field,
                    doc: doc.unwrap_or(DocId(self.docs_allocated + 1)),
                    passage: *passage,
                };
                let actual = writer.set_vector(key, MODEL, bytes);
                if doc.is_some() {
                    actual?;
                    self.vectors.insert(key, StoredVector { model: MODEL, bytes: bytes.clone().into() });
                } else {
                    expect_unknown(actual)?;
                }
            }
            Step::RemoveVectors { key, collection } => {
                if let Some((doc, _)) = self.documents.get(&key_bytes(*key)) {
                    let collection = collection_version(*collection);
                    writer.remove_vectors(collection, *doc)?;
                    self.vectors.retain(|key, _| (key.collection, key.doc) != (collection, *doc));
                }
            }
            Step::SetSchema { collection, schema } => {
                writer.set_schema(collection_version(*collection), schema)?;
                self.schemas.insert(collection_version(*collection), schema.clone());
            }
            Step::RemoveSchema { collection } => {
                let collection = collection_version(*collection);
                writer.remove_schema(collection)?;
                self.schemas.remove(&collection);
                self.vectors.retain(|key, _| key.collection != collection);
            }
            Step::NextCollection => {
                self.collections_allocated += 1;
                assert_eq!(writer.allocate_collection_id()?, self.collections_allocated);
            }
            Step::SetName { name, target } => {
                writer.set_name(&name_text(*name), &name_target(*target))?;
                self.names.insert(name_text(*name), name_target(*target));
            }
            Step::RemoveName { name } => {
                let removed = self.names.remove(&name_text(*name)).is_some();
                assert_eq!(writer.remove_name(&name_text(*name))?, removed);
            }
            Step::Trim { keep } => {
                let seq = self.last_seq.saturating_sub(u64::from(*keep));
                writer.trim_changes(seq)?;
                self.trimmed_to = self.trimmed_to.max(seq);
                self.changes.retain(|at, _| *at > seq);
            }
        }
        Ok(())
    }

    /// Runs one transaction on the store and, if it was committed, on the model.
    pub(crate) fn run(&mut self, store: &Store, transaction: &Transaction) -> Result<(), StoreError> {
        let mut after = self.clone();
        let writer = after.prepare(store, transaction)?;
        if transaction.commit {
            transaction.commit(writer)?;
            *self = after;
        }
        Ok(())
    }

    /// Applies all steps to a new writer and to the model, without committing.
    pub(crate) fn prepare<'s>(
        &mut self,
        store: &'s Store,
        transaction: &Transaction,
    ) -> Result<Writer<'s>, StoreError> {
        let mut writer = store.write()?;
        for step in &transaction.steps {
            self.apply(&mut writer, step)?;
        }
        for (key, (doc, document)) in &self.documents {
            assert_eq!(writer.get(key)?.as_ref(), Some(&(*doc, document.clone())));
            assert_eq!(writer.document(*doc)?.as_ref(), Some(document));
        }
        Ok(writer)
    }

    /// Reads the whole snapshot as a model. Snapshots do not contain the counters for new numbers.
    pub(crate) fn read(reader: &Reader) -> Result<Model, StoreError> {
        let mut model = Model {
            last_seq: reader.last_seq()?,
            trimmed_to: reader.changes_trimmed_to()?,
            ..Model::default()
        };
        for row in reader.documents()? {
            let (doc, document) = row?;
            model.documents.insert(document.key.to_vec(), (doc, document));
        }
        for collection in (0..4).map(collection_version) {
            for field in [0, 1, u16::MAX] {
                for row in reader.vectors(collection, field)? {
                    let (key, vector) = row?;
                    assert_eq!((key.collection, key.field), (collection, field));
                    model.vectors.insert(key, vector);
                }
            }
        }
        for change in reader.changes(0)? {
            let Change { seq, doc, kind } = change?;
            model.changes.insert(seq, (doc, kind));
        }
        model.schemas = reader.schemas()?.into_iter().collect();
        model.names = reader.names()?.into_iter().collect();
        Ok(model)
    }

    /// The next numbers of the store, determined in a transaction that is dropped.
    fn next_numbers(store: &Store) -> Result<(DocId, u32), StoreError> {
        let mut writer = store.write()?;
        let (doc, _) = writer.put(b"a key that no step uses", &[], None)?;
        Ok((doc, writer.allocate_collection_id()?))
    }

    /// Whether the store's content equals the model.
    pub(crate) fn matches(&self, store: &Store) -> Result<bool, StoreError> {
        let visible = Model { docs_allocated: 0, collections_allocated: 0, ..self.clone() };
        let next = (DocId(self.docs_allocated + 1), self.collections_allocated + 1);
        Ok(Model::read(&store.read()?)? == visible && Model::next_numbers(store)? == next)
    }

    /// Compares the results of all read methods with the model.
    pub(crate) fn check(&self, store: &Store) -> Result<(), StoreError> {
        assert_eq!(
            Model::next_numbers(store)?,
            (DocId(self.docs_allocated + 1), self.collections_allocated + 1)
        );
        let reader = store.read()?;
        let visible = Model { docs_allocated: 0, collections_allocated: 0, ..self.clone() };
        assert_eq!(Model::read(&reader)?, visible);
        assert_eq!(reader.document_count()?, self.documents.len() as u64);
        for key in (0..12).map(key_bytes) {
            let expected = self.documents.get(&key).cloned();
            if let Some((doc, document)) = &expected {
                assert_eq!(reader.document(*doc)?.as_ref(), Some(document));
            }
            assert_eq!(reader.get(&key)?, expected);
        }
        for (key, vector) in &self.vectors {
            assert_eq!(reader.vector(*key)?.as_ref(), Some(vector));
            let all = self
                .vectors
                .iter()
                .filter(|(other, _)| VectorKey { passage: 0, ..**other } == VectorKey { passage: 0, ..*key });
            let expected: Vec<_> = all.map(|(key, vector)| (key.passage, vector.clone())).collect();
            assert_eq!(reader.document_vectors(key.collection, key.field, key.doc)?, expected);
        }
        let prefixes: [&[u8]; 4] = [b"", b"doc", b"doc:1", b"\xff"];
        let cursors: [Option<&[u8]>; 5] = [None, Some(b""), Some(b"doc"), Some(b"doc:10"), Some(b"doc:zz")];
        for (prefix, after) in prefixes.into_iter().flat_map(|prefix| cursors.map(|after| (prefix, after))) {
            let actual: Vec<_> = reader.keys(prefix, after)?.collect::<Result<_, _>>()?;
            let expected: Vec<_> = self
                .documents
                .iter()
                .filter(|(key, _)| {
                    key.starts_with(prefix) && after.is_none_or(|after| after < key.as_slice())
                })
                .map(|(key, (doc, _))| (key.clone().into_boxed_slice(), *doc))
                .collect();
            assert_eq!(actual, expected, "prefix {prefix:?} after {after:?}");
        }
        for after in [self.last_seq / 2, self.last_seq, self.last_seq + 1] {
            let actual: Vec<_> = reader.changes(after)?.collect::<Result<_, _>>()?;
            let expected: Vec<_> = self
                .changes
                .range(after + 1..)
                .map(|(seq, (doc, kind))| Change { seq: *seq, doc: *doc, kind: *kind })
                .collect();
            assert_eq!(actual, expected, "changes after {after}");
        }
        for now_ms in [0, 25, 49, u64::MAX - 1, u64::MAX] {
            let expired = |limit| reader.expired(now_ms, limit)?.into_iter().collect::<Result<Vec<_>, _>>();
            let mut expected: Vec<_> = self
                .documents
                .values()
                .filter_map(|(doc, document)| {
                    Some((document.expires_at_ms.filter(|at| *at <= now_ms)?, *doc))
                })
                .collect();
            expected.sort_unstable();
            assert_eq!(expired(usize::MAX)?, expected);
            expected.truncate(2);
            assert_eq!(expired(2)?, expected);
        }
        Ok(())
    }
}
