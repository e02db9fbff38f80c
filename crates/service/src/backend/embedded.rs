//! The engine inside this process.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use engine::{Engine, Options, Progress, QueueFull};
use tokio::sync::{Semaphore, oneshot};

use super::{
    ComputedVector, Cursor, Document, DropMode, Error, Filter, Op, PendingEmbeddings, Schema, Scrolled,
    WriteError, WriteOutcome,
};
use crate::{ErrorKind, KeyPage, call::Call, error_mapping};

/// The maximum number of writes waiting for the committer: half the capacity of the engine's queue, which the
/// background embedder also uses.
const WRITES_MAX: usize = 4096;

/// The engine, with a limit on pending writes: calls wait in order for the committer rather than fail
/// after their texts were embedded.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(super) engine: Engine,
    write_permits: Semaphore,
}

impl Embedded {
    pub(super) fn open(options: Options, progress: &Progress) -> Result<Embedded, Error> {
        let engine =
            Engine::open_with_progress(options, progress).map_err(|error| error_mapping::open(&error))?;
        for warning in engine.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(Embedded { engine, write_permits: Semaphore::new(WRITES_MAX) })
    }

    /// The document under the first of these keys that exists.
    pub(super) fn find(&self, keys: &[Vec<u8>]) -> Result<Option<Document>, Error> {
        for key in keys {
            if let Some(document) = self.engine.get(key).map_err(error_mapping::query)? {
                return Ok(Some(document));
            }
        }
        Ok(None)
    }

    /// The computed vectors of the document under `key` in a collection.
    pub(super) fn vectors(&self, collection: &str, key: &[u8]) -> Result<Vec<ComputedVector>, Error> {
        let vectors = self.engine.vectors(collection, key).map_err(error_mapping::query)?;
        Ok(vectors.into_iter().map(|(_, vector)| vector).collect())
    }

    /// Creates a collection unless an equal one exists; with `rebuild`, starts a new version of one that
    /// differs. `true` if it was created.
    pub(super) fn put_collection(
        &self,
        name: &str,
        schema: Schema,
        rebuild: bool,
    ) -> Result<(engine::CollectionInfo, bool), Error> {
        let existed = self.engine.collection(name).is_ok();
        match self.engine.create_collection(name, schema.clone()).map_err(error_mapping::collection) {
            Ok(info) => Ok((info, !existed)),
            Err(error) if rebuild && error.code == error_mapping::COLLECTION_EXISTS => {
                let info = self.engine.rebuild_collection(name, schema).map_err(error_mapping::collection)?;
                Ok((info, false))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn drop_collection(&self, name: &str, documents: DropMode) -> Result<(), Error> {
        self.engine.drop_collection(name, documents).map_err(error_mapping::collection)
    }

    /// Commits a group of writes and waits until it is durable.
    pub(super) async fn commit(
        &self,
        call: &Call,
        ops: Vec<Op>,
    ) -> Result<Vec<Result<WriteOutcome, WriteError>>, Error> {
        let count = u32::try_from(ops.len().min(WRITES_MAX)).expect("WRITES_MAX is small");
        let _permits =
            call.within(self.write_permits.acquire_many(count)).await?.map_err(|_| Error::closing())?;
        let committed = self.submit(ops)?;
        call.within(committed).await?.map_err(|_| Error::closing())
    }

    /// Queues writes for the committer.
    fn submit(
        &self,
        ops: Vec<Op>,
    ) -> Result<oneshot::Receiver<Vec<Result<WriteOutcome, WriteError>>>, Error> {
        let (done, committed) = oneshot::channel();
        let on_commit = Box::new(move |results| {
            // Sending fails if the caller has stopped waiting; nobody needs the results then.
            let _ = done.send(results);
        });
        match self.engine.submit(ops, on_commit) {
            Ok(()) => Ok(committed),
            Err(QueueFull) => Err(Error::new(
                ErrorKind::Overloaded,
                "write-queue-full",
                "too many writes are waiting for the disk; retry in a second",
            )),
        }
    }

    /// Writes a backup of the store to `out`. Blocks the calling thread.
    pub(crate) fn back_up(&self, out: impl std::io::Write) -> Result<engine::Backup, Error> {
        self.engine
            .back_up(out)
            .map_err(|error| Error::new(ErrorKind::Internal, "backup", format!("backup failed: {error}")))
    }

    pub(super) fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        let after = after.map(position).transpose()?;
        let page = self.engine.scroll(collection, filter, after, limit).map_err(error_mapping::query)?;
        Ok(Scrolled { documents: page.documents, next: page.next.map(|next| next.to_string()) })
    }

    /// A page of keys. The cursor is the last key of the previous page.
    pub(super) fn keys(&self, prefix: &[u8], after: Option<&Cursor>, limit: usize) -> Result<KeyPage, Error> {
        let decode = |cursor: &Cursor| {
            BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| super::invalid_cursor(cursor))
        };
        let after = after.map(decode).transpose()?;
        let keys = self.engine.keys(prefix, after.as_deref(), limit).map_err(error_mapping::query)?;
        let next = keys.last().filter(|_| keys.len() == limit).map(|key| BASE64_URL_SAFE_NO_PAD.encode(key));
        Ok(KeyPage { keys: keys.into_iter().map(Vec::from).collect(), next })
    }

    pub(super) fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, Error> {
        self.engine.count(collection, filter).map_err(error_mapping::query)
    }

    /// Documents that lack vectors. Takes no cursor: once these have their vectors, the same call returns the
    /// next documents.
    pub(super) fn unembedded(&self, collection: &str, limit: usize) -> Result<PendingEmbeddings, Error> {
        let documents = self.engine.unembedded(collection, limit).map_err(error_mapping::collection)?;
        let next = (!documents.is_empty()).then(Cursor::new);
        Ok(PendingEmbeddings { documents, next })
    }
}

fn position(cursor: &Cursor) -> Result<u64, Error> {
    cursor.parse().map_err(|_| super::invalid_cursor(cursor))
}
