//! Index snapshots: an index that can be read can be searched, changed and written again.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| index::fuzzing::graph_snapshot(input));
