//! Vectors as bytes: what is taken is finite, as long as it should be, and comes back.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::fuzzing::vector_blob(input));
