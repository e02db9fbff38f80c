//! Access to a data directory that no service has open.

use std::path::Path;

use engine::{CheckReport, Clock as _, DataDir, OpenError, SystemClock};

use crate::{Config, Error, Store, error_mapping};

/// Locks the data directory of `config` until the returned value is dropped. Fails if the store is
/// Redis.
pub fn lock(config: &Config) -> Result<DataDir, Error> {
    lock_with(config, DataDir::lock)
}

/// Like [`lock`], for [`check`], which changes nothing and works on a directory that is not writable.
pub fn lock_unchanged(config: &Config) -> Result<DataDir, Error> {
    lock_with(config, DataDir::lock_unchanged)
}

fn lock_with(
    config: &Config,
    lock: impl FnOnce(&Path) -> Result<DataDir, OpenError>,
) -> Result<DataDir, Error> {
    if config.store != Store::Directory {
        let message =
            "this command requires a data directory; for Redis, use its own tools (BGSAVE, redis-check-aof)";
        return Err(Error::invalid("store", message));
    }
    lock(&config.data_dir).map_err(|error| error_mapping::open(&error))
}

/// Reads and verifies all data in a data directory.
pub fn check(directory: &DataDir, config: &Config) -> Result<CheckReport, Error> {
    directory.check(config.cpu(), SystemClock.now_ms()).map_err(|error| error_mapping::open(&error))
}
