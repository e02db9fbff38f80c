//! The resources a server uses.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};

use super::writer::Writer;
use crate::{machine, server::Server};

/// The resources a server uses at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResourceUsage {
    pub(super) rss_mib: f64,
    /// Open files and sockets.
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    /// Documents of the permanent collection.
    pub(super) documents: u64,
    /// Size of the data directory.
    pub(super) disk_mib: f64,
    /// The same relative to the documents' texts and vectors.
    pub(super) disk_of_live: f64,
}

impl ResourceUsage {
    pub(super) fn of(server: &Server, data_dir: &Path, writer: &Writer<'_>) -> Result<ResourceUsage> {
        let count = |kind: &str| -> Result<usize> {
            let path = format!("/proc/{}/{kind}", server.pid());
            Ok(fs::read_dir(&path).with_context(|| format!("read {path}"))?.count())
        };
        let disk = directory_bytes(data_dir).with_context(|| format!("read {}", data_dir.display()))?;
        let documents = writer.documents()?;
        Ok(ResourceUsage {
            rss_mib: machine::rss_mib(server.pid())?,
            descriptors: count("fd")?,
            threads: count("task")?,
            documents,
            disk_mib: disk as f64 / 1_048_576.0,
            disk_of_live: disk as f64 / (documents as f64 * writer.live_bytes_mean()),
        })
    }
}

fn directory_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => directory_bytes(&entry.path())?,
            Ok(found) => found.len(),
            // Temporary files may disappear at any time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// The slope of the least-squares line through (minute, value).
pub(super) fn slope_per_minute(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_the_slope_of_a_line() {
        let points: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), 3.0 - 0.5 * f64::from(x))).collect();
        assert!((slope_per_minute(&points) + 0.5).abs() < 1e-12);
    }
}
