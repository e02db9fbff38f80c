//! Exact nearest neighbours, against which recall is measured. They are computed with plain arithmetic that
//! shares no code with the kernels or the index, so a bug there cannot affect both sides.

use std::{fs, path::Path};

use anyhow::Result;
use rayon::prelude::*;

use crate::vectors::{self, Vectors};

/// The number of neighbours over which recall is measured.
pub(crate) const K: usize = 10;

/// Queries compared with one document at a time; their values stay in the L1 cache.
const QUERIES: usize = 8;

/// For each query the [`K`] rows of `corpus` with the greatest dot product, best first; cached in `cache_dir`.
pub(crate) fn exact_neighbours(cache_dir: &Path, corpus: &Vectors, queries: &Vectors) -> Result<Vec<u32>> {
    let path = cache_dir.join(format!(
        "truth-{}-{}-{}-{}.u32",
        corpus.key,
        corpus.rows(),
        queries.key,
        queries.rows()
    ));
    if path.exists() {
        let ids = vectors::read_ids(&path)?;
        if ids.len() == queries.rows() * K {
            return Ok(ids);
        }
    }
    eprintln!("computing the exact neighbours of {} queries among {} vectors", queries.rows(), corpus.rows());
    let ids = nearest(&corpus.values, &queries.values, corpus.dim);
    let part = path.with_extension("part");
    fs::write(&part, ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())?;
    fs::rename(&part, &path)?;
    Ok(ids)
}

/// The [`K`] rows with the greatest dot product for each query, ties ordered by row.
pub(crate) fn nearest(corpus: &[f32], queries: &[f32], dim: usize) -> Vec<u32> {
    queries
        .par_chunks(QUERIES * dim)
        .flat_map_iter(|block| {
            let mut best: Vec<TopRows> = block.chunks_exact(dim).map(|_| TopRows::default()).collect();
            for (row, document) in corpus.chunks_exact(dim).enumerate() {
                for (query, best) in block.chunks_exact(dim).zip(&mut best) {
                    best.insert(dot(query, document), row as u32);
                }
            }
            best.into_iter().flat_map(|best| best.ids())
        })
        .collect()
}

/// The share of `truth` that is in `found`. Both hold [`K`] ids per query; a query with fewer hits is padded
/// with `u32::MAX`.
pub(crate) fn recall(truth: &[u32], found: &[u32]) -> f64 {
    assert_eq!(truth.len(), found.len(), "both lists must hold {K} ids per query");
    let hits: usize = truth
        .chunks_exact(K)
        .zip(found.chunks_exact(K))
        .map(|(truth, found)| truth.iter().filter(|id| found.contains(id)).count())
        .sum();
    hits as f64 / truth.len() as f64
}

/// The best rows so far, best first.
#[derive(Clone, Debug, Default)]
struct TopRows(Vec<(f32, u32)>);

impl TopRows {
    fn insert(&mut self, score: f32, row: u32) {
        if self.0.len() == K && score <= self.0[K - 1].0 {
            return;
        }
        let position = self.0.partition_point(|(other, _)| *other >= score);
        self.0.insert(position, (score, row));
        self.0.truncate(K);
    }

    fn ids(self) -> impl Iterator<Item = u32> {
        self.0.into_iter().map(|(_, row)| row).chain(std::iter::repeat(u32::MAX)).take(K)
    }
}

/// Sixteen running sums, which the compiler vectorises.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<16>();
    let (b_chunks, b_rest) = b.as_chunks::<16>();
    let mut sums = [0f32; 16];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn exact_neighbours_equal_a_full_sort_in_double_precision() {
        let (dim, rows, count) = (37, 500, 20);
        let mut random = Random::new(11);
        let corpus: Vec<f32> = (0..rows * dim).map(|_| random.normal() as f32).collect();
        let queries: Vec<f32> = (0..count * dim).map(|_| random.normal() as f32).collect();
        let mut expected = Vec::new();
        for query in queries.chunks_exact(dim) {
            let mut scored: Vec<(f64, u32)> = corpus
                .chunks_exact(dim)
                .zip(0..)
                .map(|(row, id)| {
                    (row.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum(), id)
                })
                .collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0));
            expected.extend(scored[..K].iter().map(|(_, id)| *id));
        }
        assert_eq!(nearest(&corpus, &queries, dim), expected);
    }

    #[test]
    fn recall_counts_shared_ids_regardless_of_order() {
        let truth: Vec<u32> = (0..10).collect();
        let mut found: Vec<u32> = (0..10).rev().collect();
        assert_eq!(recall(&truth, &found), 1.0);
        found[0] = 99;
        found[1] = u32::MAX;
        assert_eq!(recall(&truth, &found), 0.8);
    }
}
