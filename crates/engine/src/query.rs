//! Searching, scrolling and counting.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use index::{SearchParams, VectorError};
use store::{CollectionVersion, DocId, Document, FIELDS_MAX, Field, Reader, StoreError};

use crate::{
    byte_budget::{ByteBudget, Reservation, document_bytes},
    collection::{Collection, Selection},
    core::Core,
    filter::{Filter, FilterError},
    schema::{Algorithm, FieldKind},
    transaction::is_expired,
};

/// Most hits of one search.
pub const K_MAX: usize = 1000;
/// Largest breadth of a graph search.
pub const EF_MAX: usize = 4096;
/// How deep one can page into the hits of a search, and how many documents a page of a scroll has.
pub const WINDOW_MAX: usize = 10_000;
/// Bytes that the documents of an answer may have, of the fields asked for. No document has more.
pub const RESPONSE_BYTES_MAX: usize = 32 << 20;
/// Bytes of documents with which a page of a scroll ends, whatever its limit.
pub const PAGE_BYTES: usize = 16 << 20;
/// Times a search is made again when hits went away under it.
const ATTEMPTS: usize = 4;

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum QueryError {
    /// No collection of this name.
    #[error("no collection or alias \"{name}\"; there are: {known}")]
    CollectionNotFound { name: String, known: String },
    /// The collection answers by another version than the query was made for.
    #[error("collection \"{name}\" answers by another version than the query was made for: ask again")]
    VersionMismatch { name: String },
    /// A field the schema lacks.
    #[error("no field \"{field}\" in the schema of collection \"{collection}\"; its fields: {known}")]
    FieldNotFound { collection: String, field: String, known: String },
    /// A search in a field that holds no vectors.
    #[error(
        "field \"{field}\" of collection \"{collection}\" is {found}, a search needs a VECTOR field: {known}"
    )]
    NotAVectorField { collection: String, field: String, found: &'static str, known: String },
    /// A search that does not say where, with nothing or too much to choose from.
    #[error("name the VECTOR field to search in collection \"{collection}\"; there are: {known}")]
    FieldMissing { collection: String, known: String },
    /// The query vector cannot be searched for.
    #[error("query vector: {source}")]
    Vector {
        #[from]
        source: VectorError,
    },
    /// The filter does not fit the schema.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A number out of its range.
    #[error("{what} must be {min} to {max}, found {found}")]
    Limit { what: &'static str, min: usize, max: usize, found: usize },
    /// The documents found are too much for one answer.
    #[error(
        "the documents found have more than {max} bytes together, which is what an answer may have: ask for fewer \
         hits (k), for some of their fields only (fields), or for less at once (searches)"
    )]
    ResponseSize { max: usize },
    /// A lowest score that is no number.
    #[error("min_score must be a finite number, found {found}")]
    MinScore { found: f32 },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A search by vector.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Collection or alias.
    pub collection: &'a str,
    /// Vector field; may be left out where the schema has one.
    pub field: Option<&'a str>,
    /// The query.
    pub vector: &'a [f32],
    /// Hits to skip; with `k` at most [`WINDOW_MAX`].
    pub offset: usize,
    /// Hits wanted after these, 1 to [`K_MAX`].
    pub k: usize,
    /// Which documents.
    pub filter: Option<&'a Filter>,
    /// Breadth of the graph search, 1 to [`EF_MAX`]; the schema's, if left out.
    pub ef_search: Option<usize>,
    /// Compare with every vector.
    pub exact: bool,
    /// Drop hits that score less.
    pub min_score: Option<f32>,
    /// Fields to return, all of them in the schema; every field but vectors, if `None`.
    pub fields: Option<&'a [String]>,
}

/// A found document.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document, with the fields asked for.
    pub document: Document,
    /// Redis's distance.
    pub distance: f32,
    /// The distance as a [`score`].
    pub score: f32,
}

/// What a search found, and where its time went.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult {
    /// Nearest first.
    pub hits: Vec<Hit>,
    /// Microseconds to evaluate the filter.
    pub filter_us: u64,
    /// Microseconds in the index.
    pub search_us: u64,
    /// Microseconds to read the documents.
    pub fetch_us: u64,
}

/// One page of a scroll.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrollPage {
    /// Documents in the order they were first written, whole.
    pub documents: Vec<Document>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

impl Core {
    /// The collection that answers under a name or an alias, and its own name.
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

    /// Searches the collection as it answers now, but if `version` is given by no other version than that.
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
        let slot = check_query(&name, &collection, query)?;
        let mut found = SearchResult { hits: Vec::new(), filter_us: 0, search_us: 0, fetch_us: 0 };
        for attempt in 1.. {
            let mut reservation = budget.reserve();
            let wanted = self.search_once(&collection, slot, query, &mut found, &mut reservation)?;
            // Documents that went away between the steps leave gaps: look again, but not for ever
            // after those who write faster than this reads.
            if found.hits.len() >= wanted || attempt == ATTEMPTS {
                reservation.commit();
                break;
            }
        }
        Ok(found)
    }

    /// One attempt: fills `found`, and says how many hits there should be.
    fn search_once(
        &self,
        collection: &Collection,
        slot: usize,
        query: &Query<'_>,
        found: &mut SearchResult,
        reservation: &mut Reservation<'_>,
    ) -> Result<usize, QueryError> {
        let field = &collection.projector.vectors[slot];
        let now_ms = self.time.now_ms();
        let began = Instant::now();
        collection.hide_expired(now_ms);
        let selection = collection.select(query.filter);
        found.filter_us += micros(began);

        let began = Instant::now();
        let window = query.offset + query.k;
        let ef_search = query.ef_search.unwrap_or(match field.schema.algorithm {
            Algorithm::Flat => window,
            Algorithm::Hnsw { ef_search, .. } => ef_search,
        });
        let neighbors = collection.indexes[slot].search(
            query.vector,
            &SearchParams {
                k: window,
                ef: ef_search.max(window),
                allowed: selection.allowed.as_ref(),
                exact: query.exact,
            },
        );
        found.search_us += micros(began);

        let began = Instant::now();
        let near = |distance| {
            let score = score(field.schema.metric, distance);
            query.min_score.is_none_or(|min| score >= min).then_some((distance, score))
        };
        let near: Vec<(u32, f32, f32)> = neighbors
            .iter()
            .skip(query.offset)
            .map_while(|neighbor| near(neighbor.distance).map(|(d, s)| (neighbor.label, d, s)))
            .collect();
        let docs: Vec<Option<DocId>> = {
            let state = collection.state();
            near.iter().map(|(label, ..)| state.ordinals.doc(*label, selection.seen)).collect()
        };
        let fetch =
            DocumentFetcher { core: self, collection, selection: &selection, filter: query.filter, now_ms };
        let returned = ReturnedFields::new(collection, query.fields);
        let reader = self.store.read()?;
        found.hits.clear();
        for ((_, distance, score), doc) in near.iter().zip(docs) {
            let Some(mut document) = fetch.document(&reader, doc)? else { continue };
            returned.keep(&mut document.fields);
            reservation.add(&document)?;
            found.hits.push(Hit { document, distance: *distance, score: *score });
        }
        found.fetch_us += micros(began);
        Ok(near.len())
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
        let selection = check_and_select(&collection, filter, now_ms)?;
        let fetch =
            DocumentFetcher { core: self, collection: &collection, selection: &selection, filter, now_ms };
        // Documents that go away between the steps only make a page shorter.
        let (docs, more) = {
            let state = collection.state();
            let mut docs = state
                .ordinals
                .docs_after(after.map(DocId))
                .filter(|(_, ordinal)| {
                    selection.allowed.as_ref().is_none_or(|allowed| allowed.contains(*ordinal))
                })
                .map(|(doc, _)| doc);
            let page: Vec<DocId> = docs.by_ref().take(limit).collect();
            let more = docs.next().is_some();
            (page, more)
        };
        let reader = self.store.read()?;
        let mut next = if more { docs.last().map(|doc| doc.0) } else { None };
        let (mut documents, mut bytes) = (Vec::with_capacity(docs.len()), 0);
        for (place, doc) in docs.iter().enumerate() {
            let Some(document) = fetch.document(&reader, Some(*doc))? else { continue };
            bytes += document_bytes(&document);
            documents.push(document);
            if bytes >= PAGE_BYTES && place + 1 < docs.len() {
                next = Some(doc.0);
                break;
            }
        }
        Ok(ScrollPage { documents, next })
    }

    pub(crate) fn count(&self, collection: &str, filter: Option<&Filter>) -> Result<u64, QueryError> {
        let (_, collection) = self.active(collection)?;
        let selection = check_and_select(&collection, filter, self.time.now_ms())?;
        Ok(match selection.allowed {
            Some(allowed) => allowed.len(),
            None => collection.state().ordinals.live().len(),
        })
    }
}

impl Core {
    /// Whether a document the collection had a moment ago was deleted since, as far as can be told without waiting:
    /// one that is missing from the store all the same was lost by it.
    fn check_deleted(&self, collection: &Collection, doc: DocId) -> Result<(), StoreError> {
        // With the turn in hand, nothing is committed that is not published.
        let Some(_commit_lock) = self.commit_lock.try_lock() else { return Ok(()) };
        let stands = collection.state().ordinals.ordinal(doc).is_some();
        // A version that was dropped or switched away from hears of no delete any more.
        let is_told = self.registry().all().any(|known| std::ptr::eq(&**known, collection));
        if stands && is_told && self.store.read()?.document(doc)?.is_none() {
            let (table, reason) = ("documents", "it is missing, and was not deleted");
            return Err(StoreError::Corrupt { table, key: doc.0.to_string(), reason });
        }
        Ok(())
    }
}

fn check_and_select(
    collection: &Collection,
    filter: Option<&Filter>,
    now_ms: u64,
) -> Result<Selection, QueryError> {
    filter.map_or(Ok(()), |filter| filter.check(&collection.schema))?;
    collection.hide_expired(now_ms);
    Ok(collection.select(filter))
}

/// Reads documents that were selected a moment ago.
pub(crate) struct DocumentFetcher<'a> {
    pub(crate) core: &'a Core,
    pub(crate) collection: &'a Collection,
    pub(crate) selection: &'a Selection,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) now_ms: u64,
}

impl DocumentFetcher<'_> {
    /// The document, if it still stands, has not ended, and, where it was written since the
    /// filter was asked, still passes it: nobody is shown what the filter keeps from them.
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
            && document.seq > self.selection.seen
        {
            let passes = self
                .collection
                .projector
                .attributes(&document.fields)
                .is_ok_and(|attributes| filter.matches(&attributes, &self.collection.schema));
            return Ok(passes.then_some(document));
        }
        Ok(Some(document))
    }
}

/// Checks all of a query, and finds the slot it searches.
fn check_query(name: &str, collection: &Collection, query: &Query<'_>) -> Result<usize, QueryError> {
    check_limit("k", 1..=K_MAX, query.k)?;
    check_limit("offset + k", 1..=WINDOW_MAX, query.offset.saturating_add(query.k))?;
    if let Some(ef_search) = query.ef_search {
        check_limit("ef_search", 1..=EF_MAX, ef_search)?;
    }
    if let Some(found) = query.min_score.filter(|score| !score.is_finite()) {
        return Err(QueryError::MinScore { found });
    }
    check_limit("fields", 0..=FIELDS_MAX, query.fields.unwrap_or_default().len())?;
    let slot = slot_to_search(name, collection, query.field)?;
    let schema = &collection.projector.vectors[slot].schema;
    index::check(query.vector, schema.dim, schema.metric)?;
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
    let known = || collection.schema.field_names(|kind| matches!(kind, FieldKind::Vector(_)));
    let Some(field) = field else {
        return match vectors.len() {
            1 => Ok(0),
            _ => Err(QueryError::FieldMissing { collection: name.to_owned(), known: known() }),
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
            known: known(),
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

fn check_limit(
    what: &'static str,
    range: std::ops::RangeInclusive<usize>,
    found: usize,
) -> Result<(), QueryError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(QueryError::Limit { what, min: *range.start(), max: *range.end(), found })
}

/// Which fields of documents are returned.
enum ReturnedFields<'a> {
    /// Those of these names.
    Named(BTreeSet<&'a [u8]>),
    /// All but vectors.
    NoVectors(&'a Collection),
}

impl<'a> ReturnedFields<'a> {
    fn new(collection: &'a Collection, wanted: Option<&'a [String]>) -> ReturnedFields<'a> {
        match wanted {
            Some(wanted) => ReturnedFields::Named(wanted.iter().map(String::as_bytes).collect()),
            None => ReturnedFields::NoVectors(collection),
        }
    }

    /// Takes away the others.
    fn keep(&self, fields: &mut Vec<Field>) {
        match self {
            ReturnedFields::Named(names) => fields.retain(|field| names.contains(&*field.name)),
            ReturnedFields::NoVectors(collection) => {
                let vectors = &collection.projector.vectors;
                fields.retain(|field| !vectors.iter().any(|vector| *vector.name.as_bytes() == *field.name));
            }
        }
    }
}

/// A distance as a score, of which higher is nearer: `1 - distance`; for l2 `1 / (1 + distance)`.
pub fn score(metric: index::Metric, distance: f32) -> f32 {
    match metric {
        index::Metric::Cosine | index::Metric::Ip => 1.0 - distance,
        index::Metric::L2 => 1.0 / (1.0 + distance),
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
