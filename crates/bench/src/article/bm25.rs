//! BM25, the keyword-search baseline for semantic search.

use std::collections::{HashMap, HashSet};

/// Okapi BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework") over lower-cased
/// words, k1 = 1.2, b = 0.75.
pub(super) struct Bm25 {
    documents: Vec<(String, HashMap<String, f64>, f64)>,
    mean_length: f64,
}

const K1: f64 = 1.2;
const B: f64 = 0.75;

impl Bm25 {
    /// Indexes (id, text) pairs.
    pub(super) fn new(documents: impl IntoIterator<Item = (String, String)>) -> Bm25 {
        let documents: Vec<_> = documents
            .into_iter()
            .map(|(id, text)| {
                let mut counts = HashMap::new();
                for word in words(&text) {
                    *counts.entry(word).or_insert(0.0) += 1.0;
                }
                let length = counts.values().sum();
                (id, counts, length)
            })
            .collect();
        let mean_length = documents.iter().map(|(_, _, length)| length).sum::<f64>() / documents.len() as f64;
        Bm25 { documents, mean_length }
    }

    /// The ids of the `k` best documents that share a word with the query, best first.
    pub(super) fn search(&self, query: &str, k: usize) -> Vec<&str> {
        let terms: HashSet<String> = words(query).collect();
        let count = self.documents.len() as f64;
        let mut scores = vec![0.0; self.documents.len()];
        for word in &terms {
            let frequency =
                self.documents.iter().filter(|(_, counts, _)| counts.contains_key(word)).count() as f64;
            let idf = ((count - frequency + 0.5) / (frequency + 0.5) + 1.0).ln();
            for (score, (_, counts, length)) in scores.iter_mut().zip(&self.documents) {
                if let Some(times) = counts.get(word) {
                    let norm = K1 * (1.0 - B + B * length / self.mean_length);
                    *score += idf * times * (K1 + 1.0) / (times + norm);
                }
            }
        }
        let mut order: Vec<usize> = (0..scores.len()).filter(|position| scores[*position] > 0.0).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.into_iter().take(k).map(|position| self.documents[position].0.as_str()).collect()
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_documents_by_shared_rare_words() {
        let documents = [
            ("a", "The invoice was paid twice. Refund the invoice."),
            ("b", "The password can be reset in settings."),
            ("c", "The team, the plan, the seats."),
        ];
        let bm25 = Bm25::new(documents.map(|(id, text)| (id.to_owned(), text.to_owned())));
        assert_eq!(bm25.search("the INVOICE", 1), ["a"]);
        assert_eq!(bm25.search("reset password", 5), ["b"]);
        assert!(bm25.search("nothing shared", 5).is_empty());
    }
}
