//! Bodies of the fuzz targets (`fuzz/`), each beside what it tests, and the tests that run their corpora.

pub use crate::{
    cli::fuzzing::{csv_rows, jsonl_rows},
    config::fuzzing::config_toml,
    http::fuzzing::{http_request, ndjson_lines},
    service::fuzzing::redis_reply,
};

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(csv_rows, jsonl_rows, ndjson_lines, http_request, config_toml, redis_reply);
}
