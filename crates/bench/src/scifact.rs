//! SciFact (Wadden et al. 2020, as in BEIR): scientific claims, abstracts, and which abstracts are relevant
//! to which claims.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::ground_truth;

/// A line of the corpus or of the queries.
#[derive(Debug, Deserialize)]
struct Record {
    id: String,
    #[serde(default)]
    title: String,
    text: String,
}

/// The queries of the test split with their relevance judgements.
pub(crate) struct Dataset {
    /// The file the texts come from.
    pub(crate) corpus: PathBuf,
    /// Title and text of each abstract, concatenated as for the published figures.
    pub(crate) texts: Vec<String>,
    pub(crate) queries: Vec<String>,
    /// For each query the relevance of the judged rows of `texts`.
    judgements: Vec<HashMap<u32, f64>>,
}

impl Dataset {
    /// Loads a directory in BEIR's layout.
    pub(crate) fn load(dir: &Path) -> Result<Dataset> {
        let corpus = dir.join("corpus.jsonl");
        let documents = read_records(&corpus)?;
        let rows: HashMap<&str, u32> = documents.iter().map(|record| record.id.as_str()).zip(0..).collect();
        let path = dir.join("qrels.tsv");
        let mut by_query: HashMap<String, HashMap<u32, f64>> = HashMap::new();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let mut fields = line.split('\t');
            let (Some(query), Some(document), Some(relevance)) =
                (fields.next(), fields.next(), fields.next())
            else {
                anyhow::bail!(
                    "{} line {}: expected query, document and relevance, separated by tabs",
                    path.display(),
                    number + 1
                );
            };
            // A header line has no number for the relevance and is skipped.
            if let (Ok(relevance), Some(row)) = (relevance.parse::<f64>(), rows.get(document)) {
                by_query.entry(query.to_owned()).or_default().insert(*row, relevance);
            }
        }
        let mut dataset = Dataset { corpus, texts: Vec::new(), queries: Vec::new(), judgements: Vec::new() };
        for query in read_records(&dir.join("queries.jsonl"))? {
            if let Some(judgements) = by_query.remove(&query.id) {
                dataset.queries.push(query.text);
                dataset.judgements.push(judgements);
            }
        }
        ensure!(!dataset.queries.is_empty(), "no query in {} has a relevance judgement", dir.display());
        dataset.texts = documents.iter().map(|record| format!("{} {}", record.title, record.text)).collect();
        Ok(dataset)
    }

    /// The mean nDCG at [`ground_truth::K`] over all queries, given [`ground_truth::K`] rows per query, best first.
    pub(crate) fn mean_ndcg(&self, found: &[u32]) -> f64 {
        assert_eq!(found.len(), self.queries.len() * ground_truth::K, "{} rows per query", ground_truth::K);
        let scores =
            found.chunks(ground_truth::K).zip(&self.judgements).map(|(found, judged)| ndcg(found, judged));
        scores.sum::<f64>() / self.queries.len() as f64
    }
}

fn read_records(path: &Path) -> Result<Vec<Record>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{} line {}", path.display(), number + 1))
        })
        .collect()
}

/// Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002) of the rows found, best first.
fn ndcg(found: &[u32], judged: &HashMap<u32, f64>) -> f64 {
    let gain = |relevances: &mut dyn Iterator<Item = f64>| -> f64 {
        relevances.zip(2u32..).map(|(relevance, rank)| relevance / f64::from(rank).log2()).sum()
    };
    let mut ideal: Vec<f64> = judged.values().copied().collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let best = gain(&mut ideal.into_iter().take(found.len()));
    let got = gain(&mut found.iter().map(|row| judged.get(row).copied().unwrap_or(0.0)));
    if best > 0.0 { got / best } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ndcg_is_one_for_the_ideal_order_and_lower_for_later_ranks() {
        let judged = HashMap::from([(7, 1.0), (9, 1.0)]);
        assert_eq!(ndcg(&[7, 9, 1], &judged), 1.0);
        assert_eq!(ndcg(&[1, 2, 3], &judged), 0.0);
        // 1 / log2(3) over 1 + 1 / log2(3).
        let one = 1.0 / 3f64.log2();
        assert!((ndcg(&[1, 7, 2], &judged) - one / (1.0 + one)).abs() < 1e-12);
    }
}
