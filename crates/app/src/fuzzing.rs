//! Bodies of this crate's fuzz targets (`fuzz/`), and tests that run them on their corpora.

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
