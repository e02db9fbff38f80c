//! The durable keyspace: documents, vectors, schemas and the log of changes, on redb.
//!
//! One truth. Whatever else the system holds (graphs, postings, bitmaps) is derived from what
//! stands here. Knows nothing of vector geometry or of text models: a schema is bytes, a vector is bytes.

use std::path::Path;

/// Number of a document, given when its key is first written and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId(pub u64);

/// Position of a change in the history of a store; grows by one with every changed document.
pub type Seq = u64;

/// A collection's number and the version of its schema: what derived data hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionVersion {
    /// Number of the collection, never used again.
    pub id: u32,
    /// Version of its schema, from 1.
    pub version: u32,
}

/// One named value of a document. Names and values are bytes, as in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name.
    pub name: Box<[u8]>,
    /// Value.
    pub value: Box<[u8]>,
}

/// What stands under a key. The stored record also carries a kind (hash; others may come).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The key.
    pub key: Box<[u8]>,
    /// The change that last wrote it.
    pub seq: Seq,
    /// When it ends, in Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// Fields in the order given, names distinct.
    pub fields: Vec<Field>,
}

impl Document {
    /// The value of the field called `name`.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields.iter().find(|field| &*field.name == name).map(|field| &*field.value)
    }
}

/// Where a computed vector stands: (collection version, field, document, ordinal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VectorKey {
    /// Collection and schema version it was computed for.
    pub collection: CollectionVersion,
    /// Position of the vector field in that schema.
    pub field: u16,
    /// The document.
    pub doc: DocId,
    /// Which of the document's vectors: 0 unless it was cut into passages.
    pub ordinal: u16,
}

/// A computed vector and the model that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVector {
    /// The model's fingerprint.
    pub model: [u8; 16],
    /// Little-endian elements.
    pub bytes: Box<[u8]>,
}

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Written: read the document to see how it stands now.
    Written,
    /// Gone.
    Deleted,
}

/// The last change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, in the store's own order.
    pub seq: Seq,
    /// Which.
    pub doc: DocId,
    /// What.
    pub kind: ChangeKind,
}

/// What a collection's name or an alias leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameTarget {
    /// A collection and the version that answers.
    Collection(CollectionVersion),
    /// An alias of the collection with this name.
    Alias(String),
}

/// Why a store could not be opened. Messages carry the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {}

/// Why a read or a write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {}

/// How to open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of redb's page cache.
    pub cache_bytes: usize,
}

/// An open store. Readers see the last commit and wait for nobody; one writer at a time.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens or creates the store in the file `path`.
    pub fn open(path: &Path, options: Options) -> Result<Store, OpenError> {
        todo!()
    }

    /// Opens a store on another disk: memory, or one that fails on purpose.
    pub fn open_on(disk: impl redb::StorageBackend, options: Options) -> Result<Store, OpenError> {
        todo!()
    }

    /// This store's identity, drawn at random when it was made.
    pub fn id(&self) -> [u8; 16] {
        todo!()
    }

    /// A consistent view of the last commit.
    pub fn read(&self) -> Result<Reader, StoreError> {
        todo!()
    }

    /// Begins a transaction, waiting for the one before it to end. Dropped without
    /// [`Writer::commit`], it never happened.
    pub fn write(&self) -> Result<Writer<'_>, StoreError> {
        todo!()
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        todo!()
    }
}

/// A consistent view of one commit.
pub struct Reader {}

impl Reader {
    /// The last change in this view; 0 in an empty store.
    pub fn last_seq(&self) -> Result<Seq, StoreError> {
        todo!()
    }

    /// Documents in the whole keyspace.
    pub fn document_count(&self) -> Result<u64, StoreError> {
        todo!()
    }

    /// The number of the document under `key`.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<DocId>, StoreError> {
        todo!()
    }

    /// A document by number.
    pub fn document(&self, doc: DocId) -> Result<Option<Document>, StoreError> {
        todo!()
    }

    /// A document and its number by key.
    pub fn get(&self, key: &[u8]) -> Result<Option<(DocId, Document)>, StoreError> {
        todo!()
    }

    /// Documents with numbers from `from` on, ascending.
    pub fn documents(
        &self,
        from: DocId,
    ) -> Result<impl Iterator<Item = Result<(DocId, Document), StoreError>> + use<>, StoreError> {
        todo!();
        #[allow(unreachable_code)]
        Ok(std::iter::empty())
    }

    /// Keys that start with `prefix` and come after `after`, ascending, with their documents' numbers.
    pub fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<(Box<[u8]>, DocId), StoreError>> + use<>, StoreError> {
        todo!();
        #[allow(unreachable_code)]
        Ok(std::iter::empty())
    }

    /// A computed vector.
    pub fn vector(&self, key: VectorKey) -> Result<Option<StoredVector>, StoreError> {
        todo!()
    }

    /// All computed vectors of a field of a collection, by document.
    pub fn vectors(
        &self,
        collection: CollectionVersion,
        field: u16,
    ) -> Result<impl Iterator<Item = Result<(VectorKey, StoredVector), StoreError>> + use<>, StoreError> {
        todo!();
        #[allow(unreachable_code)]
        Ok(std::iter::empty())
    }

    /// The last change of every document changed after `after`, oldest first. A document written
    /// twice stands here once, under its last change.
    pub fn changes(
        &self,
        after: Seq,
    ) -> Result<impl Iterator<Item = Result<Change, StoreError>> + use<>, StoreError> {
        todo!();
        #[allow(unreachable_code)]
        Ok(std::iter::empty())
    }

    /// Changes up to here have been forgotten: who needs older ones must read everything.
    pub fn changes_trimmed_to(&self) -> Result<Seq, StoreError> {
        todo!()
    }

    /// Up to `limit` documents whose end is at or before `now_ms`, soonest first.
    pub fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<(u64, DocId)>, StoreError> {
        todo!()
    }

    /// Every stored schema.
    pub fn schemas(&self) -> Result<Vec<(CollectionVersion, Vec<u8>)>, StoreError> {
        todo!()
    }

    /// Every name and alias.
    pub fn names(&self) -> Result<Vec<(String, NameTarget)>, StoreError> {
        todo!()
    }
}

/// A transaction: sees the last commit and its own changes.
pub struct Writer<'s> {
    _store: &'s Store,
}

impl Writer<'_> {
    /// A document and its number by key, as this transaction has left it.
    pub fn get(&self, key: &[u8]) -> Result<Option<(DocId, Document)>, StoreError> {
        todo!()
    }

    /// A document by number, as this transaction has left it.
    pub fn document(&self, doc: DocId) -> Result<Option<Document>, StoreError> {
        todo!()
    }

    /// Writes a whole document in place of any under `key`, and says its number and the change's.
    /// Computed vectors of an older text stay until [`Writer::remove_vectors`].
    pub fn put(
        &mut self,
        key: &[u8],
        fields: &[Field],
        expires_at_ms: Option<u64>,
    ) -> Result<(DocId, Seq), StoreError> {
        todo!()
    }

    /// Takes the document under `key` away with all its computed vectors; `None` if there was none.
    pub fn delete(&mut self, key: &[u8]) -> Result<Option<(DocId, Seq)>, StoreError> {
        todo!()
    }

    /// Writes a computed vector. Does not count as a change of the document: whoever writes
    /// only vectors calls [`Writer::touch`].
    pub fn set_vector(&mut self, key: VectorKey, model: [u8; 16], bytes: &[u8]) -> Result<(), StoreError> {
        todo!()
    }

    /// Removes the computed vectors of one document in one collection.
    pub fn remove_vectors(&mut self, collection: CollectionVersion, doc: DocId) -> Result<(), StoreError> {
        todo!()
    }

    /// Logs a change of the document without changing its fields (its vectors changed).
    /// The document's own `seq` stays as it was.
    pub fn touch(&mut self, doc: DocId) -> Result<Seq, StoreError> {
        todo!()
    }

    /// A number no collection has had.
    pub fn next_collection_id(&mut self) -> Result<u32, StoreError> {
        todo!()
    }

    /// Writes a schema.
    pub fn set_schema(&mut self, collection: CollectionVersion, schema: &[u8]) -> Result<(), StoreError> {
        todo!()
    }

    /// Removes a schema and every computed vector of that collection version.
    pub fn remove_schema(&mut self, collection: CollectionVersion) -> Result<(), StoreError> {
        todo!()
    }

    /// Points a name or an alias somewhere.
    pub fn set_name(&mut self, name: &str, target: &NameTarget) -> Result<(), StoreError> {
        todo!()
    }

    /// Removes a name or an alias; `false` if there was none.
    pub fn remove_name(&mut self, name: &str) -> Result<bool, StoreError> {
        todo!()
    }

    /// Forgets changes up to and including `seq`.
    pub fn trim_changes(&mut self, seq: Seq) -> Result<(), StoreError> {
        todo!()
    }

    /// Makes all of it durable, in one fsync, or none of it. After a failure the store refuses
    /// further writes until it is opened again.
    pub fn commit(self) -> Result<(), StoreError> {
        todo!()
    }
}
