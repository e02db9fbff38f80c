//! Query vectors with their exact neighbours.

use anyhow::Result;

use crate::{
    corpus,
    global_options::GlobalOptions,
    ground_truth,
    vectors::{self, Vectors},
};

/// Queries with their exact neighbours.
#[derive(Clone, Debug)]
pub(crate) struct QuerySet {
    /// All queries; this set has every [`QuerySet::step`]-th of them, starting with [`QuerySet::first`].
    pub(crate) vectors: Vectors,
    pub(crate) first: usize,
    pub(crate) step: usize,
    /// [`ground_truth::K`] rows of the corpus for each query of this set.
    pub(crate) truth: Vec<u32>,
}

impl QuerySet {
    /// All of `queries`, with their neighbours in `corpus`.
    pub(crate) fn all(corpus: &Vectors, queries: Vectors, global: &GlobalOptions) -> Result<QuerySet> {
        let truth = ground_truth::exact_neighbours(&global.cache_dir, corpus, &queries)?;
        Ok(QuerySet { vectors: queries, first: 0, step: 1, truth })
    }

    /// Splits the set into the queries with even and with odd numbers.
    pub(crate) fn halves(&self) -> [QuerySet; 2] {
        assert_eq!(self.step, 1, "only a complete set can be split");
        [0, 1].map(|first| QuerySet {
            vectors: self.vectors.clone(),
            first,
            step: 2,
            truth: self.truth.chunks(ground_truth::K).skip(first).step_by(2).flatten().copied().collect(),
        })
    }

    /// The number of queries.
    pub(crate) fn count(&self) -> usize {
        self.truth.len() / ground_truth::K
    }

    /// The query vectors.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.vectors.values.chunks_exact(self.vectors.dim).skip(self.first).step_by(self.step)
    }
}

/// The vectors of the first `limit` packages and the first `count` queries.
pub(crate) fn packages(limit: usize, count: usize, global: &GlobalOptions) -> Result<(Vectors, Vectors)> {
    let model = global.model()?;
    let (packages, package_queries) = (global.data.packages()?, global.data.package_queries()?);
    let documents = corpus::documents(&packages, limit)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let corpus = vectors::of_texts(&global.cache_dir, &model, &packages, &texts)?;
    let queries = corpus::queries(&package_queries)?;
    let texts: Vec<&str> = queries.iter().take(count).map(String::as_str).collect();
    let queries = vectors::of_texts(&global.cache_dir, &model, &package_queries, &texts)?;
    Ok((corpus, queries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_are_disjoint_and_keep_their_neighbours() {
        let vectors = Vectors {
            path: "unused".into(),
            dim: 2,
            values: (0..10).map(|value| value as f32).collect(),
            key: String::new(),
        };
        let truth: Vec<u32> = (0..5 * ground_truth::K as u32).collect();
        let all = QuerySet { vectors, first: 0, step: 1, truth };
        let [even, odd] = all.halves();
        assert_eq!(even.rows().map(|row| row[0]).collect::<Vec<_>>(), [0.0, 4.0, 8.0]);
        assert_eq!(odd.rows().map(|row| row[0]).collect::<Vec<_>>(), [2.0, 6.0]);
        assert_eq!(even.truth.chunks(ground_truth::K).map(|ids| ids[0]).collect::<Vec<_>>(), [0, 20, 40]);
        assert_eq!(odd.truth.chunks(ground_truth::K).map(|ids| ids[0]).collect::<Vec<_>>(), [10, 30]);
    }
}
