//! What a server holds of the machine.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};

use super::churn::Churn;
use crate::{machine, server::Server};

/// What a server holds at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) rss_mib: f64,
    /// Open files and sockets.
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    /// Documents of the standing collection.
    pub(super) documents: u64,
    /// All of the data directory.
    pub(super) disk_mib: f64,
    /// Times the bytes of the documents that stand, text and vector.
    pub(super) disk_of_live: f64,
}

impl Level {
    pub(super) fn of(server: &Server, data_dir: &Path, churn: &Churn<'_>) -> Result<Level> {
        let count = |kind: &str| -> Result<usize> {
            let path = format!("/proc/{}/{kind}", server.pid());
            Ok(fs::read_dir(&path).with_context(|| format!("read {path}"))?.count())
        };
        let disk = bytes_below(data_dir).with_context(|| format!("read {}", data_dir.display()))?;
        let documents = churn.documents()?;
        Ok(Level {
            rss_mib: machine::rss_mib(server.pid())?,
            descriptors: count("fd")?,
            threads: count("task")?,
            documents,
            disk_mib: disk as f64 / 1_048_576.0,
            disk_of_live: disk as f64 / (documents as f64 * churn.live_bytes_mean()),
        })
    }
}

fn bytes_below(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path())?,
            Ok(found) => found.len(),
            // Unfinished files come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// The slope of the line of least squares through (minute, value).
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
    fn a_slope_is_that_of_the_line() {
        let points: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), 3.0 - 0.5 * f64::from(x))).collect();
        assert!((slope_per_minute(&points) + 0.5).abs() < 1e-12);
    }
}
