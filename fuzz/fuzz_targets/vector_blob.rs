//! Vector blobs: a decoded vector is finite, has the right dimension, and encodes to the same bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::fuzzing::vector_blob(input));
