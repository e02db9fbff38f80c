//! Bodies of the fuzz targets (`fuzz/`) of this crate, and the tests that run their corpora.

pub use crate::{
    cli::fuzzing::{csv_rows, jsonl_rows},
    config::fuzzing::config_toml,
};

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(csv_rows, jsonl_rows, config_toml);
}
