//! Reading the documents of the source page by page.

use tokio::sync::mpsc::Sender;

use super::{
    CopyPlan,
    endpoint::{CopyEndpoint, StoredDocument},
    retry,
};
use crate::{Context, Error};

/// Documents on the first page, before their size is known.
const FIRST_PAGE_DOCUMENTS: usize = 64;

/// Maximum documents per page.
const PAGE_DOCUMENTS_MAX: usize = 1000;

/// Approximate bytes per page.
const PAGE_BYTES: usize = 4 << 20;

/// A page of documents of one collection.
pub(super) struct DocumentPage {
    /// Index of the collection in the plan.
    pub(super) collection: usize,
    pub(super) documents: Vec<StoredDocument>,
}

/// Reads all documents of the planned collections, each once, and returns their number.
pub(super) async fn read(
    from: &CopyEndpoint,
    cx: &Context,
    plan: &CopyPlan,
    pages: &Sender<DocumentPage>,
) -> Result<u64, Error> {
    let mut read = 0;
    for (position, planned) in plan.collections.iter().enumerate() {
        let mut after = None;
        let mut limit = FIRST_PAGE_DOCUMENTS;
        loop {
            let (mut documents, next) = retry(async || {
                let call = from.begin(cx)?;
                let all = plan.collections.iter().map(|planned| &planned.from);
                from.page(&call, &planned.from, all, after.clone(), limit).await
            })
            .await?;
            limit = next_limit(&documents).unwrap_or(limit);
            // A document in several collections is copied with the first of them.
            let earlier = &plan.collections[..position];
            documents.retain(|document| {
                !earlier.iter().any(|other| other.from.schema.matches_key(&document.document.key))
            });
            read += documents.len() as u64;
            if !documents.is_empty() {
                let page = DocumentPage { collection: position, documents };
                pages.send(page).await.map_err(drop).expect("the receiver lives until the last page");
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(read)
}

/// The number of documents per page, if the next ones are of similar size.
fn next_limit(documents: &[StoredDocument]) -> Option<usize> {
    let bytes: usize = documents.iter().map(StoredDocument::bytes).sum();
    let one = bytes.checked_div(documents.len())?.max(1);
    Some((PAGE_BYTES / one).clamp(1, PAGE_DOCUMENTS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Field};

    #[test]
    fn limits_pages_by_bytes_and_documents() {
        let of = |count: usize, bytes: usize| {
            let field = Field { name: b"f".as_slice().into(), value: vec![0; bytes - 2].into() };
            let document =
                Document { key: b"k".as_slice().into(), seq: 1, expires_at_ms: None, fields: vec![field] };
            vec![StoredDocument { document, vectors: vec![] }; count]
        };
        assert_eq!(next_limit(&[]), None);
        assert_eq!(next_limit(&of(3, 100)), Some(PAGE_DOCUMENTS_MAX));
        assert_eq!(next_limit(&of(3, 1 << 20)), Some(4));
        assert_eq!(next_limit(&of(1, 8 << 20)), Some(1));
    }
}
