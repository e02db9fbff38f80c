//! What both backends take and return for a search.

use std::time::Instant;

use engine::{ByteBudget, Leg, Order, Page, QueryError, RESPONSE_BYTES_MAX, VectorLeg};
use tokio::sync::oneshot;

use super::{Embedded, Filter, MergedHits, Query, Redis, ShardQuery};
use crate::{
    Error, SearchRequest,
    call::Call,
    catalog::CollectionHandle,
    error_mapping,
    models::{Models, QueryJob, TextVector},
    pool::Pool,
    sync::Arc,
    timing::{Timing, us},
    workers::Step,
};

/// What a search looks for.
#[derive(Debug)]
pub(crate) enum SearchTarget {
    /// A text, to be embedded by the model of this name.
    Text { text: String, model: String },
    /// A vector that fits the field.
    Vector(Vec<f32>),
}

/// A search that was checked against the schema of its collection: nothing about it can be wrong any more, unless the
/// collection is switched to another version.
#[derive(Debug)]
pub(crate) struct SearchPlan {
    pub(crate) request: Arc<SearchRequest>,
    pub(crate) collection: Arc<CollectionHandle>,
    /// The vector field.
    pub(crate) field: String,
    pub(crate) target: SearchTarget,
    pub(crate) filter: Option<Filter>,
    /// Microseconds it took to parse the filter.
    pub(crate) parse_us: u64,
}

/// What a search came to.
#[derive(Debug)]
pub(crate) struct SearchOutcome {
    /// Best first.
    pub(crate) hits: Vec<engine::Hit>,
    /// Whether the query text was longer than the model reads.
    pub(crate) truncated: bool,
    /// Why shards of a cluster did not answer.
    pub(crate) unanswered: Vec<String>,
    pub(crate) timing: Timing,
    /// When the hits were complete.
    pub(crate) finished: Instant,
}

/// One outcome per plan; `None` where the collection was switched to another version, so that the plan is void.
pub(crate) type SearchOutcomes = Vec<Result<Option<SearchOutcome>, Error>>;

impl SearchPlan {
    fn query<'p>(&'p self, vector: &'p [f32]) -> Query<'p> {
        let SearchRequest { paging, min_score, ef_search, exact, fields, .. } = &*self.request;
        Query {
            collection: &self.collection.name,
            legs: vec![Leg::Vector(VectorLeg {
                field: Some(&self.field),
                vector,
                ef_search: *ef_search,
                exact: *exact,
            })],
            order: Order::Score,
            page: Page { offset: paging.offset, k: paging.k },
            filter: self.filter.as_ref(),
            min_score: *min_score,
            fields: fields.as_deref(),
        }
    }
}

/// The vector to search for, with what it took to get it.
type QueryVector<'p> = (&'p [f32], bool, Timing);

/// Executes searches in the engine: one worker goes all the way from text to documents.
pub(super) async fn in_engine(
    embedded: &Arc<Embedded>,
    call: &Call,
    models: &Arc<Models>,
    plans: &[Arc<SearchPlan>],
) -> Result<SearchOutcomes, Error> {
    let budget = Arc::new(ByteBudget::new(RESPONSE_BYTES_MAX));
    let (mut steps, mut pending) = (Vec::with_capacity(plans.len()), Vec::with_capacity(plans.len()));
    for plan in plans {
        let (reply, outcome) = oneshot::channel();
        let (embedded, plan, budget) = (embedded.clone(), plan.clone(), budget.clone());
        pending.push(outcome);
        // Sending fails only if the caller has gone.
        steps.push(match &plan.target {
            SearchTarget::Text { text, model } => {
                let (text, model) = (text.clone(), model.clone());
                let then = move |vector: Result<Arc<TextVector>, Error>, timing| {
                    let found = match &vector {
                        Ok(vector) => {
                            embedded.execute(&plan, (&vector.values, vector.truncated, timing), &budget)
                        }
                        // The model of a version that answers no more may be gone.
                        Err(_) if embedded.is_switched(&plan) => Ok(None),
                        Err(error) => Err(error.clone()),
                    };
                    let _ = reply.send(found);
                };
                Step::Batchable(QueryJob::new(models, text, model, then))
            }
            SearchTarget::Vector(_) => Step::Single(Box::new(move |waited| {
                let SearchTarget::Vector(vector) = &plan.target else { unreachable!("looked at above") };
                let timing = Timing { queue_us: us(waited), ..Timing::default() };
                let _ = reply.send(embedded.execute(&plan, (vector, false, timing), &budget));
            })),
        });
    }
    call.push_steps(Pool::Search, steps)?;
    let mut outcomes = Vec::with_capacity(pending.len());
    for outcome in pending {
        outcomes.push(call.wait(outcome).await);
    }
    Ok(outcomes)
}

impl Embedded {
    /// Whether another version of the collection answers than the one that was planned for.
    fn is_switched(&self, plan: &SearchPlan) -> bool {
        self.engine.version(&plan.collection.name).is_some_and(|version| version != plan.collection.version)
    }

    /// Searches the version of the collection that was planned for; `None` if another answers by now.
    fn execute(
        &self,
        plan: &SearchPlan,
        (vector, truncated, mut timing): QueryVector<'_>,
        budget: &ByteBudget,
    ) -> Result<Option<SearchOutcome>, Error> {
        let found = match self.engine.search_version(&plan.query(vector), plan.collection.version, budget) {
            Err(QueryError::VersionMismatch { .. }) => return Ok(None),
            found => found.map_err(error_mapping::query)?,
        };
        timing.filter_us = found.filter_us;
        timing.search_us = found.search_us;
        timing.fetch_us = found.fetch_us;
        let (unanswered, finished) = (Vec::new(), Instant::now());
        Ok(Some(SearchOutcome { hits: found.hits, truncated, unanswered, timing, finished }))
    }
}

/// Executes searches in Redis: workers embed the texts, then all shards get all queries at once. No worker waits for
/// the network.
pub(super) async fn in_redis(
    redis: &Redis,
    call: &Call,
    models: &Arc<Models>,
    plans: &[Arc<SearchPlan>],
) -> Result<SearchOutcomes, Error> {
    let vectors = embed_texts(call, models, plans).await?;
    let mut queries = Vec::with_capacity(plans.len());
    for (plan, vector) in plans.iter().zip(&vectors) {
        let vector = match (&plan.target, vector) {
            (SearchTarget::Vector(values), _) => values,
            (SearchTarget::Text { .. }, Some(Ok((vector, _)))) => &vector.values,
            (SearchTarget::Text { .. }, _) => continue,
        };
        queries.push(ShardQuery { query: plan.query(vector), allow_partial: plan.request.allow_partial });
    }
    let mut found = call.within(redis.search(&queries, call.deadline())).await??.into_iter();
    let finished = Instant::now();
    let budget = ByteBudget::new(RESPONSE_BYTES_MAX);
    let outcome = |vector: Option<Result<(Arc<TextVector>, Timing), Error>>| {
        let (truncated, mut timing) = match vector.transpose()? {
            Some((vector, timing)) => (vector.truncated, timing),
            None => (false, Timing::default()),
        };
        let MergedHits { found, unanswered } = found.next().expect("one result per query")?;
        let mut reservation = budget.reserve();
        found.hits.iter().try_for_each(|hit| reservation.add(&hit.document)).map_err(error_mapping::query)?;
        reservation.commit();
        timing.filter_us = found.filter_us;
        timing.search_us = found.search_us;
        timing.fetch_us = found.fetch_us;
        Ok(Some(SearchOutcome { hits: found.hits, truncated, unanswered, timing, finished }))
    };
    Ok(vectors.into_iter().map(outcome).collect())
}

/// Embeds the texts of these plans on workers; `None` where a plan has a vector.
async fn embed_texts(
    call: &Call,
    models: &Arc<Models>,
    plans: &[Arc<SearchPlan>],
) -> Result<Vec<Option<Result<(Arc<TextVector>, Timing), Error>>>, Error> {
    let (mut steps, mut pending) = (Vec::new(), Vec::with_capacity(plans.len()));
    for plan in plans {
        let SearchTarget::Text { text, model } = &plan.target else {
            pending.push(None);
            continue;
        };
        let (reply, vector) = oneshot::channel();
        let then = move |vector: Result<Arc<TextVector>, Error>, timing| {
            // Sending fails only if the caller has gone.
            let _ = reply.send(vector.map(|vector| (vector, timing)));
        };
        steps.push(Step::Batchable(QueryJob::new(models, text.clone(), model.clone(), then)));
        pending.push(Some(vector));
    }
    call.push_steps(Pool::Search, steps)?;
    let mut vectors = Vec::with_capacity(pending.len());
    for vector in pending {
        vectors.push(match vector {
            Some(vector) => Some(call.wait(vector).await),
            None => None,
        });
    }
    Ok(vectors)
}
