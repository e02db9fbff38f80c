//! The verb of searching: checked at the door; answered by one worker from text to documents where
//! the engine is, embedded by a worker and asked over the network where a Redis is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use engine::{ANSWER_BYTES_MAX, FIELDS_MAX, Room, check_vector, decode_vector};
use tokio::sync::oneshot;

use super::{
    Answer, Context, Error, Hit, Leg, Search, Service, Timing,
    backend::{Embedded, Filter, Found, Gathered, Kind, Query, Redis, Sought},
    call::Call,
    catalog::Known,
    refusal,
    search::us,
    shared::Shared,
    sync::Arc,
    workers::{self, InCompany, Lane, Pending, survive},
};

/// Hits of one answer.
const K_MAX: usize = 1000;

/// How deep paging goes.
const DEPTH_MAX: usize = 10_000;

/// Breadth of a graph search.
const EF_MAX: usize = 4096;

/// Bytes of a text that is asked for. Models read far less.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Searches of one call.
pub const SEARCHES_MAX: usize = 100;

impl Service {
    /// Answers one search.
    pub async fn search(&self, cx: &Context, search: Search) -> Result<Answer, Error> {
        let call = self.shared().begin(cx)?;
        let question = Question::new(self.shared(), search)?;
        let mut answer = match self.shared().backend.kind() {
            Kind::Embedded(embedded) => {
                let (asking, pending) = self.asking(&call, embedded, &room(), question);
                self.shared().workers.push_in_company(Lane::Direct, call.ticket(), vec![asking])?;
                call.wait(pending).await?
            }
            Kind::Redis(redis) => {
                let mut answers = self.ask(&call, redis, vec![question]).await?;
                answers.pop().expect("one question, one answer")?
            }
        };
        answer.timing.total_us = us(call.elapsed());
        Ok(answer)
    }

    /// Answers several searches of one request, at most 100, one result each, in order. They
    /// run at once on as many workers as are free.
    pub async fn search_many(
        &self,
        cx: &Context,
        searches: Vec<Search>,
    ) -> Result<Vec<Result<Answer, Error>>, Error> {
        let call = self.shared().begin(cx)?;
        if searches.len() > SEARCHES_MAX {
            return Err(Error::invalid(
                "searches-many",
                format!("{} searches in one call; at most {SEARCHES_MAX} are taken", searches.len()),
            ));
        }
        let questions: Vec<Result<Question, Error>> =
            searches.into_iter().map(|search| Question::new(self.shared(), search)).collect();
        let refused: Vec<Option<Error>> =
            questions.iter().map(|question| question.as_ref().err().cloned()).collect();
        let questions = questions.into_iter().flatten();
        let mut answers = match self.shared().backend.kind() {
            Kind::Embedded(embedded) => {
                let room = room();
                let asking = |question| self.asking(&call, embedded, &room, question);
                let (asking, pending): (Vec<_>, Vec<_>) = questions.map(asking).unzip();
                self.shared().workers.push_in_company(Lane::Direct, call.ticket(), asking)?;
                let mut answers = Vec::with_capacity(pending.len());
                for pending in pending {
                    answers.push(call.wait(pending).await);
                }
                answers
            }
            Kind::Redis(redis) => self.ask(&call, redis, questions.collect()).await?,
        }
        .into_iter();
        let mut answer = |refused: Option<Error>| match refused {
            Some(error) => Err(error),
            None => answers.next().expect("one answer a question"),
        };
        Ok(refused.into_iter().map(&mut answer).collect())
    }

    /// Whether a search would be refused as [`Service::overloaded`] if it came now. If so it counts as refused: who
    /// asks need not call.
    pub fn refuses_searches(&self) -> bool {
        self.shared().workers.refuses(Lane::Direct)
    }

    /// The refusal of a call that would wait too long.
    pub fn overloaded() -> Error {
        workers::overloaded()
    }

    /// What a worker is asked, to answer from text to documents.
    fn asking(
        &self,
        call: &Call,
        embedded: &Arc<Embedded>,
        room: &Arc<Room>,
        question: Question,
    ) -> (Asking, Pending<Answer>) {
        let (shared, embedded, started) = (self.shared().clone(), embedded.clone(), call.started());
        let room = room.clone();
        let (answer, pending) = oneshot::channel();
        let search = move |posed: Result<Posed, Error>| {
            let found = posed.and_then(|posed| posed.search(&shared, &embedded, &room));
            // A caller who has gone leaves nobody to tell.
            let _ = answer.send(found.map(|(found, posed)| {
                let mut answer = posed.answer(found, Vec::new());
                answer.timing.total_us = us(started.elapsed());
                shared.meter.searched(&answer.timing);
                answer
            }));
        };
        (Asking { shared: self.shared().clone(), question, then: Box::new(search) }, pending)
    }

    /// Has workers embed the texts, then asks Redis everything at once; one answer a question.
    async fn ask(
        &self,
        call: &Call,
        redis: &Redis,
        questions: Vec<Question>,
    ) -> Result<Vec<Result<Answer, Error>>, Error> {
        let shared = self.shared();
        let mut posed: Vec<Option<Result<Posed, Error>>> = Vec::with_capacity(questions.len());
        let (mut texts, mut embedded) = (Vec::new(), Vec::new());
        for question in questions {
            // A vector needs no worker, and so no wait for one.
            if let Asked::Vector(_) = question.asked {
                let mut vector = vectors(shared, &[&question]);
                let vector = vector.pop().expect("one question, one vector");
                posed.push(Some(vector.and_then(|vector| question.pose(vector, Timing::default()))));
            } else {
                let (posing, pending) = oneshot::channel();
                let then = move |posed| {
                    // A caller who has gone leaves nobody to tell.
                    let _ = posing.send(posed);
                };
                texts.push(Asking { shared: shared.clone(), question, then: Box::new(then) });
                embedded.push(pending);
                posed.push(None);
            }
        }
        if !texts.is_empty() {
            shared.workers.push_in_company(Lane::Direct, call.ticket(), texts)?;
            for (place, pending) in posed.iter_mut().filter(|posed| posed.is_none()).zip(embedded) {
                *place = Some(call.wait(pending).await);
            }
        }
        let posed: Vec<Result<Posed, Error>> = posed.into_iter().flatten().collect();
        let queries: Vec<Sought<'_>> = posed.iter().flatten().map(Posed::sought).collect();
        let mut found = call.within(redis.search(&queries, call.deadline())).await??.into_iter();
        let room = room();
        let mut answer = |posed: Posed| {
            let Gathered { found, unanswered } = found.next().expect("one list a query")?;
            let mut taken = room.begin();
            found.hits.iter().try_for_each(|hit| taken.take(&hit.document)).map_err(refusal::query)?;
            taken.keep();
            let mut answer = posed.answer(found, unanswered);
            answer.timing.total_us = us(call.elapsed());
            shared.meter.searched(&answer.timing);
            Ok(answer)
        };
        Ok(posed.into_iter().map(|posed| posed.and_then(&mut answer)).collect())
    }
}

/// Room for the documents of a call's answers.
pub(super) fn room() -> Arc<Room> {
    Arc::new(Room::new(ANSWER_BYTES_MAX))
}

/// A question for a worker, and what is done with it once it has its vector.
pub(super) struct Asking {
    shared: Arc<Shared>,
    question: Question,
    then: Box<dyn FnOnce(Result<Posed, Error>) + Send>,
}

impl InCompany for Asking {
    fn run(company: Vec<(Asking, Duration)>) {
        let Some(shared) = company.first().map(|(asking, _)| asking.shared.clone()) else { return };
        let mut asked = Vec::with_capacity(company.len());
        for (Asking { question, then, .. }, waited) in company {
            match question.renewed(&shared) {
                Ok(question) => asked.push((question, then, waited)),
                Err(error) => then(Err(error)),
            }
        }
        let began = Instant::now();
        let questions: Vec<&Question> = asked.iter().map(|(question, ..)| question).collect();
        let vectors = vectors_or_none(&shared, &questions);
        let embed_us = us(began.elapsed());
        for ((question, then, waited), vector) in asked.into_iter().zip(vectors) {
            // Dropped, it tells its caller.
            let Some(vector) = vector else { continue };
            let timing = Timing { queue_us: us(waited), embed_us, ..Timing::default() };
            survive(&shared.meter, || then(vector.and_then(|vector| question.pose(vector, timing))));
        }
    }
}

/// The vectors of questions; none where making it panicked. Who asks for what makes it panic does not
/// take others along.
fn vectors_or_none(shared: &Shared, questions: &[&Question]) -> Vec<Option<Result<AskedVector, Error>>> {
    match survive(&shared.meter, || vectors(shared, questions)) {
        Some(vectors) => vectors.into_iter().map(Some).collect(),
        None if questions.len() > 1 => {
            questions.iter().flat_map(|question| vectors_or_none(shared, &[question])).collect()
        }
        None => vec![None],
    }
}

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

    /// The question as the collection stands now: another version has other fields, models and dimensions. A Redis
    /// answers later and for itself.
    fn renewed(self, shared: &Shared) -> Result<Question, Error> {
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
    fn query(&self) -> Query<'_> {
        Query {
            collection: &self.known.name,
            field: Some(&self.field),
            vector: &self.vector,
            offset: self.search.paging.offset,
            k: self.search.paging.k,
            filter: self.filter.as_ref(),
            ef_search: self.search.ef_search,
            exact: self.search.exact,
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
        room: &Room,
    ) -> Result<(Found, Posed), Error> {
        loop {
            if let Some(found) = embedded.search(&self.query(), self.known.version, room)? {
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

    fn sought(&self) -> Sought<'_> {
        Sought { query: self.query(), allow_partial: self.search.allow_partial }
    }

    fn answer(self, found: Found, unanswered: Vec<String>) -> Answer {
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
    check_fields(search.fields.as_deref().unwrap_or_default())
}

fn check_fields(fields: &[String]) -> Result<(), Error> {
    if fields.len() <= FIELDS_MAX {
        return Ok(());
    }
    Err(Error::invalid(
        "fields-many",
        format!(
            "{} fields to return; at most {FIELDS_MAX} are taken, which is what a document may have",
            fields.len()
        ),
    )
    .at("fields"))
}

fn check_text(text: &str) -> Result<(), Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid("text-empty", "the text to search for is empty").at("text"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::invalid(
            "text-long",
            format!("the text to search for has {} bytes; at most {TEXT_BYTES_MAX} are taken", text.len()),
        )
        .at("text"));
    }
    Ok(())
}
