//! Texts and queries of the benchmarks.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::random::Random;

/// A document of a corpus.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Document {
    /// Its number, starting at 0.
    pub(crate) id: u64,
    /// The text.
    pub(crate) text: String,
}

/// The first `limit` documents of a gzipped JSONL file.
pub(crate) fn documents(path: &Path, limit: usize) -> Result<Vec<Document>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut documents = Vec::new();
    for (number, line) in BufReader::new(GzDecoder::new(file)).lines().take(limit).enumerate() {
        let line = line.with_context(|| format!("read {}", path.display()))?;
        let document: Document =
            serde_json::from_str(&line).with_context(|| format!("{} line {}", path.display(), number + 1))?;
        documents.push(document);
    }
    ensure!(!documents.is_empty(), "{} contains no documents", path.display());
    Ok(documents)
}

/// The `text` member of each line of a JSON Lines file.
pub(crate) fn texts(path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
    }
    let all = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    all.lines()
        .enumerate()
        .map(|(number, line)| {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("{} line {}", path.display(), number + 1))?;
            Ok(line.text)
        })
        .collect()
}

/// The lines of a file of queries.
pub(crate) fn queries(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let queries: Vec<String> =
        text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    ensure!(!queries.is_empty(), "{} contains no queries", path.display());
    Ok(queries)
}

/// `count` distinct queries: first those in `given`, then random runs of words from `documents` (by `seed`).
/// Each run has the length in words of a randomly chosen given query, so the lengths are distributed alike.
pub(crate) fn distinct_queries(
    given: &[String],
    documents: &[Document],
    count: usize,
    seed: u64,
) -> Result<Vec<String>> {
    let mut random = Random::new(seed);
    let mut seen: HashSet<String> = HashSet::with_capacity(count);
    let mut queries: Vec<String> = Vec::with_capacity(count);
    for query in given {
        if queries.len() < count && seen.insert(query.clone()) {
            queries.push(query.clone());
        }
    }
    let lengths: Vec<usize> = given.iter().map(|query| query.split_whitespace().count()).collect();
    ensure!(!lengths.is_empty(), "at least one query is needed to derive others from");
    let mut failed_attempts = 0;
    while queries.len() < count {
        let document = &documents[random.below(documents.len())];
        let query = random_words(&document.text, lengths[random.below(lengths.len())], &mut random);
        if let Some(query) = query.filter(|query| seen.insert(query.clone())) {
            queries.push(query);
            failed_attempts = 0;
        } else {
            failed_attempts += 1;
            ensure!(
                failed_attempts < 100_000,
                "{} documents yield only {} distinct queries; {count} are needed",
                documents.len(),
                queries.len()
            );
        }
    }
    Ok(queries)
}

/// A random run of `length` words of `text`; `None` if `text` is shorter.
fn random_words(text: &str, length: usize, random: &mut Random) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let starts = (words.len() + 1).checked_sub(length).filter(|starts| *starts > 0)?;
    let start = random.below(starts);
    Some(words[start..start + length].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document { id: 0, text: text.to_owned() }
    }

    #[test]
    fn derived_queries_are_distinct_runs_of_corpus_words_with_the_given_lengths() {
        let text = (0..40).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ");
        let given = ["one of four words", "one of four words", "and one of five words"].map(str::to_owned);
        let queries = distinct_queries(&given, &[document(&text)], 60, 1).unwrap();
        assert_eq!(queries.len(), 60);
        assert_eq!(queries.iter().collect::<HashSet<_>>().len(), 60);
        assert_eq!(queries[..2], ["one of four words", "and one of five words"]);
        for query in &queries[2..] {
            let words = query.split(' ').count();
            assert!([4, 5].contains(&words), "{query}");
            assert!(text.contains(query.as_str()), "{query}");
        }
        assert_eq!(queries, distinct_queries(&given, &[document(&text)], 60, 1).unwrap());
    }

    #[test]
    fn a_corpus_too_small_for_the_requested_count_is_an_error() {
        let given = ["one of four words".to_owned()];
        assert!(distinct_queries(&given, &[document("just four words here")], 3, 1).is_err());
        assert!(distinct_queries(&[], &[document("just four words here")], 1, 1).is_err());
    }
}
