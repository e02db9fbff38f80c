//! Bodies of the fuzz targets (`fuzz/`) of this crate, and the tests that run their corpora.

pub use crate::backend::fuzzing::redis_reply;

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(redis_reply);
}
