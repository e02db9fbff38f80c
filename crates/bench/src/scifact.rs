//! SciFact (Wadden et al. 2020, as in BEIR): scientific claims, abstracts, and which of these bear on
//! which of those.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::truth;

/// A line of the corpus or of the questions.
#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    #[serde(default)]
    title: String,
    text: String,
}

/// The questions of the test split with their answers.
pub(crate) struct Dataset {
    /// The file `texts` are of.
    pub(crate) corpus: PathBuf,
    /// Title and text, as the published figure has them.
    pub(crate) texts: Vec<String>,
    pub(crate) questions: Vec<String>,
    /// For each question the relevance of the rows of `texts` that have one.
    judged: Vec<HashMap<u32, f64>>,
}

impl Dataset {
    /// The files of a directory in BEIR's layout.
    pub(crate) fn read(dir: &Path) -> Result<Dataset> {
        let corpus = dir.join("corpus.jsonl");
        let documents = lines(&corpus)?;
        let rows: HashMap<&str, u32> = documents.iter().map(|line| line.id.as_str()).zip(0..).collect();
        let path = dir.join("qrels.tsv");
        let mut judged: HashMap<String, HashMap<u32, f64>> = HashMap::new();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let mut fields = line.split('\t');
            let (Some(question), Some(document), Some(relevance)) =
                (fields.next(), fields.next(), fields.next())
            else {
                anyhow::bail!("{} line {}: not question, document, relevance", path.display(), number + 1);
            };
            // A first line of names is no judgement.
            if let (Ok(relevance), Some(row)) = (relevance.parse::<f64>(), rows.get(document)) {
                judged.entry(question.to_owned()).or_default().insert(*row, relevance);
            }
        }
        let mut dataset = Dataset { corpus, texts: Vec::new(), questions: Vec::new(), judged: Vec::new() };
        for question in lines(&dir.join("queries.jsonl"))? {
            if let Some(judged) = judged.remove(&question.id) {
                dataset.questions.push(question.text);
                dataset.judged.push(judged);
            }
        }
        ensure!(!dataset.questions.is_empty(), "no question of {} is judged", dir.display());
        dataset.texts = documents.iter().map(|line| format!("{} {}", line.title, line.text)).collect();
        Ok(dataset)
    }

    /// The mean over all questions of nDCG at [`truth::K`], given the rows found for each, best first.
    pub(crate) fn mean_ndcg(&self, found: &[u32]) -> f64 {
        assert_eq!(found.len(), self.questions.len() * truth::K, "{} rows for each question", truth::K);
        let scores = found.chunks(truth::K).zip(&self.judged).map(|(found, judged)| ndcg(found, judged));
        scores.sum::<f64>() / self.questions.len() as f64
    }
}

fn lines(path: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("read {} (--shared DIR names the folder above it)", path.display()))?;
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
        relevances.zip(2u32..).map(|(relevance, place)| relevance / f64::from(place).log2()).sum()
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
    fn ndcg_is_one_for_the_best_order_and_less_for_a_later_place() {
        let judged = HashMap::from([(7, 1.0), (9, 1.0)]);
        assert_eq!(ndcg(&[7, 9, 1], &judged), 1.0);
        assert_eq!(ndcg(&[1, 2, 3], &judged), 0.0);
        // 1 / log2(3) over 1 + 1 / log2(3).
        let one = 1.0 / 3f64.log2();
        assert!((ndcg(&[1, 7, 2], &judged) - one / (1.0 + one)).abs() < 1e-12);
    }
}
