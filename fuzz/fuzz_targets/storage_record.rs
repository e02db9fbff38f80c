//! Rows of the store and frames of files: what is read is written as it was.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| store::fuzzing::storage_record(input));
