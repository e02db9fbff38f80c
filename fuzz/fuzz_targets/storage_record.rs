//! Store rows and frames: encoding a decoded row reproduces its bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| store::fuzzing::storage_record(input));
