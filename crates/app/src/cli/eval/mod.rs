//! `nearfield eval`: measures retrieval quality on a test collection.

mod dataset;
mod metrics;
mod scratch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
    vec,
};

use anyhow::bail;
use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::{
    dataset::{CorpusDocument, Dataset, JudgedQuery},
    scratch::ScratchCollection,
};
use super::{
    client::ApiPath,
    collection::CollectionInfo,
    error::UsageError,
    exit::Exit,
    index::{self, BatchOptions, DocumentRow, IndexJob, OutcomeRecorder, RowLocation, RowReader, RowResult},
    session::Session,
    terminal::thousands,
};
use crate::models;

/// Documents per query: the largest depth of the measures.
const DEPTH: usize = 100;
/// Queries per request.
const QUERIES_PER_REQUEST: usize = 50;

/// Measure retrieval quality on a test collection
#[derive(Debug, clap::Args)]
#[command(after_help = "\
DIR contains corpus.jsonl (id, title, text), queries.jsonl (id, text) and qrels.tsv (query, document, relevance).
Title and text are joined with a space and embedded together. The data directory is not used. With --store, the
documents are kept in Redis in a temporary collection that is dropped at the end.

With --json: {dataset, split, model, exact, documents, queries, ndcg_at_10, recall_at_100, mrr_at_10, seconds}.

Examples:
  nearfield eval demo/eval
  nearfield eval $NEARFIELD_DATA/eval/scifact --exact --json")]
pub(crate) struct EvalArgs {
    /// Directory of the test collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Compare every query with every document instead of using the graph
    #[arg(long)]
    exact: bool,
    /// Candidates the graph search keeps
    #[arg(long, value_name = "N", conflicts_with = "exact")]
    ef_search: Option<usize>,
    /// Queries to use: test reads queries.jsonl and qrels.tsv, any other SPLIT reads queries.SPLIT.jsonl and
    /// qrels.SPLIT.tsv
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: String,
    /// Embedding model
    #[arg(long, value_name = "NAME", default_value = models::DEFAULT_NAME)]
    model: String,
    /// Keep the indexed documents in this directory and reuse them in another run [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// The result, as `--json` prints it.
#[derive(Debug, Serialize)]
struct EvalReport<'a> {
    dataset: &'a Path,
    split: &'a str,
    model: &'a str,
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_search: Option<usize>,
    documents: usize,
    queries: usize,
    ndcg_at_10: f64,
    recall_at_100: f64,
    mrr_at_10: f64,
    /// Time of indexing and searching.
    seconds: f64,
}

impl EvalArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let terminal = session.terminal;
        if self.split.contains(['/', '\\']) {
            return Err(UsageError(format!("--split {:?} must be a name, not a path", self.split)).into());
        }
        let dataset = Dataset::read(&self.directory, &self.split)?;
        if dataset.queries_without_text > 0 {
            let missing = dataset.queries_without_text;
            terminal.warn(format_args!("{missing} judged queries have no text and are skipped"));
        }
        let (documents, queries) = (dataset.corpus.len(), dataset.queries.len());
        let started = Instant::now();
        let scratch = ScratchCollection::create(session, self.keep.as_deref())?;
        if let Some(exit) = self.index_corpus(session, &scratch, dataset.corpus)? {
            return Ok(exit);
        }
        terminal.note(format_args!("running {} queries", thousands(queries as u64)));
        let rankings = self.search_all(&scratch, &dataset.queries)?;
        let mean = |measure: fn(usize, &[String], &metrics::Judgements) -> f64, depth| {
            let pairs = dataset.queries.iter().zip(&rankings);
            pairs.map(|(query, ranking)| measure(depth, ranking, &query.judgements)).sum::<f64>()
                / queries as f64
        };
        let report = EvalReport {
            dataset: &self.directory,
            split: &self.split,
            model: &self.model,
            exact: self.exact,
            ef_search: self.ef_search,
            documents,
            queries,
            ndcg_at_10: mean(metrics::ndcg_at, 10),
            recall_at_100: mean(metrics::recall_at, 100),
            mrr_at_10: mean(metrics::reciprocal_rank_at, 10),
            seconds: started.elapsed().as_secs_f64(),
        };
        if terminal.json {
            terminal.json(&report)?;
        } else {
            let EvalReport { ndcg_at_10, recall_at_100, mrr_at_10, seconds, .. } = report;
            terminal.line(format_args!("documents      {documents}\nqueries        {queries}"))?;
            terminal
                .line(format_args!("nDCG@10        {ndcg_at_10:.4}\nrecall@100     {recall_at_100:.4}"))?;
            terminal.line(format_args!("MRR@10         {mrr_at_10:.4}\nseconds        {seconds:.1}"))?;
        }
        Ok(Exit::Done)
    }

    /// Indexes the corpus and waits until the graph contains it. Returns an exit code if it was interrupted.
    fn index_corpus(
        &self,
        session: &Session,
        scratch: &ScratchCollection,
        corpus: Vec<CorpusDocument>,
    ) -> anyhow::Result<Option<Exit>> {
        let embed = json!({"fields": ["text"], "model": self.model});
        let fields = json!([
            {"name": "text", "kind": "text"},
            {"name": "embedding", "kind": "vector", "embed": embed},
        ]);
        let ScratchCollection { client, collection, .. } = scratch;
        client.send(Method::PUT, ApiPath::collection(collection), Some(&json!({"fields": fields})))?;
        let documents = corpus.len();
        session.terminal.note(format_args!("indexing {} documents", thousands(documents as u64)));
        let job = IndexJob {
            client: client.clone(),
            collection,
            options: BatchOptions { rows_max: 200, stop_at_rejected: true },
            bytes: Some(documents as u64),
            recorder: OutcomeRecorder::open(None, None, session.terminal)?,
            terminal: session.terminal,
        };
        let rows = CorpusRows { file: "corpus.jsonl".into(), line: 0, corpus: corpus.into_iter() };
        let outcome = index::run(job, rows)?;
        if let Some(failure) = outcome.failure {
            return Err(failure);
        }
        if outcome.interrupted {
            session.terminal.warn("interrupted: no results");
            return Ok(Some(Exit::Interrupted));
        }
        if outcome.counts.rejected > 0 {
            bail!("a document of the corpus was rejected");
        }
        // Documents that are not yet in the graph are compared exactly, which would improve the result.
        while !self.exact && client.get::<CollectionInfo>(ApiPath::collection(collection))?.tail > 0 {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    /// The ranking of each query.
    fn search_all(
        &self,
        scratch: &ScratchCollection,
        queries: &[JudgedQuery],
    ) -> anyhow::Result<Vec<Vec<String>>> {
        let path = ApiPath::collection(&scratch.collection).segment("search");
        let mut rankings = Vec::with_capacity(queries.len());
        for queries in queries.chunks(QUERIES_PER_REQUEST) {
            let searches: Vec<Value> = queries.iter().map(|query| self.search(query)).collect();
            let response = scratch.client.send(Method::POST, &path, Some(&json!({"searches": searches})))?;
            let answers = response.json::<SearchManyResponse>()?.answers;
            if answers.len() != queries.len() {
                bail!("the response has {} answers for {} queries", answers.len(), queries.len());
            }
            for (answer, query) in answers.into_iter().zip(queries) {
                match answer {
                    SearchOutcome::Found { results } => {
                        rankings.push(results.into_iter().map(|hit| hit.id).collect())
                    }
                    SearchOutcome::Failed { error } => bail!("searching for {:?}: {error}", query.text),
                }
            }
        }
        Ok(rankings)
    }

    fn search(&self, query: &JudgedQuery) -> Value {
        let mut search = json!({"text": query.text, "k": DEPTH, "exact": self.exact, "fields": []});
        if let Some(ef_search) = self.ef_search {
            search["ef_search"] = json!(ef_search);
        }
        search
    }
}

#[derive(Deserialize)]
struct SearchManyResponse {
    answers: Vec<SearchOutcome>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SearchOutcome {
    Found { results: Vec<HitId> },
    Failed { error: Value },
}

#[derive(Deserialize)]
struct HitId {
    id: String,
}

/// The corpus as rows.
struct CorpusRows {
    file: Arc<str>,
    line: u64,
    corpus: vec::IntoIter<CorpusDocument>,
}

impl RowReader for CorpusRows {
    fn next(&mut self) -> anyhow::Result<Option<RowResult>> {
        self.line += 1;
        Ok(self.corpus.next().map(|document| {
            let json = json!({"id": document.id, "text": document.whole_text()}).to_string();
            Ok(DocumentRow {
                location: RowLocation { file: self.file.clone(), line: self.line },
                id: document.id,
                json,
                raw: None,
            })
        }))
    }

    /// Counts documents instead of bytes.
    fn bytes_read(&self) -> u64 {
        self.line
    }
}
