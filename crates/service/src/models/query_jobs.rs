//! Embedding query texts on workers, together where that is cheaper.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Models, TextVector};
use crate::{
    Error,
    sync::Arc,
    timing::{Timing, us},
    workers::{Batchable, catch_panic},
};

/// What a worker does with a query's vector, on the thread that computed it.
type Continuation = Box<dyn FnOnce(Result<Arc<TextVector>, Error>, Timing) + Send>;

/// A query text to embed, and what to do next.
pub(crate) struct QueryJob {
    models: Arc<Models>,
    text: String,
    /// Name of the model.
    model: String,
    then: Continuation,
}

impl QueryJob {
    pub(crate) fn new(
        models: &Arc<Models>,
        text: String,
        model: String,
        then: impl FnOnce(Result<Arc<TextVector>, Error>, Timing) + Send + 'static,
    ) -> QueryJob {
        QueryJob { models: models.clone(), text, model, then: Box::new(then) }
    }
}

impl Batchable for QueryJob {
    fn run(batch: Vec<(QueryJob, Duration)>) {
        let Some(models) = batch.first().map(|(job, _)| job.models.clone()) else { return };
        let began = Instant::now();
        let jobs: Vec<&QueryJob> = batch.iter().map(|(job, _)| job).collect();
        let vectors = embed_isolated(&models, &jobs);
        let embed_us = us(began.elapsed());
        for ((job, waited), vector) in batch.into_iter().zip(vectors) {
            // Dropping the continuation notifies the caller.
            let Some(vector) = vector else { continue };
            let timing = Timing { queue_us: us(waited), embed_us, ..Timing::default() };
            catch_panic(&models.meter, || (job.then)(vector, timing));
        }
    }
}

/// The vectors of these texts; `None` where computing one panicked. A panicking query does not fail its batch.
fn embed_isolated(models: &Models, jobs: &[&QueryJob]) -> Vec<Option<Result<Arc<TextVector>, Error>>> {
    match catch_panic(&models.meter, || embed(models, jobs)) {
        Some(vectors) => vectors.into_iter().map(Some).collect(),
        None if jobs.len() > 1 => jobs.iter().flat_map(|job| embed_isolated(models, &[job])).collect(),
        None => vec![None],
    }
}

/// The vectors of these texts, those for one model embedded together.
fn embed(models: &Models, jobs: &[&QueryJob]) -> Vec<Result<Arc<TextVector>, Error>> {
    let mut by_model: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, job) in jobs.iter().enumerate() {
        by_model.entry(&job.model).or_default().push(position);
    }
    let mut vectors: Vec<Option<Result<Arc<TextVector>, Error>>> = vec![None; jobs.len()];
    for (model, positions) in by_model {
        match models.get(model) {
            Ok(model) => {
                let texts: Vec<&str> =
                    positions.iter().map(|&position| jobs[position].text.as_str()).collect();
                for (position, vector) in positions.into_iter().zip(models.embed_queries(&model, &texts)) {
                    vectors[position] = Some(Ok(vector));
                }
            }
            Err(error) => {
                positions.into_iter().for_each(|position| vectors[position] = Some(Err(error.clone())))
            }
        }
    }
    vectors.into_iter().map(|vector| vector.expect("every job has a model")).collect()
}
