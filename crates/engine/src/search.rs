//! Searching: check the query, evaluate the filter, search the index, read the documents.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use index::{Neighbor, SearchParams};
use store::{CollectionVersion, DocId, Document, FIELDS_MAX, Field, Reader, Seq, StoreError};

use crate::{
    byte_budget::{ByteBudget, Reservation},
    collection::{Collection, CollectionState, VectorSelection},
    core::Core,
    filter::Filter,
    query::{EF_MAX, Hit, K_MAX, Order, Query, QueryError, SearchResult, VectorLeg, WINDOW_MAX, score},
    schema::{Algorithm, FieldKind},
    transaction::is_expired,
};

/// Maximum number of attempts if documents are deleted while a search runs.
const ATTEMPTS_MAX: usize = 4;

impl Core {
    /// Searches the active version of a collection. If `version` is given and another one is active, fails.
    pub(crate) fn search(
        &self,
        query: &Query<'_>,
        version: Option<CollectionVersion>,
        budget: &ByteBudget,
    ) -> Result<SearchResult, QueryError> {
        let (name, collection) = self.active(query.collection)?;
        if version.is_some_and(|version| version != collection.version) {
            return Err(QueryError::VersionMismatch { name });
        }
        let leg = query.vector_leg()?;
        let slot = check_query(&name, &collection, query, leg)?;
        let mut result = SearchResult { hits: Vec::new(), filter_us: 0, search_us: 0, fetch_us: 0 };
        for attempt in 1.. {
            let mut reservation = budget.reserve();
            let expected = self.search_once(&collection, slot, query, leg, &mut result, &mut reservation)?;
            // Documents deleted between the steps leave gaps, so search again. The number of attempts is limited,
            // because documents may be deleted faster than this.
            if result.hits.len() >= expected || attempt == ATTEMPTS_MAX {
                reservation.commit();
                break;
            }
        }
        Ok(result)
    }

    /// One attempt: fills `result` and returns how many hits it should have.
    fn search_once(
        &self,
        collection: &Collection,
        slot: usize,
        query: &Query<'_>,
        leg: &VectorLeg<'_>,
        result: &mut SearchResult,
        reservation: &mut Reservation<'_>,
    ) -> Result<usize, QueryError> {
        let metric = collection.projector.vectors[slot].schema.metric;
        let now_ms = self.time.now_ms();
        let start = Instant::now();
        collection.hide_expired(&self.time);
        let selection = collection.select_vectors(query.filter, slot);
        result.filter_us += micros(start);

        let start = Instant::now();
        let nearest = nearest_documents(collection, slot, leg, query.page.window(), &selection);
        result.search_us += micros(start);

        let start = Instant::now();
        let ranked = match query.order {
            // The score decreases with the distance, so the nearest documents are already in this order.
            Order::Score => nearest.into_iter().map(|found| (score(metric, found.distance), found)),
        };
        let page: Vec<(f32, NearDocument)> = ranked
            .skip(query.page.offset)
            .take_while(|(score, _)| query.min_score.is_none_or(|min| *score >= min))
            .collect();
        let fetcher =
            DocumentFetcher { core: self, collection, seen: selection.seen, filter: query.filter, now_ms };
        let returned_fields = ReturnedFields::new(collection, query.fields);
        let reader = self.store.read()?;
        result.hits.clear();
        for (score, NearDocument { doc, passage, distance }) in &page {
            let Some(mut document) = fetcher.document(&reader, *doc)? else { continue };
            returned_fields.retain(&mut document.fields);
            reservation.add(&document)?;
            let (passage, distance) = (Some(*passage), Some(*distance));
            result.hits.push(Hit { document, passage, distance, score: *score });
        }
        result.fetch_us += micros(start);
        Ok(page.len())
    }

    /// Fails if the collection contains a document that is missing from the store, which means that the store lost
    /// it. Succeeds if that cannot be determined without waiting.
    fn check_deleted(&self, collection: &Collection, doc: DocId) -> Result<(), StoreError> {
        // While this holds the lock, everything committed is also published.
        let Some(_commit_lock) = self.commit_lock.try_lock() else { return Ok(()) };
        let is_present = collection.state().ordinals.ordinal(doc).is_some();
        // A version that was dropped or replaced no longer receives deletes.
        let is_registered = self.registry().all().any(|registered| std::ptr::eq(&**registered, collection));
        if is_present && is_registered && self.store.read()?.document(doc)?.is_none() {
            let (table, reason) = ("documents", "it is missing, and was not deleted");
            return Err(StoreError::Corrupt { table, key: doc.0.to_string(), reason });
        }
        Ok(())
    }
}

/// A document found by its vector.
struct NearDocument {
    /// `None` if the document was deleted after its vector was found.
    doc: Option<DocId>,
    passage: u16,
    distance: f32,
}

/// The `window` nearest documents, or all matching documents if there are fewer. Each occurs once, with its nearest
/// vector.
fn nearest_documents(
    collection: &Collection,
    slot: usize,
    leg: &VectorLeg<'_>,
    window: usize,
    selection: &VectorSelection,
) -> Vec<NearDocument> {
    let ef_search = leg.ef_search.unwrap_or(match collection.projector.vectors[slot].schema.algorithm {
        Algorithm::Flat => window,
        Algorithm::Hnsw { ef_search, .. } => ef_search,
    });
    let mut vectors = window;
    loop {
        let params = SearchParams {
            k: vectors,
            ef: ef_search.max(vectors),
            allowed: selection.labels.as_ref(),
            exact: leg.exact,
        };
        let neighbors = collection.indexes[slot].search(leg.vector, &params);
        let mut documents: Vec<NearDocument> = {
            let state = collection.state();
            if selection.has_passages {
                distinct_documents(&state, &neighbors, selection.seen)
            } else {
                neighbors.iter().map(|neighbor| near_document(&state, neighbor, selection.seen)).collect()
            }
        };
        // Several vectors of one document count once: fetch more until there are enough documents.
        if documents.len() >= window || neighbors.len() < vectors {
            documents.truncate(window);
            return documents;
        }
        vectors *= 2;
    }
}

fn near_document(state: &CollectionState, neighbor: &Neighbor, seen: Seq) -> NearDocument {
    let Neighbor { label, distance } = *neighbor;
    let (doc, passage) = state.document_of_label(label, seen).unzip();
    NearDocument { doc, passage: passage.unwrap_or_default(), distance }
}

/// The documents of `neighbors`, nearest first, each with its nearest vector.
fn distinct_documents(state: &CollectionState, neighbors: &[Neighbor], seen: Seq) -> Vec<NearDocument> {
    let mut distinct = HashSet::new();
    let documents = neighbors.iter().map(|neighbor| near_document(state, neighbor, seen));
    documents.filter(|found| found.doc.is_none_or(|doc| distinct.insert(doc))).collect()
}

/// Reads documents that were selected earlier.
pub(crate) struct DocumentFetcher<'a> {
    pub(crate) core: &'a Core,
    pub(crate) collection: &'a Collection,
    /// The last change that the selection includes.
    pub(crate) seen: Seq,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) now_ms: u64,
}

impl DocumentFetcher<'_> {
    /// The document, if it still exists, has not expired and still matches the filter. A document written after the
    /// selection is checked again, so that no response contains a document that its filter excludes.
    pub(crate) fn document(
        &self,
        reader: &Reader,
        doc: Option<DocId>,
    ) -> Result<Option<Document>, StoreError> {
        let Some(doc) = doc else { return Ok(None) };
        let Some(document) = reader.document(doc)? else {
            return self.core.check_deleted(self.collection, doc).map(|()| None);
        };
        if is_expired(&document, self.now_ms) {
            return Ok(None);
        }
        if let Some(filter) = self.filter
            && document.seq > self.seen
        {
            let Collection { projector, schema, .. } = self.collection;
            let attributes = projector.attributes(&document.fields);
            let matches = attributes.is_ok_and(|attributes| filter.matches(&attributes, schema));
            return Ok(matches.then_some(document));
        }
        Ok(Some(document))
    }
}

/// Checks the whole query and returns the slot of the field it searches.
fn check_query(
    name: &str,
    collection: &Collection,
    query: &Query<'_>,
    leg: &VectorLeg<'_>,
) -> Result<usize, QueryError> {
    check_limit("k", 1..=K_MAX, query.page.k)?;
    check_limit("offset + k", 1..=WINDOW_MAX, query.page.window())?;
    if let Some(ef_search) = leg.ef_search {
        check_limit("ef_search", 1..=EF_MAX, ef_search)?;
    }
    if let Some(found) = query.min_score.filter(|score| !score.is_finite()) {
        return Err(QueryError::MinScore { found });
    }
    check_limit("fields", 0..=FIELDS_MAX, query.fields.unwrap_or_default().len())?;
    let slot = slot_to_search(name, collection, leg.field)?;
    let schema = &collection.projector.vectors[slot].schema;
    index::check(leg.vector, schema.dim, schema.metric)?;
    if let Some(filter) = query.filter {
        filter.check(&collection.schema)?;
    }
    for field in query.fields.unwrap_or_default() {
        if collection.schema.field(field).is_none() {
            return Err(field_not_found(name, collection, field));
        }
    }
    Ok(slot)
}

fn slot_to_search(name: &str, collection: &Collection, field: Option<&str>) -> Result<usize, QueryError> {
    let vectors = &collection.projector.vectors;
    let vector_fields = || collection.schema.field_names(|kind| matches!(kind, FieldKind::Vector(_)));
    let Some(field) = field else {
        return match vectors.len() {
            1 => Ok(0),
            _ => Err(QueryError::FieldMissing { collection: name.to_owned(), known: vector_fields() }),
        };
    };
    match collection.schema.field(field) {
        None => Err(field_not_found(name, collection, field)),
        Some(FieldKind::Vector(_)) => Ok(vectors
            .iter()
            .position(|vector| vector.name == field)
            .expect("every VECTOR field of the schema has a slot")),
        Some(other) => Err(QueryError::NotAVectorField {
            collection: name.to_owned(),
            field: field.to_owned(),
            found: other.name(),
            known: vector_fields(),
        }),
    }
}

fn field_not_found(name: &str, collection: &Collection, field: &str) -> QueryError {
    QueryError::FieldNotFound {
        collection: name.to_owned(),
        field: field.to_owned(),
        known: collection.schema.field_names(|_| true),
    }
}

pub(crate) fn check_limit(
    what: &'static str,
    range: std::ops::RangeInclusive<usize>,
    found: usize,
) -> Result<(), QueryError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(QueryError::Limit { what, min: *range.start(), max: *range.end(), found })
}

/// Which fields of a document a search returns.
enum ReturnedFields<'a> {
    /// Those with these names.
    Named(BTreeSet<&'a [u8]>),
    /// All but vectors.
    NoVectors(&'a Collection),
}

impl<'a> ReturnedFields<'a> {
    fn new(collection: &'a Collection, requested: Option<&'a [String]>) -> ReturnedFields<'a> {
        match requested {
            Some(names) => ReturnedFields::Named(names.iter().map(String::as_bytes).collect()),
            None => ReturnedFields::NoVectors(collection),
        }
    }

    /// Removes the other fields.
    fn retain(&self, fields: &mut Vec<Field>) {
        match self {
            ReturnedFields::Named(names) => fields.retain(|field| names.contains(&*field.name)),
            ReturnedFields::NoVectors(collection) => {
                let vectors = &collection.projector.vectors;
                fields.retain(|field| !vectors.iter().any(|vector| *vector.name.as_bytes() == *field.name));
            }
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
