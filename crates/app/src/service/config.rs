//! What a service is opened with. Read from environment, file and flags by `crate::config` alone.

use std::{path::PathBuf, time::Duration};

use engine::Level;

use super::Error;

/// How to open a service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the store.
    pub data_dir: PathBuf,
    /// Directory whose sub-directories are models, by name.
    pub models_dir: PathBuf,
    /// Worker threads; one a core by default.
    pub workers: usize,
    /// Jobs that may wait for a worker before `Overloaded` is answered.
    pub queue_max: usize,
    /// Deadline of a call that brings none.
    pub timeout: Duration,
    /// Instruction set to use at most; the best, if `None`.
    pub cpu_level: Option<Level>,
    /// Bytes of the store's page cache.
    pub cache_bytes: usize,
    /// Vectors that may wait for the graph before writers are slowed.
    pub tail_max: usize,
    /// Threads that feed the graphs.
    pub index_threads: usize,
}

impl Config {
    /// Whether a service can be opened with it.
    pub(super) fn check(&self) -> Result<(), Error> {
        let counts =
            [("workers", self.workers), ("queue_max", self.queue_max), ("index_threads", self.index_threads)];
        for (name, count) in counts {
            if count == 0 {
                return Err(Error::invalid("config", format!("{name} is 0; it must be at least 1")).at(name));
            }
        }
        Ok(())
    }

    /// What works but is hardly meant.
    pub(super) fn warnings(&self) -> Vec<String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if self.workers <= 2 * cores {
            return Vec::new();
        }
        vec![format!(
            "{} workers on {cores} cores: more than two a core make every search slower; use {cores}",
            self.workers
        )]
    }
}
