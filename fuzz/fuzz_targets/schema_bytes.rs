//! Encoded schemas: encoding a decoded schema reproduces its bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::fuzzing::schema_bytes(input));
