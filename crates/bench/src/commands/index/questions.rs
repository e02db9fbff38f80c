//! What is searched and what is asked.

use anyhow::Result;

use crate::{
    corpus,
    setting::Setting,
    truth,
    vectors::{self, Vectors},
};

/// Queries with their exact neighbours.
#[derive(Clone, Debug)]
pub(crate) struct Questions {
    /// All that were made; these are every [`Questions::step`]-th of them, from [`Questions::first`] on.
    pub(crate) of: Vectors,
    pub(crate) first: usize,
    pub(crate) step: usize,
    /// [`truth::K`] rows of the corpus for each of these.
    pub(crate) truth: Vec<u32>,
}

impl Questions {
    /// All of `queries` about `corpus`.
    pub(crate) fn all(corpus: &Vectors, queries: Vectors, setting: &Setting) -> Result<Questions> {
        let truth = truth::neighbours(&setting.cache_dir, corpus, &queries)?;
        Ok(Questions { of: queries, first: 0, step: 1, truth })
    }

    /// Every second one, and the others.
    pub(crate) fn halves(&self) -> [Questions; 2] {
        assert_eq!(self.step, 1, "only all can be halved");
        [0, 1].map(|first| Questions {
            of: self.of.clone(),
            first,
            step: 2,
            truth: self.truth.chunks(truth::K).skip(first).step_by(2).flatten().copied().collect(),
        })
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.truth.len() / truth::K
    }

    /// The vectors asked for.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.of.values.chunks_exact(self.of.dim).skip(self.first).step_by(self.step)
    }
}

/// The vectors of the first `limit` packages and the first `count` queries.
pub(crate) fn packages(limit: usize, count: usize, setting: &Setting) -> Result<(Vectors, Vectors)> {
    let model = setting.model()?;
    let source = &setting.source;
    let documents = corpus::documents(&source.packages(), limit)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let corpus = vectors::of_texts(&setting.cache_dir, &model, &source.packages(), &texts)?;
    let queries = corpus::queries(&source.packages_queries())?;
    let texts: Vec<&str> = queries.iter().take(count).map(String::as_str).collect();
    let queries = vectors::of_texts(&setting.cache_dir, &model, &source.packages_queries(), &texts)?;
    Ok((corpus, queries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_share_no_query_and_keep_each_its_truth() {
        let of = Vectors {
            path: "unused".into(),
            dim: 2,
            values: (0..10).map(|value| value as f32).collect(),
            key: String::new(),
        };
        let truth: Vec<u32> = (0..5 * truth::K as u32).collect();
        let all = Questions { of, first: 0, step: 1, truth };
        let [even, odd] = all.halves();
        assert_eq!(even.rows().map(|row| row[0]).collect::<Vec<_>>(), [0.0, 4.0, 8.0]);
        assert_eq!(odd.rows().map(|row| row[0]).collect::<Vec<_>>(), [2.0, 6.0]);
        assert_eq!(even.truth.chunks(truth::K).map(|ids| ids[0]).collect::<Vec<_>>(), [0, 20, 40]);
        assert_eq!(odd.truth.chunks(truth::K).map(|ids| ids[0]).collect::<Vec<_>>(), [10, 30]);
    }
}
