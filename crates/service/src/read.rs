//! Operations that read or delete documents.

use std::time::Duration;

use engine::Expected;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Document, Error, ErrorKind, Scrolled, Service, Stats,
    backend::{Filter, Op, WriteFailure},
    call::Call,
    catalog::CollectionHandle,
    limits::PAGE_MAX,
    shared::Shared,
    sync::Arc,
    write::fields,
    write::not_found,
};

/// The maximum number of passes over a collection when documents change while they are being deleted.
const PASSES_MAX: usize = 16;

/// How long the deletion of the last documents found may take after the deadline.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);

/// A deletion by filter that ended early. The documents that are left still match, so repeating it continues.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct IncompleteDelete {
    /// Documents deleted before.
    pub deleted: u64,
    /// Why it ended.
    pub error: Error,
}

impl Service {
    /// Gets a document by id.
    pub async fn get(&self, cx: &Context, collection: &str, id: &str) -> Result<Document, Error> {
        let call = self.shared().begin(cx)?;
        let collection = self.shared().resolve(Some(collection))?;
        fields::check_id(id)?;
        let found = self.shared().backend.find(&call, collection.keys(id).collect()).await?;
        found.ok_or_else(|| not_found(&collection, id))
    }

    /// Deletes a document; `false` if there was none.
    pub async fn delete(
        &self,
        cx: &Context,
        collection: &str,
        id: &str,
        expected: Expected,
    ) -> Result<bool, Error> {
        let call = self.shared().begin(cx)?;
        let collection = self.shared().resolve(Some(collection))?;
        fields::check_id(id)?;
        let backend = &self.shared().backend;
        let existing = if collection.schema.prefixes.len() > 1 {
            backend.find(&call, collection.keys(id).collect()).await?
        } else {
            None
        };
        let key = existing.map_or_else(|| collection.key(id), |document| document.key.into());
        Ok(self.shared().delete(&call, vec![Op::Delete { key, expected }]).await? > 0)
    }

    /// Deletes every document that matches the filter; returns their number.
    pub async fn delete_matching(
        &self,
        cx: &Context,
        collection: &str,
        filter: &str,
    ) -> Result<u64, IncompleteDelete> {
        let mut deleted = 0;
        self.delete_passes(cx, collection, filter, &mut deleted)
            .await
            .map_err(|error| IncompleteDelete { deleted, error })?;
        Ok(deleted)
    }

    async fn delete_passes(
        &self,
        cx: &Context,
        collection: &str,
        filter: &str,
        deleted: &mut u64,
    ) -> Result<(), Error> {
        let call = self.shared().begin(cx)?;
        // What is found within the time limit is deleted, so that the number of deleted documents is known.
        let commit = self.shared().begin(&Context {
            deadline: Some(call.deadline() + COMMIT_TIME_MAX),
            cancel: CancellationToken::new(),
            ..cx.clone()
        })?;
        let collection = self.shared().resolve(Some(collection))?;
        let filter = collection.parse_filter(filter)?;
        for _ in 0..PASSES_MAX {
            if !self.delete_pass(&call, &commit, &collection, &filter, deleted).await? {
                return Ok(());
            }
        }
        let message = "matching documents kept changing, and some may remain; try again";
        Err(Error::new(ErrorKind::Conflict, "contended", message))
    }

    /// Deletes matching documents in one pass over the collection; `true` if a document changed between being
    /// found and being deleted, so that another pass is needed.
    async fn delete_pass(
        &self,
        call: &Call,
        commit: &Call,
        collection: &Arc<CollectionHandle>,
        filter: &Filter,
        deleted: &mut u64,
    ) -> Result<bool, Error> {
        let mut changed = false;
        let mut after = None;
        loop {
            let filter = Some(filter.clone());
            let page = self.shared().backend.scroll(call, collection, filter, after, PAGE_MAX).await?;
            let delete = |document: &Document| Op::Delete {
                key: document.key.to_vec(),
                expected: Expected::Seq(document.seq),
            };
            let ops: Vec<Op> = page.documents.iter().map(delete).collect();
            if !ops.is_empty() {
                let mut failure = None;
                for written in self.shared().backend.commit(commit, ops).await? {
                    match written {
                        Ok(written) => *deleted += u64::from(written.existed),
                        Err(WriteFailure::Conflict(_)) => changed = true,
                        Err(other) => failure = failure.or(Some(other.into_error())),
                    }
                }
                if let Some(error) = failure {
                    return Err(error);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(changed);
            }
        }
    }

    /// Lists documents of a collection, at most 1,000 per page. The embedded store lists them in the order of
    /// their first write and ends a page at 16 MiB; Redis lists them in no particular order.
    pub async fn scroll(
        &self,
        cx: &Context,
        collection: &str,
        filter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        let call = self.shared().begin(cx)?;
        let collection = self.shared().resolve(Some(collection))?;
        check_page(limit)?;
        let filter = filter.map(|text| collection.parse_filter(text)).transpose()?;
        let after = after.map(str::to_owned);
        self.shared().backend.scroll(&call, &collection, filter, after, limit).await
    }

    /// Counts the documents that match the filter.
    pub async fn count(&self, cx: &Context, collection: &str, filter: Option<&str>) -> Result<u64, Error> {
        let call = self.shared().begin(cx)?;
        let collection = self.shared().resolve(Some(collection))?;
        let filter = filter.map(|text| collection.parse_filter(text)).transpose()?;
        self.shared().backend.count(&call, &collection, filter).await
    }

    /// Statistics of the whole system.
    pub async fn stats(&self, cx: &Context) -> Result<Stats, Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.stats(&call).await
    }
}

impl Shared {
    /// Commits deletes and returns how many of the documents existed.
    pub(crate) async fn delete(&self, call: &Call, deletes: Vec<Op>) -> Result<u64, Error> {
        let mut existed = 0;
        for result in self.backend.commit(call, deletes).await? {
            existed += u64::from(result.map_err(WriteFailure::into_error)?.existed);
        }
        Ok(existed)
    }
}

/// Checks the number of entries of a page.
pub(crate) fn check_page(limit: usize) -> Result<(), Error> {
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(());
    }
    Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to {PAGE_MAX}")).at("limit"))
}
