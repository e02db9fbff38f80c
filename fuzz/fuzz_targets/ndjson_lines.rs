//! NDJSON bodies: plain or gzip, in chunks of any size.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| server::fuzzing::ndjson_lines(input));
