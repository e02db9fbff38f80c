//! Scrolling through the documents of a collection, and counting them.

use std::sync::Arc;

use store::DocId;

use crate::{
    byte_budget::document_bytes,
    clock::EngineClock,
    collection::{Collection, Selection},
    core::Core,
    filter::Filter,
    query::{PAGE_BYTES, QueryError, ScrollPage, WINDOW_MAX},
    search::{DocumentFetcher, check_limit},
};

impl Core {
    /// The name and the active version of a collection, looked up by name or alias.
    pub(crate) fn active(&self, name: &str) -> Result<(String, Arc<Collection>), QueryError> {
        let registry = self.registry();
        match registry.resolve(name) {
            Some((name, versions)) => Ok((name.to_owned(), versions.active.clone())),
            None => Err(QueryError::CollectionNotFound {
                name: name.to_owned(),
                known: registry.collection_names(),
            }),
        }
    }

    pub(crate) fn scroll(
        &self,
        collection: &str,
        filter: Option<&Filter>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<ScrollPage, QueryError> {
        check_limit("limit", 1..=WINDOW_MAX, limit)?;
        let (_, collection) = self.active(collection)?;
        let now_ms = self.time.now_ms();
        let selection = check_and_select(&collection, filter, &self.time)?;
        let fetcher =
            DocumentFetcher { core: self, collection: &collection, seen: selection.seen, filter, now_ms };
        // Documents deleted between the steps only make the page shorter.
        let (docs, has_more) = {
            let state = collection.state();
            let is_selected =
                |ordinal| selection.ordinals.as_ref().is_none_or(|ordinals| ordinals.contains(ordinal));
            let docs = state.ordinals.docs_after(after.map(DocId));
            let mut docs = docs.filter(|(_, ordinal)| is_selected(*ordinal)).map(|(doc, _)| doc);
            let page: Vec<DocId> = docs.by_ref().take(limit).collect();
            let has_more = docs.next().is_some();
            (page, has_more)
        };
        let reader = self.store.read()?;
        let mut next = if has_more { docs.last().map(|doc| doc.0) } else { None };
        let (mut documents, mut bytes) = (Vec::with_capacity(docs.len()), 0);
        for (position, doc) in docs.iter().enumerate() {
            let Some(document) = fetcher.document(&reader, Some(*doc))? else { continue };
            bytes += document_bytes(&document);
            documents.push(document);
            if bytes >= PAGE_BYTES && position + 1 < docs.len() {
                next = Some(doc.0);
                break;
            }
        }
        Ok(ScrollPage { documents, next })
    }

    pub(crate) fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, QueryError> {
        let (_, collection) = self.active(collection)?;
        let selection = check_and_select(&collection, filter, &self.time)?;
        Ok(match selection.ordinals {
            Some(ordinals) => ordinals.len(),
            None => collection.state().ordinals.live().len(),
        })
    }
}

fn check_and_select(
    collection: &Collection,
    filter: Option<&Filter>,
    time: &EngineClock,
) -> Result<Selection, QueryError> {
    filter.map_or(Ok(()), |filter| filter.check(&collection.schema))?;
    collection.hide_expired(time);
    Ok(collection.select(filter))
}
