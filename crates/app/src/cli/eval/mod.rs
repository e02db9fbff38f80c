//! `nearfield eval`: how well a test collection's questions are answered.

mod dataset;
mod metrics;
mod test_bed;

use std::{
    path::{Path as FilePath, PathBuf},
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
    dataset::{CorpusDocument, Dataset, Question},
    test_bed::TestBed,
};
use super::{
    Session,
    client::Path,
    collection::Info,
    exit::{Exit, Usage},
    index::{self, Cut, Item, Ledger, Place, Row, Rows, Run},
    terminal::thousands,
};
use crate::models;

/// Documents asked for: as deep as the deepest measure looks.
const DEPTH: usize = 100;
/// Questions in one request.
const QUESTIONS_PER_REQUEST: usize = 50;

/// Measure how well the questions of a test collection are answered
#[derive(Debug, clap::Args)]
#[command(after_help = "\
DIR holds corpus.jsonl (id, title, text), queries.jsonl (id, text) and qrels.tsv (query, document, relevance).
What is embedded is the title, a space, and the text. The data directory is not touched. With --store, a Redis
holds the documents as long as this runs, in a collection that is made for it and dropped again.

With --json: {dataset, split, model, exact, documents, queries, ndcg_at_10, recall_at_100, mrr_at_10, seconds}.

Examples:
  nearfield eval demo/eval
  nearfield eval scifact --exact --json")]
pub(crate) struct EvalArgs {
    /// Directory of the test collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Compare every question with every document, in place of the graph search
    #[arg(long)]
    exact: bool,
    /// Breadth of the graph search
    #[arg(long, value_name = "N", conflicts_with = "exact")]
    ef_search: Option<usize>,
    /// Which questions: test is queries.jsonl and qrels.tsv, another SPLIT queries.SPLIT.jsonl and qrels.SPLIT.tsv
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: String,
    /// Model to embed with
    #[arg(long, value_name = "NAME", default_value = models::DEFAULT_NAME)]
    model: String,
    /// Directory to keep the indexed documents in, for another run [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// The result. Its JSON is what `eval --json` prints.
#[derive(Debug, Serialize)]
struct Evaluated<'a> {
    dataset: &'a FilePath,
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
    /// Indexing and searching.
    seconds: f64,
}

impl EvalArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let terminal = session.terminal;
        if self.split.contains(['/', '\\']) {
            return Err(Usage(format!("--split {:?}: a word is needed, not a path", self.split)).into());
        }
        let dataset = Dataset::read(&self.directory, &self.split)?;
        if dataset.questions_missing > 0 {
            let missing = dataset.questions_missing;
            terminal.warn(format_args!("{missing} judged queries have no text and are left out"));
        }
        let (documents, queries) = (dataset.corpus.len(), dataset.questions.len());
        let started = Instant::now();
        let bed = TestBed::set_up(session, self.keep.as_deref())?;
        if let Some(exit) = self.fill(session, &bed, dataset.corpus)? {
            return Ok(exit);
        }
        terminal.note(format_args!("asking {} questions", thousands(queries as u64)));
        let rankings = self.ask(&bed, &dataset.questions)?;
        let mean = |measure: fn(usize, &[String], &metrics::Judgements) -> f64, depth| {
            let pairs = dataset.questions.iter().zip(&rankings);
            pairs.map(|(question, ranking)| measure(depth, ranking, &question.judgements)).sum::<f64>()
                / queries as f64
        };
        let evaluated = Evaluated {
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
            terminal.json(&evaluated)?;
        } else {
            let Evaluated { ndcg_at_10, recall_at_100, mrr_at_10, seconds, .. } = evaluated;
            terminal.line(format_args!("documents      {documents}\nqueries        {queries}"))?;
            terminal
                .line(format_args!("nDCG@10        {ndcg_at_10:.4}\nrecall@100     {recall_at_100:.4}"))?;
            terminal.line(format_args!("MRR@10         {mrr_at_10:.4}\nseconds        {seconds:.1}"))?;
        }
        Ok(Exit::Done)
    }

    /// Indexes the corpus and waits until the graph holds it; an exit code, if that was interrupted.
    fn fill(
        &self,
        session: &Session,
        bed: &TestBed,
        corpus: Vec<CorpusDocument>,
    ) -> anyhow::Result<Option<Exit>> {
        let embed = json!({"fields": ["text"], "model": self.model});
        let fields = json!([
            {"name": "text", "kind": "text"},
            {"name": "embedding", "kind": "vector", "embed": embed},
        ]);
        let TestBed { client, collection, .. } = bed;
        client.send(Method::PUT, Path::collection(collection), Some(&json!({"fields": fields})))?;
        let documents = corpus.len();
        session.terminal.note(format_args!("indexing {} documents", thousands(documents as u64)));
        let run = Run {
            client: client.clone(),
            collection,
            cut: Cut { rows_max: 200, stop_at_rejected: true },
            bytes: Some(documents as u64),
            ledger: Ledger::open(None, None, session.terminal)?,
            terminal: session.terminal,
        };
        let rows = CorpusRows { file: "corpus.jsonl".into(), line: 0, corpus: corpus.into_iter() };
        let ran = index::run(run, rows)?;
        if let Some(failure) = ran.failure {
            return Err(failure);
        }
        if ran.interrupted {
            session.terminal.warn("interrupted: nothing was measured");
            return Ok(Some(Exit::Interrupted));
        }
        if ran.tally.rejected > 0 {
            bail!("a document of the corpus was rejected");
        }
        // Documents the graph does not hold yet are compared exactly, which would flatter it.
        while !self.exact && client.get::<Info>(Path::collection(collection))?.tail > 0 {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    /// The ranking of each question.
    fn ask(&self, bed: &TestBed, questions: &[Question]) -> anyhow::Result<Vec<Vec<String>>> {
        let path = Path::collection(&bed.collection).segment("search");
        let mut rankings = Vec::with_capacity(questions.len());
        for questions in questions.chunks(QUESTIONS_PER_REQUEST) {
            let searches: Vec<Value> = questions.iter().map(|question| self.search(question)).collect();
            let reply = bed.client.send(Method::POST, &path, Some(&json!({"searches": searches})))?;
            let answers = reply.json::<Answers>()?.answers;
            if answers.len() != questions.len() {
                bail!("{} answers came for {} questions", answers.len(), questions.len());
            }
            for (answer, question) in answers.into_iter().zip(questions) {
                match answer {
                    Answer::Found { results } => {
                        rankings.push(results.into_iter().map(|hit| hit.id).collect())
                    }
                    Answer::Failed { error } => bail!("asking {:?}: {error}", question.text),
                }
            }
        }
        Ok(rankings)
    }

    fn search(&self, question: &Question) -> Value {
        let mut search = json!({"text": question.text, "k": DEPTH, "exact": self.exact, "fields": []});
        if let Some(ef_search) = self.ef_search {
            search["ef_search"] = json!(ef_search);
        }
        search
    }
}

#[derive(Deserialize)]
struct Answers {
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Found { results: Vec<Hit> },
    Failed { error: Value },
}

#[derive(Deserialize)]
struct Hit {
    id: String,
}

/// The corpus as rows.
struct CorpusRows {
    file: Arc<str>,
    line: u64,
    corpus: vec::IntoIter<CorpusDocument>,
}

impl Rows for CorpusRows {
    fn next(&mut self) -> anyhow::Result<Option<Item>> {
        self.line += 1;
        Ok(self.corpus.next().map(|document| {
            let json = json!({"id": document.id, "text": document.whole_text()}).to_string();
            Ok(Row {
                place: Place { file: self.file.clone(), line: self.line },
                id: document.id,
                json,
                raw: None,
            })
        }))
    }

    /// Of documents in place of bytes.
    fn bytes_read(&self) -> u64 {
        self.line
    }
}
