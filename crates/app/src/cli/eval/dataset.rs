//! A retrieval test collection: `corpus.jsonl`, `queries.jsonl`, `qrels.tsv`.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, de::DeserializeOwned};

use super::metrics::Judgements;

/// A document of the corpus.
#[derive(Debug, Deserialize)]
pub(crate) struct CorpusDocument {
    #[serde(alias = "_id")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) text: String,
}

impl CorpusDocument {
    /// The text to embed: title, space, text.
    pub(crate) fn whole_text(&self) -> String {
        if self.title.is_empty() { self.text.clone() } else { format!("{} {}", self.title, self.text) }
    }
}

/// A query and the relevance of documents to it.
#[derive(Clone, Debug)]
pub(crate) struct JudgedQuery {
    pub(crate) text: String,
    pub(crate) judgements: Judgements,
}

/// A test collection.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) corpus: Vec<CorpusDocument>,
    /// Queries with at least one relevant document, ordered by id.
    pub(crate) queries: Vec<JudgedQuery>,
    /// Number of judged queries without a text.
    pub(crate) queries_without_text: usize,
}

#[derive(Deserialize)]
struct QueryLine {
    #[serde(alias = "_id")]
    id: String,
    text: String,
}

impl Dataset {
    /// Reads the collection in `directory`. The queries and judgements of a split other than `test` are in
    /// `queries.SPLIT.jsonl` and `qrels.SPLIT.tsv`.
    pub(crate) fn read(directory: &Path, split: &str) -> anyhow::Result<Dataset> {
        let split_file = |stem: &str, extension: &str| match split {
            "test" => directory.join(format!("{stem}.{extension}")),
            _ => directory.join(format!("{stem}.{split}.{extension}")),
        };
        let corpus = lines(&directory.join("corpus.jsonl"))?;
        let queries: Vec<QueryLine> = lines(&split_file("queries", "jsonl"))?;
        let mut texts: HashMap<String, String> =
            queries.into_iter().map(|line| (line.id, line.text)).collect();
        let mut queries = Vec::new();
        let mut queries_without_text = 0;
        for (id, judgements) in read_qrels(&split_file("qrels", "tsv"))? {
            if !judgements.values().any(|relevance| *relevance > 0) {
                continue;
            }
            match texts.remove(&id) {
                Some(text) => queries.push(JudgedQuery { text, judgements }),
                None => queries_without_text += 1,
            }
        }
        if corpus.is_empty() || queries.is_empty() {
            bail!(
                "{}: nothing to evaluate: {} documents, {} judged queries",
                directory.display(),
                corpus.len(),
                queries.len()
            );
        }
        Ok(Dataset { corpus, queries, queries_without_text })
    }
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).with_context(|| path.display().to_string())?))
}

fn lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let mut values = Vec::new();
    for (number, line) in (1..).zip(open(path)?.lines()) {
        let line = line.with_context(|| line_location(path, number))?;
        if !line.trim().is_empty() {
            values.push(serde_json::from_str(&line).with_context(|| line_location(path, number))?);
        }
    }
    Ok(values)
}

/// Reads tab-separated `query document relevance`, with or without a header as in BEIR, or space-separated `query
/// iteration document relevance` as in TREC.
fn read_qrels(path: &Path) -> anyhow::Result<BTreeMap<String, Judgements>> {
    let mut qrels: BTreeMap<String, Judgements> = BTreeMap::new();
    for (number, line) in (1..).zip(open(path)?.lines()) {
        let line = line.with_context(|| line_location(path, number))?;
        let parts: Vec<&str> = line.split_whitespace().collect();
        let (query, document, relevance) = match parts[..] {
            [] => continue,
            [query, document, relevance] | [query, _, document, relevance] => (query, document, relevance),
            _ => bail!(
                "{}: expected query, document and relevance, found {line:?}",
                line_location(path, number)
            ),
        };
        match relevance.parse() {
            Ok(relevance) => {
                qrels.entry(query.to_owned()).or_default().insert(document.to_owned(), relevance);
            }
            Err(_) if number == 1 => {}
            Err(_) => {
                bail!(
                    "{}: the relevance must be a whole number, found {relevance:?}",
                    line_location(path, number)
                )
            }
        }
    }
    Ok(qrels)
}

fn line_location(path: &Path, line: u32) -> String {
    let path: PathBuf = path.to_owned();
    format!("{}:{line}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn write_dataset(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const CORPUS: (&str, &str) =
        ("corpus.jsonl", "{\"id\":\"d1\",\"title\":\"T\",\"text\":\"x\"}\n{\"_id\":\"d2\",\"text\":\"y\"}\n");
    const QUERIES: (&str, &str) =
        ("queries.jsonl", "{\"id\":\"q1\",\"text\":\"?\"}\n{\"id\":\"q2\",\"text\":\"!\"}\n");

    #[test]
    fn reads_three_qrels_layouts() {
        for qrels in [
            "q1\td1\t1\nq1\td2\t0\nq2\td2\t0\nq3\td1\t2\n",
            "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t0\nq3\td1\t2\n",
            "q1 0 d1 1\nq1 0 d2 0\nq2 0 d2 0\nq3 0 d1 2\n",
        ] {
            let dir = write_dataset(&[CORPUS, QUERIES, ("qrels.tsv", qrels)]);
            let dataset = Dataset::read(dir.path(), "test").unwrap();
            assert_eq!(dataset.corpus[0].whole_text(), "T x");
            assert_eq!(dataset.corpus[1].whole_text(), "y");
            assert_eq!(dataset.queries.len(), 1, "q2 has nothing relevant, q3 no text");
            assert_eq!(dataset.queries_without_text, 1);
            assert_eq!(dataset.queries[0].judgements, [("d1".into(), 1), ("d2".into(), 0)].into());
        }
    }

    #[test]
    fn reads_the_files_of_a_split_and_reports_file_and_line_of_errors() {
        let dir =
            write_dataset(&[CORPUS, ("queries.train.jsonl", QUERIES.1), ("qrels.train.tsv", "q2\td1\t1\n")]);
        assert_eq!(Dataset::read(dir.path(), "train").unwrap().queries[0].text, "!");
        assert!(format!("{:#}", Dataset::read(dir.path(), "test").unwrap_err()).contains("queries.jsonl"));
        let dir = write_dataset(&[CORPUS, QUERIES, ("qrels.tsv", "q1\td1\t1\nq1\td2\tx\n")]);
        assert!(Dataset::read(dir.path(), "test").unwrap_err().to_string().contains("qrels.tsv:2"));
        let dir = write_dataset(&[CORPUS, QUERIES, ("qrels.tsv", "")]);
        assert!(Dataset::read(dir.path(), "test").unwrap_err().to_string().contains("nothing to evaluate"));
    }
}
