//! Schemas as bytes: what is read is written as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::fuzzing::schema_bytes(input));
