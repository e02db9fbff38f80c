//! Searching: plan, execution by the backend, response.

mod plan;
mod response;

use crate::{
    Context, Error, SearchRequest, Service, call::Call, limits::SEARCHES_MAX, pool::Pool, shared::Shared,
    sync::Arc, workers,
};

pub(crate) use plan::plan;
pub use response::{Hit, SearchResponse};

/// How often a search is planned again because its collection was switched to another version meanwhile.
const PLANS_MAX: usize = 8;

impl Service {
    /// Executes one search.
    pub async fn search(&self, cx: &Context, request: SearchRequest) -> Result<SearchResponse, Error> {
        let mut responses = self.search_many(cx, vec![request]).await?;
        responses.pop().expect("one request, one response")
    }

    /// Executes several searches, at most [`SEARCHES_MAX`]; one result per request, in order. They run at once on as
    /// many workers as are free.
    pub async fn search_many(
        &self,
        cx: &Context,
        requests: Vec<SearchRequest>,
    ) -> Result<Vec<Result<SearchResponse, Error>>, Error> {
        let shared = self.shared();
        let call = shared.begin(cx)?;
        if requests.len() > SEARCHES_MAX {
            let message =
                format!("{} searches in one call; at most {SEARCHES_MAX} are allowed", requests.len());
            return Err(Error::invalid("too-many-searches", message));
        }
        let requests: Vec<Arc<SearchRequest>> = requests.into_iter().map(Arc::new).collect();
        let mut responses: Vec<Option<Result<SearchResponse, Error>>> = Vec::new();
        responses.resize_with(requests.len(), || None);
        let mut open: Vec<usize> = (0..requests.len()).collect();
        for attempt in 0..PLANS_MAX {
            if attempt > 0 {
                // Whoever switched the collection refreshes the catalog too, but a search does not wait for that.
                shared.refresh_catalog();
            }
            open = execute(shared, &call, &requests, open, &mut responses).await?;
            if open.is_empty() {
                break;
            }
        }
        let response = |response: Option<Result<SearchResponse, Error>>| {
            let response = response.unwrap_or_else(|| Err(switching()))?;
            shared.meter.searched(&response.timing);
            Ok(response)
        };
        Ok(responses.into_iter().map(response).collect())
    }

    /// Whether a search would be rejected with [`Service::overloaded`] now. If so it is counted as rejected, and the
    /// caller need not make the call.
    pub fn rejects_searches(&self) -> bool {
        self.shared().workers.rejects(Pool::Search)
    }

    /// The error for a call that would wait too long.
    pub fn overloaded() -> Error {
        workers::overloaded()
    }
}

/// Plans and executes the requests at these positions; returns the positions whose collection was switched to another
/// version in between, so that the plan is void.
async fn execute(
    shared: &Shared,
    call: &Call,
    requests: &[Arc<SearchRequest>],
    positions: Vec<usize>,
    responses: &mut [Option<Result<SearchResponse, Error>>],
) -> Result<Vec<usize>, Error> {
    let (mut planned, mut plans) = (Vec::new(), Vec::new());
    for position in positions {
        let request = &requests[position];
        let collection = shared.resolve(request.collection.as_deref());
        match collection.and_then(|collection| plan(request, collection)) {
            Ok(plan) => {
                planned.push(position);
                plans.push(Arc::new(plan));
            }
            Err(error) => responses[position] = Some(Err(error)),
        }
    }
    let outcomes = shared.backend.search(call, &shared.models, &plans).await?;
    let mut switched = Vec::new();
    for ((position, plan), outcome) in planned.into_iter().zip(&plans).zip(outcomes) {
        match outcome {
            Ok(Some(outcome)) => responses[position] = Some(Ok(SearchResponse::new(plan, outcome, call))),
            Ok(None) => switched.push(position),
            Err(error) => responses[position] = Some(Err(error)),
        }
    }
    Ok(switched)
}

fn switching() -> Error {
    Error::unavailable(
        "collection-switching",
        format!(
            "the collection was switched to another version {PLANS_MAX} times during the search; try again"
        ),
    )
}
