//! The verbs that read documents, and those that take them away.

use engine::Expected;

use crate::{
    Context, Document, Error, ErrorKind, Scrolled, Service, Stats,
    backend::{Filter, Op, WriteFailure},
    call::Call,
    catalog::CollectionHandle,
    limits::PAGE_MAX,
    sync::Arc,
    write::fields,
    write::not_found,
};

/// Times the whole collection is gone through because documents changed while they were deleted.
const PASSES_MAX: usize = 16;

impl Service {
    /// A document by id.
    pub async fn get(&self, cx: &Context, collection: &str, id: &str) -> Result<Document, Error> {
        let call = self.shared().begin(cx)?;
        let known = self.shared().resolve(Some(collection))?;
        fields::check_id(id)?;
        let found = self.shared().backend.find(&call, known.keys(id).collect()).await?;
        found.ok_or_else(|| not_found(&known, id))
    }

    /// Takes a document away; `false` if there was none.
    pub async fn delete(
        &self,
        cx: &Context,
        collection: &str,
        id: &str,
        expected: Expected,
    ) -> Result<bool, Error> {
        let call = self.shared().begin(cx)?;
        let known = self.shared().resolve(Some(collection))?;
        fields::check_id(id)?;
        let backend = &self.shared().backend;
        let standing = if known.schema.prefixes.len() > 1 {
            backend.find(&call, known.keys(id).collect()).await?
        } else {
            None
        };
        let key = standing.map_or_else(|| known.key(id), |document| document.key.into());
        let written = backend.commit(&call, vec![Op::Delete { key, expected }]).await?;
        match written.into_iter().next() {
            Some(Ok(written)) => Ok(written.existed),
            Some(Err(refused)) => Err(refused.into_error()),
            None => Err(Error::closing()),
        }
    }

    /// Takes away every document that matches, and says how many.
    pub async fn delete_matching(&self, cx: &Context, collection: &str, filter: &str) -> Result<u64, Error> {
        let call = self.shared().begin(cx)?;
        let known = self.shared().resolve(Some(collection))?;
        let filter = known.parse_filter(filter)?;
        let mut deleted = 0;
        for _ in 0..PASSES_MAX {
            let changed = self.delete_pass(&call, &known, &filter, &mut deleted).await?;
            if !changed {
                return Ok(deleted);
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "contended",
            format!(
                "documents that match kept changing; {deleted} were deleted, and some may be left; try again"
            ),
        ))
    }

    /// Goes through the collection once; `true` if a document was changed between being found
    /// and being deleted, so that it has to be looked at again.
    async fn delete_pass(
        &self,
        call: &Call,
        known: &Arc<CollectionHandle>,
        filter: &Filter,
        deleted: &mut u64,
    ) -> Result<bool, Error> {
        let mut changed = false;
        let mut after = None;
        loop {
            let filter = Some(filter.clone());
            let page = self.shared().backend.scroll(call, known, filter, after, PAGE_MAX).await?;
            let delete = |document: &Document| Op::Delete {
                key: document.key.to_vec(),
                expected: Expected::Seq(document.seq),
            };
            let ops: Vec<Op> = page.documents.iter().map(delete).collect();
            if !ops.is_empty() {
                for written in self.shared().backend.commit(call, ops).await? {
                    match written {
                        Ok(written) => *deleted += u64::from(written.existed),
                        Err(WriteFailure::Conflict(_)) => changed = true,
                        Err(refused) => return Err(refused.into_error()),
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(changed);
            }
        }
    }

    /// Documents of a collection, at most 1,000 a page; the embedded store's in the order they were
    /// first written, and no more once a page has 16 MiB; a Redis's in no order.
    pub async fn scroll(
        &self,
        cx: &Context,
        collection: &str,
        filter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Scrolled, Error> {
        let call = self.shared().begin(cx)?;
        let known = self.shared().resolve(Some(collection))?;
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(
                Error::invalid("limit", format!("limit is {limit}; it must be 1 to {PAGE_MAX}")).at("limit")
            );
        }
        let filter = filter.map(|text| known.parse_filter(text)).transpose()?;
        let after = after.map(str::to_owned);
        self.shared().backend.scroll(&call, &known, filter, after, limit).await
    }

    /// How many documents match.
    pub async fn count(&self, cx: &Context, collection: &str, filter: Option<&str>) -> Result<u64, Error> {
        let call = self.shared().begin(cx)?;
        let known = self.shared().resolve(Some(collection))?;
        let filter = filter.map(|text| known.parse_filter(text)).transpose()?;
        self.shared().backend.count(&call, &known, filter).await
    }

    /// Counts of the whole system.
    pub async fn stats(&self, cx: &Context) -> Result<Stats, Error> {
        let call = self.shared().begin(cx)?;
        self.shared().backend.stats(&call).await
    }
}
