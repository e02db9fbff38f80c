//! Results of writes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    bounded_vec::BoundedVec,
    document::{ArrayDocument, DocumentResponse},
};
use crate::http::Problem;
use service::{Outcome, PutResult, limits::DOCUMENTS_MAX};

/// The documents of a JSON body.
pub(crate) type DocumentArray = BoundedVec<ArrayDocument, DOCUMENTS_MAX>;

/// `{"documents": [...]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentsRequest {
    pub(crate) documents: DocumentArray,
}

/// The result for one of several documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct WriteResult {
    /// Line of the document, if the request is NDJSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// `created`, `updated`, `unchanged` or `error`.
    #[schema(value_type = String)]
    status: &'static str,
    /// Sequence number of the change, which is the document's ETag.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// Whether the text was longer than the model reads.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

impl WriteResult {
    pub(crate) fn success(result: PutResult) -> WriteResult {
        WriteResult {
            line: None,
            id: Some(result.id),
            status: outcome_name(result.outcome),
            seq: Some(result.seq),
            truncated: result.truncated,
            error: None,
        }
    }

    pub(crate) fn rejected(id: Option<String>, problem: Problem) -> WriteResult {
        WriteResult { line: None, id, status: "error", seq: None, truncated: false, error: Some(problem) }
    }

    /// The same result with a line number.
    pub(crate) fn on_line(mut self, number: u64) -> WriteResult {
        self.line = Some(number);
        self
    }

    /// The result, or the problem as an error.
    pub(crate) fn into_result(self) -> Result<WriteResult, Problem> {
        match self.error {
            Some(problem) => Err(problem),
            None => Ok(self),
        }
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Updated => "updated",
        Outcome::Unchanged => "unchanged",
    }
}

/// Numbers of documents by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct WriteCounts {
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) unchanged: u64,
    pub(crate) errors: u64,
}

impl WriteCounts {
    pub(crate) fn add(&mut self, result: &WriteResult) {
        *match result.status {
            "created" => &mut self.created,
            "updated" => &mut self.updated,
            "unchanged" => &mut self.unchanged,
            _ => &mut self.errors,
        } += 1;
    }

    /// Documents that are stored as given.
    pub(crate) fn written(self) -> u64 {
        self.created + self.updated + self.unchanged
    }
}

/// The results for several documents, in the order given.
#[derive(Serialize, ToSchema)]
pub(crate) struct WriteResultsResponse {
    pub(crate) results: Vec<WriteResult>,
    #[serde(flatten)]
    pub(crate) counts: WriteCounts,
}

/// The result for the only document of a request.
#[derive(Serialize, ToSchema)]
pub(crate) struct WriteResponse {
    pub(crate) id: String,
    /// `created`, `updated` or `unchanged`.
    #[schema(value_type = String)]
    status: &'static str,
    /// Sequence number of the change, which is the document's ETag.
    pub(crate) seq: u64,
    /// Whether the text was longer than the model reads.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl From<PutResult> for WriteResponse {
    fn from(result: PutResult) -> WriteResponse {
        WriteResponse {
            id: result.id,
            status: outcome_name(result.outcome),
            seq: result.seq,
            truncated: result.truncated,
        }
    }
}

/// One page of documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocumentPageResponse<'a> {
    pub(crate) documents: Vec<DocumentResponse<'a>>,
    /// The value of `after` for the next page; null at the end.
    pub(crate) next: Option<String>,
}

/// Which documents to delete.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteRequest {
    /// A filter; `*` matches all documents.
    pub(crate) filter: String,
}

/// The number of deleted documents.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeleteResponse {
    pub(crate) deleted: u64,
}
