//! The documents of the source, page by page.

use tokio::sync::mpsc::Sender;

use super::{
    CopyPlan, patiently,
    side::{Held, Side},
};
use crate::{Context, Error};

/// Documents of the first page, until it is known how large they are.
const FIRST: usize = 64;

/// Documents a page.
const DOCUMENTS_MAX: usize = 1000;

/// Bytes a page, about.
const BYTES: usize = 4 << 20;

/// Documents of one collection.
pub(super) struct Page {
    /// Its place in the plan.
    pub(super) collection: usize,
    pub(super) documents: Vec<Held>,
}

/// Reads all documents of the planned collections, each document once, and how many they were.
pub(super) async fn read(
    from: &Side,
    cx: &Context,
    plan: &CopyPlan,
    pages: &Sender<Page>,
) -> Result<u64, Error> {
    let mut read = 0;
    for (place, planned) in plan.collections.iter().enumerate() {
        let mut after = None;
        let mut limit = FIRST;
        loop {
            let (mut documents, next) = patiently(async || {
                let call = from.begin(cx)?;
                let all = plan.collections.iter().map(|planned| &planned.from);
                from.page(&call, &planned.from, all, after.clone(), limit).await
            })
            .await?;
            limit = next_limit(&documents).unwrap_or(limit);
            // A document in several collections comes with the first of them.
            let earlier = &plan.collections[..place];
            documents.retain(|held| {
                !earlier.iter().any(|other| other.from.schema.matches_key(&held.document.key))
            });
            read += documents.len() as u64;
            if !documents.is_empty() {
                let page = Page { collection: place, documents };
                pages.send(page).await.map_err(drop).expect("who takes the pages stays until the last");
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(read)
}

/// As many documents as make up a page, if they are like these.
fn next_limit(documents: &[Held]) -> Option<usize> {
    let bytes: usize = documents.iter().map(Held::bytes).sum();
    let one = bytes.checked_div(documents.len())?.max(1);
    Some((BYTES / one).clamp(1, DOCUMENTS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Field};

    #[test]
    fn pages_are_as_long_as_their_bytes_allow() {
        let of = |count: usize, bytes: usize| {
            let field = Field { name: b"f".as_slice().into(), value: vec![0; bytes - 2].into() };
            let document =
                Document { key: b"k".as_slice().into(), seq: 1, expires_at_ms: None, fields: vec![field] };
            vec![Held { document, vectors: vec![] }; count]
        };
        assert_eq!(next_limit(&[]), None);
        assert_eq!(next_limit(&of(3, 100)), Some(DOCUMENTS_MAX));
        assert_eq!(next_limit(&of(3, 1 << 20)), Some(4));
        assert_eq!(next_limit(&of(1, 8 << 20)), Some(1));
    }
}
