//! The verb of searching: checked at the door; answered by one worker from text to documents where
//! the engine is, embedded by a worker and asked over the network where a Redis is.

use std::time::{Duration, Instant};

use engine::{ByteBudget, RESPONSE_BYTES_MAX};
use tokio::sync::oneshot;

use super::{
    Answer, Context, Error, Search, Service, Timing,
    backend::{Embedded, Kind, MergedHits, Redis, ShardQuery},
    call::Call,
    question::{AskedVector, Posed, Question, vectors},
    refusal,
    search::us,
    shared::Shared,
    sync::Arc,
    workers::{self, InCompany, Lane, Pending, survive},
};

/// Searches of one call.
pub const SEARCHES_MAX: usize = 100;

impl Service {
    /// Answers one search.
    pub async fn search(&self, cx: &Context, search: Search) -> Result<Answer, Error> {
        let call = self.shared().begin(cx)?;
        let question = Question::new(self.shared(), search)?;
        let mut answer = match self.shared().backend.kind() {
            Kind::Embedded(embedded) => {
                let (asking, pending) = self.asking(&call, embedded, &response_budget(), question);
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
                "too-many-searches",
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
                let budget = response_budget();
                let asking = |question| self.asking(&call, embedded, &budget, question);
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
        budget: &Arc<ByteBudget>,
        question: Question,
    ) -> (Asking, Pending<Answer>) {
        let (shared, embedded, started) = (self.shared().clone(), embedded.clone(), call.started());
        let budget = budget.clone();
        let (answer, pending) = oneshot::channel();
        let search = move |posed: Result<Posed, Error>| {
            let found = posed.and_then(|posed| posed.search(&shared, &embedded, &budget));
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
            if question.brings_vector() {
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
        let queries: Vec<ShardQuery<'_>> = posed.iter().flatten().map(Posed::shard_query).collect();
        let mut found = call.within(redis.search(&queries, call.deadline())).await??.into_iter();
        let budget = response_budget();
        let mut answer = |posed: Posed| {
            let MergedHits { found, unanswered } = found.next().expect("one list a query")?;
            let mut reservation = budget.reserve();
            found.hits.iter().try_for_each(|hit| reservation.add(&hit.document)).map_err(refusal::query)?;
            reservation.commit();
            let mut answer = posed.answer(found, unanswered);
            answer.timing.total_us = us(call.elapsed());
            shared.meter.searched(&answer.timing);
            Ok(answer)
        };
        Ok(posed.into_iter().map(|posed| posed.and_then(&mut answer)).collect())
    }
}

/// Byte budget for the documents of a call's answers.
pub(super) fn response_budget() -> Arc<ByteBudget> {
    Arc::new(ByteBudget::new(RESPONSE_BYTES_MAX))
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
