//! Pooling token vectors into a sentence vector.

use crate::settings::Pooling;

/// Pools the rows of `tokens`, `width` values each, into `sentence`. Without tokens the result is zero.
pub(crate) fn pool(pooling: Pooling, tokens: &[f32], width: usize, sentence: &mut [f32]) {
    sentence.fill(0.0);
    match pooling {
        Pooling::Cls => {
            if let Some(first) = tokens.chunks_exact(width).next() {
                sentence.copy_from_slice(first);
            }
        }
        Pooling::Mean => {
            for row in tokens.chunks_exact(width) {
                for (sum, value) in sentence.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            let count = (tokens.len() / width).max(1) as f32;
            for sum in sentence {
                *sum /= count;
            }
        }
    }
}

/// Scales `sentence` to length one. A zero vector remains zero.
pub(crate) fn normalize(sentence: &mut [f32]) {
    let squares: f64 = sentence.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    // sentence-transformers uses the same lower bound.
    let length = squares.sqrt().max(1e-12) as f32;
    for value in sentence {
        *value /= length;
    }
}
