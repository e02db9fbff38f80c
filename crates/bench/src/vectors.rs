//! Embeddings of a corpus, computed once with Nearfield's own model and cached in the cache directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use embed::{ComputeType, Model};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Texts embedded between two writes to the file; an interrupted run loses at most these.
const CHUNK: usize = 2048;
/// Texts in one forward pass.
const BATCH: usize = 32;

/// Row-major float32 vectors and the file they are stored in.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    /// Little-endian rows without a header; the file may hold more rows than `values`.
    pub(crate) path: PathBuf,
    /// Values per row.
    pub(crate) dim: usize,
    /// `rows * dim` values.
    pub(crate) values: Vec<f32>,
    /// Identifies the texts and the model, for the names of derived files.
    pub(crate) key: String,
}

impl Vectors {
    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// One row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// The first `rows` rows.
    pub(crate) fn head(&self, rows: usize) -> Vectors {
        let values = self.values[..rows * self.dim].to_vec();
        Vectors { path: self.path.clone(), dim: self.dim, values, key: self.key.clone() }
    }
}

/// The vectors of `texts`, the first texts of the file `of`. Cached rows are read; the others are embedded on
/// all cores, with progress on standard error, and appended to the cache.
pub(crate) fn of_texts(cache_dir: &Path, model: &Model, of: &Path, texts: &[&str]) -> Result<Vectors> {
    let dim = model.dim();
    let key = format!("{}-{}", key_of(model), hex(&file_hash(of)?[..6]));
    fs::create_dir_all(cache_dir).with_context(|| format!("create {}", cache_dir.display()))?;
    let path = cache_dir.join(format!("vectors-{key}.f32"));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let row_bytes = (dim * 4) as u64;
    let cached = ((file.metadata()?.len() / row_bytes) as usize).min(texts.len());
    if cached < texts.len() {
        // A run interrupted during a write leaves an incomplete row.
        file.set_len(cached as u64 * row_bytes)?;
        file.seek(SeekFrom::End(0))?;
        extend(&mut file, model, &texts[cached..]).with_context(|| format!("write {}", path.display()))?;
    }
    let values = read(&mut file, texts.len() * dim).with_context(|| format!("read {}", path.display()))?;
    Ok(Vectors { path, dim, values, key })
}

/// Identifies the model in file names.
pub(crate) fn key_of(model: &Model) -> String {
    hex(&model.fingerprint().0[..6])
}

fn extend(file: &mut File, model: &Model, texts: &[&str]) -> std::io::Result<()> {
    let started = Instant::now();
    for (number, chunk) in texts.chunks(CHUNK).enumerate() {
        file.write_all(&bytes(&embed_texts(model, chunk, ComputeType::F32)))?;
        let done = number * CHUNK + chunk.len();
        let rate = done as f64 / started.elapsed().as_secs_f64();
        eprint!(
            "\rembedding: {done} of {} texts, {rate:.0} per second, {:.0} s left   ",
            texts.len(),
            (texts.len() - done) as f64 / rate
        );
    }
    eprintln!();
    Ok(())
}

/// Embeds texts on all cores, in batches of similar length.
pub(crate) fn embed_texts(model: &Model, texts: &[&str], compute: ComputeType) -> Vec<f32> {
    let dim = model.dim();
    let mut tokens: Vec<(usize, embed::Tokens)> =
        texts.par_iter().enumerate().map(|(row, text)| (row, model.tokenize(text))).collect();
    tokens.sort_by_key(|(_, tokens)| tokens.ids.len());
    let parts: Vec<(Vec<usize>, Vec<f32>)> = tokens
        .par_chunks(BATCH)
        .map(|batch| {
            let (rows, tokens): (Vec<usize>, Vec<embed::Tokens>) = batch.iter().cloned().unzip();
            (rows, model.embed(&tokens, compute))
        })
        .collect();
    let mut values = vec![0.0; texts.len() * dim];
    for (rows, part) in parts {
        for (row, vector) in rows.into_iter().zip(part.chunks_exact(dim)) {
            values[row * dim..][..dim].copy_from_slice(vector);
        }
    }
    values
}

fn read(file: &mut File, count: usize) -> Result<Vec<f32>> {
    file.seek(SeekFrom::Start(0))?;
    let mut raw = vec![0; count * 4];
    file.read_exact(&mut raw)?;
    Ok(floats(&raw))
}

/// Reads a file of little-endian float32 values.
pub(crate) fn read_values(path: &Path) -> Result<Vec<f32>> {
    let raw = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        raw.len().is_multiple_of(4),
        "the size of {} is not a multiple of 4 bytes (float32)",
        path.display()
    );
    Ok(floats(&raw))
}

/// The cosine similarity of each row of `a` with the same row of `b`.
pub(crate) fn cosines(a: &[f32], b: &[f32], dim: usize) -> impl Iterator<Item = f64> {
    a.chunks_exact(dim).zip(b.chunks_exact(dim)).map(|(a, b)| {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    })
}

/// Reads a file of little-endian u32 values.
pub(crate) fn read_ids(path: &Path) -> Result<Vec<u32>> {
    let raw = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(raw.len().is_multiple_of(4), "the size of {} is not a multiple of 4 bytes (u32)", path.display());
    Ok(raw.as_chunks::<4>().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect())
}

/// Values as little-endian bytes.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(raw: &[u8]) -> Vec<f32> {
    raw.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn file_hash(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if read == 0 {
            return Ok(hasher.finalize().to_vec());
        }
        hasher.update(&buffer[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_do_not_depend_on_vector_lengths() {
        let found: Vec<f64> =
            cosines(&[3.0, 0.0, 1.0, 1.0, 2.0, 0.0], &[7.0, 0.0, 1.0, 0.0, -1.0, 0.0], 2).collect();
        for (found, expected) in found.iter().zip([1.0, 0.5f64.sqrt(), -1.0]) {
            assert!((found - expected).abs() < 1e-12, "expected {expected}, found {found}");
        }
        assert_eq!(found.len(), 3);
    }
}
