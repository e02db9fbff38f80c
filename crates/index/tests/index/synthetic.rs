//! Synthetic vectors, and helpers to measure recall.

use index::{Index, Metric, Neighbor, SearchParams};

/// A pseudo-random number generator (PCG, O'Neill 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = ((self.0 >> 18) ^ self.0) >> 27;
        let rotated = (mixed as u32).rotate_right((self.0 >> 59) as u32);
        ((u64::from(rotated) * u64::from(end)) >> 32) as u32
    }

    pub(crate) fn unit(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 24) as f32
    }

    /// Roughly normal: a sum of uniform numbers.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.unit()).sum::<f32>() * 2f32.sqrt() - 3.0 * 2f32.sqrt()
    }
}

/// `count` vectors around centres in a low-dimensional subspace, like text embeddings.
pub(crate) fn clustered(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed);
    // The centres are the same for every seed, so that queries are near vectors.
    let mut fixed = Random::new(0);
    let rank = dim.min(24);
    let basis: Vec<Vec<f32>> = (0..rank).map(|_| (0..dim).map(|_| fixed.normal()).collect()).collect();
    let centres: Vec<Vec<f32>> = (0..64).map(|_| (0..rank).map(|_| fixed.normal()).collect()).collect();
    (0..count)
        .map(|_| {
            let centre = &centres[random.below(64) as usize];
            let mut vector = vec![0.0; dim];
            for (direction, at) in basis.iter().zip(centre) {
                let weight = at + 0.7 * random.normal();
                vector.iter_mut().zip(direction).for_each(|(v, d)| *v += weight * d);
            }
            vector.iter_mut().for_each(|v| *v += 0.8 * random.normal());
            vector
        })
        .collect()
}

/// The distance in double precision.
pub(crate) fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    match metric {
        Metric::Ip => 1.0 - dot(a, b),
        Metric::L2 => a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum(),
        Metric::Cosine => 1.0 - dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt()),
    }
}

pub(crate) fn search(k: usize, ef: usize) -> SearchParams<'static> {
    SearchParams { k, ef, allowed: None, exact: false }
}

pub(crate) fn labels(found: &[Neighbor]) -> Vec<u32> {
    found.iter().map(|neighbor| neighbor.label).collect()
}

/// The mean share of the exact `k` nearest that a search finds.
pub(crate) fn recall(index: &Index, queries: &[Vec<f32>], search: &SearchParams<'_>) -> f64 {
    let (mut hits, mut total) = (0, 0);
    for query in queries {
        let exact = labels(&index.search(query, &SearchParams { exact: true, ..*search }));
        let found = labels(&index.search(query, search));
        hits += exact.iter().filter(|label| found.contains(label)).count();
        total += exact.len();
    }
    hits as f64 / total as f64
}
