//! Collection snapshots: a snapshot that can be read can be written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::fuzzing::collection_snapshot(input));
