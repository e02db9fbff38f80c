//! The fuzz targets of this crate (called from `fuzz/`), and tests that run their corpora.

pub use crate::http::fuzzing::{http_request, ndjson_lines};

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(ndjson_lines, http_request);
}
