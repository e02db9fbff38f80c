//! A data directory that no service has open.

use engine::{CheckReport, DataDir};

use crate::{Config, Error, Store, error_mapping};

/// Takes the lock on the data directory of `config`, for as long as the answer lives. A Redis has none.
pub fn lock(config: &Config) -> Result<DataDir, Error> {
    if config.store != Store::Directory {
        let told = "this is for a data directory: a Redis has tools of its own (BGSAVE, redis-check-aof)";
        return Err(Error::invalid("store", told));
    }
    DataDir::lock(&config.data_dir).map_err(|error| error_mapping::open(&error))
}

/// Reads everything in a data directory.
pub fn check(directory: &DataDir, config: &Config) -> Result<CheckReport, Error> {
    directory.check(config.cpu()).map_err(|error| error_mapping::open(&error))
}
