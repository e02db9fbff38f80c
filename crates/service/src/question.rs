//! A question: a search that makes sense, its vector, and what is asked of the store with it.

use std::{collections::BTreeMap, time::Instant};

use engine::{ByteBudget, FIELDS_MAX, Order, Page, VectorLeg, check_vector, decode_vector};

use super::{
    Answer, Error, Hit, Leg, Search, Timing,
    backend::{Embedded, Filter, Kind, Query, SearchResult, ShardQuery},
    catalog::Known,
    refusal,
    search::us,
    shared::Shared,
    sync::Arc,
};

/// Hits of one answer.
const K_MAX: usize = 1000;

/// How deep paging goes.
const DEPTH_MAX: usize = 10_000;

/// Breadth of a graph search.
const EF_MAX: usize = 4096;

/// Bytes of a text that is asked for. Models read far less.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The vectors of questions, all texts for one model embedded together.
pub(super) fn vectors(shared: &Shared, questions: &[&Question]) -> Vec<Result<AskedVector, Error>> {
    let mut texts: BTreeMap<&str, (Vec<usize>, Vec<&str>)> = BTreeMap::new();
    let mut vectors: Vec<Option<Result<AskedVector, Error>>> = Vec::with_capacity(questions.len());
    for (place, question) in questions.iter().enumerate() {
        vectors.push(match &question.asked {
            Asked::Vector(values) => Some(Ok(AskedVector { values: values.clone(), truncated: false })),
            Asked::Text { text, model } => {
                let (places, texts) = texts.entry(model).or_default();
                places.push(place);
                texts.push(text);
                None
            }
        });
    }
    for (model, (places, texts)) in texts {
        match shared.models.get(model) {
            Ok(model) => {
                for (place, embedded) in places.into_iter().zip(shared.models.embed_queries(&model, &texts)) {
                    let (values, truncated) = (embedded.values.clone(), embedded.truncated);
                    vectors[place] = Some(Ok(AskedVector { values, truncated }));
                }
            }
            Err(error) => places.into_iter().for_each(|place| vectors[place] = Some(Err(error.clone()))),
        }
    }
    vectors.into_iter().map(|vector| vector.expect("every question is a text or a vector")).collect()
}

/// A question's vector.
pub(super) struct AskedVector {
    values: Vec<f32>,
    /// Whether its text was longer than the model reads.
    truncated: bool,
}

/// A search that makes sense.
pub(super) struct Question {
    known: Arc<Known>,
    field: String,
    asked: Asked,
    search: Search,
}

/// What a search is for.
enum Asked {
    /// A text, by the model of this name.
    Text { text: String, model: String },
    /// A vector.
    Vector(Vec<f32>),
}

impl Question {
    pub(super) fn new(shared: &Shared, search: Search) -> Result<Question, Error> {
        let known = shared.resolve(search.collection.as_deref())?;
        check_limits(&search)?;
        let (field, vector) = known.vector_field(search.field.as_deref())?;
        let [leg] = search.legs.as_slice() else {
            return Err(Error::invalid("legs", "a search asks for exactly one thing: a text or a vector"));
        };
        let refused = |error| refusal::vector(field, &error);
        let asked = match leg {
            Leg::Text(text) => {
                check_text(text)?;
                let embed = vector.embed.as_ref().ok_or_else(|| {
                    Error::invalid(
                        "field-not-embedded",
                        format!(
                            "field {field:?} is not computed from text by a model; search it with a vector"
                        ),
                    )
                    .at("text")
                })?;
                Asked::Text { text: text.clone(), model: embed.model.clone() }
            }
            Leg::Vector(values) => {
                check_vector(values, vector.dim, vector.metric).map_err(refused)?;
                Asked::Vector(values.clone())
            }
            Leg::Blob(blob) => Asked::Vector(
                decode_vector(blob, vector.dim, vector.vector_type, vector.metric).map_err(refused)?,
            ),
        };
        Ok(Question { field: field.to_owned(), asked, search, known })
    }

    /// Whether there is nothing to embed.
    pub(super) fn brings_vector(&self) -> bool {
        matches!(self.asked, Asked::Vector(_))
    }

    /// The question as the collection stands now: another version has other fields, models and dimensions. A Redis
    /// answers later and for itself.
    pub(super) fn renewed(self, shared: &Shared) -> Result<Question, Error> {
        let Kind::Embedded(embedded) = shared.backend.kind() else { return Ok(self) };
        let stands = embedded.version(&self.known.name).is_none_or(|now| now == self.known.version);
        if stands { Ok(self) } else { Question::anew(shared, self.search) }
    }

    /// A question to a collection of which another version answers than the one in the catalogue: who switched is
    /// about to look again, but is not waited for.
    fn anew(shared: &Shared, search: Search) -> Result<Question, Error> {
        shared.refresh_catalog();
        Question::new(shared, search)
    }

    /// Reads the filter, and is ready to be asked.
    pub(super) fn pose(self, vector: AskedVector, mut timing: Timing) -> Result<Posed, Error> {
        let Question { known, field, search, .. } = self;
        let start = Instant::now();
        let filter = search.filter.as_deref().map(|text| known.parse_filter(text)).transpose()?;
        timing.filter_us += us(start.elapsed());
        let AskedVector { values: vector, truncated } = vector;
        Ok(Posed { known, field, vector, truncated, filter, search, timing })
    }
}

/// A question with its vector: ready to be asked.
pub(super) struct Posed {
    known: Arc<Known>,
    field: String,
    vector: Vec<f32>,
    truncated: bool,
    filter: Option<Filter>,
    search: Search,
    /// What it took so far.
    timing: Timing,
}

impl Posed {
    pub(super) fn query(&self) -> Query<'_> {
        Query {
            collection: &self.known.name,
            legs: vec![engine::Leg::Vector(VectorLeg {
                field: Some(&self.field),
                vector: &self.vector,
                ef_search: self.search.ef_search,
                exact: self.search.exact,
            })],
            order: Order::Score,
            page: Page { offset: self.search.paging.offset, k: self.search.paging.k },
            filter: self.filter.as_ref(),
            min_score: self.search.min_score,
            fields: self.search.fields.as_deref(),
        }
    }

    /// What the engine finds. Once another version is switched to, the vector is worth nothing: the question is posed
    /// anew then.
    pub(super) fn search(
        mut self,
        shared: &Shared,
        embedded: &Embedded,
        budget: &ByteBudget,
    ) -> Result<(SearchResult, Posed), Error> {
        loop {
            if let Some(found) = embedded.search(&self.query(), self.known.version, budget)? {
                return Ok((found, self));
            }
            let Posed { search, mut timing, .. } = self;
            let question = Question::anew(shared, search)?;
            let began = Instant::now();
            let vector = vectors(shared, &[&question]).pop().expect("one question, one vector")?;
            timing.embed_us += us(began.elapsed());
            self = question.pose(vector, timing)?;
        }
    }

    pub(super) fn shard_query(&self) -> ShardQuery<'_> {
        ShardQuery { query: self.query(), allow_partial: self.search.allow_partial }
    }

    pub(super) fn answer(self, found: SearchResult, unanswered: Vec<String>) -> Answer {
        let Posed { known, truncated, mut timing, .. } = self;
        timing.filter_us += found.filter_us;
        timing.search_us = found.search_us;
        timing.fetch_us = found.fetch_us;
        let hit = |hit: engine::Hit| Hit {
            id: known.id(&hit.document.key),
            document: hit.document,
            score: hit.score,
            distance: hit.distance,
        };
        let hits = found.hits.into_iter().map(hit).collect();
        Answer { hits, collection: known.name.clone(), truncated, unanswered, timing }
    }
}

fn check_limits(search: &Search) -> Result<(), Error> {
    let paging = search.paging;
    if !(1..=K_MAX).contains(&paging.k) {
        return Err(Error::invalid("k", format!("k is {}; it must be 1 to {K_MAX}", paging.k)).at("k"));
    }
    if paging.offset.saturating_add(paging.k) > DEPTH_MAX {
        return Err(Error::invalid(
            "offset",
            format!("offset {} and k {} reach deeper than {DEPTH_MAX} hits", paging.offset, paging.k),
        )
        .at("offset"));
    }
    if let Some(ef) = search.ef_search.filter(|ef| !(1..=EF_MAX).contains(ef)) {
        return Err(Error::invalid("ef-search", format!("ef_search is {ef}; it must be 1 to {EF_MAX}"))
            .at("ef_search"));
    }
    if let Some(score) = search.min_score.filter(|score| !score.is_finite()) {
        return Err(
            Error::invalid("min-score", format!("min_score is {score}; it must be finite")).at("min_score")
        );
    }
    match search.fields.as_ref().map_or(0, Vec::len) {
        given if given > FIELDS_MAX => Err(too_many_fields(given)),
        _ => Ok(()),
    }
}

/// The refusal of a search that names too many fields to return.
pub fn too_many_fields(given: usize) -> Error {
    let message = format!(
        "{given} fields to return; at most {FIELDS_MAX} are taken, which is what a document may have"
    );
    Error::invalid("too-many-fields", message).at("fields")
}

fn check_text(text: &str) -> Result<(), Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid("text-empty", "the text to search for is empty").at("text"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::invalid(
            "text-too-long",
            format!("the text to search for has {} bytes; at most {TEXT_BYTES_MAX} are taken", text.len()),
        )
        .at("text"));
    }
    Ok(())
}
