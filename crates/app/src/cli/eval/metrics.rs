//! Retrieval measures as trec_eval defines them.
//!
//! A ranking is a list of document ids, best first. Judgements give the relevance of documents; 0, a negative value
//! and a missing judgement mean not relevant.

use std::collections::HashMap;

/// Relevance of documents to one query, by id.
pub(crate) type Judgements = HashMap<String, i64>;

/// Normalised discounted cumulative gain at `depth` (Järvelin and Kekäläinen 2002): the gain is the relevance, the
/// discount is `log2(rank + 1)`, the ideal ranking is taken over all judgements. In 0..=1; 0 if nothing is relevant.
pub(crate) fn ndcg_at(depth: usize, ranking: &[String], judgements: &Judgements) -> f64 {
    let found = ranking.iter().map(|id| judgements.get(id).copied().unwrap_or_default());
    let mut ideal: Vec<i64> = judgements.values().copied().collect();
    ideal.sort_unstable_by(|left, right| right.cmp(left));
    let best = dcg(depth, ideal.into_iter());
    if best == 0.0 { 0.0 } else { dcg(depth, found) / best }
}

fn dcg(depth: usize, relevances: impl Iterator<Item = i64>) -> f64 {
    let gains = relevances.take(depth).zip(2_u32..);
    gains.map(|(relevance, rank_plus_one)| relevance.max(0) as f64 / f64::from(rank_plus_one).log2()).sum()
}

/// The fraction of all relevant documents among the first `depth`. In 0..=1; 0 if nothing is relevant.
pub(crate) fn recall_at(depth: usize, ranking: &[String], judgements: &Judgements) -> f64 {
    let relevant = judgements.values().filter(|relevance| **relevance > 0).count();
    if relevant == 0 {
        return 0.0;
    }
    let found = ranking.iter().take(depth).filter(|id| is_relevant(id, judgements)).count();
    found as f64 / relevant as f64
}

/// The reciprocal of the rank of the first relevant document; 0 if there is none among the first `depth`.
pub(crate) fn reciprocal_rank_at(depth: usize, ranking: &[String], judgements: &Judgements) -> f64 {
    let at = ranking.iter().take(depth).position(|id| is_relevant(id, judgements));
    at.map_or(0.0, |at| 1.0 / (at + 1) as f64)
}

fn is_relevant(id: &str, judgements: &Judgements) -> bool {
    judgements.get(id).is_some_and(|relevance| *relevance > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(&str, i64)]) -> Judgements {
        pairs.iter().map(|(id, relevance)| ((*id).to_owned(), *relevance)).collect()
    }

    fn ranked(ids: &str) -> Vec<String> {
        ids.chars().map(String::from).collect()
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn ndcg_matches_values_computed_by_hand() {
        // Found: 3 at rank 1, nothing at 2, 2 at 3, 1 at 5: 3 + 2/2 + 1/log2(6) = 4.386853.
        // Ideal: 3, 2, 1, 1: 3 + 2/log2(3) + 1/2 + 1/log2(5) = 5.192536.
        let judgements = judged(&[("a", 3), ("b", 2), ("c", 1), ("d", 1), ("x", 0)]);
        assert_near(ndcg_at(10, &ranked("axbyc"), &judgements), 4.386_853 / 5.192_536);
        // Both are cut at rank 2: 3 + 0 over 3 + 2/log2(3).
        assert_near(ndcg_at(2, &ranked("axbyc"), &judgements), 3.0 / (3.0 + 2.0 / 1.584_963));
        assert_near(ndcg_at(10, &ranked("abcd"), &judgements), 1.0);
        assert_near(ndcg_at(10, &ranked("yz"), &judgements), 0.0);
        assert_near(ndcg_at(10, &[], &judgements), 0.0);
        assert_near(ndcg_at(10, &ranked("a"), &judged(&[("a", 0), ("b", -1)])), 0.0);
    }

    #[test]
    fn recall_and_reciprocal_rank_match_values_computed_by_hand() {
        let judgements = judged(&[("a", 1), ("b", 2), ("c", 1), ("x", 0), ("y", -2)]);
        assert_near(recall_at(100, &ranked("xayb"), &judgements), 2.0 / 3.0);
        assert_near(recall_at(2, &ranked("xayb"), &judgements), 1.0 / 3.0);
        assert_near(recall_at(100, &ranked("a"), &judged(&[("a", 0)])), 0.0);
        assert_near(reciprocal_rank_at(10, &ranked("xyza"), &judgements), 0.25);
        assert_near(reciprocal_rank_at(3, &ranked("xyza"), &judgements), 0.0);
        assert_near(reciprocal_rank_at(10, &ranked("ba"), &judgements), 1.0);
    }
}
